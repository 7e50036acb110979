//! `models.toml`: what the operator says of models, in `fleet`'s terms and in a neuron's.

use std::collections::BTreeMap;
use std::path::Path;

use control::LoadRequest;
use figment::Figment;
use figment::providers::{Format, Toml};
use fleet::{Catalogue, Profile};
use serde::Deserialize;

use crate::Error;
use crate::config::{check_syntax, complain};

/// The catalogue, and how its models are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Models {
    pub catalogue: Catalogue,
    loads: BTreeMap<String, LoadRequest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    models: Vec<Entry>,
    #[serde(default)]
    default: Vec<Resident>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
}

/// `[[models]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    harness: Option<String>,
    source: Option<String>,
    quant: Option<String>,
    vram_mb: Option<u64>,
    #[serde(default)]
    min_devices: u32,
    #[serde(default)]
    min_device_vram_mb: u64,
    tensor_parallel: Option<u32>,
    context: Option<u32>,
    max_running: Option<u32>,
    #[serde(default)]
    pinned_on: Vec<String>,
    #[serde(default)]
    residency_priority: i32,
    idle_unload_secs: Option<u64>,
}

/// `[[default]]`: kept loaded as long as there is room.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resident {
    model: String,
    #[serde(default = "one")]
    replicas: u32,
}

fn one() -> u32 {
    1
}

impl Models {
    /// Reads a file and checks it against the names of the neurons; without one nothing is said of
    /// any model.
    pub(crate) fn load(file: Option<&Path>, neurons: &[&str]) -> Result<Models, Error> {
        let Some(file) = file else { return Ok(Models::default()) };
        let place = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| Error::Config {
            place: place.clone(),
            problem: format!("{error}; write the file or take `models_config` out"),
        })?;
        Models::from_text(&text, &place, neurons)
    }

    fn from_text(text: &str, place: &str, neurons: &[&str]) -> Result<Models, Error> {
        check_syntax(text, place)?;
        let figment = Figment::from(Toml::string(text));
        let file: File = figment.extract().map_err(|error| complain(&error, text, place))?;
        let wrong = |problem| Error::Config { place: place.to_owned(), problem };
        let mut models = Models::default();
        for entry in file.models {
            models.add(entry, neurons).map_err(wrong)?;
        }
        for Resident { model, replicas } in file.default {
            let profile = models.catalogue.models.get_mut(&model);
            let unknown = || format!("[[default]] names `{model}`, which no [[models]] entry has");
            profile.ok_or_else(|| wrong(unknown()))?.residents = replicas;
        }
        for (alias, id) in &file.aliases {
            if !models.catalogue.models.contains_key(id) {
                let problem =
                    format!("alias `{alias}` means `{id}`, which no [[models]] entry has");
                return Err(wrong(problem));
            }
            if models.catalogue.models.contains_key(alias) {
                return Err(wrong(format!("`{alias}` is both an alias and a model")));
            }
        }
        models.catalogue.aliases = file.aliases;
        Ok(models)
    }

    fn add(&mut self, entry: Entry, neurons: &[&str]) -> Result<(), String> {
        let id = entry.id;
        if id.is_empty() || id.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(format!("a [[models]] entry has the id `{}`", id.escape_default()));
        }
        if let Some(name) = entry.pinned_on.iter().find(|name| !neurons.contains(&name.as_str())) {
            return Err(format!("model `{id}` is pinned on `{name}`, which is no neuron's name"));
        }
        if entry.tensor_parallel == Some(0) {
            return Err(format!("model `{id}` has tensor_parallel 0; give it 1 or more"));
        }
        let profile = Profile {
            id: id.clone(),
            vram_mb: entry.vram_mb,
            world_size: entry.tensor_parallel,
            min_devices: entry.min_devices,
            min_device_vram_mb: entry.min_device_vram_mb,
            pinned_on: entry.pinned_on,
            residency_priority: entry.residency_priority,
            idle_unload_ms: entry.idle_unload_secs.map(|secs| secs.saturating_mul(1000)),
            residents: 0,
        };
        let load = LoadRequest {
            model_id: id.clone(),
            harness: entry.harness,
            source: entry.source,
            quant: entry.quant,
            tensor_parallel: entry.tensor_parallel,
            context: entry.context,
            max_running: entry.max_running,
            ..LoadRequest::default()
        };
        self.loads.insert(id.clone(), load);
        match self.catalogue.models.insert(id.clone(), profile) {
            None => Ok(()),
            Some(_) => Err(format!("model `{id}` has two [[models]] entries")),
        }
    }

    /// How a neuron is asked for a model; one that is not named here by its id alone.
    pub(crate) fn load_request(&self, id: &str) -> LoadRequest {
        let known = self.loads.get(id).cloned();
        known.unwrap_or_else(|| LoadRequest { model_id: id.to_owned(), ..LoadRequest::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[[models]]
id = "big"
source = "/models/big"
quant = "Q4_K_M"
vram_mb = 20000
tensor_parallel = 2
pinned_on = ["gpu1"]
residency_priority = 5
idle_unload_secs = 60

[[models]]
id = "small"

[[default]]
model = "small"
replicas = 2

[aliases]
fast = "small"
"#;

    fn read(text: &str) -> Result<Models, String> {
        Models::from_text(text, "models.toml", &["gpu1"]).map_err(|error| error.to_string())
    }

    #[test]
    fn profiles_say_where_and_requests_say_what() {
        let models = read(GOOD).expect("good");
        let big = &models.catalogue.models["big"];
        assert_eq!((big.vram_mb, big.ranks(), big.residency_priority), (Some(20_000), 2, 5));
        assert_eq!(big.idle_unload_ms, Some(60_000));
        assert!(big.is_pinned_on("gpu1") && !big.is_allowed_on("gpu2"));
        assert_eq!(models.catalogue.models["small"].residents, 2);
        assert_eq!(models.catalogue.id("fast"), "small");
        let load = models.load_request("big");
        assert_eq!((load.quant.as_deref(), load.tensor_parallel), (Some("Q4_K_M"), Some(2)));
        assert_eq!(models.load_request("stranger").model_id, "stranger");
    }

    // Requirement 115
    #[test]
    fn mistakes_are_named() {
        for (from, to, said) in [
            ("quant =", "qant =", "models.toml:5:1: unknown key `qant`; did you mean `quant`?"),
            ("gpu1", "gpu9", "pinned on `gpu9`, which is no neuron's name"),
            ("fast = \"small\"", "fast = \"x\"", "alias `fast` means `x`"),
            ("fast = \"small\"", "big = \"small\"", "`big` is both an alias and a model"),
            ("model = \"small\"", "model = \"x\"", "[[default]] names `x`"),
            ("id = \"small\"", "id = \"big\"", "model `big` has two [[models]] entries"),
            ("id = \"small\"", "id = \"a b\"", "has the id `a b`"),
            ("tensor_parallel = 2", "tensor_parallel = 0", "tensor_parallel 0"),
        ] {
            let error = read(&GOOD.replace(from, to)).expect_err(to);
            assert!(error.contains(said), "{error}");
        }
    }
}
