//! The alphabet in which byte-level BPE spells bytes.
//!
//! Each of the 256 bytes is one printable character: itself where it is printable Latin-1, else
//! one of the 68 characters from U+0100 on, in order.

/// The byte that a character spells.
pub(super) fn byte_of(letter: char) -> Option<u8> {
    let code = u32::from(letter);
    match code {
        0x100..=0x143 => SHIFTED.get((code - 0x100) as usize).copied(),
        _ => u8::try_from(code).ok().filter(|byte| is_plain(*byte)),
    }
}

/// The bytes that a token spells; `None` when it is not spelled in the alphabet.
pub(super) fn bytes_of(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of).collect()
}

const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

const SHIFTED: [u8; 68] = {
    let mut shifted = [0; 68];
    let (mut byte, mut next) = (0_usize, 0);
    while byte < 256 {
        if !is_plain(byte as u8) {
            shifted[next] = byte as u8;
            next += 1;
        }
        byte += 1;
    }
    shifted
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_letter() {
        let mut seen = [false; 256];
        for code in 0..0x200 {
            if let Some(byte) = char::from_u32(code).and_then(byte_of) {
                assert!(!std::mem::replace(&mut seen[usize::from(byte)], true), "{byte} twice");
            }
        }
        assert!(seen.iter().all(|seen| *seen));
        assert_eq!(bytes_of("Ġhello"), Some(b" hello".to_vec()));
        assert_eq!(bytes_of("Ċ"), Some(b"\n".to_vec()));
        assert_eq!(bytes_of("日"), None);
    }
}
