//! 256 bits: a quad of eight rows is one register; a tile is multiplied in two halves.

use std::arch::x86_64::*;

use crate::linear::formats::Format;
use crate::linear::packed::{Line, TILE, Tile};
use crate::linear::round::Panel;

/// Rows of a register.
const HALF: usize = TILE / 2;

/// # Safety
/// The processor has the features, and the lengths are those that `tile::check` asks for.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn multiply<F: Format, const N: usize>(
    tile: &Tile<'_>,
    panel: &Panel<'_>,
    out: &mut [[f32; TILE]; N],
) {
    for row in [0, HALF] {
        // SAFETY: as the caller says.
        unsafe { multiply_half::<F, N>(tile, panel, row, out) };
    }
}

/// # Safety
/// As for [`multiply`]; `row` is 0 or 8.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_half<F: Format, const N: usize>(
    tile: &Tile<'_>,
    panel: &Panel<'_>,
    row: usize,
    out: &mut [[f32; TILE]; N],
) {
    let layout = F::LAYOUT;
    let (mut scale, mut min_scale) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    let mut sums = [_mm256_setzero_ps(); N];
    for chunk in 0..panel.quants.len() / N {
        // SAFETY: `chunk` is below the chunks that the lengths were checked for.
        unsafe {
            if chunk % layout.block_chunks == 0 {
                let halves = chunk / layout.block_chunks * layout.block_halves;
                let halves = tile.halves.as_ptr().add(halves + row);
                scale = _mm256_cvtph_ps(_mm_loadu_si128(halves.cast()));
                if layout.has_minimums {
                    min_scale = _mm256_cvtph_ps(_mm_loadu_si128(halves.add(TILE).cast()));
                }
            }
            let quads = quads::<F>(tile.quants.as_ptr().add(chunk * layout.lines), row);
            let bytes = tile.scales.as_ptr().add(chunk * layout.chunk_scales + row);
            let scales = scales::<F>(scale, min_scale, bytes);
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = add_chunk::<F>(&quads, &scales, panel, chunk * N + n, *sum);
            }
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        // SAFETY: `row` and the seven after it are within the sixteen.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(row), sum) };
    }
}

/// A chunk's scales, or scale and minimums, of eight rows.
///
/// # Safety
/// The chunk's scales are behind the pointer, which is at the first of the rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scales<F: Format>(scale: __m256, min_scale: __m256, bytes: *const u8) -> [__m256; 2] {
    let layout = F::LAYOUT;
    if layout.chunk_scales == 0 {
        return [scale; 2];
    }
    // SAFETY: both kinds hold sixteen bytes, of which the rows' eight are read.
    let [first, second] =
        unsafe { [_mm_loadl_epi64(bytes.cast()), _mm_loadl_epi64(bytes.add(TILE).cast())] };
    if layout.has_minimums {
        let first = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(first));
        let second = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(second));
        [_mm256_mul_ps(scale, first), _mm256_mul_ps(min_scale, second)]
    } else {
        let first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(first));
        let second = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(second));
        [_mm256_mul_ps(scale, first), _mm256_mul_ps(scale, second)]
    }
}

/// A chunk's quads of eight rows, a byte a quant. Eight-bit quants become signed.
///
/// # Safety
/// The chunk's lines are behind the pointer.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quads<F: Format>(lines: *const Line, row: usize) -> [__m256i; 8] {
    // SAFETY: the caller has the chunk's lines there, and `row` is at most half a line in.
    let line =
        |at: usize| unsafe { _mm256_load_si256(lines.add(at).cast::<u8>().add(4 * row).cast()) };
    let mut quads = [_mm256_setzero_si256(); 8];
    if F::LAYOUT.bits == 8 {
        for (at, quad) in quads.iter_mut().enumerate() {
            *quad = _mm256_xor_si256(line(at), _mm256_set1_epi8(i8::MIN));
        }
        return quads;
    }
    let nibble = _mm256_set1_epi8(15);
    for at in 0..4 {
        let line = line(at);
        quads[at] = _mm256_and_si256(line, nibble);
        quads[at + 4] = _mm256_and_si256(_mm256_srli_epi16::<4>(line), nibble);
    }
    for (at, quad) in quads.iter_mut().enumerate() {
        let (high, bit, mask) = match F::LAYOUT.bits {
            5 => (line(4), at, 1),
            6 => (line(4 + at / 4), 2 * (at % 4), 3),
            _ => break,
        };
        let high = _mm256_srl_epi16(high, _mm_cvtsi32_si128(bit as i32));
        let high = _mm256_and_si256(high, _mm256_set1_epi8(mask));
        *quad = _mm256_or_si256(*quad, _mm256_slli_epi16::<4>(high));
    }
    quads
}

/// The sums of the products of each row's quants with `inputs`, four at a time.
///
/// # Safety
/// Four inputs a quad are behind the pointer.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot<F: Format>(start: __m256i, quads: &[__m256i], inputs: *const i32) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    quads.iter().enumerate().fold(start, |dot, (at, weights)| {
        // SAFETY: the caller says so.
        let inputs = _mm256_set1_epi32(unsafe { inputs.add(at).read_unaligned() });
        // Pairs fit 16 bits: 2 * 63 * 127, or 2 * 128 * 127 where the sign moves to the inputs.
        let pairs = if F::LAYOUT.bits == 8 {
            _mm256_maddubs_epi16(_mm256_abs_epi8(*weights), _mm256_sign_epi8(inputs, *weights))
        } else {
            _mm256_maddubs_epi16(*weights, inputs)
        };
        _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, ones))
    })
}

/// Adds the products with input row and chunk `at` of the panel to `sum`.
///
/// # Safety
/// The panel holds `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_chunk<F: Format>(
    quads: &[__m256i; 8],
    scales: &[__m256; 2],
    panel: &Panel<'_>,
    at: usize,
    sum: __m256,
) -> __m256 {
    let layout = F::LAYOUT;
    // SAFETY: the panel holds the chunk's 32 inputs, its sums and its scale.
    unsafe {
        let inputs = panel.quants.as_ptr().add(at).cast::<i32>();
        let halves = panel.halves.as_ptr().add(at).cast::<i32>();
        let input_scale = _mm256_set1_ps(*panel.scales.as_ptr().add(at));
        let offset = |sum: i32| _mm256_set1_epi32(sum << layout.offset_shift);
        if layout.has_two_scales() {
            let low = dot::<F>(offset(*halves), &quads[..4], inputs);
            let high = dot::<F>(offset(*halves.add(1)), &quads[4..], inputs.add(4));
            let product = _mm256_mul_ps(_mm256_cvtepi32_ps(low), scales[0]);
            let product = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), scales[1], product);
            return _mm256_fmadd_ps(product, input_scale, sum);
        }
        // Eight-bit quants are signed here, so nothing has to be taken off.
        let start = if layout.offset_shift == 0 || layout.bits == 8 {
            _mm256_setzero_si256()
        } else {
            offset(*halves + *halves.add(1))
        };
        let product = _mm256_cvtepi32_ps(dot::<F>(start, quads, inputs));
        let sum = _mm256_fmadd_ps(_mm256_mul_ps(product, scales[0]), input_scale, sum);
        if !layout.has_minimums {
            return sum;
        }
        _mm256_fmadd_ps(scales[1], _mm256_set1_ps(*panel.sums.as_ptr().add(at)), sum)
    }
}
