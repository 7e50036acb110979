//! The norm behind the delta rule: `y = rms_norm(o) * weight * silu(z)`, norm before gate.
//!
//! It runs over each value head alone, with one `weight` for all heads; the weight is plain, also
//! in models whose other norms mean `1 + w`.

use crate::cpu::vector::silu;
use crate::cpu::widest::widest;
use crate::rms_norm::cpu::rms_norm_in_place;

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

widest! {
    /// One row in place; `o` and `z` are `[value_heads * value_dim]`, `weight` is `[value_dim]`.
    pub fn gated_norm(o: &mut [f32], z: &[f32], weight: &[f32], eps: f32) {
        for (o, z) in o.chunks_exact_mut(weight.len()).zip(z.chunks_exact(weight.len())) {
            rms_norm_in_place(o, weight, eps);
            for (o, z) in o.iter_mut().zip(z) {
                *o *= silu::<FMA>(*z);
            }
        }
    }
}
