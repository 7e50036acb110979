//! What a decode step must move.

use anyhow::Result;
use model::{KV_ELEMENT_BYTES, LayerKind, Role, Source, TensorName};

/// Bytes of a decode step.
pub(super) struct Traffic {
    /// Of all tensors that steps read.
    pub(super) weights: u64,
    experts: Option<Experts>,
    /// Per token of context.
    kv: u64,
    /// Read and written, per sequence.
    state: u64,
}

/// Experts of a mixture, of which a step reads those that its tokens are sent to.
struct Experts {
    /// Of all experts of all layers.
    bytes: u64,
    /// The share of them that a token uses.
    used: f64,
}

impl Experts {
    /// Bytes that so many tokens read on average where each is sent anywhere alike; a router that
    /// has favourites reads less.
    fn bytes(&self, batch: u32) -> f64 {
        self.bytes as f64 * (1.0 - (1.0 - self.used).powf(batch.into()))
    }
}

impl Traffic {
    pub(super) fn of(source: &Source) -> Result<Self> {
        let config = source.config();
        let mut weights = model::weight_bytes(source)?;
        if !config.tied {
            // Only one row of an embedding is read for a token.
            weights -= source.tensor(TensorName::Embedding)?.bytes.len() as u64;
        }
        let mut bytes = 0;
        for name in TensorName::all(config).into_iter().filter(|&name| is_expert(name)) {
            bytes += source.tensor(name)?.bytes.len() as u64;
        }
        let experts = config
            .moe
            .as_ref()
            .map(|moe| Experts { bytes, used: moe.experts_used as f64 / moe.experts as f64 });
        let layers = |kind| config.layers.iter().filter(|layer| **layer == kind).count() as u64;
        let kv = 2 * config.kv_heads as u64 * config.head_dim as u64 * KV_ELEMENT_BYTES;
        let state = config.delta.map_or(0, |delta| {
            let memory = delta.value_heads * delta.value_dim * delta.key_dim;
            let conv = delta.channels() * (delta.conv_kernel - 1);
            2 * 4 * (memory + conv) as u64
        });
        Ok(Self {
            weights,
            experts,
            kv: kv * layers(LayerKind::FullAttention),
            state: state * layers(LayerKind::LinearAttention),
        })
    }

    /// All that a step of `batch` tokens moves, behind so many tokens each.
    pub(super) fn bytes(&self, context: u32, batch: u32) -> f64 {
        self.weight_bytes(batch) + self.kv_bytes(context, batch) + self.state_bytes(batch)
    }

    /// Weights that it reads.
    pub(super) fn weight_bytes(&self, batch: u32) -> f64 {
        let unread = self.experts.as_ref().map_or(0.0, |all| all.bytes as f64 - all.bytes(batch));
        self.weights as f64 - unread
    }

    /// Keys and values that it reads.
    pub(super) fn kv_bytes(&self, context: u32, batch: u32) -> f64 {
        f64::from(batch) * (self.kv * u64::from(context)) as f64
    }

    /// Recurrent state that it reads and writes.
    pub(super) fn state_bytes(&self, batch: u32) -> f64 {
        f64::from(batch) * self.state as f64
    }
}

fn is_expert(name: TensorName) -> bool {
    let TensorName::Layer(_, role) = name else { return false };
    matches!(
        role,
        Role::ExpertGate(_)
            | Role::ExpertUp(_)
            | Role::ExpertDown(_)
            | Role::ExpertsGate
            | Role::ExpertsUp
            | Role::ExpertsGateUp
            | Role::ExpertsDown
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn traffic(model: &str) -> Traffic {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/model/tests/fixtures");
        let source = Source::open(&fixtures.join(model)).expect("it opens");
        Traffic::of(&source).expect("its tensors are there")
    }

    #[test]
    fn a_step_reads_the_experts_of_its_tokens_and_no_others() {
        let dense = traffic("qwen3");
        assert_eq!(dense.bytes(0, 1), dense.weights as f64);
        assert_eq!(dense.bytes(10, 4) - dense.bytes(0, 4), 40.0 * dense.kv as f64);
        for model in ["qwen3_moe", "qwen3_5_moe", "qwen3_next"] {
            let traffic = traffic(model);
            let experts = traffic.experts.as_ref().expect("it has some");
            assert!(experts.used > 0.0 && experts.used < 1.0, "{model}");
            let unread = |batch| {
                let sequences = f64::from(batch) * traffic.state as f64;
                traffic.weights as f64 + sequences - traffic.bytes(0, batch)
            };
            let alone = experts.bytes as f64 * (1.0 - experts.used);
            assert!((unread(1) - alone).abs() < 1.0, "{model}: {} {alone}", unread(1));
            // Two tokens share some of theirs.
            assert!((unread(2) - alone * (1.0 - experts.used)).abs() < 1.0, "{model}");
            assert!(unread(1000) < 1.0, "{model}: many tokens use all");
        }
    }
}
