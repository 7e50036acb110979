//! `[ledger]`: where usage is written down, and what is spent of budgets.

use std::path::PathBuf;

use serde::Deserialize;

use crate::Error;

/// `[ledger]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    /// `sqlite:///var/lib/cortex/ledger.sqlite`, or `postgres://...` for gateways that share
    /// budgets.
    pub url: Option<String>,
    /// A file that holds the URL, for one with a password.
    pub url_file: Option<PathBuf>,
    /// How long entries are kept; 0 for ever.
    pub keep_days: u32,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { url: None, url_file: None, keep_days: 90 }
    }
}

impl Ledger {
    /// Whether there is one.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.url.is_some() || self.url_file.is_some()
    }

    /// The database's URL; a SQLite file that is missing is made.
    ///
    /// # Errors
    /// [`Error::Config`] when it cannot be read or is of another database.
    pub fn read_url(&self) -> Result<Option<String>, Error> {
        let wrong = |problem: String| Error::Config { place: "ledger".to_owned(), problem };
        let url = match (&self.url, &self.url_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(wrong("has url and url_file; leave one of them out".to_owned()));
            }
            (Some(url), None) => url.clone(),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| wrong(format!("{}: {error}", path.display())))?;
                text.trim().to_owned()
            }
        };
        let is_known = ["sqlite:", "postgres:", "postgresql:"].iter().any(|s| url.starts_with(s));
        match is_known {
            true if url.starts_with("sqlite:") && !url.contains('?') => Ok(Some(url + "?mode=rwc")),
            true => Ok(Some(url)),
            // The URL may hold a password, so it is not repeated.
            false => Err(wrong("the URL begins with neither sqlite: nor postgres:".to_owned())),
        }
    }
}
