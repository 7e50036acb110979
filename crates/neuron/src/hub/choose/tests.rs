use super::super::listing::Digest;
use super::*;

fn listing(paths: &[&str]) -> Listing {
    let digest = Digest::GitBlob("0".repeat(40));
    let file = |path: &&str| HubFile {
        path: (*path).to_owned(),
        size: 2_500_000_000,
        digest: digest.clone(),
    };
    Listing { commit: "0".repeat(40), files: paths.iter().map(file).collect() }
}

fn check(paths: &[&str], file: Option<&str>, quant: Option<&str>, expected: &[&str]) {
    let listing = listing(paths);
    let chosen = match choose("a/b", &listing, file, quant).unwrap() {
        Choice::Directory(files) | Choice::Gguf(files) | Choice::Loose(files) => files,
    };
    let chosen: Vec<_> = chosen.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(chosen, expected, "{file:?} {quant:?}");
}

fn refused(paths: &[&str], file: Option<&str>, quant: Option<&str>) -> String {
    choose("a/b", &listing(paths), file, quant).unwrap_err().to_string()
}

const DENSE: [&str; 8] = [
    ".gitattributes",
    "README.md",
    "config.json",
    "consolidated.safetensors",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "original/model.safetensors",
];

#[test]
fn a_directory_has_all_that_a_load_reads() {
    let wanted = ["config.json", "tokenizer.json", "model.safetensors.index.json"];
    check(&DENSE, None, None, &wanted);
    check(&DENSE, None, Some("Q4_K_M"), &wanted);
    assert!(refused(&DENSE, None, Some("Q4_K_L")).contains("Q4_K_M"));
    check(
        &["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"],
        None,
        None,
        &["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"],
    );
    let error = refused(&["config.json", "model.safetensors"], None, None);
    assert!(error.contains("no tokenizer.json"), "{error}");
    let error =
        refused(&["config.json", "tokenizer.json", "a.safetensors", "b.safetensors"], None, None);
    assert!(error.contains("no index"), "{error}");
}

#[test]
fn an_index_names_the_shards_and_nothing_else() {
    let listing = listing(&DENSE);
    let index =
        |name: &str| format!(r#"{{"metadata":{{}},"weight_map":{{"a":"{name}","b":"{name}"}}}}"#);
    let found = shards("a/b", &listing, index(DENSE[4]).as_bytes()).unwrap();
    assert_eq!(found, [listing.find(DENSE[4]).unwrap()]);
    for bad in ["gone.safetensors", "../../etc/passwd", ".gitattributes"] {
        assert!(shards("a/b", &listing, index(bad).as_bytes()).is_err(), "{bad}");
    }
}

const GGUFS: [&str; 7] = [
    "README.md",
    "BF16/m-BF16-00001-of-00002.gguf",
    "BF16/m-BF16-00002-of-00002.gguf",
    "m-Q4_K_M.gguf",
    "m-Q4_K_S.gguf",
    "mmproj-F16.gguf",
    ".pull/m-Q8_0.gguf",
];

#[test]
fn a_format_names_one_gguf_model_with_all_its_parts() {
    check(&GGUFS, None, Some("q4_k_m"), &["m-Q4_K_M.gguf"]);
    check(&GGUFS, None, Some("BF16"), &GGUFS[1..3]);
    check(&["config.json", "m-Q8_0.gguf"], None, None, &["m-Q8_0.gguf"]);
    check(&[&DENSE[..], &GGUFS[3..4]].concat(), None, Some("Q4_K_M"), &["m-Q4_K_M.gguf"]);
    for quant in [None, Some("Q8_0"), Some("F16")] {
        let error = refused(&GGUFS, None, quant);
        for shown in ["5.00 GB  BF16/m-BF16-00001-of-00002.gguf", "2.50 GB  m-Q4_K_S.gguf"] {
            assert!(error.contains(shown), "{error}");
        }
        assert!(!error.contains("mmproj") && !error.contains(".pull"), "{error}");
    }
    let error = refused(&["m-00001-of-00003.gguf", "m-00002-of-00003.gguf"], None, None);
    assert!(error.contains("one of 3 parts, of which 2"), "{error}");
}

#[test]
fn a_file_is_named_or_a_pattern() {
    check(&GGUFS, Some("m-Q4_K_S.gguf"), None, &["m-Q4_K_S.gguf"]);
    check(&GGUFS, Some("*_S.gguf"), None, &["m-Q4_K_S.gguf"]);
    check(&GGUFS, Some("BF16/*"), None, &GGUFS[1..3]);
    check(&GGUFS, Some("m-BF16-00002-of-00002.gguf"), None, &GGUFS[1..3]);
    check(&GGUFS, Some("*.gguf"), Some("Q4_K_M"), &["m-Q4_K_M.gguf"]);
    check(&GGUFS, Some("mmproj*"), None, &["mmproj-F16.gguf"]);
    check(&DENSE, Some("*.json"), None, &["config.json", DENSE[5], "tokenizer.json"]);
    assert!(refused(&GGUFS, Some("m-Q*"), None).contains("2 GGUF models"));
    assert!(refused(&GGUFS, Some("Q6"), None).contains("m-Q4_K_M.gguf"));
    assert!(refused(&GGUFS, Some(".pull/*"), None).contains("no file"));
    assert!(refused(&GGUFS, Some("[a"), None).contains("no pattern"));
}

#[test]
fn what_has_no_weights_says_what_it_has() {
    let error = refused(&["README.md"], None, None);
    assert!(error.contains("neither safetensors nor GGUF") && error.contains("README.md"));
    assert!(refused(&["pytorch_model.bin"], None, None).contains("pickle"));
}
