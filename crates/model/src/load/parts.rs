//! Matrices that some files hold as parts of others, or in several tensors.

use std::ops::Range;

use kernels::{Weight, WeightType};

use super::source::Files;
use super::{Role, Source, TensorName};
use crate::Error;
use crate::config::{DeltaConfig, ExpertLayout};
use crate::shard::rows;

/// What follows each other in the rows of one key head.
enum Part {
    Query,
    Key,
    Value,
    Gate,
}

impl Source {
    /// The matrix that `name` means, whichever tensors of the files hold it.
    ///
    /// It shares the files' bytes where its rows lie together.
    ///
    /// # Errors
    ///
    /// As for `tensor`; `BadFile` if experts that belong together are stored differently.
    pub fn matrix(&self, name: TensorName) -> Result<Weight, Error> {
        if let Files::Quantised(quantised) = &self.files {
            return quantised.matrix(name);
        }
        let (TensorName::Layer(_, role) | TensorName::MtpLayer(role)) = name else {
            return Ok(self.tensor(name)?.weight());
        };
        let other = |role| match name {
            TensorName::Layer(layer, _) => TensorName::Layer(layer, role),
            _ => TensorName::MtpLayer(role),
        };
        let layout = self.config().layout;
        match role {
            Role::DeltaQkv | Role::DeltaGate if layout.fused_qkvz => {
                let fused = self.tensor(other(Role::DeltaQkvz))?.weight();
                Ok(rows(&fused, &qkvz_rows(&self.delta(), role)))
            }
            Role::DeltaBeta | Role::DeltaAlpha if layout.fused_ba => {
                let fused = self.tensor(other(Role::DeltaBa))?.weight();
                Ok(rows(&fused, &ba_rows(&self.delta(), role)))
            }
            Role::DeltaBa if !layout.fused_ba => {
                let names = [other(Role::DeltaBeta), other(Role::DeltaAlpha)];
                let delta = self.delta();
                let per_key = delta.value_heads / delta.key_heads;
                let runs = (0..delta.key_heads).map(|head| head * per_key).flat_map(|b| {
                    let a = delta.value_heads + b;
                    [b..b + per_key, a..a + per_key]
                });
                Ok(rows(&self.joined(names)?, &runs.collect::<Vec<_>>()))
            }
            Role::ExpertGate(_) | Role::ExpertUp(_) | Role::ExpertDown(_) => {
                let Some((whole, run)) = self.expert_rows(role) else {
                    return Ok(self.tensor(name)?.weight());
                };
                Ok(self.tensor(other(whole))?.weight().row_range(run))
            }
            Role::ExpertsGate if layout.experts != ExpertLayout::Stacked => {
                self.joined(self.experts().map(|expert| other(Role::ExpertGate(expert))))
            }
            Role::ExpertsUp if layout.experts != ExpertLayout::Stacked => {
                self.joined(self.experts().map(|expert| other(Role::ExpertUp(expert))))
            }
            Role::ExpertsDown if layout.experts == ExpertLayout::Single => {
                self.joined(self.experts().map(|expert| other(Role::ExpertDown(expert))))
            }
            _ => Ok(self.tensor(name)?.weight()),
        }
    }

    /// The format of what `matrix` gives, without making it.
    ///
    /// # Errors
    ///
    /// As for `matrix`.
    pub fn format(&self, name: TensorName) -> Result<WeightType, Error> {
        if let Files::Quantised(quantised) = &self.files {
            return Ok(quantised.format(name));
        }
        let layout = self.config().layout;
        let held_by = |role| match role {
            Role::DeltaQkv | Role::DeltaGate if layout.fused_qkvz => Role::DeltaQkvz,
            Role::DeltaBeta | Role::DeltaAlpha if layout.fused_ba => Role::DeltaBa,
            role => self.expert_rows(role).map_or(role, |(whole, _)| whole),
        };
        let name = match name {
            TensorName::Layer(layer, role) => TensorName::Layer(layer, held_by(role)),
            TensorName::MtpLayer(role) => TensorName::MtpLayer(held_by(role)),
            other => other,
        };
        Ok(self.tensor(name)?.ty)
    }

    /// The tensor that holds an expert's matrix, and its rows there; none if it has its own.
    fn expert_rows(&self, role: Role) -> Option<(Role, Range<usize>)> {
        let (config, layout) = (self.config(), self.config().layout.experts);
        let ffn = config.moe?.ffn;
        let run = |whole, expert: usize, size| (whole, expert * size..(expert + 1) * size);
        match (role, layout) {
            (_, ExpertLayout::Single) => None,
            (Role::ExpertGate(e), ExpertLayout::Stacked) => Some(run(Role::ExpertsGate, e, ffn)),
            (Role::ExpertUp(e), ExpertLayout::Stacked) => Some(run(Role::ExpertsUp, e, ffn)),
            // Gate, then up, of every expert.
            (Role::ExpertGate(e), ExpertLayout::Fused) => {
                Some(run(Role::ExpertsGateUp, 2 * e, ffn))
            }
            (Role::ExpertUp(e), ExpertLayout::Fused) => {
                Some(run(Role::ExpertsGateUp, 2 * e + 1, ffn))
            }
            (Role::ExpertDown(e), _) => Some(run(Role::ExpertsDown, e, config.hidden)),
            _ => None,
        }
    }

    /// Matrices of the same width, one below the other.
    fn joined(&self, names: impl IntoIterator<Item = TensorName>) -> Result<Weight, Error> {
        let mut all: Option<(Weight, Vec<u8>)> = None;
        let mut count = 0;
        for name in names {
            let part = self.matrix(name)?;
            count += part.rows;
            let (first, bytes) = all.get_or_insert_with(|| (part.clone(), Vec::new()));
            if part.ty != first.ty {
                let reason = format!("is {}, and others of its layer are {}", part.ty, first.ty);
                let item = format!("tensor `{}`", self.file_name(name));
                return Err(Error::bad(self.path(), item, reason));
            }
            bytes.extend_from_slice(&part.bytes);
        }
        let (first, bytes) = all.expect("a configuration has at least one expert and head");
        Ok(Weight::new(first.ty, count, first.cols, bytes.into()))
    }

    fn experts(&self) -> Range<usize> {
        0..self.config().moe.map_or(0, |moe| moe.experts)
    }

    fn delta(&self) -> DeltaConfig {
        self.config().delta.expect("a model with such tensors has their sizes")
    }
}

/// The rows of a tensor `[q | k | v | z]` per key head that are q, k and v, or z, of all heads.
fn qkvz_rows(delta: &DeltaConfig, role: Role) -> Vec<Range<usize>> {
    let values = delta.value_heads / delta.key_heads * delta.value_dim;
    let head_rows = 2 * delta.key_dim + 2 * values;
    let of = |part: &Part| {
        let (start, size) = match part {
            Part::Query => (0, delta.key_dim),
            Part::Key => (delta.key_dim, delta.key_dim),
            Part::Value => (2 * delta.key_dim, values),
            Part::Gate => (2 * delta.key_dim + values, values),
        };
        (0..delta.key_heads).map(move |head| head * head_rows + start).map(move |at| at..at + size)
    };
    match role {
        Role::DeltaGate => of(&Part::Gate).collect(),
        _ => [Part::Query, Part::Key, Part::Value].iter().flat_map(of).collect(),
    }
}

/// The rows of a tensor `[b | a]` per key head that are b, or a, of all value heads.
fn ba_rows(delta: &DeltaConfig, role: Role) -> Vec<Range<usize>> {
    let per_key = delta.value_heads / delta.key_heads;
    let start = if role == Role::DeltaBeta { 0 } else { per_key };
    let starts = (0..delta.key_heads).map(|head| 2 * head * per_key + start);
    starts.map(|at| at..at + per_key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ValueHeadOrder;

    /// Key head by key head in the file, part by part in the model. Requirement 126.
    #[test]
    fn fused_rows_are_found_by_part() {
        let delta = DeltaConfig {
            key_heads: 2,
            value_heads: 6,
            key_dim: 2,
            value_dim: 1,
            conv_kernel: 4,
            value_head_order: ValueHeadOrder::Grouped,
        };
        // A head has 2 rows of q, 2 of k, 3 of v and 3 of z.
        let qkv = [0..2, 10..12, 2..4, 12..14, 4..7, 14..17];
        assert_eq!(qkvz_rows(&delta, Role::DeltaQkv), qkv);
        assert_eq!(qkvz_rows(&delta, Role::DeltaGate), [7..10, 17..20]);
        assert_eq!(ba_rows(&delta, Role::DeltaBeta), [0..3, 6..9]);
        assert_eq!(ba_rows(&delta, Role::DeltaAlpha), [3..6, 9..12]);
    }
}
