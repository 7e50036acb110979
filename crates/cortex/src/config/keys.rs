//! `[auth]`: who may ask, for what, and how much.

use std::collections::HashMap;

use fleet::budget::Limits;
use serde::Deserialize;

/// `[auth]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// `[[auth.keys]]`; without one, nobody is asked for a key.
    pub keys: Vec<Key>,
}

/// `[[auth.keys]]`: one key, of which only a hash is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Whose key it is, in logs, metrics and the ledger.
    pub name: String,
    /// The SHA-256 of the key in hexadecimal, as `cortex hash-key` prints it.
    pub sha256: String,
    /// What it opens.
    #[serde(default = "inference")]
    pub scope: Scopes,
    /// Requests a minute.
    pub rpm: Option<u32>,
    /// Prompt and generated tokens a minute.
    pub tpm: Option<u32>,
    /// Requests at once.
    pub concurrency: Option<u32>,
    /// Tokens over a longer time.
    pub budget: Option<Budget>,
}

/// A budget of prompt and generated tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// How many.
    pub tokens: u64,
    /// The length of the rolling window; without it they are a balance, which is spent once.
    pub window_secs: Option<u64>,
}

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Models: their list, and answers of them.
    Inference,
    /// `/metrics`.
    Metrics,
    /// Everything.
    Admin,
}

/// One scope or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Scopes {
    /// As a word.
    One(Scope),
    /// As a list of words.
    Several(Vec<Scope>),
}

fn inference() -> Scopes {
    Scopes::One(Scope::Inference)
}

impl Scopes {
    /// Whether these open what needs `scope`.
    #[must_use]
    pub fn open(&self, scope: Scope) -> bool {
        let held = match self {
            Scopes::One(one) => std::slice::from_ref(one),
            Scopes::Several(several) => several,
        };
        held.contains(&scope) || held.contains(&Scope::Admin)
    }
}

impl Key {
    /// Its limits, as policy takes them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            requests_per_minute: self.rpm,
            tokens_per_minute: self.tpm,
            concurrency: self.concurrency,
            budget: self.budget.map(|budget| fleet::budget::Budget {
                tokens: budget.tokens,
                window_ms: budget.window_secs.map(|secs| secs.saturating_mul(1000)),
            }),
        }
    }

    /// The hash as bytes, if it is one.
    #[must_use]
    pub fn digest(&self) -> Option<[u8; 32]> {
        let mut digest = [0; 32];
        if self.sha256.len() != 64 || !self.sha256.is_ascii() {
            return None;
        }
        for (place, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&self.sha256[2 * place..2 * place + 2], 16).ok()?;
        }
        Some(digest)
    }
}

impl Auth {
    /// What types alone cannot say.
    pub(super) fn check(&self) -> Result<(), String> {
        let (mut names, mut digests) = (HashMap::new(), HashMap::new());
        for (place, key) in self.keys.iter().enumerate() {
            let name = &key.name;
            if name.is_empty()
                || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            {
                return Err(format!(
                    "auth.keys[{place}].name is `{name}`; use letters, digits, `-`, `_` and `.`"
                ));
            }
            let Some(digest) = key.digest() else {
                return Err(format!(
                    "the key `{name}` has no SHA-256 of 64 hexadecimal digits; \
                     `cortex hash-key` makes one"
                ));
            };
            if names.insert(name, place).is_some() {
                return Err(format!("two keys are called `{name}`; names must differ"));
            }
            if let Some(other) = digests.insert(digest, name) {
                return Err(format!("the keys `{other}` and `{name}` are the same key"));
            }
            key.check_limits()?;
        }
        Ok(())
    }
}

impl Key {
    fn check_limits(&self) -> Result<(), String> {
        let name = &self.name;
        if self.scope == Scopes::Several(Vec::new()) {
            return Err(format!("the key `{name}` opens nothing; give it a scope"));
        }
        let budget = self.budget.as_ref();
        let limits = [
            ("rpm", self.rpm.map(u64::from)),
            ("tpm", self.tpm.map(u64::from)),
            ("concurrency", self.concurrency.map(u64::from)),
            ("budget.tokens", budget.map(|budget| budget.tokens)),
            ("budget.window_secs", budget.and_then(|budget| budget.window_secs)),
        ];
        match limits.into_iter().find(|(_, limit)| *limit == Some(0)) {
            Some((limit, _)) => Err(format!(
                "the key `{name}` has {limit} = 0; give it 1 or more, or take the key out"
            )),
            None => Ok(()),
        }
    }
}
