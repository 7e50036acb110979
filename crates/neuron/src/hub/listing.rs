//! What the hub says of a repository at one commit.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::PullError;
use super::name::is_inside;

/// What a file's bytes must hash to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Digest {
    /// Of the bytes; large files have it.
    Sha256(String),
    /// Git's SHA-1 of `blob SIZE\0` and the bytes; files that git itself holds have it.
    GitBlob(String),
}

impl Digest {
    /// Of an ETag, quoted and weak or not, whose length tells which of both it is.
    pub(super) fn from_etag(etag: &str) -> Option<Self> {
        let hex = etag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        match hex.len() {
            64 if is_hex => Some(Self::Sha256(hex)),
            40 if is_hex => Some(Self::GitBlob(hex)),
            _ => None,
        }
    }

    pub(super) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "sha256 {hex}"),
            Self::GitBlob(hex) => write!(f, "git blob {hex}"),
        }
    }
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HubFile {
    /// Below the repository's root; it stays inside of any directory.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

impl HubFile {
    /// Where it lies in the model's directory: GGUF models side by side, where a load looks for
    /// them, everything else as the repository has it.
    pub(super) fn local(&self) -> &str {
        let base = self.path.rsplit('/').next().unwrap_or(&self.path);
        if self.is_gguf() { base } else { &self.path }
    }

    pub(super) fn is_gguf(&self) -> bool {
        self.path.to_ascii_lowercase().ends_with(".gguf")
    }
}

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<HubFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Listing {
    /// Reads `GET /api/models/REPO/revision/REV?blobs=true`.
    pub(super) fn read(repo: &str, body: &[u8]) -> Result<Self, PullError> {
        let wrong =
            |what: &str| PullError::Corrupt(format!("{repo}: the hub's description of it {what}"));
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|error| wrong(&format!("is not JSON: {error}")))?;
        // A repository that is only reserved has an answer, and nothing in it (requirement 45).
        if answer.siblings.is_empty() {
            return Err(PullError::Refused(format!(
                "{repo} is not a published model: the repository holds no files"
            )));
        }
        let commit = answer.sha.ok_or_else(|| wrong("names no commit"))?;
        if !matches!(Digest::from_etag(&commit), Some(Digest::GitBlob(_))) {
            return Err(wrong(&format!("names the commit `{}`", commit.escape_debug())));
        }
        let files = answer.siblings.into_iter().map(|sibling| {
            let name = sibling.rfilename;
            if !is_inside(&name) {
                let name = name.escape_debug();
                return Err(wrong(&format!("names a file `{name}`, which would leave its place")));
            }
            let unknown = || wrong(&format!("gives neither size nor hash of {name}"));
            let (sha256, pointed) = sibling.lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
            let digest = sha256.or(sibling.blob_id).and_then(|hex| Digest::from_etag(&hex));
            let size = pointed.or(sibling.size).ok_or_else(unknown)?;
            Ok(HubFile { size, digest: digest.ok_or_else(unknown)?, path: name })
        });
        Ok(Self { commit, files: files.collect::<Result<_, _>>()? })
    }

    pub(super) fn find(&self, path: &str) -> Option<&HubFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn read(siblings: &serde_json::Value) -> Result<Listing, PullError> {
        let body = json!({"id": "a/b", "sha": COMMIT, "siblings": siblings});
        Listing::read("a/b", body.to_string().as_bytes())
    }

    #[test]
    fn files_have_sizes_and_hashes() {
        let sha = "ab".repeat(32);
        let listing = read(&json!([
            {"rfilename": "config.json", "size": 3, "blobId": COMMIT},
            {"rfilename": "Q8_0/m.gguf", "size": 9, "blobId": COMMIT,
             "lfs": {"sha256": sha, "size": 9, "pointerSize": 134}},
        ]));
        let files = listing.unwrap().files;
        assert_eq!(files[0].digest, Digest::GitBlob(COMMIT.to_owned()));
        assert_eq!((files[1].size, &files[1].digest), (9, &Digest::Sha256(sha)));
        assert_eq!((files[1].local(), files[0].local()), ("m.gguf", "config.json"));
    }

    #[test]
    fn a_reserved_name_is_no_model() {
        let error = read(&json!([])).unwrap_err().to_string();
        assert!(error.contains("not a published model"), "{error}");
        let error = Listing::read("a/b", br#"{"id": "a/b"}"#).unwrap_err().to_string();
        assert!(error.contains("not a published model"), "{error}");
    }

    #[test]
    fn what_the_hub_says_is_not_trusted() {
        let file = |name: &str| json!([{"rfilename": name, "size": 1, "blobId": COMMIT}]);
        assert!(read(&file("a.json")).is_ok());
        for bad in ["../a", "/etc/cron.d/a", "a/../../b", "a\\..\\b", "a\n"] {
            let error = read(&file(bad)).unwrap_err().to_string();
            assert!(error.contains("would leave its place"), "{error}");
        }
        for bad in [
            json!([{"rfilename": "a", "blobId": COMMIT}]),
            json!([{"rfilename": "a", "size": 1}]),
            json!([{"rfilename": "a", "size": 1, "blobId": "../x"}]),
            json!([{"rfilename": "a", "size": -1, "blobId": COMMIT}]),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
        let body = json!({"sha": "../..", "siblings": file("a")}).to_string();
        assert!(Listing::read("a/b", body.as_bytes()).is_err());
    }
}
