//! What differs between the packed formats.

use super::packed::TILE;
use crate::quant::WeightType;

/// How a format lies in a tile, see `packed`.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Bits of a quant.
    pub(super) bits: u32,
    /// Lines of 64 bytes that the quants of a chunk take.
    pub(super) lines: usize,
    /// Bytes of scales of a chunk: a scale and a minimum a row, or two signed scales, or none.
    pub(super) chunk_scales: usize,
    /// Half-precision numbers of a block: a scale and perhaps a scale of the minimums a row.
    pub(super) block_halves: usize,
    /// Chunks of a block.
    pub(super) block_chunks: usize,
    /// Whether weights are `scale * quant - minimum`.
    pub(super) has_minimums: bool,
    /// Log₂ of what is taken off every quant; 0 for nothing.
    pub(super) offset_shift: u32,
}

impl Layout {
    /// What is taken off every quant.
    pub(super) const fn offset(&self) -> i32 {
        if self.offset_shift == 0 { 0 } else { 1 << self.offset_shift }
    }

    /// Whether each half of a chunk has a scale of its own.
    pub(super) const fn has_two_scales(&self) -> bool {
        self.chunk_scales > 0 && !self.has_minimums
    }
}

/// A layout known when the program is compiled.
pub(super) trait Format {
    /// The layout.
    const LAYOUT: Layout;
}

/// Blocks of 32 with one scale.
const fn of_32(bits: u32, lines: usize, offset_shift: u32) -> Layout {
    Layout {
        bits,
        lines,
        chunk_scales: 0,
        block_halves: TILE,
        block_chunks: 1,
        has_minimums: false,
        offset_shift,
    }
}

/// Blocks of 256 with scales and minimums per 32.
const fn with_minimums(bits: u32, lines: usize) -> Layout {
    Layout {
        bits,
        lines,
        chunk_scales: 2 * TILE,
        block_halves: 2 * TILE,
        block_chunks: 8,
        has_minimums: true,
        offset_shift: 0,
    }
}

macro_rules! formats {
    ($($name:ident: $ty:ident = $layout:expr;)*) => {
        $(
            #[doc = concat!("The packed form of ", stringify!($ty), ".")]
            pub(super) struct $name;
            impl Format for $name {
                const LAYOUT: Layout = $layout;
            }
        )*

        /// The packed layout of a format, if it has one.
        pub(super) fn layout(ty: WeightType) -> Option<Layout> {
            match ty {
                $(WeightType::$ty => Some($name::LAYOUT),)*
                _ => None,
            }
        }
    };
}

formats! {
    FourBits: Q4_0 = of_32(4, 4, 3);
    EightBits: Q8_0 = of_32(8, 8, 7);
    FourBitsOf256: Q4_K = with_minimums(4, 4);
    FiveBitsOf256: Q5_K = with_minimums(5, 5);
    SixBitsOf256: Q6_K = Layout {
        bits: 6,
        lines: 6,
        chunk_scales: 2 * TILE,
        block_halves: TILE,
        block_chunks: 8,
        has_minimums: false,
        offset_shift: 5,
    };
}

/// Calls `$call` with the format's type as `$F`.
macro_rules! with_format {
    ($value:expr, $F:ident => $call:expr) => {{
        use crate::linear::formats;
        use crate::quant::WeightType;
        match $value {
            WeightType::Q4_0 => with_format!(formats::FourBits as $F, $call),
            WeightType::Q8_0 => with_format!(formats::EightBits as $F, $call),
            WeightType::Q4_K => with_format!(formats::FourBitsOf256 as $F, $call),
            WeightType::Q5_K => with_format!(formats::FiveBitsOf256 as $F, $call),
            WeightType::Q6_K => with_format!(formats::SixBitsOf256 as $F, $call),
            other => unreachable!("{other} is not packed"),
        }
    }};
    ($format:ty as $F:ident, $call:expr) => {{
        type $F = $format;
        $call
    }};
}

pub(super) use with_format;
