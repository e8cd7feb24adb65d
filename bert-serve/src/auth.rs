//! Authentication with `Authorization: Bearer KEY`, where the key is one of those in a file.

use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use bert_model::{Error, Result};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::error::ApiError;

/// The accepted keys, as hashes. An empty list accepts every request.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Reads a file with one key per line. Blank lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    /// If the file cannot be read or has no key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<[u8; 32]> = lines.map(|key| hash(key.as_bytes())).collect();
        match keys.is_empty() {
            true => Err(Error::file(path, "no key", "one key per line")),
            false => Ok(Self(keys)),
        }
    }

    /// Checks the key of a request. The time this takes reveals nothing about the accepted keys.
    ///
    /// # Errors
    /// If keys are required and the request has none, or a wrong one.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let Some(given) = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) else {
            return Err(ApiError::unauthorized("no key: send the header `Authorization: Bearer KEY`"));
        };
        // Hashes all have the same length, and clients cannot choose theirs.
        let given = hash(given);
        let found = self.0.iter().fold(Choice::from(0), |found, key| found | key.ct_eq(&given));
        if found.into() { Ok(()) } else { Err(ApiError::unauthorized("wrong key")) }
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The token after `Bearer`, which is matched case-insensitively.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn one_of_several_keys_opens_and_nothing_else_does() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# ours\nfirst\n\n second \r\n").unwrap();
        let keys = Keys::read(file.path()).unwrap();
        let check = |value: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            keys.check(&headers).is_ok()
        };
        assert!(check("Bearer first") && check("bearer second"));
        for wrong in ["Bearer # ours", "Bearer ", "Bearer firs", "Bearer first second", "Basic first", "first", ""] {
            assert!(!check(wrong), "{wrong}");
        }
        assert!(keys.check(&HeaderMap::new()).is_err());
        assert!(Keys::default().check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_file_without_a_key_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# none\n\n").unwrap();
        assert!(Keys::read(file.path()).err().unwrap().to_string().contains("found no key"));
    }
}
