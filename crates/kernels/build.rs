//! Compiles every `*.cu` file under `src` into a fat binary and writes a table of them.
//!
//! Without the feature `cuda` it does nothing. `CUDA_ARCHS` narrows for which cards, for example
//! `CUDA_ARCHS=90a`; nvcc is the one of `CUDA_HOME`, of `CUDA_PATH`, of the project's own toolkit
//! (`cargo xtask cuda-toolkit`), or of the `PATH`, in this order.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;
use std::{env, fs, thread};

/// Every card generation that kernels are compiled for.
const ARCHS: &str = "80 86 89 90a 100 120";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["CUDA_ARCHS", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=src");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let nvcc = nvcc(&root);
    let [mut sources, mut headers] = [Vec::new(), Vec::new()];
    find(&root.join("src"), "cu", &mut sources);
    find(&root.join("src"), "cuh", &mut headers);
    sources.sort();
    let modules: Vec<(String, PathBuf)> =
        sources.iter().map(|source| (module_name(&root, source), source.clone())).collect();
    let newest = headers.iter().map(|header| modified(header)).max().flatten();
    compile_all(&Compiler { nvcc, root, out: out.clone(), headers: newest }, &modules);
    let rows: String = modules
        .iter()
        .map(|(name, _)| format!("    ({name:?}, include_bytes!(\"{}\")),\n", file_name(name)))
        .collect();
    let table = format!("[\n{rows}]\n");
    fs::write(out.join("modules.rs"), table).expect("OUT_DIR can be written");
}

/// The compiler, by the order that the module's comment gives.
fn nvcc(root: &Path) -> PathBuf {
    let home = |variable| env::var_os(variable).map(PathBuf::from);
    let own = root.join("../../target/cuda-toolkit/nvidia/cu13");
    [home("CUDA_HOME"), home("CUDA_PATH"), Some(own)]
        .into_iter()
        .flatten()
        .map(|home| home.join("bin/nvcc"))
        .find(|nvcc| nvcc.exists())
        .unwrap_or_else(|| PathBuf::from("nvcc"))
}

/// What all compilations share.
struct Compiler {
    nvcc: PathBuf,
    root: PathBuf,
    out: PathBuf,
    /// When the newest header was written.
    headers: Option<SystemTime>,
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn find(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, extension, found);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
}

/// `src/rms_norm/kernels.cu` is `rms_norm/kernels`.
fn module_name(root: &Path, source: &Path) -> String {
    let inside = source.strip_prefix(root.join("src")).expect("sources lie in src");
    inside.with_extension("").to_string_lossy().into_owned()
}

fn file_name(module: &str) -> String {
    format!("{}.fatbin", module.replace('/', "-"))
}

/// As many compilers at once as cargo grants jobs.
fn compile_all(compiler: &Compiler, modules: &[(String, PathBuf)]) {
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let left = Mutex::new(modules.iter());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("no compiler thread panicked").next();
                    let Some((name, source)) = next else { return };
                    compile(compiler, name, source);
                }
            });
        }
    });
}

/// Compiles one source, unless that was done with the same arguments since it and the headers were
/// written: cargo runs this script for every change in the crate.
fn compile(compiler: &Compiler, name: &str, source: &Path) {
    let archs = env::var("CUDA_ARCHS").unwrap_or_else(|_| ARCHS.to_owned());
    let archs = archs.split([' ', ',']).filter(|arch| !arch.is_empty());
    let archs = archs.map(|arch| format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
    let mut arguments: Vec<String> = ["-fatbin", "-O3", "-std=c++17"].map(String::from).into();
    arguments.extend(archs);
    let target = compiler.out.join(file_name(name));
    let record = target.with_extension("arguments");
    let recorded = format!("{} {}", compiler.nvcc.display(), arguments.join(" "));
    let newest = modified(source).max(compiler.headers);
    let same = fs::read_to_string(&record).is_ok_and(|before| before == recorded);
    if same && modified(&target) > newest {
        return;
    }
    let mut command = Command::new(&compiler.nvcc);
    command.args(&arguments).arg("-I").arg(compiler.root.join("src/cuda"));
    command.arg("-o").arg(&target).arg(source);
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "cannot run {}: {error}; `cargo xtask cuda-toolkit` puts a compiler into the \
             project's target folder, or set CUDA_HOME",
            compiler.nvcc.display()
        )
    });
    if !output.status.success() {
        panic!("{}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
    }
    fs::write(record, recorded).expect("OUT_DIR can be written");
}
