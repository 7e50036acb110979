//! What the rules look at: the tracked files and the crates' dependencies, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::scan;

/// The repository as the rules see it.
#[derive(Default)]
pub(crate) struct Tree {
    /// Every text file that git tracks or would track.
    pub(crate) files: Vec<File>,
    /// Every crate of the workspace.
    pub(crate) crates: Vec<Crate>,
}

/// One text file.
pub(crate) struct File {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    /// As it stands.
    pub(crate) text: String,
    /// Rust only: without comments, strings and characters.
    pub(crate) code: String,
}

/// One crate of the workspace.
#[derive(Default)]
pub(crate) struct Crate {
    /// Its package name.
    pub(crate) name: String,
    /// Its directory, from the repository's root.
    pub(crate) dir: String,
    /// The root files of its library and its programs.
    pub(crate) roots: Vec<String>,
    /// What its manifest names under `[dependencies]`.
    pub(crate) direct: BTreeSet<String>,
    /// What its manifest names under `[dev-dependencies]`.
    pub(crate) dev: BTreeSet<String>,
    /// All that its code is linked with, tests aside.
    pub(crate) linked: BTreeSet<String>,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { scan::code(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The name without directories and without what follows its first dot.
    pub(crate) fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        name.split('.').next().unwrap_or(name)
    }

    /// Whether the whole file is a test or a build script, which no product links.
    pub(crate) fn is_test_or_build(&self) -> bool {
        let directory = |name: &str| self.path.split('/').rev().skip(1).any(|part| part == name);
        let stem = self.stem();
        directory("tests")
            || directory("benches")
            || ["tests", "build"].contains(&stem)
            || stem.ends_with("_tests")
    }
}

impl Tree {
    /// Reads the repository at `root`.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let listed = run(root, "git", &LIST_FILES)?;
        let paths = listed.split('\0').filter(|path| !path.is_empty());
        let files = paths.filter_map(|path| {
            let text = std::fs::read_to_string(root.join(path)).ok()?;
            Some(File::new(path, &text))
        });
        Ok(Self { files: files.collect(), crates: crates(root)? })
    }

    /// The crate in whose directory the file lies.
    pub(crate) fn crate_of(&self, file: &File) -> Option<&Crate> {
        let inside = |krate: &&Crate| {
            file.path.strip_prefix(&krate.dir).is_some_and(|rest| rest.starts_with('/'))
        };
        self.crates.iter().find(inside)
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

const LIST_FILES: [&str; 5] = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: String,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: String,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

/// The workspace's crates from `cargo metadata`. Only this host's platform is resolved, so that
/// nothing is asked for that a build has not already fetched.
fn crates(root: &Path) -> Result<Vec<Crate>> {
    let version = run(root, "rustc", &["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc -vV names no host; reinstall the toolchain")?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["metadata", "--format-version=1", "--filter-platform", host];
    let text = run(root, &cargo, &arguments)?;
    let metadata: Metadata =
        serde_json::from_str(&text).context("cargo metadata's answer is not as expected")?;
    Ok(from_metadata(root, &metadata))
}

fn from_metadata(root: &Path, metadata: &Metadata) -> Vec<Crate> {
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
    let edges: BTreeMap<&str, &[Edge]> =
        metadata.resolve.nodes.iter().map(|n| (n.id.as_str(), n.deps.as_slice())).collect();
    let relative = |path: &str| {
        let path = Path::new(path);
        path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
    };
    let is_program = |target: &&Target| target.kind.iter().any(|k| k == "lib" || k == "bin");
    let ours = metadata.packages.iter().filter(|p| metadata.workspace_members.contains(&p.id));
    let build = |package: &Package| {
        let of_kind = |kind: Option<&str>| {
            let wanted = |d: &&Dependency| d.kind.as_deref() == kind;
            package.dependencies.iter().filter(wanted).map(|d| d.name.clone()).collect()
        };
        let manifest = relative(&package.manifest_path);
        let roots = package.targets.iter().filter(is_program);
        Crate {
            name: package.name.clone(),
            dir: manifest.trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned(),
            roots: roots.map(|target| relative(&target.src_path)).collect(),
            direct: of_kind(None),
            dev: of_kind(Some("dev")),
            linked: reach(&package.id, &edges).iter().map(|id| names[id].to_owned()).collect(),
        }
    };
    ours.map(build).collect()
}

/// Every package that normal dependencies lead to from `start`, without `start`.
fn reach<'a>(start: &'a str, edges: &BTreeMap<&'a str, &'a [Edge]>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(id) = open.pop() {
        let normal = |edge: &&Edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
        for edge in edges.get(id).copied().unwrap_or_default().iter().filter(normal) {
            if seen.insert(edge.pkg.as_str()) {
                open.push(&edge.pkg);
            }
        }
    }
    seen
}

fn run(root: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .output()
        .with_context(|| format!("{program} cannot be run; tidy needs it in PATH"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {} failed in {}: {}", arguments.join(" "), root.display(), said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} answered no UTF-8"))
}
