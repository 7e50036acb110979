//! Bad files 114: paths at which there is no file to read.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::gguf::good;
use crate::watched::Watched;

pub async fn refused(watched: &Watched) {
    let dir = watched.dir();
    fs::create_dir(dir.join("empty")).unwrap();
    let pipe = |path: &str| {
        let path = dir.join(path);
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    };
    pipe("pipe.gguf");
    symlink("/dev/zero", dir.join("device.gguf")).unwrap();
    symlink("loop.gguf", dir.join("loop.gguf")).unwrap();
    symlink(dir.join("gone.gguf"), dir.join("dangling.gguf")).unwrap();
    // A pipe among the files of a model, and a directory in place of one.
    testkit::write_random_model(&dir.join("piped"), 3).unwrap();
    fs::remove_file(dir.join("piped/config.json")).unwrap();
    pipe("piped/config.json");
    testkit::write_random_model(&dir.join("nested"), 3).unwrap();
    fs::remove_file(dir.join("nested/model.safetensors")).unwrap();
    fs::create_dir(dir.join("nested/model.safetensors")).unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    fs::create_dir(dir.join("folder/model.gguf")).unwrap();
    for (id, code) in [
        ("empty", "bad_model_file"),
        ("pipe.gguf", "bad_model_file"),
        ("device.gguf", "repo_not_found"),
        ("loop.gguf", "repo_not_found"),
        ("dangling.gguf", "repo_not_found"),
        ("nowhere.gguf", "repo_not_found"),
        ("piped", "bad_model_file"),
        ("nested", "bad_model_file"),
        ("folder/model.gguf", "bad_model_file"),
        ("folder", "bad_model_file"),
    ] {
        let answer = watched.load(id).await;
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code, "{id}: {error}");
        // What lies elsewhere or nowhere is not told apart.
        if code == "bad_model_file" {
            watched.refuses(id, "").await.unwrap_or_else(|wrong| panic!("{id}: {wrong}"));
        }
    }
    // Nobody's file; to the superuser, who runs tests in containers, every file is one's own.
    let closed = dir.join("closed.gguf");
    fs::write(&closed, good()).unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    if fs::read(&closed).is_err() {
        assert_ne!(watched.load("closed.gguf").await.status, 200);
    }
}
