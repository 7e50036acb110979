//! Bytes in, whole characters out.

/// Joins token bytes to text as they come.
///
/// The concatenation of everything returned equals [`String::from_utf8_lossy`] of all bytes, no
/// matter how they were split (requirement 31).
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    /// The beginning of a character whose rest has not come; at most 3 bytes.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Takes more bytes and gives the characters that are complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            rest = after;
            // `None`: the bytes may yet become a character.
            let Some(broken) = error.error_len() else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[broken..];
        }
        self.pending = rest.to_vec();
        text
    }

    /// What is left when no more bytes come: nothing, or one U+FFFD for a character cut short.
    pub fn finish(&mut self) -> String {
        let pending = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&pending).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Requirement 31
        #[test]
        fn any_split_gives_the_text_of_the_whole(
            pieces in prop::collection::vec(piece(), 0..12),
        ) {
            let whole: Vec<u8> = pieces.concat();
            let mut detokenizer = Detokenizer::default();
            let mut text: String = pieces.iter().map(|piece| detokenizer.push(piece)).collect();
            text.push_str(&detokenizer.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }

    /// Bytes that begin, continue and break characters far more often than chance would.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(0xf0_u8),
            Just(0x9f),
            Just(0x98),
            Just(0x80),
            Just(0xe2),
            Just(0xc3),
            Just(b'a'),
            any::<u8>(),
        ];
        prop::collection::vec(byte, 0..4)
    }

    #[test]
    fn a_character_comes_out_whole() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push(&[0xf0, 0x9f]), "");
        assert_eq!(detokenizer.push(&[0x98, 0x80, b'!']), "😀!");
        assert_eq!(detokenizer.finish(), "");
    }
}
