//! Weight formats of GGUF files: what a block holds, and how to read and write one.
//!
//! A row of weights is a whole number of blocks, so a matrix is its rows one after the other and
//! any row can be read alone. The layouts are those of the GGUF format; `dequantize` returns the
//! exact f32 values of the format's reference, bit for bit.

mod dequantize;
mod quantize;

pub use dequantize::dequantize;
pub use quantize::{Encoder, encoder};

use std::fmt;

/// How the elements of a weight tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)] // The names are the format's own, as users write them.
pub enum WeightType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an IEEE single.
    BF16,
    /// 4 bits, one scale per 32.
    Q4_0,
    /// 4 bits, scale and minimum per 32.
    Q4_1,
    /// 5 bits, one scale per 32.
    Q5_0,
    /// 5 bits, scale and minimum per 32.
    Q5_1,
    /// 8 bits, one scale per 32.
    Q8_0,
    /// 2 bits, 4-bit scales and minimums per 16.
    Q2_K,
    /// 3 bits, 6-bit scales per 16.
    Q3_K,
    /// 4 bits, 6-bit scales and minimums per 32.
    Q4_K,
    /// 5 bits, 6-bit scales and minimums per 32.
    Q5_K,
    /// 6 bits, 8-bit scales per 16.
    Q6_K,
    /// 4-bit indices into a non-linear table, one scale per 32.
    IQ4_NL,
    /// 4-bit indices into a non-linear table, 6-bit scales per 32.
    IQ4_XS,
    /// 4-bit floats (E2M1) with a power-of-two scale per 32.
    MXFP4,
}

/// One row of the table of formats.
struct Layout {
    ty: WeightType,
    name: &'static str,
    ggml_id: u32,
    elements: usize,
    bytes: usize,
}

const fn layout(
    ty: WeightType,
    name: &'static str,
    ggml_id: u32,
    elements: usize,
    bytes: usize,
) -> Layout {
    Layout { ty, name, ggml_id, elements, bytes }
}

/// In the order of the enum, so that a type is its own index.
const LAYOUTS: [Layout; 16] = [
    layout(WeightType::F32, "F32", 0, 1, 4),
    layout(WeightType::F16, "F16", 1, 1, 2),
    layout(WeightType::BF16, "BF16", 30, 1, 2),
    layout(WeightType::Q4_0, "Q4_0", 2, 32, 18),
    layout(WeightType::Q4_1, "Q4_1", 3, 32, 20),
    layout(WeightType::Q5_0, "Q5_0", 6, 32, 22),
    layout(WeightType::Q5_1, "Q5_1", 7, 32, 24),
    layout(WeightType::Q8_0, "Q8_0", 8, 32, 34),
    layout(WeightType::Q2_K, "Q2_K", 10, 256, 84),
    layout(WeightType::Q3_K, "Q3_K", 11, 256, 110),
    layout(WeightType::Q4_K, "Q4_K", 12, 256, 144),
    layout(WeightType::Q5_K, "Q5_K", 13, 256, 176),
    layout(WeightType::Q6_K, "Q6_K", 14, 256, 210),
    layout(WeightType::IQ4_NL, "IQ4_NL", 20, 32, 18),
    layout(WeightType::IQ4_XS, "IQ4_XS", 23, 256, 136),
    layout(WeightType::MXFP4, "MXFP4", 39, 32, 17),
];

impl WeightType {
    /// Every format, in the order of the enum.
    pub fn all() -> impl Iterator<Item = Self> {
        LAYOUTS.iter().map(|layout| layout.ty)
    }

    const fn layout(self) -> &'static Layout {
        &LAYOUTS[self as usize]
    }

    /// Elements in one block; 1 for the plain floats.
    pub const fn block_elements(self) -> usize {
        self.layout().elements
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.layout().bytes
    }

    /// Bytes of `elements` elements; `None` if they are not whole blocks or the size overflows.
    pub const fn bytes(self, elements: u64) -> Option<u64> {
        let per_block = self.block_elements() as u64;
        if !elements.is_multiple_of(per_block) {
            return None;
        }
        (elements / per_block).checked_mul(self.block_bytes() as u64)
    }

    /// The number of this format in a GGUF tensor record.
    pub const fn ggml_id(self) -> u32 {
        self.layout().ggml_id
    }

    /// The format with this number in a GGUF tensor record, if it is one of ours.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        LAYOUTS.iter().find(|layout| layout.ggml_id == id).map(|layout| layout.ty)
    }

    /// The name as users know it: `Q4_K`, `BF16`.
    pub const fn name(self) -> &'static str {
        self.layout().name
    }

    /// The format of this name, in any letter case.
    pub fn from_name(name: &str) -> Option<Self> {
        LAYOUTS.iter().find(|layout| layout.name.eq_ignore_ascii_case(name)).map(|l| l.ty)
    }

    /// Whether the format is a plain float, one element per block.
    pub const fn is_float(self) -> bool {
        self.block_elements() == 1
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
