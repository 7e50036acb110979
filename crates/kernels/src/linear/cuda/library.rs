//! Many rows at once: weights are decoded to 16-bit floats, a part of a matrix at a time, and
//! multiplied by cuBLASLt, which is opened at run time. Where it is not installed, other kernels do
//! the work, a few rows at a time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublaslt::{result, sys};
use result::CublasError;
use sys::cublasLtMatmulDescAttributes_t as DescAttribute;
use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
use sys::cudaDataType_t as DataType;

use crate::cuda::{Address, Buffer, Context};
use crate::fault::DeviceFault;

/// Decoded weights at once.
const DECODED_BYTES: usize = 192 << 20;
/// What the library recommends for this generation of cards.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Shapes of which the library's choice is kept.
const MOST_SHAPES: usize = 4096;

/// A 16-bit float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Float {
    /// IEEE half precision.
    Half,
    /// The upper half of a single.
    Bf16,
}

/// `out[row][col] (+)= sum over k of x[row][k] * weights[col][k]`, in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Rows of `x` and `out`.
    pub(super) rows: usize,
    /// Rows of the weights.
    pub(super) outputs: usize,
    /// Columns of both operands, which are rows without gaps.
    pub(super) cols: usize,
    /// Columns of `out`.
    pub(super) stride: usize,
    /// What the operands are.
    pub(super) float: Float,
    /// Whether the product is added.
    pub(super) add: bool,
}

/// The open library and its memory.
pub(super) struct Library {
    context: Arc<Context>,
    handle: sys::cublasLtHandle_t,
    workspace: Buffer<u8>,
    decoded: Buffer<u16>,
    algorithms: RefCell<HashMap<(Shape, u32), sys::cublasLtMatmulAlgo_t>>,
}

// SAFETY: the library's handle may be used from any thread, one at a time.
unsafe impl Send for Library {}

impl Library {
    /// `None` where the library is not installed.
    pub(super) fn open(context: &Arc<Context>) -> Option<Self> {
        // SAFETY: opening the library runs its initialisers and nothing else.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        context.bind();
        let handle = result::create_handle().ok()?;
        let what = "decoded weights";
        Some(Self {
            context: context.clone(),
            handle,
            workspace: Buffer::new(context, what, WORKSPACE_BYTES),
            decoded: Buffer::new(context, what, DECODED_BYTES / 2),
            algorithms: RefCell::default(),
        })
    }

    /// Where decoded weights go.
    pub(super) fn decoded(&self) -> Address {
        self.decoded.at(0)
    }

    /// Tiles of so many columns that can be decoded at once, at least one.
    pub(super) fn tiles(padded: usize) -> usize {
        (DECODED_BYTES / 2 / (padded * super::layout::TILE_ROWS)).max(1)
    }

    /// Puts a product of the decoded weights into the stream.
    pub(super) fn multiply(&self, shape: Shape, x: Address, out: Address) {
        if self.context.has_failed() {
            return;
        }
        // SAFETY: the caller's operands are as large as `shape` says, as its tests check.
        if let Err(error) = unsafe { self.try_multiply(shape, x, out) } {
            let what = format!("multiplying {shape:?}");
            self.context.fail(DeviceFault::Failed { what, reason: error.to_string() });
        }
        self.context.mark("cublaslt");
    }

    /// The library counts columns first: to it, `out` is weights transposed times `x`.
    unsafe fn try_multiply(
        &self,
        shape: Shape,
        x: Address,
        out: Address,
    ) -> Result<(), CublasError> {
        let Shape { rows, outputs, cols, stride, .. } = shape;
        let float = match shape.float {
            Float::Half => DataType::CUDA_R_16F,
            Float::Bf16 => DataType::CUDA_R_16BF,
        };
        let single = DataType::CUDA_R_32F;
        let plan = Plan {
            product: result::create_matmul_desc(
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                single,
            )?,
            weights: result::create_matrix_layout(float, cols as u64, outputs as u64, cols as i64)?,
            x: result::create_matrix_layout(float, cols as u64, rows as u64, cols as i64)?,
            out: result::create_matrix_layout(single, outputs as u64, rows as u64, stride as i64)?,
        };
        let transposed = 1_i32; // CUBLAS_OP_T, which these bindings do not name.
        let (one, beta) = (1.0_f32, if shape.add { 1.0_f32 } else { 0.0 });
        // SAFETY: the plan's parts live until the end of this function, and so do the numbers.
        unsafe {
            let transpose = DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA;
            let place = (&raw const transposed).cast::<c_void>();
            let size = size_of_val(&transposed);
            result::set_matmul_desc_attribute(plan.product, transpose, place, size)?;
            let algorithm = self.algorithm(&plan, shape, out)?;
            result::matmul(
                self.handle,
                plan.product,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                self.decoded().0 as *const c_void,
                plan.weights,
                x.0 as *const c_void,
                plan.x,
                out.0 as *const c_void,
                plan.out,
                out.0 as *mut c_void,
                plan.out,
                &raw const algorithm,
                self.workspace.at(0).0 as *mut c_void,
                WORKSPACE_BYTES,
                self.context.stream().cast(),
            )
        }
    }

    /// The library's choice for a shape and a place, which is aligned or not.
    unsafe fn algorithm(
        &self,
        plan: &Plan,
        shape: Shape,
        out: Address,
    ) -> Result<sys::cublasLtMatmulAlgo_t, CublasError> {
        let alignment = 1_u32 << out.0.trailing_zeros().min(8);
        let mut kept = self.algorithms.borrow_mut();
        if let Some(algorithm) = kept.get(&(shape, alignment)) {
            return Ok(*algorithm);
        }
        let preference = Wish(result::create_matmul_pref()?);
        let set = |attribute, value: *const c_void, size| {
            // SAFETY: the preference is open and the value as large as said.
            unsafe { result::set_matmul_pref_attribute(preference.0, attribute, value, size) }
        };
        let most = WORKSPACE_BYTES;
        let workspace = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        set(workspace, (&raw const most).cast(), size_of_val(&most))?;
        for attribute in [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            set(attribute, (&raw const alignment).cast(), size_of_val(&alignment))?;
        }
        // SAFETY: everything passed is open.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                self.handle,
                plan.product,
                plan.weights,
                plan.x,
                plan.out,
                plan.out,
                preference.0,
            )?
        };
        if kept.len() >= MOST_SHAPES {
            kept.clear();
        }
        kept.insert((shape, alignment), found.algo);
        Ok(found.algo)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.context.bind();
        // SAFETY: the handle is destroyed once. A failure at the end helps nobody.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// The library's description of a product.
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    weights: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: each part was created with this value and is destroyed once.
        unsafe {
            let _ = result::destroy_matmul_desc(self.product);
            for layout in [self.weights, self.x, self.out] {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

/// What the library is asked to heed.
struct Wish(sys::cublasLtMatmulPreference_t);

impl Drop for Wish {
    fn drop(&mut self) {
        // SAFETY: created with this value and destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
