//! Valid files with a few bytes changed, cut or pushed to extremes: no reader panics.
#![allow(missing_docs, unreachable_pub)]

#[path = "../../../fuzz/inputs/model.rs"]
mod inputs;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kernels::WeightType;
use proptest::prelude::*;
use proptest::sample::Index;

const EXTREMES: &[u64] =
    &[0, 1, 1 << 31, 0xFFFF_FFFF, 1 << 32, 1 << 62, i64::MAX as u64, u64::MAX - 31, u64::MAX];

/// What is done to the bytes of a file.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    /// A length, count or offset, at any place.
    Number(Index, u64, bool),
    Cut(Index),
    Repeat(Index, Index),
    /// A digit of a text.
    Digit(Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![prop::sample::select(EXTREMES), any::<u64>(), 0..200u64,];
    prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, by)| Change::Flip(at, by)),
        5 => (any::<Index>(), number, any::<bool>())
            .prop_map(|(at, value, long)| Change::Number(at, value, long)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(at, length)| Change::Repeat(at, length)),
        2 => (any::<Index>(), b'0'..=b'9').prop_map(|(at, digit)| Change::Digit(at, digit)),
    ]
}

/// `interesting` bytes at the start are changed; what follows is only cut.
fn changed(good: &[u8], interesting: usize, changes: &[Change]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for change in changes {
        let place = |at: &Index, bytes: &[u8]| at.index(interesting.min(bytes.len()).max(1));
        match change {
            _ if bytes.is_empty() => {}
            Change::Flip(at, by) => {
                let at = place(at, &bytes);
                bytes[at] ^= by;
            }
            Change::Number(at, value, long) => {
                let at = place(at, &bytes);
                let number = value.to_le_bytes();
                let size = (if *long { 8 } else { 4 }).min(bytes.len() - at);
                bytes[at..at + size].copy_from_slice(&number[..size]);
            }
            Change::Cut(at) => {
                let at = at.index(bytes.len());
                bytes.truncate(at);
            }
            Change::Repeat(at, length) => {
                let at = place(at, &bytes);
                let part = bytes[at..at + length.index((bytes.len() - at).min(512))].to_vec();
                bytes.splice(at..at, part);
            }
            Change::Digit(at, digit) => {
                let at = place(at, &bytes);
                let digits = bytes[at..].iter_mut().take(200);
                if let Some(found) = digits.into_iter().find(|byte| byte.is_ascii_digit()) {
                    *found = *digit;
                }
            }
        }
    }
    bytes
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A small model with a tokenizer, and where its header ends.
fn gguf() -> &'static (Vec<u8>, usize) {
    static FILE: OnceLock<(Vec<u8>, usize)> = OnceLock::new();
    FILE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("model.gguf");
        model::convert(&fixture("qwen3_5"), &path, WeightType::Q8_0).expect("it converts");
        let bytes = std::fs::read(path).expect("it was written");
        let source = model::Source::open(&directory.path().join("model.gguf")).expect("it opens");
        let data: usize =
            source.gguf().expect("it is one").tensors().map(|tensor| tensor.bytes.len()).sum();
        let header = bytes.len() - data;
        (bytes, header)
    })
}

fn safetensors() -> &'static (Vec<u8>, usize) {
    static FILE: OnceLock<(Vec<u8>, usize)> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = fixture("qwen3").join("model.safetensors");
        let bytes = std::fs::read(path).expect("the fixture is there");
        let header = 8 + bytes[..8].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
        (bytes, header)
    })
}

#[test]
fn the_files_are_good_before_they_are_changed() {
    inputs::gguf(&gguf().0);
    inputs::safetensors(&safetensors().0);
    assert!(model::gguf::Gguf::read(Path::new("x"), gguf().0.clone().into()).is_ok());
}

proptest! {
    // As many as by default; PROPTEST_CASES makes them more.
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn a_changed_gguf_file_is_refused_or_read(changes in prop::collection::vec(change(), 1..5)) {
        let (good, header) = gguf();
        inputs::gguf(&changed(good, *header, &changes));
    }

    /// Of the metadata, the sizes that say what the tensors must be.
    #[test]
    fn changed_sizes_are_refused_or_read(changes in prop::collection::vec(change(), 1..3)) {
        let (good, _) = gguf();
        inputs::gguf(&changed(good, 1500, &changes));
    }

    #[test]
    fn a_changed_safetensors_file_is_refused_or_read(
        changes in prop::collection::vec(change(), 1..5)
    ) {
        let (good, header) = safetensors();
        inputs::safetensors(&changed(good, *header, &changes));
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        inputs::gguf(&noise);
        inputs::safetensors(&noise);
        let mut named = b"GGUF\x03\0\0\0".to_vec();
        named.extend(&noise);
        inputs::gguf(&named);
    }
}
