//! Quantised weights in the order that integer units read them: sixteen rows side by side.
//!
//! A tile is sixteen weight rows. Of each 32 columns (a chunk) it holds eight quads; a quad is four
//! neighbouring columns of all sixteen rows, 64 bytes, so that one instruction multiplies it with
//! four inputs and adds into sixteen sums, one a weight row. No sum is ever taken across a
//! register. The bits are the file's, only their order differs; `scales` and `halves` hold the
//! scales and minimums of a chunk and of a block, also row by row.

use std::sync::Mutex;

use super::formats::{Layout, layout};
use super::unpack::{self, Fields};
use crate::cpu::memory::large;
use crate::cpu::pool::Pool;
use crate::quant::WeightType;
use crate::weight::Weight;

/// Weight rows of a tile.
pub(super) const TILE: usize = 16;
/// Columns of a chunk; inputs share a scale in it.
pub(super) const CHUNK: usize = 32;

/// The bytes of a register, aligned so that no load crosses a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Line(pub(super) [u8; 64]);

/// A matrix in tiles; rows that the last tile lacks are zero.
pub struct Packed {
    pub(super) ty: WeightType,
    pub(super) rows: usize,
    pub(super) cols: usize,
    layout: Layout,
    quants: Vec<Line>,
    scales: Vec<u8>,
    halves: Vec<u16>,
}

/// One tile's part of the three buffers.
pub(super) struct Tile<'a> {
    /// `[chunks, lines]`.
    pub(super) quants: &'a [Line],
    /// `[chunks, chunk_scales]`.
    pub(super) scales: &'a [u8],
    /// `[blocks, block_halves]`.
    pub(super) halves: &'a [u16],
}

struct TileMut<'a> {
    quants: &'a mut [Line],
    scales: &'a mut [u8],
    halves: &'a mut [u16],
}

/// Elements of each buffer that a tile takes.
fn sizes(layout: &Layout, cols: usize) -> [usize; 3] {
    let chunks = cols / CHUNK;
    let blocks = chunks / layout.block_chunks;
    [chunks * layout.lines, chunks * layout.chunk_scales, blocks * layout.block_halves]
}

/// Bytes that the packed form of a matrix takes; `None` when its format has none.
pub(super) fn packed_bytes(ty: WeightType, rows: usize, cols: usize) -> Option<usize> {
    let [lines, scales, halves] = sizes(&layout(ty)?, cols);
    Some(rows.div_ceil(TILE) * (lines * size_of::<Line>() + scales + halves * size_of::<u16>()))
}

impl Packed {
    /// Packs `weight`; `None` when its format has no packed form.
    pub(super) fn new(weight: &Weight, pool: &Pool) -> Option<Self> {
        let layout = layout(weight.ty)?;
        let tiles = weight.rows.div_ceil(TILE);
        let [lines, scales, halves] = sizes(&layout, weight.cols);
        let mut packed = Self {
            ty: weight.ty,
            rows: weight.rows,
            cols: weight.cols,
            layout,
            quants: large(tiles * lines),
            scales: vec![0; tiles * scales],
            halves: vec![0; tiles * halves],
        };
        packed.quants.resize(tiles * lines, Line([0; 64]));
        let mut scale_tiles = packed.scales.chunks_exact_mut(scales.max(1));
        let tiles: Vec<_> = (packed.quants.chunks_exact_mut(lines))
            .zip(packed.halves.chunks_exact_mut(halves))
            .map(|(quants, halves)| {
                let scales = scale_tiles.next().unwrap_or_default();
                Mutex::new(TileMut { quants, scales, halves })
            })
            .collect();
        pool.run(tiles.len(), |at| {
            let mut tile = tiles[at].lock().expect("a tile is packed once");
            for row in at * TILE..((at + 1) * TILE).min(weight.rows) {
                tile.pack_row(&layout, weight.ty, row % TILE, weight.row(row));
            }
        });
        Some(packed)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.quants.len() * 64 + self.scales.len() + self.halves.len() * 2
    }

    pub(super) fn tile(&self, at: usize) -> Tile<'_> {
        let [lines, scales, halves] = sizes(&self.layout, self.cols);
        Tile {
            quants: &self.quants[at * lines..(at + 1) * lines],
            scales: &self.scales[at * scales..(at + 1) * scales],
            halves: &self.halves[at * halves..(at + 1) * halves],
        }
    }

    /// Decodes one row, as an embedding needs it.
    pub(super) fn decode_row(&self, row: usize, out: &mut [f32]) {
        let tile = self.tile(row / TILE);
        for (chunk, out) in out.chunks_exact_mut(CHUNK).enumerate() {
            tile.decode_chunk(&self.layout, chunk, row % TILE, out);
        }
    }
}

impl TileMut<'_> {
    fn pack_row(&mut self, layout: &Layout, ty: WeightType, row: usize, bytes: &[u8]) {
        let mut fields = Fields::default();
        for (block, bytes) in bytes.chunks_exact(ty.block_bytes()).enumerate() {
            unpack::unpack(ty, bytes, &mut fields);
            let halves = &mut self.halves[block * layout.block_halves..];
            for (at, half) in fields.halves[..layout.block_halves / TILE].iter().enumerate() {
                halves[at * TILE + row] = *half;
            }
            for part in 0..layout.block_chunks {
                let chunk = block * layout.block_chunks + part;
                let lines = &mut self.quants[chunk * layout.lines..(chunk + 1) * layout.lines];
                let quants = &fields.quants[part * CHUNK..(part + 1) * CHUNK];
                put_quants(layout.bits, lines, row, quants);
                let scales = &mut self.scales[chunk * layout.chunk_scales..];
                for at in 0..layout.chunk_scales / TILE {
                    scales[at * TILE + row] = fields.scales[2 * part + at];
                }
            }
        }
    }
}

/// Of a chunk's quads, the low nibbles of the first four and of the last four share four lines;
/// bits above follow in lines of their own. Eight-bit quants take a line a quad.
fn put_quants(bits: u32, lines: &mut [Line], row: usize, quants: &[u8]) {
    for (quad, quants) in quants.as_chunks::<4>().0.iter().enumerate() {
        for (at, quant) in quants.iter().enumerate() {
            let byte = 4 * row + at;
            if bits == 8 {
                lines[quad].0[byte] = *quant;
                continue;
            }
            lines[quad % 4].0[byte] |= (quant & 15) << (quad / 4 * 4);
            match bits {
                5 => lines[4].0[byte] |= (quant >> 4) << quad,
                6 => lines[4 + quad / 4].0[byte] |= (quant >> 4) << (quad % 4 * 2),
                _ => {}
            }
        }
    }
}

impl Tile<'_> {
    /// Quant `column` of row `row` in chunk `chunk`, without its sign or offset.
    pub(super) fn quant(&self, layout: &Layout, chunk: usize, row: usize, column: usize) -> u8 {
        let lines = &self.quants[chunk * layout.lines..(chunk + 1) * layout.lines];
        let (quad, byte) = (column / 4, 4 * row + column % 4);
        if layout.bits == 8 {
            return lines[quad].0[byte];
        }
        let low = (lines[quad % 4].0[byte] >> (quad / 4 * 4)) & 15;
        match layout.bits {
            5 => low | (((lines[4].0[byte] >> quad) & 1) << 4),
            6 => low | (((lines[4 + quad / 4].0[byte] >> (quad % 4 * 2)) & 3) << 4),
            _ => low,
        }
    }

    /// Scales of a chunk's two halves, and its minimum.
    pub(super) fn scales(&self, layout: &Layout, chunk: usize, row: usize) -> ([f32; 2], f32) {
        let half = |at: usize| {
            let block = chunk / layout.block_chunks * layout.block_halves;
            half::f16::from_bits(self.halves[block + at * TILE + row]).to_f32()
        };
        let byte = |at: usize| self.scales[chunk * layout.chunk_scales + at * TILE + row];
        if layout.has_minimums {
            ([half(0) * f32::from(byte(0)); 2], half(1) * f32::from(byte(1)))
        } else if layout.chunk_scales > 0 {
            ([0, 1].map(|at| half(0) * f32::from(byte(at) as i8)), 0.0)
        } else {
            ([half(0); 2], 0.0)
        }
    }

    fn decode_chunk(&self, layout: &Layout, chunk: usize, row: usize, out: &mut [f32]) {
        let (scales, minimum) = self.scales(layout, chunk, row);
        for (column, out) in out.iter_mut().enumerate() {
            let quant = i32::from(self.quant(layout, chunk, row, column)) - layout.offset();
            *out = scales[column / 16] * quant as f32 - minimum;
        }
    }
}
