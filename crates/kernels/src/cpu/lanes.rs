//! Sixteen numbers side by side, in the widest registers that a version of a loop may use.

/// Sixteen numbers in single precision. [`super::widest::widest`] names the type that belongs to a
/// version, and nobody else does: its methods may use what that version's processors have.
pub(crate) trait Lanes: Copy {
    fn splat(value: f32) -> Self;
    fn load(from: &[f32; 16]) -> Self;
    /// From half precision, as bits.
    fn widen(from: &[u16; 16]) -> Self;
    /// `self * by + add`.
    fn fused(self, by: Self, add: Self) -> Self;
    fn store(self, to: &mut [f32; 16]);
    /// Has the cache line fetched that `at` is in, if the processor can be told.
    fn prefetch<T>(at: &T);
}

/// Plain loops.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 16]);

impl Lanes for Portable {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 16])
    }

    #[inline(always)]
    fn load(from: &[f32; 16]) -> Self {
        Self(*from)
    }

    #[inline(always)]
    fn widen(from: &[u16; 16]) -> Self {
        Self(from.map(widen))
    }

    #[inline(always)]
    fn fused(self, by: Self, add: Self) -> Self {
        let fused = super::widest::fused::<{ super::widest::PORTABLE_FMA }>;
        Self(std::array::from_fn(|lane| fused(self.0[lane], by.0[lane], add.0[lane])))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 16]) {
        *to = self.0;
    }

    #[inline(always)]
    fn prefetch<T>(_: &T) {}
}

/// Without branches, so that a loop over it fills registers.
#[inline(always)]
fn widen(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff) << 13;
    // Exponents are counted from another zero; the product also sets small numbers right.
    let finite = f32::from_bits(magnitude) * f32::from_bits(239 << 23);
    let special = f32::from_bits(magnitude | 0x7f80_0000);
    let value = if magnitude >= 0x7c00 << 13 { special } else { finite };
    f32::from_bits(value.to_bits() | (u32::from(half & 0x8000) << 16))
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    #[inline(always)]
    fn prefetch<T>(at: &T) {
        // SAFETY: every processor of the architecture has the instruction, and it changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()) };
    }

    /// One register of 512 bits.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY, of all blocks: the type is named where the processor has AVX-512F, and the arrays
    // are as long as the loads and stores.
    impl Lanes for Avx512 {
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        fn load(from: &[f32; 16]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
        }

        #[inline(always)]
        fn widen(from: &[u16; 16]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) })
        }

        #[inline(always)]
        fn fused(self, by: Self, add: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_fmadd_ps(self.0, by.0, add.0) })
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; 16]) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) };
        }

        #[inline(always)]
        fn prefetch<T>(at: &T) {
            prefetch(at);
        }
    }

    /// Two registers of 256 bits.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    // SAFETY, of all blocks: the type is named where the processor has AVX2, FMA and F16C, and the
    // arrays are as long as the loads and stores.
    impl Lanes for Avx2 {
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: see above.
            let both = unsafe { _mm256_set1_ps(value) };
            Self(both, both)
        }

        #[inline(always)]
        fn load(from: &[f32; 16]) -> Self {
            let from = from.as_ptr();
            // SAFETY: see above.
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }

        #[inline(always)]
        fn widen(from: &[u16; 16]) -> Self {
            let from = from.as_ptr().cast::<__m128i>();
            // SAFETY: see above.
            unsafe {
                let (low, high) = (_mm_loadu_si128(from), _mm_loadu_si128(from.add(1)));
                Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
            }
        }

        #[inline(always)]
        fn fused(self, by: Self, add: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                Self(_mm256_fmadd_ps(self.0, by.0, add.0), _mm256_fmadd_ps(self.1, by.1, add.1))
            }
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; 16]) {
            let to = to.as_mut_ptr();
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }

        #[inline(always)]
        fn prefetch<T>(at: &T) {
            prefetch(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::widest::widest;

    widest! {
        fn widened(from: &[u16], to: &mut [f32]) {
            for (from, to) in from.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
                L::widen(from).store(to);
            }
        }
    }

    /// All numbers in half precision, infinities and what is no number included, in the portable
    /// version and in this processor's.
    #[test]
    fn every_half_widens_to_what_it_is() {
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        let mut wide = vec![0.0; halves.len()];
        widened(&halves, &mut wide);
        for (half, wide) in halves.iter().zip(wide) {
            let want = half::f16::from_bits(*half).to_f32();
            for got in [wide, widen(*half)] {
                let alike = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                assert!(alike, "{half:#x} became {got}");
            }
        }
    }
}
