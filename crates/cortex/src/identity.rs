//! Whose request it is, as far as a neuron has to know: a name that the gateway makes.

use std::hash::{BuildHasher, RandomState};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::presented;
use crate::config::CacheIsolation;

/// See [`control::IDENTITY_HEADER`].
pub(crate) const IDENTITY: HeaderName = HeaderName::from_static(control::IDENTITY_HEADER);

/// Makes identities.
pub(crate) struct Identities {
    by_credential: bool,
    /// Its secret keys keep the name from telling anything of a credential.
    hasher: RandomState,
}

impl Identities {
    pub(crate) fn new(isolation: CacheIsolation) -> Identities {
        let by_credential = isolation == CacheIsolation::Credential;
        Identities { by_credential, hasher: RandomState::new() }
    }

    /// The name of whoever presents these headers; `None` where all are one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.by_credential {
            return None;
        }
        // The same key by either header is the same caller.
        let other = || headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let name = format!("{:016x}", self.hasher.hash_one(presented(headers).or_else(other)));
        HeaderValue::from_str(&name).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn a_credential_is_a_name_that_does_not_tell_it() {
        let identities = Identities::new(CacheIsolation::Credential);
        let of = |name, value| identities.of(&headers(name, value)).expect("a name");
        let ann = of("authorization", "Bearer ann");
        assert_eq!(ann, of("authorization", "bearer ann"));
        assert_eq!(ann, of("x-api-key", "ann"));
        assert_ne!(ann, of("authorization", "Bearer bob"));
        assert_ne!(ann, of("x-other", "ann"));
        assert_eq!(of("x-other", "ann"), of("x-other", "bob"), "those without one are one");
        assert_eq!(ann.as_bytes().len(), 16);
        let all_one = Identities::new(CacheIsolation::Shared);
        assert_eq!(all_one.of(&headers("authorization", "Bearer ann")), None);
    }
}
