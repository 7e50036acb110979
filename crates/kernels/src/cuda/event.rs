//! Marks in a stream: to wait for, and to measure between.

use std::sync::Arc;

use cudarc::driver::sys;

use super::context::Context;

/// A mark, recorded any number of times; the last one counts.
pub struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
}

// SAFETY: the driver's handle may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// An event that nobody has recorded: waiting for it ends at once.
    pub fn new(context: &Arc<Context>) -> Self {
        let mut raw = std::ptr::null_mut();
        context.bind();
        // SAFETY: the context is current and the driver writes one handle.
        let result = unsafe { sys::cuEventCreate(&raw mut raw, 0) };
        context.note("making an event", result);
        Self { context: context.clone(), raw }
    }

    /// Marks this place in the stream.
    pub fn record(&self) {
        if self.context.has_failed() {
            return;
        }
        // SAFETY: both handles are alive.
        let result = unsafe { sys::cuEventRecord(self.raw, self.context.stream()) };
        self.context.note("recording an event", result);
    }

    /// Waits until the device has come to the mark.
    pub fn wait(&self) {
        if self.context.has_failed() {
            return;
        }
        // SAFETY: the handle is alive.
        let result = unsafe { sys::cuEventSynchronize(self.raw) };
        self.context.note("waiting for an event", result);
    }

    /// Milliseconds of the device from `earlier` to this mark, once both have been waited for.
    pub fn milliseconds_since(&self, earlier: &Self) -> f32 {
        let mut milliseconds = 0.0;
        // SAFETY: both handles are alive and the driver writes one number.
        let result =
            unsafe { sys::cuEventElapsedTime_v2(&raw mut milliseconds, earlier.raw, self.raw) };
        self.context.note("measuring time", result);
        milliseconds
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            self.context.bind();
            // SAFETY: the handle is the driver's and destroyed once.
            unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}
