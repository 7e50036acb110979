//! Good files, and every way in which a file was seen to be bad.

use std::fs;

use super::*;

/// A file with this header and so many data bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data).map(|i| i as u8));
    bytes
}

fn read(bytes: Vec<u8>) -> Result<SafeTensors, Error> {
    SafeTensors::read(Path::new("x.safetensors"), bytes.into())
}

#[track_caller]
fn refused(bytes: Vec<u8>, part: &str) {
    match read(bytes) {
        Ok(_) => panic!("the file was accepted"),
        Err(error) => check(&error, part),
    }
}

#[track_caller]
fn check(error: &Error, part: &str) {
    let error = error.to_string();
    assert!(error.contains(part), "`{error}` does not say `{part}`");
}

/// One tensor entry.
fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

fn header(entries: &[String]) -> String {
    format!("{{{}}}", entries.join(","))
}

fn good() -> String {
    header(&[
        r#""__metadata__":{"format":"pt"}"#.into(),
        entry("b", "BF16", "[2]", 8, 12),
        entry("a", "F32", "[1,2]", 0, 8),
        entry("n", "I64", "[]", 12, 20),
    ])
}

#[test]
fn a_good_file_reads_back() {
    let file = read(file(&(good() + "  "), 20)).unwrap();
    assert_eq!(file.names().collect::<Vec<_>>(), ["b", "a", "n"]);
    let a = file.tensor("a").unwrap().unwrap();
    assert_eq!(
        (a.shape, a.ty, a.bytes),
        (vec![1, 2], WeightType::F32, [0, 1, 2, 3, 4, 5, 6, 7].as_slice())
    );
    assert_eq!(file.tensor("b").unwrap().unwrap().ty, WeightType::BF16);
    assert!(file.tensor("c").unwrap().is_none());
    check(&file.tensor("n").unwrap_err(), "expected F32, F16 or BF16 elements, found I64");
}

// Bad files 115 and 118
#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = file(&good(), 20);
    for length in 0..bytes.len() {
        refused(bytes[..length].to_vec(), "x.safetensors");
    }
}

// Bad file 115
#[test]
fn bad_headers_are_refused() {
    refused(vec![0; 7], "the file has 7 bytes");
    refused(file("", 20), "a length of 0");
    for length in [u64::MAX, 1 << 62, 1000] {
        let mut bytes = file("{}", 0);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        refused(bytes, &format!("a length of {length}"));
    }
    refused(file("{not json", 0), "header");
    refused(file("[1]", 0), "not a JSON object");
    refused(file("{\"a\":1}", 0), "header");
    let mut bytes = file("{\"\u{e9}\":1}", 0);
    bytes[10] = 0xFF;
    refused(bytes, "header");
    refused(file(&header(&[entry("a", "F32", "[-1]", 0, 4)]), 4), "header");
    refused(file(&header(&[entry("a", "F32", "[1.5]", 0, 4)]), 4), "header");
    refused(file(&good().replace("\"shape\"", "\"size\""), 20), "header");
}

// Bad file 119
#[test]
fn names_that_are_there_twice_are_refused() {
    let twice = header(&[entry("a", "F32", "[1]", 0, 4), entry("a", "F32", "[1]", 4, 8)]);
    refused(file(&twice, 8), "`a` is there twice");
}

// Bad files 116 to 118 and 120
#[test]
fn bad_shapes_and_places_are_refused() {
    let one = |dtype: &str, shape: &str, begin, end, data, part: &str| {
        refused(file(&header(&[entry("a", dtype, shape, begin, end)]), data), part);
    };
    one("F32", "[2]", 0, 4, 4, "does not take the bytes");
    one("F32", "[2]", 8, 0, 8, "does not take the bytes");
    one("F32", "[4611686018427387904,4]", 0, 0, 0, "does not take the bytes");
    one("F32", "[0]", 0, 0, 0, "has a zero");
    one("Q4", "[2]", 0, 8, 8, "type `Q4` is unknown");
    one("F32", "[2]", 4, 12, 12, "leaves a hole");
    one("F32", "[2]", 0, 8, 7, "cut short");
    one("F32", "[2]", 0, 8, 9, "1 bytes belong to nothing");
    one("U8", "[18446744073709551615]", 0, u64::MAX, 9, "outside any file");
    let two = header(&[entry("a", "F32", "[2]", 0, 8), entry("b", "F32", "[1]", 4, 8)]);
    refused(file(&two, 8), "`b`: its data overlaps");
}

#[test]
fn other_kinds_of_file_are_named() {
    refused(b"version https://git-lfs.github.com/spec/v1".to_vec(), "git lfs pull");
    refused(b"<!doctype html><html></html>".to_vec(), "HTML");
    refused(b"PK\x03\x04abcdefgh".to_vec(), "zip");
}

// Bad file 121
#[test]
fn an_index_holds_its_shards_together() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    let one = |name| file(&header(&[entry(name, "F32", "[1]", 0, 4)]), 4);
    write("1.safetensors", &one("a"));
    write("2.safetensors", &one("b"));
    write("3.safetensors", &one("a"));
    let open = |map: &str| {
        write(INDEX_FILE, format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#).as_bytes());
        SafeTensors::open_index(&directory.path().join(INDEX_FILE))
    };
    let good = open(r#"{"a":"1.safetensors","b":"2.safetensors"}"#).unwrap();
    assert_eq!(good.tensor("b").unwrap().unwrap().bytes, [0, 1, 2, 3]);
    let cases = [
        (r#"{"a":"4.safetensors"}"#, "4.safetensors: not found"),
        (r#"{"a":"2.safetensors"}"#, "tensor `a`: is not in `2.safetensors`"),
        (r#"{"a":"1.safetensors","c":"3.safetensors"}"#, "tensor `a`: is in"),
        (r#"{"a":"1.safetensors","a":"3.safetensors"}"#, "`a` is there twice"),
        (r#"{"a":"../1.safetensors"}"#, "not the name of a file in the same directory"),
        (r#"{"a":"/1.safetensors"}"#, "not the name of a file in the same directory"),
        (r#"{"a":".."}"#, "not the name of a file in the same directory"),
        (r#"{"a":""}"#, "not the name of a file in the same directory"),
        (r#"{"a":1}"#, "JSON"),
    ];
    for (map, part) in cases {
        check(&open(map).err().unwrap(), part);
    }
}
