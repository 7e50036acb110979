//! How fast a card can read its memory: what every figure of a decode step is held against.

use std::sync::Arc;

use super::buffer::Buffer;
use super::context::Context;
use super::event::Event;
use super::launch::Grid;
use crate::fault::DeviceFault;

/// Bytes that are read in a pass: far more than any cache holds.
const BYTES: usize = 4 << 30;
/// Passes, of which the fastest counts.
const PASSES: usize = 10;

impl Context {
    /// The best of several passes over a large buffer, in GB/s.
    ///
    /// # Errors
    /// When the card has no room for the buffer, or fails.
    pub fn read_bandwidth(self: &Arc<Self>) -> Result<f64, DeviceFault> {
        let data = Buffer::<u8>::new(self, "measuring the memory", BYTES);
        let sum = Buffer::<u32>::new(self, "measuring the memory", 1);
        data.fill_bytes(0x5a);
        let (begin, end) = (Event::new(self), Event::new(self));
        let mut fastest = f32::INFINITY;
        for _ in 0..PASSES {
            begin.record();
            self.launch("read_all", Grid::line(8 * self.card().multiprocessors, 256))
                .arg(&data)
                .arg((BYTES / 16) as i64)
                .arg(&sum)
                .run();
            end.record();
            end.wait();
            fastest = fastest.min(end.milliseconds_since(&begin));
        }
        let fault = self.fault();
        fault.map_or(Ok(BYTES as f64 / f64::from(fastest) / 1e6), Err)
    }
}
