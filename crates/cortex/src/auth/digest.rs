//! Making keys, and their hashes.

use std::fmt::Write;

use sha2::{Digest, Sha256};

pub(super) fn sha256(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The hash under which a key is configured.
#[must_use]
pub fn hash_key(key: &[u8]) -> String {
    sha256(key).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A key that nobody can guess: 244 random bits.
#[must_use]
pub fn new_key() -> String {
    let random = || uuid::Uuid::new_v4().simple();
    format!("sk-{}{}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::{hash_key, new_key};

    #[test]
    fn a_hash_is_that_of_the_standard() {
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_key(b"abc"), wanted);
        assert_ne!(new_key(), new_key());
        assert_eq!(new_key().len(), 67);
    }
}
