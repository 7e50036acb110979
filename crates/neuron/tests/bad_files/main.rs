//! Files that mean harm, each by the number that it has in the list of bad inputs, given to the
//! real program: it refuses them with file, item and reason, within limits of memory and time that
//! the system holds it to, and what was loaded before keeps serving.
#![allow(missing_docs, unreachable_pub)]

mod checkpoint;
#[path = "../e2e/client.rs"]
#[allow(dead_code)]
mod client;
mod gguf;
mod parts;
mod paths;
mod watched;

use std::path::{Path, PathBuf};

use watched::Watched;

/// Something that cannot be loaded.
pub struct Bad {
    /// Of the list, and what it is.
    pub name: String,
    /// Paths relative to a directory of its own, and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// What of them is loaded; empty for the directory.
    pub load: String,
    /// What the refusal's item and reason say, among other things.
    pub says: &'static str,
}

pub fn sprout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sprout")
}

#[tokio::test]
async fn bad_gguf_files_are_refused_within_limits() {
    Watched::start().await.refuses_all(gguf::all()).await;
}

#[tokio::test]
async fn bad_checkpoints_are_refused_within_limits() {
    Watched::start().await.refuses_all(checkpoint::all()).await;
}

#[tokio::test]
async fn paths_that_are_no_models_are_refused_within_limits() {
    let watched = Watched::start().await;
    paths::refused(&watched).await;
    watched.serves_on().await;
}

/// A good file of which there is more than the format knows is a good file.
#[tokio::test]
async fn bytes_behind_the_end_of_a_gguf_file_harm_nobody() {
    let watched = Watched::start().await;
    let bytes = [gguf::good(), vec![7; 1000]].concat();
    watched.put("trailing/model.gguf", &bytes);
    let answer = watched.load("trailing/model.gguf").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The limits are real: a load that takes more memory than they leave does not come about.
#[tokio::test]
async fn the_limits_stop_what_exceeds_them() {
    let watched = Watched::start().await;
    watched.put("good/model.gguf", &gguf::good());
    watched.more_than_the_limit_fails("good/model.gguf").await;
    watched.serves_on().await;
}
