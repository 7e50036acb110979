//! The values of a tensor as a GGUF file holds them.
//!
//! Three things differ from a checkpoint of the hybrid models: norms hold 1 + w; the decay's rate
//! is -exp(A_log); and, but for Qwen3-Next, the value heads lie tiled instead of grouped, in every
//! tensor that has value heads as rows, channels, elements or columns.

use crate::load::MtpRole;
use crate::{DeltaConfig, Error, ModelConfig, Role, Source, TensorName};

/// All elements of `name` in the file's order.
pub(super) fn values(model: &Source, name: TensorName) -> Result<Vec<f32>, Error> {
    let config = model.config();
    let mut values = model.matrix(name)?.to_f32();
    if let Some(i) = values.iter().position(|x| !x.is_finite()) {
        let item = format!("tensor `{}`", model.file_name(name));
        return Err(Error::bad(model.path(), item, format!("element {i} is {}", values[i])));
    }
    if config.norm_plus_one && is_norm(name) {
        values.iter_mut().for_each(|w| *w += 1.0);
    }
    if let TensorName::Layer(_, role) = name {
        if role == Role::DeltaA && config.a_log_is_log {
            values.iter_mut().for_each(|a| *a = -a.exp());
        }
        if let Some(delta) = &config.delta
            && delta.value_head_order != config.architecture.gguf_value_heads()
        {
            tile(&mut values, role, config, delta);
        }
    }
    Ok(values)
}

/// Whether this is a norm that is applied as 1 + w: all but those of the linear layers' outputs.
fn is_norm(name: TensorName) -> bool {
    match name {
        TensorName::Embedding | TensorName::Output => false,
        TensorName::OutputNorm => true,
        TensorName::Mtp(role) => role != MtpRole::Fc,
        TensorName::Layer(_, role) | TensorName::MtpLayer(role) => {
            matches!(role, Role::AttnNorm | Role::PostNorm | Role::QNorm | Role::KNorm)
        }
    }
}

/// Brings the value heads of a tensor, where it has some, from grouped to tiled order.
fn tile(values: &mut [f32], role: Role, config: &ModelConfig, delta: &DeltaConfig) {
    let (hidden, head) = (config.hidden, delta.value_dim);
    // Queries and keys come before the values and stay.
    let before = 2 * delta.key_heads * delta.key_dim;
    match role {
        Role::DeltaQkv => tile_heads(&mut values[before * hidden..], head * hidden, delta),
        Role::DeltaGate => tile_heads(values, head * hidden, delta),
        Role::DeltaBeta | Role::DeltaAlpha => tile_heads(values, hidden, delta),
        Role::DeltaDtBias | Role::DeltaA => tile_heads(values, 1, delta),
        Role::DeltaConv => {
            let taps = delta.conv_kernel;
            tile_heads(&mut values[before * taps..], head * taps, delta);
        }
        Role::DeltaOut => {
            values
                .chunks_exact_mut(delta.value_size())
                .for_each(|row| tile_heads(row, head, delta));
        }
        _ => {}
    }
}

/// Tiled head p is grouped head (p mod key_heads) * r + p / key_heads; a head is `size` elements.
fn tile_heads(values: &mut [f32], size: usize, delta: &DeltaConfig) {
    let (keys, per_key) = (delta.key_heads, delta.value_heads / delta.key_heads);
    let grouped = values.to_vec();
    for (p, head) in values.chunks_exact_mut(size).enumerate() {
        let from = p % keys * per_key + p / keys;
        head.copy_from_slice(&grouped[from * size..][..size]);
    }
}
