//! `neuron.toml`, then the environment.

mod check;
mod keys;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use control::LoadRequest;
use figment::Figment;
use figment::providers::{Env, Serialized};
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use keys::{check_keys, is_known, nearest};

/// Where the configuration is looked for when no other place is named.
pub const DEFAULT_PATH: &str = "/etc/neuron/neuron.toml";

/// All settings of a neuron.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Address of the HTTP server.
    pub listen: SocketAddr,
    /// A file with the key that callers must present.
    pub api_key_file: Option<PathBuf>,
    /// Base URL at which others reach this node; by default what the caller itself used.
    pub advertise_url: Option<String>,
    /// Serve other machines without a key.
    pub allow_open_listen: bool,
    /// Directories whose models can be loaded over HTTP.
    pub model_dirs: Vec<PathBuf>,
    /// Largest request body.
    pub body_limit_mb: u32,
    /// Loaded at the start; may lie anywhere.
    pub default_models: Vec<LoadRequest>,
    /// Settings of the harnesses.
    pub harness: Harnesses,
    /// Where the spans of requests go.
    pub traces: Traces,
}

/// `[traces]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traces {
    /// An OpenTelemetry collector that takes OTLP over HTTP, for example `http://127.0.0.1:4318`;
    /// without it nothing is traced.
    pub endpoint: Option<String>,
    /// The share of requests that are traced, of those that come without a `traceparent`.
    pub share: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, share: 1.0 }
    }
}

/// `[harness]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Harnesses {
    /// `[harness.native]`; `candle` is its older name.
    #[serde(alias = "candle")]
    pub native: Native,
}

/// `[harness.native]`: models in engine children of this daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Native {
    /// Requests that run together in a model, where its load does not say.
    pub max_running: u32,
    /// Tokens that one step may compute; 512 on the CPU and 2048 on a card by default.
    pub token_budget: Option<u32>,
    /// How long a prompt may hold up the streams that are being answered, in milliseconds.
    pub stall_ms: u32,
    /// What models run on where their load does not say: a card if there is one, or always the CPU.
    pub device: DevicePolicy,
    /// Threads of a model on the CPU; all cores by default, 1 for a small model.
    pub threads: Option<u32>,
    /// Whether requests reuse what earlier ones computed for the same beginning of a prompt.
    pub prefix_cache: bool,
    /// Main memory that models on the CPU may take together, in MiB; what the host has by default.
    pub memory_mb: Option<u64>,
    /// Main memory that the prefix cache of each model may fill with what its device has no more
    /// room for; 0 for none.
    pub host_cache_mb: u32,
    /// Which requests share what was computed for them.
    pub cache_isolation: CacheIsolation,
    /// An engine that loads without progress, or has work and reports no step, for this long is
    /// killed and started again.
    pub step_timeout_secs: u64,
    /// Another program to run as the engine child, with its arguments.
    pub engine_command: Option<Vec<String>>,
}

/// Where models run that do not say so themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DevicePolicy {
    /// On the card with most free memory, or on the CPU where there is none.
    Auto,
    /// On the CPU.
    Cpu,
}

/// What keeps requests from sharing what was computed for their prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheIsolation {
    /// Who asks, as cortex says: requests of one identity share, and so do all that have none.
    Identity,
    /// That, and the name that callers give themselves in a request.
    Caller,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 13131)),
            api_key_file: None,
            advertise_url: None,
            allow_open_listen: false,
            model_dirs: Vec::new(),
            body_limit_mb: 32,
            default_models: Vec::new(),
            harness: Harnesses::default(),
            traces: Traces::default(),
        }
    }
}

impl Default for Native {
    fn default() -> Self {
        Self {
            max_running: 16,
            token_budget: None,
            stall_ms: 250,
            device: DevicePolicy::Auto,
            threads: None,
            prefix_cache: true,
            memory_mb: None,
            host_cache_mb: 0,
            cache_isolation: CacheIsolation::Identity,
            step_timeout_secs: 300,
            engine_command: None,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is no TOML, or a value has the wrong type.
    #[error("{path}: {error}")]
    Toml {
        /// The file.
        path: String,
        /// With line and column.
        error: Box<toml::de::Error>,
    },
    /// A key that means nothing.
    #[error("{place}: unknown key `{key}`{}", hint(.nearest))]
    UnknownKey {
        /// The file with line and column, or the environment variable.
        place: String,
        /// As it is written.
        key: String,
        /// A known key that looks like it.
        nearest: Option<String>,
    },
    /// File and environment together make no configuration.
    #[error(transparent)]
    Invalid(#[from] Box<figment::Error>),
    /// A value that cannot be used.
    #[error("{key} = {value}: {problem}")]
    Value {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |key| format!(", did you mean `{key}`?"))
}

impl Config {
    /// Reads the file, then the environment (`NEURON_LISTEN`, `NEURON_HARNESS__NATIVE__THREADS`).
    /// Without a path, [`DEFAULT_PATH`] is read if it is there.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_PATH);
        match path {
            Some(path) => Self::read(path),
            None if default.exists() => Self::read(default),
            None => Self::parse("", "no file"),
        }
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &name),
            Err(error) => Err(ConfigError::Unreadable { path: name, error }),
        }
    }

    /// Reads the text of a file and the environment.
    pub fn parse(text: &str, path: &str) -> Result<Self, ConfigError> {
        let unusable = |error| ConfigError::Toml { path: path.to_owned(), error: Box::new(error) };
        let table = DeTable::parse(text).map_err(unusable)?;
        check_keys(text, path, table.get_ref(), "")?;
        // Read without figment, which knows no lines and columns.
        let file: Self = toml::from_str(text).map_err(unusable)?;
        let environment = Env::prefixed("NEURON_")
            .map(|key| key.as_str().to_ascii_lowercase().replace("__candle__", "__native__").into())
            .split("__");
        for (name, _) in environment.iter() {
            let key = name.as_str().to_ascii_lowercase();
            if !is_known(&key) {
                let place = "environment with the prefix NEURON_".to_owned();
                return Err(ConfigError::UnknownKey { place, nearest: nearest(&key), key });
            }
        }
        let both = Figment::from(Serialized::defaults(file)).merge(environment);
        let config: Self = both.extract().map_err(Box::new)?;
        check::check(&config)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
