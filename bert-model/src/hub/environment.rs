//! Settings of the Hub and its cache, from the same environment variables as `huggingface_hub`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};

/// The progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Download<'a> {
    /// Name of the file in the repository.
    pub file: &'a str,
    /// Bytes received so far. A resumed download starts above 0.
    pub bytes: u64,
    /// Size of the file in bytes, if the server reports it.
    pub total: Option<u64>,
    /// Whether the file is complete, verified, and in the cache.
    pub is_done: bool,
}

/// Callback that receives the progress of downloads.
pub(super) type Progress = Arc<dyn Fn(Download<'_>) + Send + Sync>;

/// A Hub and its local cache.
///
/// ```no_run
/// use bert_model::hub::{Hub, HubName};
///
/// # fn main() -> bert_model::Result<()> {
/// let name = HubName::parse("sentence-transformers/all-MiniLM-L6-v2")?.unwrap();
/// let hub = Hub::from_env()?.on_progress(|download| println!("{} {}", download.file, download.bytes));
/// let embedder = bert_model::pipeline::TextEmbedder::open(hub.model(&name)?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Hub {
    pub(super) endpoint: String,
    pub(super) cache: PathBuf,
    pub(super) token: Option<String>,
    pub(super) is_offline: bool,
    /// Maximum silence of the server when looking up a file.
    pub(super) metadata_timeout: Duration,
    /// Maximum silence of the server during a download.
    pub(super) transfer_timeout: Duration,
    /// Wait before the first retry; doubles with each further one.
    pub(super) retry_wait: Duration,
    pub(super) progress: Option<Progress>,
}

impl Hub {
    /// Reads the settings from environment variables: `HF_ENDPOINT`, `HF_HUB_CACHE` (else `HF_HOME/hub`, else
    /// `~/.cache/huggingface/hub`), `HF_TOKEN` (else the file `HF_HOME/token`), `HF_HUB_OFFLINE`, `HF_HUB_ETAG_TIMEOUT`
    /// and `HF_HUB_DOWNLOAD_TIMEOUT` (in seconds).
    ///
    /// # Errors
    /// If a timeout is not a number of seconds, or the token file cannot be read.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = match set("HF_HOME") {
            Some(home) => expand(&home, variable),
            None => match set("XDG_CACHE_HOME") {
                Some(cache) => expand(&cache, variable).join("huggingface"),
                None => expand("~/.cache/huggingface", variable),
            },
        };
        let cache = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE"));
        let token = match set("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)) {
            true => None,
            false => match set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN")) {
                Some(token) => Some(token),
                None => read_token(
                    &set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), |path| expand(&path, variable)),
                )?,
            },
        };
        let seconds = |name: &str| match set(name).map(|value| value.trim().parse::<u64>()) {
            None | Some(Ok(0)) => Ok(Duration::from_secs(10)),
            Some(Ok(seconds)) => Ok(Duration::from_secs(seconds)),
            Some(Err(_)) => Err(Error::Setting(format!("{name}: expected a number of seconds"))),
        };
        Ok(Self {
            endpoint: set("HF_ENDPOINT").map_or_else(|| "https://huggingface.co".into(), without_slash),
            cache: cache.map_or_else(|| home.join("hub"), |path| expand(&path, variable)),
            token: token.map(|token| token.replace(['\r', '\n'], "").trim().to_string()).filter(|t| !t.is_empty()),
            is_offline: set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE")).is_some_and(|v| is_true(&v)),
            metadata_timeout: seconds("HF_HUB_ETAG_TIMEOUT")?,
            transfer_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT")?,
            retry_wait: Duration::from_secs(1),
            progress: None,
        })
    }

    /// Sets the address of the Hub, overriding `HF_ENDPOINT`.
    pub fn endpoint(mut self, address: impl Into<String>) -> Self {
        self.endpoint = without_slash(address.into());
        self
    }

    /// Sets the cache directory, overriding `HF_HUB_CACHE`.
    pub fn cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = directory.into();
        self
    }

    /// Sets the access token for private and gated models, overriding `HF_TOKEN`; `None` makes anonymous requests.
    pub fn token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// Sets whether only the cache is used, without any network access, overriding `HF_HUB_OFFLINE`.
    pub fn offline(mut self, is_offline: bool) -> Self {
        self.is_offline = is_offline;
        self
    }

    /// Sets the maximum silence of the server, overriding `HF_HUB_ETAG_TIMEOUT` and `HF_HUB_DOWNLOAD_TIMEOUT`. Default:
    /// 10 s.
    pub fn timeout(mut self, silence: Duration) -> Self {
        (self.metadata_timeout, self.transfer_timeout) = (silence, silence);
        self
    }

    /// Sets the wait before the first retry, which doubles with each further one. Default: 1 s.
    pub fn retry_wait(mut self, wait: Duration) -> Self {
        self.retry_wait = wait;
        self
    }

    /// Calls `told` with the progress of each download, for every piece of a file that arrives.
    pub fn on_progress(mut self, told: impl Fn(Download<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(told));
        self
    }
}

impl fmt::Debug for Hub {
    /// Omits the token, which must not end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, cache, is_offline, .. } = self;
        let has_token = self.token.is_some();
        f.debug_struct("Hub")
            .field("endpoint", endpoint)
            .field("cache", cache)
            .field("has_token", &has_token)
            .field("is_offline", is_offline)
            .finish_non_exhaustive()
    }
}

/// Whether `huggingface_hub` would parse the value as true.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&&*value.to_uppercase())
}

fn without_slash(address: String) -> String {
    address.trim_end_matches('/').to_string()
}

/// Expands `~`, `$NAME`, and `${NAME}` in a path like Python's `expanduser` and `expandvars`; unset variables are left
/// as they are.
fn expand(path: &str, variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
    let path = match path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with(['/', '\\'])) {
        Some(rest) => home().map_or_else(|| path.to_string(), |home| home + rest),
        None => path.to_string(),
    };
    let (mut expanded, mut rest) = (String::new(), &*path);
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let name = match after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            Some((name, _)) => name,
            None => &after[..after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())],
        };
        let length = name.len() + if after.starts_with('{') && !name.is_empty() { 2 } else { 0 };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => expanded.push_str(&value),
            None => expanded.extend(["$", &after[..length]]),
        }
        rest = &after[length..];
    }
    expanded.push_str(rest);
    expanded.into()
}

fn read_token(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(token) => Ok(Some(token)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "read the token")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Hub with these environment variables and a home directory.
    fn hub(variables: &[(&str, &str)]) -> Hub {
        let variable = |name: &str| {
            let given = variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_string());
            given.or_else(|| (name == "HOME").then(|| "/nowhere".to_string()))
        };
        Hub::from_variables(&variable).unwrap()
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        for (variables, expected) in [
            (&[][..], "/nowhere/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")], "/nowhere/hf/hub"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")], "/old"),
            (&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")], "/c"),
            (&[("HF_HUB_CACHE", "$A/${B}/$NONE/$"), ("A", "/a"), ("B", "b")], "/a/b/$NONE/$"),
            (&[("HF_HUB_CACHE", ""), ("HF_HOME", "")], "/nowhere/.cache/huggingface/hub"),
        ] {
            assert_eq!(hub(variables).cache, Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn endpoint_and_offline_mean_what_they_mean_in_python() {
        assert_eq!(hub(&[]).endpoint, "https://huggingface.co");
        assert_eq!(hub(&[("HF_ENDPOINT", "http://localhost:1/")]).endpoint, "http://localhost:1");
        for (value, is_offline) in
            [("1", true), ("on", true), ("True", true), ("yes", true), ("0", false), ("2", false)]
        {
            assert_eq!(hub(&[("HF_HUB_OFFLINE", value)]).is_offline, is_offline, "{value}");
        }
        assert!(hub(&[("TRANSFORMERS_OFFLINE", "1")]).is_offline && !hub(&[]).is_offline);
        assert_eq!(hub(&[("HF_HUB_DOWNLOAD_TIMEOUT", "3")]).transfer_timeout, Duration::from_secs(3));
    }

    #[test]
    fn the_token_is_the_variable_or_the_file_and_is_not_shown() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), " hf_file\n").unwrap();
        let home = home.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| hub(variables).token;
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "hf_env\r\n")]).as_deref(), Some("hf_env"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_TOKEN_PATH", &format!("{home}/token"))]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[]), None);
        let shown = format!("{:?}", hub(&[("HF_TOKEN", "hf_secret")]));
        assert!(shown.contains("has_token: true") && !shown.contains("hf_secret"), "{shown}");
    }
}
