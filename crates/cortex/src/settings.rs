//! All that an operator can change while the gateway runs.

use crate::Error;
use crate::catalogue::Models;
use crate::config::{Config, EvictionStrategy};

/// Both files, as they were last read without a mistake.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub config: Config,
    pub models: Models,
}

impl Settings {
    /// Reads the catalogue that the configuration names.
    pub(crate) fn new(config: Config) -> Result<Settings, Error> {
        let names: Vec<&str> = config.neurons.iter().map(|neuron| neuron.name.as_str()).collect();
        let models = Models::load(config.gateway.models_config.as_deref(), &names)?;
        Ok(Settings { config, models })
    }

    /// Names and endpoints of the nodes.
    pub(crate) fn nodes(&self) -> Vec<(String, String)> {
        let neurons = self.config.neurons.iter();
        neurons.map(|neuron| (neuron.name.clone(), neuron.endpoint.clone())).collect()
    }

    pub(crate) fn strategy(&self) -> fleet::Strategy {
        match self.config.eviction.strategy {
            EvictionStrategy::Lru => fleet::Strategy::Lru,
            EvictionStrategy::Priority => fleet::Strategy::Priority,
        }
    }
}
