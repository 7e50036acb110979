//! What the operator says of models.

use std::collections::BTreeMap;

use serde::Serialize;

/// `models.toml`: profiles by id, and other names for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// By id.
    pub models: BTreeMap<String, Profile>,
    /// Other names, each for one id.
    pub aliases: BTreeMap<String, String>,
}

/// One model: where it may run and what it is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// The id under which it is served.
    pub id: String,
    /// Device memory of all ranks together, for nodes that give no plan of their own.
    pub vram_mb: Option<u64>,
    /// Ranks; 1 if nothing is said.
    pub world_size: Option<u32>,
    /// Devices that a node must have at least.
    pub min_devices: u32,
    /// Memory that each of these must have.
    pub min_device_vram_mb: u64,
    /// Nodes that it never leaves; where some are named it runs on no others.
    pub pinned_on: Vec<String>,
    /// Under [`Strategy::Priority`] nothing of a higher priority gives way to it.
    pub residency_priority: i32,
    /// Nobody asked for it for so long: it is unloaded.
    pub idle_unload_ms: Option<u64>,
    /// Replicas that are kept loaded as long as there is room.
    pub residents: u32,
}

/// Who gives way first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Who was not asked for the longest time.
    #[default]
    Lru,
    /// Who has the lowest priority, then the least recently used.
    Priority,
}

impl Catalogue {
    /// The id that a client's name means (requirement 44).
    #[must_use]
    pub fn id<'a>(&'a self, name: &'a str) -> &'a str {
        self.aliases.get(name).map_or(name, String::as_str)
    }
}

impl Catalogue {
    /// What is said of a model. One that is not named may run anywhere, at no special worth.
    #[must_use]
    pub fn profile(&self, id: &str) -> Profile {
        let named = self.models.get(id).cloned();
        named.unwrap_or_else(|| Profile { id: id.to_owned(), ..Profile::default() })
    }
}

impl Profile {
    /// A model of which nothing is said but its name and size.
    #[must_use]
    pub fn sized(id: impl Into<String>, vram_mb: u64) -> Self {
        Self { id: id.into(), vram_mb: Some(vram_mb), ..Self::default() }
    }

    /// Whether it may run on the node called `name`.
    #[must_use]
    pub fn is_allowed_on(&self, name: &str) -> bool {
        self.pinned_on.is_empty() || self.is_pinned_on(name)
    }

    /// Whether it must stay there.
    #[must_use]
    pub fn is_pinned_on(&self, name: &str) -> bool {
        self.pinned_on.iter().any(|node| node == name)
    }

    /// Ranks.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.world_size.unwrap_or(1).max(1) as usize
    }
}
