//! The gate of the feed-forward layer: `out = silu(gate) * up`, `silu(x) = x / (1 + exp(-x))`.

use crate::cpu::vector::silu;
use crate::cpu::widest::widest;

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

widest! {
    /// One row; `gate_up` is `[gate | up]`, twice as long as `out`.
    pub fn swiglu(gate_up: &[f32], out: &mut [f32]) {
        let (gate, up) = gate_up.split_at(out.len());
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = silu::<FMA>(*gate) * up;
        }
    }
}
