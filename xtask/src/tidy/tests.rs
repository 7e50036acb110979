//! The repository keeps the rules; and for each rule, a small tree that breaks it is caught.

use std::collections::BTreeSet;

use super::tree::{Crate, File, Tree};
use super::{check, findings};

#[test]
fn the_repository_keeps_its_rules() {
    let root = crate::repository().expect("xtask lies in the root");
    if let Err(broken) = check(&root) {
        panic!("{broken}");
    }
}

/// A tree with these files, and a crate `NAME` for each `crates/NAME/`.
fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    let names: BTreeSet<&str> = files
        .iter()
        .filter_map(|(path, _)| path.strip_prefix("crates/")?.split('/').next())
        .collect();
    tree.crates = names.into_iter().map(|name| depends(name, &[])).collect();
    tree.files = files.iter().map(|(path, text)| File::new(path, text)).collect();
    tree
}

fn depends(name: &str, on: &[&str]) -> Crate {
    let names: BTreeSet<String> = on.iter().map(|name| (*name).to_owned()).collect();
    Crate {
        name: name.to_owned(),
        dir: format!("crates/{name}"),
        direct: names.clone(),
        linked: names,
        ..Crate::default()
    }
}

/// Each finding as `rule path:line`.
fn caught(tree: &Tree) -> Vec<String> {
    findings(tree).iter().map(|f| format!("{} {}:{}", f.rule, f.path, f.line)).collect()
}

fn crates(all: Vec<Crate>) -> Vec<String> {
    caught(&Tree { crates: all, ..Tree::default() })
}

#[test]
fn a_clean_tree_has_no_findings() {
    let files = [("crates/fleet/src/lib.rs", "//! Unsafe words: Instant::now, unsafe.\n")];
    assert_eq!(caught(&tree(&files)), Vec::<String>::new());
}

#[test]
fn r1_a_pure_crate_may_not_link_a_runtime_or_read_time() {
    assert_eq!(crates(vec![depends("fleet", &["tokio"])]), ["R1 crates/fleet/Cargo.toml:0"]);
    assert_eq!(crates(vec![depends("scheduler", &["candle-core"])]).len(), 1);
    let files = [("crates/fleet/src/lib.rs", "\nfn now(at: std::time::Instant) {}\n")];
    assert_eq!(caught(&tree(&files)), ["R1 crates/fleet/src/lib.rs:2"]);
}

#[test]
fn r2_the_engine_and_below_do_not_know_text() {
    assert_eq!(crates(vec![depends("model", &["text"])]), ["R2 crates/model/Cargo.toml:0"]);
    let mut tests_only = depends("engine", &[]);
    tests_only.dev.insert("dialog".to_owned());
    assert_eq!(crates(vec![tests_only]), ["R2 crates/engine/Cargo.toml:0"]);
}

#[test]
fn r3_the_gateway_links_no_model_code() {
    assert_eq!(crates(vec![depends("cortex", &["tokenizers"])]), ["R3 crates/cortex/Cargo.toml:0"]);
    assert_eq!(crates(vec![depends("cortex", &["candle-nn"])]).len(), 1);
}

#[test]
fn an_arrow_that_the_diagram_lacks_is_caught() {
    let wire = vec![depends("wire", &["text"]), depends("text", &[])];
    assert_eq!(crates(wire), ["crates crates/wire/Cargo.toml:0"]);
    let product = vec![depends("neuron", &["testkit"]), depends("testkit", &[])];
    assert_eq!(crates(product), ["crates crates/neuron/Cargo.toml:0"]);
    assert_eq!(crates(vec![depends("novel", &[])]), ["crates crates/novel/Cargo.toml:0"]);
}

#[test]
fn r4_unsafe_and_cuda_stay_close_to_the_metal() {
    let text = "\n#[cfg(feature = \"cuda\")]\nfn f() { unsafe { g() } }\n";
    let file = "crates/text/src/a.rs";
    let found = [format!("R4 {file}:2"), format!("R4 {file}:3")];
    assert_eq!(caught(&tree(&[(file, text)])), found);
    assert!(caught(&tree(&[("crates/kernels/src/a.rs", text)])).is_empty());
    assert!(caught(&tree(&[("crates/model/src/load/mmap.rs", text)])).is_empty());
}

#[test]
fn r4_every_other_crate_forbids_unsafe_code() {
    let root = |name: &str, text: &str| {
        let path = format!("crates/{name}/src/lib.rs");
        let mut tree = tree(&[(&path, text)]);
        tree.crates[0].roots = vec![path];
        caught(&tree).len()
    };
    assert_eq!(root("text", "//! #![forbid(unsafe_code)]\n"), 1);
    assert_eq!(root("text", "#![forbid(unsafe_code)]\n"), 0);
    assert_eq!(root("model", "\n"), 1);
    assert_eq!(root("model", "#![deny(unsafe_code)]\n"), 0);
    assert_eq!(root("kernels", "\n"), 0);
}

#[test]
fn r5_dialects_do_not_know_each_other() {
    let text = "use crate::{sse, anthropic::types};\n";
    let file = "crates/wire/src/openai_chat/parse.rs";
    assert_eq!(caught(&tree(&[(file, text)])), [format!("R5 {file}:1")]);
    assert!(caught(&tree(&[("crates/wire/src/lib.rs", text)])).is_empty());
}

#[test]
fn r6_libraries_read_no_clock_and_no_environment_outside_tests() {
    let text = "fn f() { Instant::now(); std::env::var_os(\"A\"); }\n\
                #[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\n";
    let file = "crates/text/src/a.rs";
    let found = caught(&tree(&[(file, text)]));
    assert!(found.iter().all(|f| *f == format!("R6 {file}:1")), "{found:?}");
    assert!(found.len() >= 2, "{found:?}");
    assert!(caught(&tree(&[("crates/text/tests/a.rs", text)])).is_empty());
    assert!(caught(&tree(&[("crates/neuron/src/a.rs", text)])).is_empty());
    assert!(caught(&tree(&[("crates/testkit/src/a.rs", text)])).is_empty());
}

#[test]
fn r6_libraries_do_not_use_anyhow() {
    assert_eq!(crates(vec![depends("text", &["anyhow"])]), ["R6 crates/text/Cargo.toml:0"]);
    assert!(crates(vec![depends("cortex", &["anyhow"])]).is_empty());
}

#[test]
fn r7_long_functions_and_wide_lines_are_caught() {
    let file = "crates/text/src/a.rs";
    let of = |lines: usize| format!("fn f() {{\n{}}}\n", "a();\n".repeat(lines - 2));
    assert_eq!(caught(&tree(&[(file, &of(71))])), [format!("R7 {file}:1")]);
    assert!(caught(&tree(&[(file, &of(70))])).is_empty());
    assert_eq!(caught(&tree(&[(file, &"é".repeat(101))])), [format!("R7 {file}:1")]);
    assert!(caught(&tree(&[(file, &"é".repeat(100))])).is_empty());
}

#[test]
fn r7_a_long_file_needs_an_entry_that_fits() {
    let file = "crates/text/src/a.rs";
    let with = |lines: usize, list: &str| {
        caught(&tree(&[(file, &"\n".repeat(lines)), ("tidy.allow", list)]))
    };
    let entry = |lines: usize| format!("# why\n{file} {lines} generated from a table\n");
    assert_eq!(with(601, ""), [format!("R7 {file}:0")]);
    assert!(with(600, "").is_empty());
    assert!(with(601, &entry(601)).is_empty());
    assert_eq!(with(602, &entry(601)), [format!("R7 {file}:0")]);
    assert_eq!(with(601, &entry(602)), ["R7 tidy.allow:2"]);
    assert_eq!(with(600, &entry(601)), ["R7 tidy.allow:2"]);
    assert_eq!(with(1, "crates/text/src/b.rs 700 gone since long\n"), ["R7 tidy.allow:1"]);
    assert_eq!(with(1, &format!("{file} 700\n")), ["R7 tidy.allow:1"]);
}

#[test]
fn empty_names_are_caught() {
    let name = |path: &str, text: &str| caught(&tree(&[(path, text)])).len();
    assert_eq!(name("crates/text/src/utils.rs", ""), 1);
    assert_eq!(name("crates/text/src/misc/a.rs", ""), 1);
    assert_eq!(name("crates/wire/src/openai_chat/types.rs", ""), 0);
    assert_eq!(name("crates/text/src/a.rs", "struct TpRank;"), 1);
    assert_eq!(name("crates/text/src/a.rs", "struct ModelManager;"), 1);
    assert_eq!(name("crates/text/src/a.rs", "struct Tpot; // struct TpRank"), 0);
}

#[test]
fn links_that_lead_nowhere_are_caught() {
    let at = |path: &str, text: &str| {
        caught(&tree(&[(path, text), ("docs/a.md", ""), ("docs/cuda/b.md", "")]))
    };
    assert_eq!(at("docs/c.md", "\nsee [it](d.md)\n"), ["links docs/c.md:2"]);
    for link in ["a.md", "a.md#part", "cuda", "../docs/cuda/b.md", "#here", "https://a.b/c.md"] {
        assert!(at("docs/c.md", &format!("[it]({link})")).is_empty(), "{link}");
    }
    assert!(at("README.md", "[it](docs/a.md)").is_empty());
}

#[test]
fn paths_of_one_machine_are_caught_in_every_file() {
    let path = |text: &str| caught(&tree(&[("docs/a.md", text)])).len();
    assert_eq!(path(&["see ", "work", "a"].join("/")), 1);
    assert_eq!(path(&["`", "root", ".cargo`"].join("/")), 1);
    assert_eq!(path(&["models", "work", "a"].join("/")), 0);
}
