//! What a file really is, when it is not what its name says.

/// What a file of the one format is called by the reader of the other.
pub(crate) const SAFETENSORS: &str = "a safetensors file";

/// Says what kind of file begins with `bytes`, for the kinds that are often met in the place of a
/// model.
pub(crate) fn recognise(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.trim_ascii_start();
    let begins = |word: &[u8]| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
    if begins(b"version https://git-lfs") {
        return Some("a Git LFS pointer, not the file it stands for; fetch it with `git lfs pull`");
    }
    if begins(b"<!doctype") || begins(b"<html") {
        return Some("an HTML page, probably an error page saved by a download; download it again");
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Some("a zip archive, probably PyTorch pickle weights; convert to safetensors");
    }
    if bytes.starts_with(b"\x80\x02") || bytes.starts_with(b"\x80\x04") {
        return Some("a Python pickle, which is never read; convert to safetensors");
    }
    if bytes.starts_with(b"\x1f\x8b") {
        return Some("a gzip archive; unpack it first");
    }
    if bytes.starts_with(b"GGUF") {
        return Some("a GGUF file");
    }
    if bytes.starts_with(b"GGML") || bytes.starts_with(b"lmgg") || bytes.starts_with(b"tjgg") {
        return Some("a file of the old GGML format; convert it to GGUF");
    }
    if bytes.get(8) == Some(&b'{') && bytes.get(4..8) == Some(&[0; 4]) {
        return Some(SAFETENSORS);
    }
    None
}
