//! A mixture of experts on a card.

use std::slice::from_ref;
use std::sync::Arc;

use super::{Expert, MoeShape, MoeWeights, SharedExpert};
use crate::cuda::{Buffer, Context, Cuda, Grid, Tensor};
use crate::fault::DeviceFault;
use crate::linear::cuda::{Input, Matrix, Place, linear};
use crate::quant::WeightType;
use crate::swiglu;
use crate::weight::Weight;

/// Warps of a block.
const WARPS: usize = 8;
/// Each lane of a warp has a bit for each of its experts.
const MOST_EXPERTS: usize = 32 * 32;

/// One mixture's weights.
pub struct Mixture {
    shape: MoeShape,
    router: Matrix,
    gate: Stack,
    up: Stack,
    down: Stack,
    shared: Option<SharedExpert<Matrix>>,
}

/// The same matrix of all experts, one after the other, as files hold them.
struct Stack {
    ty: WeightType,
    /// Outputs of one expert.
    rows: usize,
    /// Inputs of one expert.
    cols: usize,
    row_bytes: usize,
    blocks: Buffer<u8>,
}

/// Room for what is between the routing and the result; layers share it.
pub(crate) struct Scratch {
    router: Tensor,
    chosen: Buffer<i32>,
    weights: Buffer<f32>,
    activated: Buffer<f32>,
    /// Of the shared expert: how much, gate and up, the product of the two, the result.
    shared: [Tensor; 4],
}

impl Stack {
    fn new(context: &Arc<Context>, parts: &[&Weight]) -> Self {
        let first = parts[0];
        if parts.iter().any(|part| part.ty != first.ty) {
            let reason = "experts of a layer are stored in different formats".to_owned();
            context.fail(DeviceFault::Unusable(reason));
        }
        let size = first.bytes.len();
        let blocks = Buffer::new(context, "weights", size * parts.len());
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| part.bytes.len() == size) {
            blocks.put(at * size, &part.bytes);
        }
        let Weight { ty, rows, cols, .. } = *first;
        Self { ty, rows, cols, row_bytes: first.row_bytes(), blocks }
    }
}

impl Mixture {
    pub(crate) fn new(cuda: &Cuda, shape: &MoeShape, weights: &MoeWeights<Weight>) -> Self {
        assert!(shape.experts <= MOST_EXPERTS, "{} experts", shape.experts);
        let context = &cuda.context;
        let stack = |part: fn(&Expert<Weight>) -> &Weight| {
            Stack::new(context, &weights.experts.iter().map(part).collect::<Vec<_>>())
        };
        let matrix = |weight: &Weight| Matrix::new(context, weight);
        Self {
            shape: *shape,
            router: matrix(&weights.router),
            gate: stack(|expert| &expert.gate),
            up: stack(|expert| &expert.up),
            down: stack(|expert| &expert.down),
            shared: weights.shared.as_ref().map(|shared| SharedExpert {
                gate: matrix(&shared.gate),
                expert: shared.expert.map(matrix),
            }),
        }
    }

    /// What linear layers multiply by.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let shared = self.shared.iter().flat_map(|SharedExpert { gate, expert }| {
            [gate, &expert.gate, &expert.up, &expert.down]
        });
        std::iter::once(&self.router).chain(shared)
    }

    /// Room for steps of `rows` rows.
    pub(crate) fn scratch(&self, context: &Arc<Context>, rows: usize) -> Scratch {
        let what = "activations of experts";
        let tensor = |cols| Tensor { values: Buffer::new(context, what, rows * cols), cols };
        let choices = rows * self.shape.top_k;
        let ffn = self.shared.as_ref().map_or(0, |shared| shared.expert.gate.rows);
        let hidden = if ffn == 0 { 0 } else { self.down.rows };
        Scratch {
            router: tensor(self.shape.experts),
            chosen: Buffer::new(context, what, choices),
            weights: Buffer::new(context, what, choices),
            activated: Buffer::new(context, what, choices * self.gate.rows),
            shared: [tensor(ffn.min(1)), tensor(2 * ffn), tensor(ffn), tensor(hidden)],
        }
    }
}

fn grid(columns: usize, choices: usize) -> Grid {
    Grid::plane(choices as u32, columns.div_ceil(WARPS) as u32, 32 * WARPS as u32)
}

/// `out = mixture(x)` for the step's rows of `x`, which are normed.
pub(crate) fn moe(
    cuda: &Cuda,
    mixture: &Mixture,
    x: &Buffer<f32>,
    scratch: &mut Scratch,
    out: &mut Tensor,
) {
    let (rows, shape) = (cuda.rows(), &mixture.shape);
    let input = Input { x, cols: mixture.router.cols, gated: false, rows_of: None, norm: None };
    linear(cuda, &input, rows, from_ref(&mixture.router), &mut scratch.router, Place::START);
    let Scratch { router, chosen, weights, activated, .. } = &*scratch;
    cuda.launch("moe_route", Grid::line(rows as u32, 32).with_shared(4 * shape.experts as u32))
        .arg(&router.values)
        .arg(shape.experts)
        .arg(shape.top_k)
        .arg(shape.renormalise)
        .arg(chosen)
        .arg(weights)
        .overlapping()
        .run();
    let Mixture { gate, up, down, .. } = mixture;
    cuda.launch("moe_gate_up", grid(gate.rows, rows * shape.top_k))
        .arg(&gate.blocks)
        .arg(&up.blocks)
        .arg(gate.ty.ggml_id())
        .arg(gate.ty.block_elements())
        .arg(gate.ty.block_bytes())
        .arg(gate.row_bytes as i64)
        .arg(gate.rows)
        .arg(gate.cols)
        .arg(shape.top_k)
        .arg(chosen)
        .arg(x)
        .arg(activated)
        .overlapping()
        .run();
    cuda.launch("moe_down", grid(down.rows, rows))
        .arg(&down.blocks)
        .arg(down.ty.ggml_id())
        .arg(down.ty.block_elements())
        .arg(down.ty.block_bytes())
        .arg(down.row_bytes as i64)
        .arg(down.rows)
        .arg(down.cols)
        .arg(shape.top_k)
        .arg(chosen)
        .arg(weights)
        .arg(activated)
        .arg(&out.values)
        .overlapping()
        .run();
    if let Some(shared) = &mixture.shared {
        add_shared(cuda, shared, x, &mut scratch.shared, out);
    }
}

fn add_shared(
    cuda: &Cuda,
    shared: &SharedExpert<Matrix>,
    x: &Buffer<f32>,
    [amount, gate_up, activated, made]: &mut [Tensor; 4],
    out: &mut Tensor,
) {
    let rows = cuda.rows();
    let Expert { gate, up, down } = &shared.expert;
    let input = Input { x, cols: gate.cols, gated: false, rows_of: None, norm: None };
    let beside = Place { first_col: gate.rows, add: false };
    linear(cuda, &input, rows, from_ref(&shared.gate), amount, Place::START);
    linear(cuda, &input, rows, from_ref(gate), gate_up, Place::START);
    linear(cuda, &input, rows, from_ref(up), gate_up, beside);
    swiglu::cuda::swiglu(cuda, gate_up, activated);
    linear(cuda, &Input::of(activated), rows, from_ref(down), made, Place::START);
    let items = rows * out.cols;
    cuda.launch("moe_add_shared", Grid::over(items, 256))
        .arg(&amount.values)
        .arg(&made.values)
        .arg(out.cols)
        .arg(items as i64)
        .arg(&out.values)
        .overlapping()
        .run();
}

#[cfg(test)]
#[path = "cuda_tests.rs"]
mod tests;
