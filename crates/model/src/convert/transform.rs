//! Tensors as a GGUF file holds them: the values of a checkpoint in another order and format.
//!
//! Three things differ from a checkpoint of the hybrid models: norms hold 1 + w; the decay's rate
//! is -exp(A_log); and, but for Qwen3-Next, the value heads lie tiled instead of grouped, in every
//! tensor that has value heads as rows, channels, elements or columns.
//!
//! Rows are made one by one, so that no more than a row of each thread is ever held as f32.

use std::thread;

use kernels::Weight;
use kernels::quant::{Encoder, WeightType, dequantize, encoder};

use crate::load::MtpRole;
use crate::{DeltaConfig, Error, ModelConfig, Role, Source, TensorName};

/// The tensor `name` of a GGUF file in the format `ty`, made by so many threads.
///
/// # Errors
///
/// As `Source::matrix`; `BadFile` for values that are not finite.
///
/// # Panics
///
/// If `ty` is only read, or if the rows are not whole blocks of it.
pub(crate) fn encoded(
    model: &Source,
    name: TensorName,
    ty: WeightType,
    threads: usize,
) -> Result<Weight, Error> {
    let weight = model.matrix(name)?;
    let rewrite = &Rewrite::new(&weight, name, model.config(), ty);
    let row_bytes = rewrite.row_bytes();
    let mut bytes = vec![0; weight.rows * row_bytes];
    let share = weight.rows.div_ceil(threads.max(1)).max(1);
    let odd = thread::scope(|scope| {
        let parts = bytes.chunks_mut(share * row_bytes).enumerate();
        let workers: Vec<_> = parts
            .map(|(part, bytes)| scope.spawn(move || rewrite.rows(part * share, bytes)))
            .collect();
        let done = workers.into_iter().map(|worker| worker.join());
        done.map(|odd| odd.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .find_map(Result::err)
    });
    match odd {
        None => Ok(Weight::new(ty, weight.rows, weight.cols, bytes.into())),
        Some(Odd { element, value }) => {
            let item = format!("tensor `{}`", model.file_name(name));
            Err(Error::bad(model.path(), item, format!("element {element} is {value}")))
        }
    }
}

/// A value that no weight may have.
struct Odd {
    element: usize,
    value: f32,
}

/// How rows of a checkpoint become rows of a file.
struct Rewrite<'a> {
    weight: &'a Weight,
    ty: WeightType,
    encode: Encoder,
    rows: Option<Tiling>,
    cols: Option<Tiling>,
    each: Option<fn(f32) -> f32>,
}

impl<'a> Rewrite<'a> {
    fn new(weight: &'a Weight, name: TensorName, config: &ModelConfig, ty: WeightType) -> Self {
        let encode = encoder(ty).expect("the caller chose a format that can be written");
        let tiled =
            |delta: &&DeltaConfig| delta.value_head_order != config.architecture.gguf_value_heads();
        let (rows, cols) = match (name, config.delta.as_ref().filter(tiled)) {
            (TensorName::Layer(_, role), Some(delta)) => tilings(role, delta),
            _ => (None, None),
        };
        let is_rate = matches!(name, TensorName::Layer(_, Role::DeltaA));
        let each: Option<fn(f32) -> f32> = if config.norm_plus_one && is_norm(name) {
            Some(|w| w + 1.0)
        } else if config.a_log_is_log && is_rate {
            Some(|a| -a.exp())
        } else {
            None
        };
        Self { weight, ty, encode, rows, cols, each }
    }

    fn row_bytes(&self) -> usize {
        self.weight.cols / self.ty.block_elements() * self.ty.block_bytes()
    }

    /// Writes rows from `first` on until `out` is full.
    fn rows(&self, first: usize, out: &mut [u8]) -> Result<(), Odd> {
        let cols = self.weight.cols;
        let (mut read, mut ordered) = (vec![0.0; cols], vec![0.0; cols]);
        for (row, out) in (first..).zip(out.chunks_exact_mut(self.row_bytes())) {
            let from = self.rows.as_ref().map_or(row, |tiling| tiling.source(row));
            dequantize(self.weight.ty, self.weight.row(from), &mut read);
            if let Some(col) = read.iter().position(|x| !x.is_finite()) {
                return Err(Odd { element: from * cols + col, value: read[col] });
            }
            if let Some(each) = self.each {
                read.iter_mut().for_each(|x| *x = each(*x));
            }
            let values = match &self.cols {
                Some(tiling) => {
                    tiling.apply(&read, &mut ordered);
                    &ordered
                }
                None => &read,
            };
            (self.encode)(values, out);
        }
        Ok(())
    }
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

/// Where the value heads of a tensor lie, if it has some: in its rows and in its columns.
fn tilings(role: Role, delta: &DeltaConfig) -> (Option<Tiling>, Option<Tiling>) {
    let head = delta.value_dim;
    let tiling = |before, head| Some(Tiling::new(before, head, delta));
    match role {
        // Queries and keys come before the values and stay.
        Role::DeltaQkv | Role::DeltaConv => {
            (tiling(2 * delta.key_heads * delta.key_dim, head), None)
        }
        Role::DeltaGate => (tiling(0, head), None),
        Role::DeltaBeta | Role::DeltaAlpha => (tiling(0, 1), None),
        Role::DeltaDtBias | Role::DeltaA => (None, tiling(0, 1)),
        Role::DeltaOut => (None, tiling(0, head)),
        _ => (None, None),
    }
}

/// Value heads that are grouped in a checkpoint and tiled in a file.
struct Tiling {
    /// Rows or columns that come before the first value head.
    before: usize,
    /// Rows or columns of a head.
    head: usize,
    key_heads: usize,
    /// Value heads of a key head.
    per_key: usize,
}

impl Tiling {
    fn new(before: usize, head: usize, delta: &DeltaConfig) -> Self {
        let key_heads = delta.key_heads;
        Self { before, head, key_heads, per_key: delta.value_heads / key_heads }
    }

    /// Columns in the order of the file.
    fn apply(&self, grouped: &[f32], tiled: &mut [f32]) {
        for (at, value) in tiled.iter_mut().enumerate() {
            *value = grouped[self.source(at)];
        }
    }

    /// Where in the checkpoint the file's row or column `at` is from: tiled head p is grouped head
    /// (p mod key_heads) * per_key + p / key_heads.
    fn source(&self, at: usize) -> usize {
        let Some(value) = at.checked_sub(self.before) else { return at };
        let (head, within) = (value / self.head, value % self.head);
        let grouped = head % self.key_heads * self.per_key + head / self.key_heads;
        self.before + grouped * self.head + within
    }
}
