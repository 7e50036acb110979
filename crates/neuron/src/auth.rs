//! The node's one key.

use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use http::{HeaderMap, header};

/// A key that callers must present, as `Authorization: Bearer` or `x-api-key`.
#[derive(Clone)]
pub(crate) struct ApiKey(Vec<u8>);

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("api_key_file {path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// It holds nothing; that must not mean that every caller may pass.
    #[error("api_key_file {path} is empty: write a key into it, or leave the setting out")]
    Empty {
        /// The file.
        path: String,
    },
}

impl ApiKey {
    /// Reads the key; white space around it does not count.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyError> {
        let name = path.display().to_string();
        let unreadable = |error| KeyError::Unreadable { path: name.clone(), error };
        let text = fs::read(path).map_err(unreadable)?;
        let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode();
        if mode & 0o007 != 0 {
            tracing::warn!(path = name, "every user of this host can read the key: chmod 640");
        }
        let key = text.trim_ascii().to_vec();
        if key.is_empty() { Err(KeyError::Empty { path: name }) } else { Ok(Self(key)) }
    }

    /// Whether a caller presents this key.
    pub(crate) fn opens(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
        });
        let plain = headers.get("x-api-key").map(|value| value.as_bytes());
        [bearer, plain].into_iter().flatten().any(|key| equal(key, &self.0))
    }
}

/// Takes the same time wherever the two differ; only their lengths show.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |bits, (x, y)| black_box(bits | (x ^ y)));
    a.len() == b.len() && black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn the_key_opens_by_either_header_and_nothing_else_does() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), " s3cret\n").unwrap();
        let key = ApiKey::read(file.path()).unwrap();
        assert!(key.opens(&headers("authorization", "Bearer s3cret")));
        assert!(key.opens(&headers("authorization", "bearer s3cret")));
        assert!(key.opens(&headers("x-api-key", "s3cret")));
        for wrong in ["", "s3cre", "s3crets", "s3creT", "Bearer s3cret"] {
            assert!(!key.opens(&headers("x-api-key", wrong)), "{wrong}");
        }
        for wrong in ["s3cret", "Basic s3cret", "Bearer", "Bearer ", "Bearer x"] {
            assert!(!key.opens(&headers("authorization", wrong)), "{wrong}");
        }
        assert!(!key.opens(&HeaderMap::new()));
    }

    #[test]
    fn an_empty_key_file_opens_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(ApiKey::read(file.path()), Err(KeyError::Empty { .. })));
        let gone = ApiKey::read(Path::new("/nowhere/key"));
        assert!(matches!(gone, Err(KeyError::Unreadable { .. })));
    }
}
