//! Names that come from people and from the hub, and what of them may become a path.

use std::fmt;
use std::str::FromStr;

use super::PullError;

/// Characters of a part of a repository's name.
const MAX_PART_CHARS: usize = 96;
const MAX_REVISION_CHARS: usize = 256;

/// A repository and one of its revisions, `ORG/NAME[@REVISION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoName {
    /// `ORG/NAME`, or `NAME` alone for the oldest ones.
    pub repo: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl FromStr for RepoName {
    type Err = PullError;

    fn from_str(text: &str) -> Result<Self, PullError> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
        let part = |part: &str| {
            (1..=MAX_PART_CHARS).contains(&part.len())
                && !part.starts_with(['.', '-'])
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !repo.split('/').all(part) || repo.split('/').count() > 2 {
            let repo = repo.escape_debug();
            return Err(PullError::refused(format!(
                "`{repo}` is no name of a repository: it is ORG/NAME of letters, digits and ._-, \
                 for example Qwen/Qwen3-8B"
            )));
        }
        let plain = |c: char| c.is_ascii_graphic() && c != '\\';
        let sane = |revision: &str| {
            (1..=MAX_REVISION_CHARS).contains(&revision.len())
                && revision.chars().all(plain)
                && revision.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        };
        if !sane(revision) {
            let revision = revision.escape_debug();
            return Err(PullError::refused(format!(
                "`{revision}` is no revision: it is a branch, a tag or a commit"
            )));
        }
        Ok(Self { repo: repo.to_owned(), revision: revision.to_owned() })
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repo, self.revision)
    }
}

/// Whether a path that the hub names stays below the directory that it is put in: relative, of
/// ordinary parts, and without characters that a terminal or another system reads otherwise.
pub(super) fn is_inside(path: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let strange = |c: char| c.is_control() || c == '\\';
    path.len() <= 1024 && path.split('/').all(part) && !path.contains(strange)
}

/// Whether a part of the path is hidden; hidden files are never fetched, so that none of them can
/// take the place of what a pull keeps beside the model.
pub(super) fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_one_or_two_ordinary_names() {
        let read = |text: &str| text.parse::<RepoName>().map(|name| name.to_string());
        assert_eq!(read("Qwen/Qwen3-8B").unwrap(), "Qwen/Qwen3-8B@main");
        assert_eq!(read("gpt2@refs/pr/1").unwrap(), "gpt2@refs/pr/1");
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "../a",
            "a/..",
            ".a/b",
            "a b/c",
            "a/b\0",
            "a\\b",
            "-a/b",
            "a/b@",
            "a/b@x y",
            "a/b@../main",
            "a/b@a//b",
            "a/b@\n",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_of_the_hub_stay_inside() {
        for good in ["config.json", "1_Pooling/config.json", "..a", "a..b/c"] {
            assert!(is_inside(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "a/", "a\\b", "a\0", "a\n"]
        {
            assert!(!is_inside(bad), "{bad:?}");
        }
        assert!(is_hidden(".pull/receipt.json") && is_hidden("a/.b") && !is_hidden("a/b.c"));
    }
}
