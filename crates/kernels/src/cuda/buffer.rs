//! Device memory: taken when a model is loaded, given back when it is dropped.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys;
use half::{bf16, f16};

use super::context::Context;
use super::launch::Address;
use crate::fault::DeviceFault;

/// What memory holds: plain numbers, for which every pattern of bits is a value.
///
/// # Safety
/// The type has no padding, no pointers and no pattern that is not a value.
pub unsafe trait Element: Copy + Default + 'static {}

macro_rules! elements {
    ($($element:ty),*) => {
        $(
            // SAFETY: a plain number.
            unsafe impl Element for $element {}
        )*
    };
}
elements!(f32, f64, u8, i8, u16, i16, u32, i32, u64, i64, f16, bf16);

/// Memory of a device for `len` elements; empty after a failure to take it, which the context
/// keeps.
pub struct Buffer<T> {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// Memory with whatever was in it; `what` names it if there is not enough.
    pub fn new(context: &Arc<Context>, what: &'static str, len: usize) -> Self {
        let mut buffer =
            Self { context: context.clone(), address: 0, len: 0, element: PhantomData };
        let bytes = len * size_of::<T>();
        if bytes == 0 || context.has_failed() {
            return buffer;
        }
        context.bind();
        // SAFETY: the context is current and the driver writes one address.
        match unsafe { sys::cuMemAlloc_v2(&raw mut buffer.address, bytes) } {
            sys::CUresult::CUDA_SUCCESS => buffer.len = len,
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let needed_mb = (bytes as u64).div_ceil(1 << 20);
                let free_mb = context.memory().0 >> 20;
                context.fail(DeviceFault::OutOfMemory { what, needed_mb, free_mb });
            }
            result => {
                context.note(what, result);
            }
        }
        buffer
    }

    /// Memory of zeros.
    pub fn zeroed(context: &Arc<Context>, what: &'static str, len: usize) -> Self {
        let buffer = Self::new(context, what, len);
        buffer.fill_bytes(0);
        buffer
    }

    /// Memory with these values.
    pub fn of(context: &Arc<Context>, what: &'static str, values: &[T]) -> Self {
        let buffer = Self::new(context, what, values.len());
        if buffer.len == values.len() {
            buffer.put(0, values);
        }
        buffer
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets every byte, in the order of the stream.
    pub fn fill_bytes(&self, byte: u8) {
        if self.len == 0 || self.context.has_failed() {
            return;
        }
        let bytes = self.len * size_of::<T>();
        // SAFETY: the range is this buffer's.
        let result =
            unsafe { sys::cuMemsetD8Async(self.address, byte, bytes, self.context.stream()) };
        self.context.note("filling memory", result);
    }

    /// Overwrites elements from `first` on and waits until it is done.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn put(&self, first: usize, values: &[T]) {
        // SAFETY: plain numbers are as many bytes, each with a value.
        let bytes = unsafe {
            std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        self.load(first, bytes);
    }

    /// As [`Self::put`], from the elements' bytes.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn load(&self, first: usize, bytes: &[u8]) {
        if self.context.has_failed() || bytes.is_empty() {
            return;
        }
        let offset = self.offset(first, bytes.len());
        let from = bytes.as_ptr().cast::<c_void>();
        // SAFETY: both ranges are valid, and the wait keeps the host's one alive long enough.
        let result = unsafe {
            let to = self.address + offset;
            sys::cuMemcpyHtoDAsync_v2(to, from, bytes.len(), self.context.stream())
        };
        if self.context.note("copying to the device", result) {
            self.context.synchronize();
        }
    }

    /// Elements `range`, after everything launched so far; zeros after a failure.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn get(&self, range: Range<usize>) -> Vec<T> {
        let mut values = vec![T::default(); range.len()];
        // SAFETY: plain numbers are as many bytes, and any bytes are numbers.
        let bytes = unsafe {
            let bytes = size_of_val(&values[..]);
            std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), bytes)
        };
        self.save(range.start, bytes);
        values
    }

    /// As [`Self::get`], into the elements' bytes, which stay as they are after a failure.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn save(&self, first: usize, bytes: &mut [u8]) {
        if self.context.has_failed() || bytes.is_empty() {
            return;
        }
        let offset = self.offset(first, bytes.len());
        let to = bytes.as_mut_ptr().cast::<c_void>();
        // SAFETY: both ranges are valid, and the wait keeps the host's one alive long enough.
        let result = unsafe {
            let from = self.address + offset;
            sys::cuMemcpyDtoHAsync_v2(to, from, bytes.len(), self.context.stream())
        };
        if self.context.note("copying from the device", result) {
            self.context.synchronize();
        }
    }

    /// Where element `first` begins, with so many bytes of this buffer behind it.
    fn offset(&self, first: usize, bytes: usize) -> u64 {
        let (offset, all) = (first * size_of::<T>(), self.len * size_of::<T>());
        assert!(offset + bytes <= all, "{bytes} bytes at {offset} of {all}");
        offset as u64
    }

    /// Copies `len` elements within this buffer, in the order of the stream; the ranges are apart.
    ///
    /// # Panics
    /// When one of the ranges is not within.
    pub fn copy_within(&self, from: usize, to: usize, len: usize) {
        if self.context.has_failed() || len == 0 || from == to {
            return;
        }
        assert!(from.max(to) + len <= self.len, "{from} and {to}, {len} of {}", self.len);
        let at = |element: usize| self.address + (element * size_of::<T>()) as u64;
        // SAFETY: both ranges are within this buffer.
        let result = unsafe {
            let (bytes, stream) = (len * size_of::<T>(), self.context.stream());
            sys::cuMemcpyDtoDAsync_v2(at(to), at(from), bytes, stream)
        };
        self.context.note("copying on the device", result);
    }

    /// Where element `element` is, as a kernel takes it.
    pub fn at(&self, element: usize) -> Address {
        Address(self.address + (element * size_of::<T>()) as u64)
    }

    /// The device.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.address != 0 {
            self.context.bind();
            // SAFETY: the address came from the driver and is freed once. The driver waits for
            // kernels that use it.
            unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

/// Page-locked memory of the host, from and to which the device copies by itself.
pub(crate) struct Pinned<T> {
    context: Arc<Context>,
    values: *mut T,
    len: usize,
}

// SAFETY: it owns its memory like a vector does.
unsafe impl<T: Element> Send for Pinned<T> {}

impl<T: Element> Pinned<T> {
    /// Zeros; empty after a failure.
    pub(crate) fn new(context: &Arc<Context>, len: usize) -> Self {
        let mut values = std::ptr::null_mut();
        context.bind();
        // SAFETY: the context is current and the driver writes one pointer.
        let result = unsafe { sys::cuMemHostAlloc(&raw mut values, len * size_of::<T>(), 0) };
        if !context.note("taking page-locked memory", result) || values.is_null() {
            return Self { context: context.clone(), values: std::ptr::null_mut(), len: 0 };
        }
        let values = values.cast::<T>();
        // SAFETY: the memory is as long as asked for, and zeros are values of every `Element`.
        unsafe { std::ptr::write_bytes(values, 0, len) };
        Self { context: context.clone(), values, len }
    }

    pub(crate) fn values(&self) -> &[T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the memory is this value's own; whoever lets the device write it waits first.
        unsafe { std::slice::from_raw_parts(self.values, self.len) }
    }

    pub(crate) fn values_mut(&mut self) -> &mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: as above, and `self` is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(self.values, self.len) }
    }

    /// Where it is, as a kernel takes it, which reads and writes it over the bus.
    pub(crate) fn address(&self) -> Address {
        Address(self.values as u64)
    }

    /// Starts copying the first `len` elements to `buffer`; they must not change until it is done.
    pub(crate) fn start_put(&self, buffer: &Buffer<T>, first: usize, len: usize) {
        if self.context.has_failed() || len == 0 {
            return;
        }
        assert!(len <= self.len && first + len <= buffer.len, "{len} at {first}");
        // SAFETY: both ranges are valid; the caller keeps to the promise above.
        let result = unsafe {
            let (from, bytes) = (self.values.cast(), len * size_of::<T>());
            let to = buffer.address + (first * size_of::<T>()) as u64;
            sys::cuMemcpyHtoDAsync_v2(to, from, bytes, self.context.stream())
        };
        self.context.note("copying to the device", result);
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        if !self.values.is_null() {
            self.context.bind();
            // SAFETY: the pointer came from the driver and is freed once.
            unsafe { sys::cuMemFreeHost(self.values.cast()) };
        }
    }
}
