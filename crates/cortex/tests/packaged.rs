//! What packages and documents tell operators to write (requirement 115).

use std::path::{Path, PathBuf};
use std::process::Command;

/// A place in the repository.
fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn check(file: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cortex"));
    command.env_remove("RUST_LOG").args(["check-config", "--config"]).arg(file);
    let output = command.output().expect("it runs");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.success(), String::from_utf8(said).expect("text"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(place(path)).expect(path)
}

/// A file in which what is only suggested is set.
fn with_suggestions(text: &str) -> String {
    let uncommented = |line: &str| {
        let rest = line.strip_prefix("# ");
        let is_setting = |rest: &&str| rest.starts_with('[') || rest.contains(" = ");
        rest.filter(is_setting).unwrap_or(line).to_owned()
    };
    text.lines().map(uncommented).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_packaged_configuration_is_good_with_and_without_its_suggestions() {
    let (good, said) = check(&place("packaging/cortex/cortex.toml"));
    assert!(good, "{said}");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let text = with_suggestions(&read("packaging/cortex/cortex.toml"));
    let text = text.replace("\"...\"", &format!("\"{hash}\""));
    let text = text.replace("/etc/cortex", folder.path().to_str().expect("text"));
    std::fs::write(at("here.key"), "k").expect("written");
    std::fs::write(at("cortex.toml"), &text).expect("written");
    let models = with_suggestions(&read("packaging/cortex/models.toml"));
    assert!(models.contains("\n[[models]]\nid = ") && models.contains("\n[aliases]\n"), "{models}");
    std::fs::write(at("models.toml"), models).expect("written");
    let (good, said) = check(&at("cortex.toml"));
    assert!(good && text.contains("\n[[auth.keys]]\nname"), "{said}\n{text}");
}

/// The TOML blocks of the documents, each a file that begins with its name or is told by its keys.
#[test]
fn the_examples_of_the_documents_are_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = 0;
    for document in ["README.md", "docs/config.md", "docs/install.md"] {
        let text = read(document);
        let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks {
            if block.contains("[[neurons]]") {
                let block = block.replace("models_config = \"models.toml\"\n", "");
                let block = block.replace("/etc/cortex", folder.path().to_str().expect("text"));
                std::fs::write(folder.path().join("big.key"), "k").expect("written");
                let file = folder.path().join("cortex.toml");
                std::fs::write(&file, &block).expect("written");
                let (good, said) = check(&file);
                assert!(good, "{document}: {said}\n{block}");
            } else if block.contains("[[models]]") {
                std::fs::write(folder.path().join("models.toml"), block).expect("written");
                let file = folder.path().join("cortex.toml");
                let gateway = "[gateway]\nmodels_config = \"models.toml\"\n[[neurons]]\n\
                               name = \"a\"\nendpoint = \"http://10.0.0.5:13131\"\n";
                std::fs::write(&file, gateway).expect("written");
                let (good, said) = check(&file);
                assert!(good, "{document}: {said}\n{block}");
            } else {
                continue;
            }
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} examples were found");
}
