//! An engine child that follows `script.json` of its model directory instead of running a model:
//! the daemon's tests run this program where the product runs `neuron engine`.
//!
//! Each load adds its process id as a line to `loads` in that directory.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use engine::{EngineSpec, TokenEngine};
use neuron::child::link::{LoadCode, LoadFailure};
use testkit::{Script, ScriptedEngine};

fn main() -> ExitCode {
    neuron::logging::start("info".into());
    neuron::child::run(load)
}

fn load(
    spec: &EngineSpec,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn TokenEngine>, LoadFailure> {
    let bad = |error: io::Error| LoadFailure::new(LoadCode::BadModelFile, error.to_string());
    let script = Script::read(&spec.source).map_err(bad)?;
    note_load(&spec.source).map_err(bad)?;
    for done in 0..=4 {
        progress(done, 4);
        thread::sleep(Duration::from_millis(script.load_ms / 5));
    }
    if script.die_in_load {
        std::process::abort();
    }
    if let Some(failed) = &script.fail_load {
        let codes = [LoadCode::DoesNotFit, LoadCode::UnsupportedArchitecture];
        let code = codes.into_iter().find(|code| code.as_str() == failed.code);
        let code = code.unwrap_or(LoadCode::BadModelFile);
        return Err(LoadFailure::new(code, failed.message.clone()));
    }
    tracing::info!("scripted engine is ready");
    Ok(Box::new(ScriptedEngine::new(script)))
}

fn note_load(dir: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join("loads"))?;
    writeln!(file, "{}", std::process::id())
}
