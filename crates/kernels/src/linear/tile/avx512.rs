//! 512 bits: a quad of sixteen rows is one register, and one instruction multiplies it.

use std::arch::x86_64::*;

use crate::linear::formats::Format;
use crate::linear::packed::{Line, TILE, Tile};
use crate::linear::round::Panel;

/// # Safety
/// The processor has the features, and the lengths are those that `tile::check` asks for.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn multiply<F: Format, const N: usize>(
    tile: &Tile<'_>,
    panel: &Panel<'_>,
    out: &mut [[f32; TILE]; N],
) {
    let layout = F::LAYOUT;
    let (mut scale, mut min_scale) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    let mut sums = [_mm512_setzero_ps(); N];
    for chunk in 0..panel.quants.len() / N {
        // SAFETY: `chunk` is below the chunks that the lengths were checked for.
        unsafe {
            if chunk % layout.block_chunks == 0 {
                let halves = chunk / layout.block_chunks * layout.block_halves;
                let halves = tile.halves.as_ptr().add(halves);
                scale = sixteen_halves(halves);
                if layout.has_minimums {
                    min_scale = sixteen_halves(halves.add(TILE));
                }
            }
            let lines = tile.quants.as_ptr().add(chunk * layout.lines);
            let quads = quads::<F>(lines);
            let bytes = tile.scales.as_ptr().add(chunk * layout.chunk_scales);
            let scales = scales::<F>(scale, min_scale, bytes);
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = add_chunk::<F>(&quads, &scales, panel, chunk * N + n, *sum);
            }
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        // SAFETY: both are sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
    }
}

/// # Safety
/// Sixteen numbers are behind the pointer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn sixteen_halves(halves: *const u16) -> __m512 {
    // SAFETY: the caller says so.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(halves.cast())) }
}

/// A chunk's scales, or scale and minimums, of sixteen rows.
///
/// # Safety
/// The chunk's scales are behind the pointer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn scales<F: Format>(scale: __m512, min_scale: __m512, bytes: *const u8) -> [__m512; 2] {
    let layout = F::LAYOUT;
    if layout.chunk_scales == 0 {
        return [scale; 2];
    }
    // SAFETY: both kinds hold two times sixteen bytes.
    let [first, second] =
        unsafe { [_mm_loadu_si128(bytes.cast()), _mm_loadu_si128(bytes.add(TILE).cast())] };
    if layout.has_minimums {
        let first = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(first));
        let second = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(second));
        [_mm512_mul_ps(scale, first), _mm512_mul_ps(min_scale, second)]
    } else {
        let first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(first));
        let second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(second));
        [_mm512_mul_ps(scale, first), _mm512_mul_ps(scale, second)]
    }
}

/// A chunk's quads, a byte a quant.
///
/// # Safety
/// The chunk's lines are behind the pointer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn quads<F: Format>(lines: *const Line) -> [__m512i; 8] {
    // SAFETY: the caller has the chunk's lines there.
    let line = |at: usize| unsafe { _mm512_load_si512(lines.add(at).cast()) };
    let mut quads = [_mm512_setzero_si512(); 8];
    if F::LAYOUT.bits == 8 {
        for (at, quad) in quads.iter_mut().enumerate() {
            *quad = line(at);
        }
        return quads;
    }
    let nibble = _mm512_set1_epi8(15);
    for at in 0..4 {
        let line = line(at);
        quads[at] = _mm512_and_si512(line, nibble);
        quads[at + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(line), nibble);
    }
    if F::LAYOUT.bits == 5 {
        let high = line(4);
        let shifted = [
            _mm512_slli_epi16::<4>(high),
            _mm512_slli_epi16::<3>(high),
            _mm512_slli_epi16::<2>(high),
            _mm512_slli_epi16::<1>(high),
            high,
            _mm512_srli_epi16::<1>(high),
            _mm512_srli_epi16::<2>(high),
            _mm512_srli_epi16::<3>(high),
        ];
        or_masked(&mut quads, &shifted, _mm512_set1_epi8(1 << 4));
    }
    if F::LAYOUT.bits == 6 {
        for half in 0..2 {
            let high = line(4 + half);
            let shifted = [
                _mm512_slli_epi16::<4>(high),
                _mm512_slli_epi16::<2>(high),
                high,
                _mm512_srli_epi16::<2>(high),
            ];
            or_masked(&mut quads[4 * half..], &shifted, _mm512_set1_epi8(3 << 4));
        }
    }
    quads
}

/// `quads |= bits & mask`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn or_masked(quads: &mut [__m512i], bits: &[__m512i], mask: __m512i) {
    for (quad, bits) in quads.iter_mut().zip(bits) {
        // a | (b & c)
        *quad = _mm512_ternarylogic_epi64::<0xf8>(*quad, *bits, mask);
    }
}

/// Adds the products with input row and chunk `at` of the panel to `sum`.
///
/// # Safety
/// The panel holds `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn add_chunk<F: Format>(
    quads: &[__m512i; 8],
    scales: &[__m512; 2],
    panel: &Panel<'_>,
    at: usize,
    sum: __m512,
) -> __m512 {
    let layout = F::LAYOUT;
    // SAFETY: the panel holds the chunk's 32 inputs, its sums and its scale.
    unsafe {
        let inputs = panel.quants.as_ptr().add(at).cast::<i32>();
        let halves = panel.halves.as_ptr().add(at).cast::<i32>();
        let dot = |start: __m512i, quads: &[__m512i], from: usize| {
            quads.iter().enumerate().fold(start, |dot, (quad, weights)| {
                let inputs = _mm512_set1_epi32(inputs.add(from + quad).read_unaligned());
                _mm512_dpbusd_epi32(dot, *weights, inputs)
            })
        };
        let input_scale = _mm512_set1_ps(*panel.scales.as_ptr().add(at));
        let offset = |sum: i32| _mm512_set1_epi32(sum << layout.offset_shift);
        if layout.has_two_scales() {
            let low = dot(offset(*halves), &quads[..4], 0);
            let high = dot(offset(*halves.add(1)), &quads[4..], 4);
            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(low), scales[0]);
            let product = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), scales[1], product);
            return _mm512_fmadd_ps(product, input_scale, sum);
        }
        let start = if layout.offset_shift == 0 {
            _mm512_setzero_si512()
        } else {
            offset(*halves + *halves.add(1))
        };
        let product = _mm512_cvtepi32_ps(dot(start, quads, 0));
        let sum = _mm512_fmadd_ps(_mm512_mul_ps(product, scales[0]), input_scale, sum);
        if !layout.has_minimums {
            return sum;
        }
        _mm512_fmadd_ps(scales[1], _mm512_set1_ps(*panel.sums.as_ptr().add(at)), sum)
    }
}
