//! Who shares what was computed: from what is known of a caller to the engine's isolation key.
//!
//! A shared prefix answers faster, and whoever can time answers can learn what others have asked.
//! So callers of different identities share nothing. An identity is what cortex says it is; a node
//! believes that header from everybody who may talk to it.

use std::hash::{BuildHasher, RandomState};

use dialog::Sharing;
use http::HeaderValue;

use crate::config::CacheIsolation;

/// The key of requests that nothing keeps apart.
const SHARED: u64 = 0;

/// See the module.
pub(crate) struct Isolation {
    by_caller: bool,
    /// Its secret keys make it impossible to choose a name that has another one's hash.
    hasher: RandomState,
}

impl Isolation {
    pub(crate) fn new(isolation: CacheIsolation) -> Self {
        let by_caller = isolation == CacheIsolation::Caller;
        Self { by_caller, hasher: RandomState::new() }
    }

    /// Requests of the same key share what was computed for them, and others do not.
    pub(crate) fn key(&self, identity: Option<&HeaderValue>, sharing: &Sharing) -> u64 {
        let Sharing { salt, caller } = sharing;
        let caller = caller.as_ref().filter(|_| self.by_caller);
        let identity = identity.map(HeaderValue::as_bytes);
        match (identity, salt, caller) {
            (None, None, None) => SHARED,
            all => self.hasher.hash_one(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sharing(salt: &str, caller: &str) -> Sharing {
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Sharing { salt: named(salt), caller: named(caller) }
    }

    #[test]
    fn two_keys_never_share_and_the_same_does() {
        let [ann, bob] = ["ann", "bob"].map(HeaderValue::from_static);
        let all = [
            (None, sharing("", "")),
            (Some(&ann), sharing("", "")),
            (Some(&bob), sharing("", "")),
            (None, sharing("ann", "")),
            (Some(&ann), sharing("ann", "")),
            (None, sharing("", "ann")),
            (Some(&ann), sharing("", "ann")),
            (Some(&ann), sharing("", "bob")),
        ];
        let isolation = Isolation::new(CacheIsolation::Caller);
        for (at, (identity, of)) in all.iter().enumerate() {
            for (other_at, (other_identity, other)) in all.iter().enumerate() {
                let [key, other] =
                    [(identity, of), (other_identity, other)].map(|(i, s)| isolation.key(*i, s));
                assert_eq!(key == other, at == other_at, "{at} and {other_at}");
            }
        }
    }

    #[test]
    fn callers_share_by_default_and_identities_and_salts_do_not() {
        let isolation = Isolation::new(CacheIsolation::Identity);
        let ann = HeaderValue::from_static("ann");
        assert_eq!(isolation.key(None, &sharing("", "conversation 5")), SHARED);
        let of_ann = isolation.key(Some(&ann), &sharing("", "a"));
        assert_eq!(of_ann, isolation.key(Some(&ann), &sharing("", "b")));
        assert_ne!(of_ann, SHARED);
        assert_ne!(isolation.key(None, &sharing("salt", "")), SHARED);
    }
}
