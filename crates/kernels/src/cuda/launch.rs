//! How a kernel is started: `context.launch("name", grid).arg(&x).arg(rows).run()`.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::buffer::{Buffer, Element};
use super::context::Context;

/// A kernel takes at most this many arguments.
const MOST_ARGUMENTS: usize = 40;

/// How many blocks of how many threads, and dynamic shared memory of a block.
///
/// Each operation computes its grid with a pure function, which is tested without a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block in x, y and z.
    pub threads: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl Grid {
    /// `blocks` times `threads`, in one dimension.
    pub const fn line(blocks: u32, threads: u32) -> Self {
        Self { blocks: [blocks, 1, 1], threads: [threads, 1, 1], shared: 0 }
    }

    /// `x` by `y` blocks of `threads` threads.
    pub const fn plane(x: u32, y: u32, threads: u32) -> Self {
        Self { blocks: [x, y, 1], threads: [threads, 1, 1], shared: 0 }
    }

    /// The same with dynamic shared memory.
    pub const fn with_shared(self, bytes: u32) -> Self {
        Self { shared: bytes, ..self }
    }

    /// Enough blocks of `threads` threads that each of `items` has a thread.
    pub const fn over(items: usize, threads: u32) -> Self {
        Self::line(items.div_ceil(threads as usize) as u32, threads)
    }
}

/// A place in device memory, as a kernel takes it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    /// No place: for arguments that a kernel does not look at.
    pub const NONE: Self = Self(0);

    /// `bytes` further on.
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

/// What a kernel can be given: an address, or a number of the width that it declares.
pub trait Argument {
    /// The argument's bytes in the low end of a word.
    fn word(self) -> u64;
}

impl Argument for Address {
    fn word(self) -> u64 {
        self.0
    }
}

impl<T: Element> Argument for &Buffer<T> {
    fn word(self) -> u64 {
        self.at(0).0
    }
}

impl Argument for i32 {
    fn word(self) -> u64 {
        u64::from(self as u32)
    }
}

impl Argument for u32 {
    fn word(self) -> u64 {
        u64::from(self)
    }
}

impl Argument for i64 {
    fn word(self) -> u64 {
        self as u64
    }
}

impl Argument for u64 {
    fn word(self) -> u64 {
        self
    }
}

impl Argument for f64 {
    fn word(self) -> u64 {
        self.to_bits()
    }
}

impl Argument for f32 {
    fn word(self) -> u64 {
        u64::from(self.to_bits())
    }
}

/// A count: the kernel declares `int`.
///
/// Offsets within large buffers are computed by kernels in 64 bits from such counts.
impl Argument for usize {
    fn word(self) -> u64 {
        u64::from(u32::try_from(self).expect("a count of a kernel fits an int"))
    }
}

/// A flag: the kernel declares `int`.
impl Argument for bool {
    fn word(self) -> u64 {
        u64::from(self)
    }
}

/// A launch in the making.
#[must_use = "nothing runs before `run`"]
pub struct Launch<'a> {
    context: &'a Context,
    name: &'static str,
    grid: Grid,
    overlapping: bool,
    words: [u64; MOST_ARGUMENTS],
    /// Arguments larger than a word: their place, where there is one.
    places: [*const c_void; MOST_ARGUMENTS],
    count: usize,
}

impl Context {
    /// Prepares a launch of the kernel with this name.
    pub fn launch(&self, name: &'static str, grid: Grid) -> Launch<'_> {
        Launch {
            context: self,
            name,
            grid,
            overlapping: false,
            words: [0; MOST_ARGUMENTS],
            places: [std::ptr::null(); MOST_ARGUMENTS],
            count: 0,
        }
    }
}

impl<'a> Launch<'a> {
    /// The next argument, in the kernel's order.
    pub fn arg(mut self, argument: impl Argument) -> Self {
        self.words[self.count] = argument.word();
        self.count += 1;
        self
    }

    /// The next argument, larger than a word: a tensor map or a struct passed by value.
    pub fn arg_by_value<T: Copy>(mut self, value: &'a T) -> Self {
        self.places[self.count] = std::ptr::from_ref(value).cast();
        self.count += 1;
        self
    }

    /// Lets this kernel start before its predecessor has ended, on cards that can (sm_90 on).
    ///
    /// Only for kernels that call `wait_for_predecessors()` on every path before they touch
    /// anything that this step wrote, or write anything that this step reads.
    pub fn overlapping(mut self) -> Self {
        self.overlapping = true;
        self
    }

    /// Puts the launch into the stream. A grid without blocks is nothing to do.
    pub fn run(mut self) {
        if self.context.has_failed() || self.grid.blocks.contains(&0) {
            return;
        }
        let mut pointers = [std::ptr::null_mut::<c_void>(); MOST_ARGUMENTS];
        for (at, pointer) in pointers[..self.count].iter_mut().enumerate() {
            *pointer = if self.places[at].is_null() {
                (&raw mut self.words[at]).cast()
            } else {
                self.places[at].cast_mut()
            };
        }
        let (mut attributes, count) = self.attributes();
        let [grid_x, grid_y, grid_z] = self.grid.blocks;
        let [block_x, block_y, block_z] = self.grid.threads;
        let config = sys::CUlaunchConfig {
            gridDimX: grid_x,
            gridDimY: grid_y,
            gridDimZ: grid_z,
            blockDimX: block_x,
            blockDimY: block_y,
            blockDimZ: block_z,
            sharedMemBytes: self.grid.shared,
            hStream: self.context.stream(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: count,
        };
        let function = self.context.modules().function(self.name);
        // SAFETY: every argument has a place of at least its size, which the driver copies during
        // the call. That a kernel stays within its buffers is its own tests' matter.
        let result = unsafe {
            let nothing = std::ptr::null_mut();
            sys::cuLaunchKernelEx(&raw const config, function, pointers.as_mut_ptr(), nothing)
        };
        self.context.note(self.name, result);
        self.context.mark(self.name);
    }

    fn attributes(&self) -> ([sys::CUlaunchAttribute; 1], u32) {
        // SAFETY: the attribute is plain data, and zeros are its unused state.
        let mut attributes: [sys::CUlaunchAttribute; 1] = unsafe { std::mem::zeroed() };
        let alone = !self.overlapping || self.context.is_timing();
        if alone || self.context.card().generation < 90 {
            return (attributes, 0);
        }
        attributes[0].id =
            sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attributes[0].value.programmaticStreamSerializationAllowed = 1;
        (attributes, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_covers_its_items() {
        assert_eq!(Grid::over(257, 256), Grid::line(2, 256));
        assert_eq!(Grid::over(256, 256), Grid::line(1, 256));
        assert_eq!(Grid::over(0, 256).blocks[0], 0);
    }

    /// The driver reads as many low bytes of a word as the kernel declares.
    #[test]
    fn arguments_lie_at_the_low_end() {
        assert_eq!((-1_i32).word(), 0xffff_ffff);
        assert_eq!(1.0_f32.word(), 0x3f80_0000);
        assert_eq!(7_usize.word(), 7);
        assert_eq!(Address(5).plus(3).word(), 8);
    }
}
