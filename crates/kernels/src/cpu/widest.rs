//! One body compiled for several widths of registers.

use std::sync::OnceLock;

/// What the processor can do, as far as kernels differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What every processor of the architecture has.
    Portable,
    /// 256 bits, FMA and half precision.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512 bits with 8-bit dot products.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON with 8-bit dot products.
    #[cfg(target_arch = "aarch64")]
    Dot,
}

#[cfg(test)]
impl Level {
    /// All that this processor can run.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        let all = [
            Self::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512,
            #[cfg(target_arch = "aarch64")]
            Self::Dot,
        ];
        all.into_iter().filter(|one| *one <= level())
    }
}

/// This processor's level, looked up once, so that a result never depends on who asks.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            if avx2 && avx512 {
                return Level::Avx512;
            }
            if avx2 {
                return Level::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            return Level::Dot;
        }
        Level::Portable
    })
}

/// `a * b + c`, rounded once where the processor does so in one instruction.
#[inline(always)]
pub(crate) fn fused<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Whether the portable body fuses: where every processor of the architecture can.
pub(crate) const PORTABLE_FMA: bool = cfg!(target_arch = "aarch64");

/// Defines a function whose loops are compiled once for each [`Level`]. The body may name `FMA`,
/// which says whether [`fused`] is one instruction, and `L`, the level's
/// [`Lanes`](super::lanes::Lanes).
macro_rules! widest {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident$(<$($t:ident: $bound:path;)? $(const $n:ident: usize),+>)?
            ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        $vis fn $name$(<$($t: $bound,)? $(const $n: usize),+>)?($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<
                L: $crate::cpu::lanes::Lanes,
                $($($t: $bound,)?)?
                const FMA: bool,
                $($(const $n: usize),+)?
            >($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu::lanes::x86::{Avx2, Avx512};
                use $crate::cpu::widest::{Level, level};

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512$(<$($t: $bound,)? $(const $n: usize),+>)?($($arg: $ty),*) $(-> $ret)? {
                    body::<Avx512, $($($t,)?)? true, $($($n),+)?>($($arg),*)
                }

                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2$(<$($t: $bound,)? $(const $n: usize),+>)?($($arg: $ty),*) $(-> $ret)? {
                    body::<Avx2, $($($t,)?)? true, $($($n),+)?>($($arg),*)
                }

                // SAFETY: the level says that the processor has the features.
                match level() {
                    Level::Avx512 => return unsafe { avx512$(::<$($t,)? $($n),+>)?($($arg),*) },
                    Level::Avx2 => return unsafe { avx2$(::<$($t,)? $($n),+>)?($($arg),*) },
                    Level::Portable => {}
                }
            }
            use $crate::cpu::widest::PORTABLE_FMA;
            type Portable = $crate::cpu::lanes::Portable;
            body::<Portable, $($($t,)?)? PORTABLE_FMA, $($($n),+)?>($($arg),*)
        }
    )*};
}

pub(crate) use widest;
