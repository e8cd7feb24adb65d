//! Interprets the Hub's responses: status codes, headers, and addresses.

use std::time::Duration;

use ureq::Timeout;
use ureq::http::{HeaderMap, StatusCode};

use super::HubProblem;

/// A failed request.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub problem: HubProblem,
    pub found: String,
    /// Whether the same request may succeed later.
    pub is_transient: bool,
    /// How long the server asks to wait before a retry.
    pub wait: Option<Duration>,
}

impl Failure {
    pub fn new(problem: HubProblem, found: impl Into<String>) -> Self {
        Self { problem, found: found.into(), is_transient: false, wait: None }
    }

    pub fn transient(problem: HubProblem, found: impl Into<String>) -> Self {
        Self { is_transient: true, ..Self::new(problem, found) }
    }

    /// Classifies a response that is neither a success nor a redirect.
    pub fn of_status(status: StatusCode, headers: &HeaderMap) -> Self {
        let message = header(headers, "x-error-message");
        let found = match message {
            Some(message) => format!("status {} ({message})", status.as_u16()),
            None => format!("status {status}"),
        };
        let problem = match (header(headers, "x-error-code"), status.as_u16()) {
            (Some("RevisionNotFound"), _) => HubProblem::NoRevision,
            (Some("EntryNotFound"), _) => HubProblem::NoFile,
            (Some("GatedRepo"), _) => HubProblem::Forbidden,
            (_, 401) if message == Some("Invalid credentials in Authorization header") => HubProblem::Unauthorized,
            // The Hub does not reveal to anonymous users whether a private model exists.
            (Some("RepoNotFound"), _) | (_, 401) => HubProblem::NoRepository,
            // Mirrors may not say whether the repository, the revision, or the file is missing.
            (_, 404) => HubProblem::NoFile,
            (_, 403) => HubProblem::Forbidden,
            (_, 429) => HubProblem::Busy,
            _ => HubProblem::Server,
        };
        let is_transient = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
        Self { problem, found, is_transient, wait: wait(headers).filter(|_| is_transient) }
    }

    /// Classifies a request that got no response.
    pub fn of_transport(error: &ureq::Error) -> Self {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let found = format!("no response ({error})");
        match error {
            ureq::Error::HostNotFound => Self::new(HubProblem::Unreachable, "no such host, or no network"),
            // Not transient, so that a mistyped directory does not cost a minute of retries.
            ureq::Error::ConnectionFailed | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                Self::new(HubProblem::Unreachable, found)
            }
            ureq::Error::Io(error) if matches!(error.kind(), ConnectionRefused | NotFound) => {
                Self::new(HubProblem::Unreachable, found)
            }
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => {
                Self::transient(HubProblem::Unreachable, found)
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Self::new(HubProblem::Protocol, error.to_string()),
            _ => Self::new(HubProblem::Unreachable, found),
        }
    }
}

/// What the user can do about a problem.
pub(super) fn advice(problem: HubProblem, endpoint: &str) -> String {
    match problem {
        HubProblem::NoRepository => format!(
            "a directory of that name, or a model on {endpoint} (a private model requires a token with read access in \
             HF_TOKEN)"
        ),
        HubProblem::Unauthorized => "a valid token in HF_TOKEN (or none, for a public model)".into(),
        HubProblem::Forbidden => {
            format!("a token in HF_TOKEN of a user with access to the model: see {endpoint} for its terms")
        }
        HubProblem::NoRevision => "a branch, tag or commit of that model".into(),
        HubProblem::Unreachable => {
            format!(
                "a directory of that name, or {endpoint} to respond (see HF_ENDPOINT; HF_HUB_OFFLINE=1 uses \
                 only the cache)"
            )
        }
        HubProblem::Busy | HubProblem::Server => format!("a response from {endpoint}: try again later"),
        HubProblem::Protocol => {
            format!("a response from a Hugging Face Hub at {endpoint} (see HF_ENDPOINT and your proxy)")
        }
        _ => "the file as the Hub describes it: try again".into(),
    }
}

/// The value of a header as text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The value of a header as a number.
pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    header(headers, name)?.trim().parse().ok()
}

/// How long the server asks to wait: the `t` of `RateLimit` (`"api";r=0;t=55`), else `Retry-After`, both in seconds.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let limit = header(headers, "ratelimit").filter(|limit| limit.replace(' ', "").contains(";r=0;"));
    let reset = limit.and_then(|limit| limit.split(";").find_map(|part| part.trim().strip_prefix("t=")?.parse().ok()));
    reset.or_else(|| number(headers, "retry-after")).map(Duration::from_secs)
}

/// The name of a blob: its entity tag without quotation marks. `None` if it is not a safe file name.
pub(super) fn entity_tag(value: &str) -> Option<&str> {
    let tag = value.trim().trim_start_matches(['W', '/']).trim_matches('"');
    is_plain(tag).then_some(tag)
}

/// Whether an untrusted text is safe as a single path component.
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !text.starts_with('.')
}

/// Percent-encodes a text for the path of an address; keeps `/` if `keeps_slash`.
pub(super) fn percent_encoded(text: &str, keeps_slash: bool) -> String {
    let encode = |byte: u8| match byte {
        b'/' if keeps_slash => "/".to_string(),
        _ if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Scheme, host, and port of an address.
pub(super) fn origin(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("https", address));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    // The part before an `@` is a user name, not the host.
    let host = host.rsplit('@').next().unwrap_or_default();
    let default = if scheme.eq_ignore_ascii_case("http") { ":80" } else { ":443" };
    format!("{}://{}", scheme.to_ascii_lowercase(), host.strip_suffix(default).unwrap_or(host))
}

/// Resolves the target of a redirect.
pub(super) fn joined(address: &str, location: &str) -> String {
    let (scheme, _) = address.split_once("://").unwrap_or(("https", address));
    if location.contains("://") && !location.starts_with('/') {
        location.to_string()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        origin(address) + location
    } else {
        let path = address.split(['?', '#']).next().unwrap_or_default();
        match path.rsplit_once('/') {
            Some((directory, _)) => format!("{directory}/{location}"),
            None => location.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn statuses_are_told_apart_by_the_error_code() {
        use HubProblem::*;
        let (code, message) = ("x-error-code", "x-error-message");
        for (status, pairs, problem, is_transient) in [
            (404, &[(code, "RepoNotFound")][..], NoRepository, false),
            (404, &[(code, "RevisionNotFound")], NoRevision, false),
            (404, &[(code, "EntryNotFound")], NoFile, false),
            (404, &[], NoFile, false),
            (401, &[(code, "RepoNotFound")], NoRepository, false),
            (401, &[(message, "Invalid credentials in Authorization header")], Unauthorized, false),
            (401, &[(code, "GatedRepo")], Forbidden, false),
            (403, &[(code, "GatedRepo")], Forbidden, false),
            (403, &[], Forbidden, false),
            (429, &[], Busy, true),
            (500, &[], Server, true),
            (503, &[], Server, true),
            (400, &[], Server, false),
        ] {
            let failure = Failure::of_status(StatusCode::from_u16(status).unwrap(), &headers(pairs));
            assert_eq!((failure.problem, failure.is_transient), (problem, is_transient), "{status} {pairs:?}");
        }
        let busy = |pairs: &[_]| Failure::of_status(StatusCode::TOO_MANY_REQUESTS, &headers(pairs)).wait;
        assert_eq!(busy(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(busy(&[("ratelimit", "\"api\";r=0;t=55"), ("retry-after", "7")]), Some(Duration::from_secs(55)));
        assert_eq!(busy(&[("ratelimit", "\"api\";r=3;t=55")]), None);
        assert_eq!(busy(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]), None);
    }

    #[test]
    fn a_tag_is_the_name_of_a_file_or_nothing() {
        assert_eq!(entity_tag("\"abc\""), Some("abc"));
        assert_eq!(entity_tag("W/\"abc-1\""), Some("abc-1"));
        for bad in ["", "\"\"", "\"../x\"", "\"a/b\"", "..", ".hidden", "\"a\\b\""] {
            assert_eq!(entity_tag(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(origin("HTTPS://User@Hub.co:443/a/b?c"), "https://hub.co");
        assert_eq!(origin("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
        assert_eq!(origin("https://evil.com?@hub.co/"), "https://evil.com");
        assert_eq!(percent_encoded("refs/pr 1", false), "refs%2Fpr%201");
        assert_eq!(percent_encoded("1_Pooling/ä.json", true), "1_Pooling/%C3%A4.json");
        let from = "http://hub:1/a/b?c=d/e";
        for (location, expected) in [
            ("/x?y", "http://hub:1/x?y"),
            ("x", "http://hub:1/a/x"),
            ("//cdn/x", "http://cdn/x"),
            ("https://cdn/x?u=http://y", "https://cdn/x?u=http://y"),
            ("/x?u=http://y", "http://hub:1/x?u=http://y"),
        ] {
            assert_eq!(joined(from, location), expected);
        }
    }
}
