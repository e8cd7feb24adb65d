//! HTTP client for the Hub: looks up versions of files and downloads their content.

use std::thread::sleep;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::environment::Hub;
use super::response::{Failure, advice, entity_tag, header, is_plain, joined, number, origin, percent_encoded};
use super::{HubName, HubProblem};
use crate::error::{Error, Result};

/// How often a transient failure is retried.
pub(super) const RETRIES: u32 = 5;

/// Maximum wait between two attempts, unless the server asks for more.
const MAX_WAIT: Duration = Duration::from_secs(8);

/// Maximum wait that a server may ask for.
const MAX_ASKED_WAIT: Duration = Duration::from_secs(300);

const MAX_REDIRECTS: usize = 10;

/// Sends requests about one model.
pub(super) struct Client<'a> {
    pub hub: &'a Hub,
    pub name: &'a HubName,
    agent: Agent,
}

/// A version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The commit that the revision points to.
    pub commit: String,
    /// The entity tag: the SHA-256 of a large file, the git hash of a small one.
    pub etag: String,
    /// Size in bytes, if the server reports it.
    pub size: Option<u64>,
}

/// The result of looking up a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Found(Metadata),
    /// The repository has no such file at this commit.
    Missing(Option<String>),
}

impl<'a> Client<'a> {
    pub fn new(hub: &'a Hub, name: &'a HubName) -> Result<Self> {
        let tls = match ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"].into_iter().find_map(std::env::var_os) {
            Some(path) => TlsConfig::builder().root_certs(certificates(path.as_ref())?).build(),
            None => TlsConfig::default(),
        };
        // This client follows redirects itself, because the token must not be sent along.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(tls)
            .user_agent(concat!("bert-model/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(hub.metadata_timeout))
            .timeout_connect(Some(hub.metadata_timeout))
            .timeout_per_read(Some(hub.transfer_timeout));
        Ok(Self { hub, name, agent: config.build().new_agent() })
    }

    /// Looks up the version of `file` at `revision`.
    ///
    /// # Errors
    /// [`Error::Hub`] if the Hub does not answer the request or rejects it.
    pub fn look_up(&self, revision: &str, file: &str, retries: u32) -> Result<Lookup> {
        self.repeated(retries, || match self.head(&self.address(revision, file)) {
            Err((failure, commit)) if failure.problem == HubProblem::NoFile => {
                Ok(Lookup::Missing(commit.or_else(|| super::name::is_commit(revision).then(|| revision.to_string()))))
            }
            other => other.map(Lookup::Found).map_err(|(failure, _)| failure),
        })
    }

    /// Repeats `attempt` while it fails with transient failures, at most `retries` times.
    fn repeated<T>(&self, retries: u32, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut tries = 0;
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(failure) if failure.is_transient && tries < retries => self.pause(&failure, tries)?,
                Err(failure) => return Err(self.error(failure)),
            }
            tries += 1;
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure, if the server asks for too long a wait.
    pub fn pause(&self, failure: &Failure, tries: u32) -> Result<()> {
        match failure.wait {
            Some(asked) if asked > MAX_ASKED_WAIT => {
                let found = format!("{}, asking to wait {} seconds", failure.found, asked.as_secs());
                Err(self.error(Failure { found, ..failure.clone() }))
            }
            Some(asked) => {
                sleep(asked);
                Ok(())
            }
            None => {
                sleep(self.hub.retry_wait.saturating_mul(1 << tries.min(10)).min(MAX_WAIT));
                Ok(())
            }
        }
    }

    pub fn error(&self, failure: Failure) -> Error {
        self.name.error(failure.problem, failure.found, advice(failure.problem, &self.hub.endpoint))
    }

    fn address(&self, revision: &str, file: &str) -> String {
        let Hub { endpoint, .. } = self.hub;
        let (revision, file) = (percent_encoded(revision, false), percent_encoded(file, true));
        format!("{endpoint}/{}/resolve/{revision}/{file}", self.name.repository())
    }

    /// Follows redirects within the Hub (for renamed models) to the response that describes the file. That response may
    /// itself redirect to the storage of large files.
    fn head(&self, address: &str) -> Result<Metadata, (Failure, Option<String>)> {
        let (mut address, mut commit) = (address.to_string(), None);
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.agent.head(&address).header("Accept-Encoding", "identity");
            if let Some(token) = self.authorization(&address) {
                request = request.header("Authorization", token);
            }
            let timeout = Some(self.hub.metadata_timeout);
            let answer = request.config().timeout_recv_response(timeout).build().call();
            let answer = answer.map_err(|error| (Failure::of_transport(&error), None))?;
            let (status, headers) = (answer.status(), answer.headers());
            let named = header(headers, "x-repo-commit").filter(|commit| is_plain(commit)).map(str::to_string);
            commit = commit.or(named);
            if !status.is_success() && !status.is_redirection() {
                return Err((Failure::of_status(status, headers), commit));
            }
            let target = header(headers, "location").map(|location| joined(&address, location));
            match target.filter(|_| status.is_redirection()) {
                Some(target) if header(headers, "x-linked-etag").is_none() && self.is_hub(&target) => address = target,
                target => return metadata(headers, commit, target.is_some()).map_err(|failure| (failure, None)),
            }
        }
        Err((Failure::new(HubProblem::Protocol, format!("more than {MAX_REDIRECTS} redirects")), None))
    }

    /// Requests the content of a file from byte `from`. The status of the response tells whether the server honored the
    /// range (206), sends the whole file (200), or has no bytes from there on (416).
    pub fn get(&self, file: &str, version: &Metadata, from: u64) -> Result<Response<Body>, Failure> {
        let (mut address, mut is_checked) = (self.address(&version.commit, file), false);
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.agent.get(&address).header("Accept-Encoding", "identity");
            if let Some(token) = self.authorization(&address) {
                request = request.header("Authorization", token);
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let timeout = Some(self.hub.transfer_timeout);
            let answer = request.config().timeout_recv_response(timeout).build().call();
            let answer = answer.map_err(|error| Failure::of_transport(&error))?;
            let (status, headers) = (answer.status(), answer.headers());
            // Storage hosts of large files use different entity tags.
            if !is_checked && self.is_hub(&address) && (status.is_success() || status.is_redirection()) {
                is_checked = check_version(headers, version, status.is_redirection())?;
            }
            if !status.is_redirection() {
                return match status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                    true => Ok(answer),
                    false => Err(Failure::of_status(status, headers)),
                };
            }
            let Some(location) = header(headers, "location") else {
                return Err(Failure::new(HubProblem::Protocol, "a redirect without a location"));
            };
            let target = joined(&address, location);
            if address.starts_with("https:") && !target.starts_with("https:") {
                return Err(Failure::new(HubProblem::Protocol, format!("a redirect to {}", origin(&target))));
            }
            address = target;
        }
        Err(Failure::new(HubProblem::Protocol, format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// The authorization header, for addresses of the Hub only: storage hosts must not see the token.
    fn authorization(&self, address: &str) -> Option<String> {
        let token = self.hub.token.as_ref().filter(|_| self.is_hub(address));
        token.map(|token| format!("Bearer {token}"))
    }

    fn is_hub(&self, address: &str) -> bool {
        let found = origin(address);
        found == origin(&self.hub.endpoint) || found == "https://huggingface.co" || found == "https://hf.co"
    }
}

/// Extracts a file's metadata from a response. The length of a redirect is not that of the file.
fn metadata(headers: &HeaderMap, commit: Option<String>, is_redirect: bool) -> Result<Metadata, Failure> {
    let missing = |what: &str| Failure::new(HubProblem::Protocol, format!("a response without {what}"));
    let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag")).and_then(entity_tag);
    let length = || number(headers, "content-length").filter(|_| !is_redirect);
    Ok(Metadata {
        commit: commit.ok_or_else(|| missing("the header X-Repo-Commit"))?,
        etag: etag.ok_or_else(|| missing("an entity tag (ETag)"))?.to_string(),
        size: number(headers, "x-linked-size").or_else(length),
    })
}

/// Rejects content of another version than the one looked up. Returns `false` if the response does not tell its
/// version.
fn check_version(headers: &HeaderMap, version: &Metadata, is_redirect: bool) -> Result<bool, Failure> {
    let own = || header(headers, "etag").filter(|_| !is_redirect);
    match header(headers, "x-linked-etag").or_else(own).and_then(entity_tag) {
        None => Ok(false),
        Some(found) if found == version.etag => Ok(true),
        Some(found) => {
            let found = format!("a different version of the file ({found}) than a moment ago ({})", version.etag);
            Err(Failure::new(HubProblem::Damaged, found))
        }
    }
}

/// Reads the certificates of a PEM file, which replace the built-in ones.
fn certificates(path: &std::path::Path) -> Result<RootCerts> {
    let pem = std::fs::read(path).map_err(Error::io(path, "read the certificates"))?;
    let certificate = |item: Result<PemItem<'static>, ureq::Error>| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(Error::file(path, error.to_string(), "certificates in PEM format"))),
    };
    let found: Vec<_> = parse_pem(&pem).filter_map(certificate).collect::<Result<_>>()?;
    Ok(found.into())
}
