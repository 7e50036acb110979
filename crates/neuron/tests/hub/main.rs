//! Pulls from a hub in this process.
#![allow(missing_docs, unreachable_pub)]

mod mock;
mod program;
mod refused;
mod resumed;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mock::MockHub;
use neuron::hub::{Ask, Event, Hub, Patience, PullError, Pulled, Settings, pull};

/// Tries soon, and not often.
const HASTY: Patience =
    Patience { tries: 4, pause: Duration::from_millis(5), silence: Duration::from_secs(5) };

/// Where the pulled model lies, and what was told meanwhile.
struct Scene {
    dir: tempfile::TempDir,
    told: Vec<String>,
    patience: Patience,
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), told: Vec::new(), patience: HASTY }
    }

    fn models(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.models().join(name)
    }

    fn pull(&mut self, settings: Settings, ask: &Ask) -> Result<Pulled, PullError> {
        self.told.clear();
        let dir = self.models();
        let hub = Hub::new(settings, self.patience).unwrap();
        let told = &mut self.told;
        pull(&hub, ask, &dir, &mut |event| match event {
            Event::Advanced(_) => {}
            other => told.push(format!("{other:?}")),
        })
    }

    /// What lies under final names.
    fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.models()).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name != ".pull" {
                names.push(name);
            }
        }
        names.sort();
        names
    }

    /// The sizes of the partial files.
    fn parts(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.path(".pull")).into_iter().flatten().flatten();
        let parts = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "part"));
        parts.map(|entry| entry.metadata().unwrap().len()).collect()
    }
}

fn ask(file: Option<&str>, quant: Option<&str>) -> Ask {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ask { name: "org/model".parse().unwrap(), file: owned(file), quant: owned(quant) }
}

fn sprout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sprout")
}

/// Bytes of no pattern that a wrong offset would keep.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A GGUF repository of one file, whose content no pull looks at.
fn one_file(bytes: &[u8]) -> MockHub {
    MockHub::new(&[("README.md", b"a model"), ("m-Q8_0.gguf", bytes)])
}
