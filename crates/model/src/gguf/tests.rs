//! Good files, and every way in which a file was seen to be bad. Requirement 127.

use super::write::{Header, NewValue, pad};
use super::*;
use kernels::quant::WeightType;

/// The bytes of a file, made field by field so that each can be wrong.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn header(version: u32, tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(keys)
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn u32(self, x: u32) -> Self {
        self.raw(&x.to_le_bytes())
    }
    fn u64(self, x: u64) -> Self {
        self.raw(&x.to_le_bytes())
    }
    fn string(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }
    fn tensor(self, name: &str, dimensions: &[u64], ty: u32, offset: u64) -> Self {
        let this = self.string(name).u32(dimensions.len() as u32);
        dimensions.iter().fold(this, |this, &n| this.u64(n)).u32(ty).u64(offset)
    }
    /// Fills up to the alignment and adds `count` data bytes.
    fn data(mut self, count: usize) -> Self {
        pad(&mut self.0);
        self.raw(&vec![7; count])
    }
    fn open(self) -> Result<Gguf, Error> {
        Gguf::read(Path::new("x.gguf"), self.0.into())
    }
    /// The error's text.
    fn refused(self) -> String {
        match self.open() {
            Ok(_) => panic!("the file was accepted"),
            Err(error) => error.to_string(),
        }
    }
}

/// A file of one tensor, as llama.cpp's writer makes it.
fn good() -> Vec<u8> {
    let mut header = Header::new();
    header.put("general.architecture", "qwen3");
    header.put("a.count", NewValue::U32(7));
    header.put("a.list", NewValue::Strings(vec!["x".into(), "yz".into()]));
    header.declare("w", &[3, 32], WeightType::Q8_0);
    let mut bytes = header.bytes();
    bytes.extend([1; 102]);
    bytes
}

fn check(found: &str, part: &str) {
    assert!(found.contains(part), "`{found}` does not say `{part}`");
}

#[test]
fn a_good_file_reads_back() {
    for version in [2, 3] {
        let mut bytes = good();
        bytes[4] = version;
        let file = Bytes(bytes).open().unwrap();
        assert_eq!(file.version(), u32::from(version));
        let metadata = file.metadata();
        assert_eq!(metadata.get::<&str>("general.architecture").unwrap(), "qwen3");
        assert_eq!(metadata.get::<u32>("a.count").unwrap(), 7);
        assert_eq!(metadata.get::<Vec<&str>>("a.list").unwrap(), ["x", "yz"]);
        assert_eq!(metadata.keys().count(), 3);
        let tensor = file.tensor("w").unwrap();
        assert_eq!((tensor.shape.as_slice(), tensor.ty), ([3, 32].as_slice(), WeightType::Q8_0));
        assert_eq!((tensor.rows(), tensor.row_bytes(), tensor.bytes.len()), (3, 34, 102));
        assert!(file.warnings().is_empty());
    }
}

// Bad file 86
#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = good();
    for length in 0..bytes.len() {
        check(&Bytes(bytes[..length].to_vec()).refused(), "x.gguf");
    }
}

#[test]
fn a_file_with_one_byte_changed_never_panics() {
    let bytes = good();
    let header = bytes.len() - 102;
    for at in 0..header {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            if let Ok(file) = Bytes(bytes).open() {
                let _ = file.tensors().map(|tensor| tensor.bytes.len()).sum::<usize>();
                let _ = file.metadata().get::<Vec<&str>>("a.list");
            }
        }
    }
}

// Bad files 87 and 112
#[test]
fn other_kinds_of_file_are_named() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "does not begin with `GGUF`"),
        (b"abcdefghijkl", "does not begin with `GGUF`"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"PK\x03\x04abcd", "zip"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"\x10\0\0\0\0\0\0\0{\"a\":", "safetensors"),
        (b"FUGG\x03\0\0\0", "byte-reversed"),
    ];
    for (bytes, part) in cases {
        check(&Bytes(bytes.to_vec()).refused(), part);
    }
}

// Bad file 88
#[test]
fn versions_other_than_2_and_3_are_refused() {
    check(&Bytes::header(0, 0, 0).refused(), "version 0");
    check(&Bytes::header(1, 0, 0).refused(), "outdated");
    check(&Bytes::header(4, 0, 0).refused(), "version 4");
    check(&Bytes::header(3_u32.swap_bytes(), 0, 0).refused(), "big-endian");
}

// Bad files 89 and 90
#[test]
fn counts_and_lengths_beyond_the_file_are_refused() {
    for count in [u64::MAX, 1_000_000, 2] {
        check(&Bytes::header(3, count, 0).refused(), "cannot be in this file");
        check(&Bytes::header(3, 0, count).refused(), "cannot be in this file");
    }
    let spare = [0; 64];
    let key = Bytes::header(3, 0, 1).u64(u64::MAX).raw(&spare);
    check(&key.refused(), "metadata entry 0: the file ends");
    let text = Bytes::header(3, 0, 1).string("k").u32(8).u64(1 << 40).raw(&spare);
    check(&text.refused(), "metadata key `k`: the file ends");
    for element in [0, 4, 8, 9, 12] {
        let array = Bytes::header(3, 0, 1).string("k").u32(9).u32(element).u64(1 << 40);
        check(&array.raw(&spare).refused(), "metadata key `k`: the file ends");
    }
}

// Bad file 91
#[test]
fn nested_arrays_are_bounded() {
    let nest = |levels: usize| {
        let start = Bytes::header(3, 0, 1).string("k").u32(9);
        let nested = (1..levels).fold(start, |bytes, _| bytes.u32(9).u64(1));
        nested.u32(4).u64(1).u32(5).raw(&[0; 64])
    };
    assert!(nest(4).open().is_ok());
    check(&nest(5).refused(), "nested more than 4");
    check(&nest(100_000).refused(), "nested more than 4");
}

// Bad files 92 and 93
#[test]
fn bad_keys_are_refused() {
    check(&Bytes::header(3, 0, 1).string("").u32(4).u32(1).raw(&[0; 8]).refused(), "1 to 65535");
    let twice = Bytes::header(3, 0, 2).string("k").u32(4).u32(1).string("k").u32(4).u32(2);
    check(&twice.refused(), "`k`: the key is there twice");
    let unknown = Bytes::header(3, 0, 1).string("k").u32(13).u32(1).raw(&[0; 8]);
    check(&unknown.refused(), "value type 13 is unknown");
    let truth = Bytes::header(3, 0, 1).string("k").u32(7).raw(&[2]).raw(&[0; 8]);
    check(&truth.refused(), "0 or 1, found 2");
    let latin = Bytes::header(3, 0, 1).u64(2).raw(&[0xE9, 0xE9]).u32(4).u32(1);
    check(&latin.refused(), "not UTF-8");
}

// Bad file 94
#[test]
fn the_alignment_is_a_power_of_two() {
    let with = |ty: u32, value: u32| {
        Bytes::header(3, 0, 1).string("general.alignment").u32(ty).u32(value).raw(&[0; 8])
    };
    for value in [0, 13, 48] {
        check(&with(4, value).refused(), "general.alignment: expected a power of two");
    }
    check(&with(5, -32_i32 as u32).refused(), "found -32");
    check(&with(6, 32_f32.to_bits()).refused(), "found 32");
    assert!(with(4, 64).open().is_ok());
    let text = Bytes::header(3, 0, 1).string("general.alignment").u32(8).string("32");
    check(&text.refused(), "found the text \"32\"");
}

#[test]
fn the_alignment_of_the_file_is_used() {
    let start = Bytes::header(3, 1, 1).string("general.alignment").u32(4).u32(256);
    let mut bytes = start.tensor("w", &[4], 0, 0).0;
    bytes.resize(256, 0);
    bytes.extend([9; 16]);
    assert_eq!(Bytes(bytes).open().unwrap().tensor("w").unwrap().bytes, [9; 16]);
}

// Bad files 95 to 100 and 106
#[test]
fn bad_shapes_and_types_are_refused() {
    let one = |dimensions: &[u64], ty| {
        Bytes::header(3, 1, 0).tensor("w", dimensions, ty, 0).data(64).refused()
    };
    check(&one(&[], 0), "has 0 dimensions");
    check(&one(&[1; 5], 0), "has 5 dimensions");
    check(&one(&[4, 0], 0), "has a zero");
    check(&one(&[1 << 32, 1 << 32], 0), "overflows");
    check(&one(&[1 << 62, 4, 4], 0), "overflows");
    check(&one(&[1 << 62], 0), "overflows");
    check(&one(&[u64::MAX - 31], 2), "after the tensor data");
    check(&one(&[33], 2), "not whole blocks of 32");
    check(&one(&[16, 2], 2), "not whole blocks of 32");
    check(&one(&[4], 4), "removed from the format");
    check(&one(&[4], 200), "type 200 (unknown) is not supported");
    check(&one(&[256], 16), "IQ2_XXS");
    let many = Bytes::header(3, 1, 0).string("w").u32(u32::MAX).raw(&[0; 64]);
    check(&many.refused(), "4294967295 dimensions");
    check(&Bytes::header(3, 1, 0).tensor("", &[4], 0, 0).data(64).refused(), "name is empty");
}

// Bad files 101 to 104
#[test]
fn bad_places_are_refused() {
    let one = |offset| Bytes::header(3, 1, 0).tensor("w", &[4], 0, offset).data(64).refused();
    check(&one(8), "not a multiple of the alignment 32");
    check(&one(64), "cut short");
    check(&one(1 << 40), "cut short");
    check(&one(u64::MAX - 31), "cut short");
    check(&one(u64::MAX - 15), "outside any file");
    let short = Bytes::header(3, 1, 0).tensor("w", &[4], 0, 0).data(15);
    check(&short.refused(), "cut short");
    let two = |name: &str, offset| {
        let bytes = Bytes::header(3, 2, 0).tensor("v", &[16], 0, 0);
        bytes.tensor(name, &[16], 0, offset).data(128)
    };
    check(&two("v", 64).refused(), "`v`: the name is there twice");
    check(&two("w", 0).refused(), "`w`: its data overlaps that of `v`");
    check(&two("w", 32).refused(), "overlaps");
    assert!(two("w", 64).open().is_ok());
}

// Bad file 105
#[test]
fn trailing_bytes_are_only_mentioned() {
    let file = Bytes::header(3, 1, 0).tensor("w", &[4], 0, 0).data(100).open().unwrap();
    assert_eq!(file.warnings(), ["68 bytes after the last tensor are ignored"]);
}

// Bad file 113
#[test]
fn one_part_of_a_split_model_is_refused() {
    let with = |count| {
        let bytes = Bytes::header(3, 0, 2).string("split.count").u32(2).raw(&[count, 0]);
        bytes.string("split.no").u32(2).raw(&[1, 0]).raw(&[0; 8])
    };
    check(&with(3).refused(), "part 2 of 3");
    assert!(with(1).open().is_ok());
}

#[test]
fn getters_name_key_expectation_and_finding() {
    let bytes = good();
    let file = Bytes(bytes).open().unwrap();
    let metadata = file.metadata();
    let error = metadata.get::<bool>("a.count").unwrap_err().to_string();
    assert_eq!(error, "x.gguf: a.count: expected a truth value, found 7");
    let error = metadata.get::<u32>("a.list").unwrap_err().to_string();
    check(&error, "found an array of 2 (String)");
    let error = metadata.get::<u32>("a.other").unwrap_err().to_string();
    assert_eq!(error, "x.gguf: metadata key `a.other` is missing");
    assert_eq!(metadata.find::<u32>("a.other").unwrap(), None);
}

// Bad file 114
#[test]
fn paths_that_are_no_files_are_refused_without_hanging() {
    let open = |path: &str| match Gguf::open(Path::new(path)) {
        Ok(_) => panic!("{path} was opened"),
        Err(error) => error,
    };
    assert!(matches!(open("/no/such/file"), Error::NotFound { .. }));
    check(&open("/").to_string(), "is a directory");
    check(&open("/dev/zero").to_string(), "is a pipe, socket or device");
}
