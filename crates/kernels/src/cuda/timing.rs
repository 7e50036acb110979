//! How long each launch of a step takes on the device, by events between them.
//!
//! A timed step runs launch by launch and nothing overlaps, so the times add up to more than the
//! step takes when it is replayed: they tell what each kernel does alone.

use cudarc::driver::sys;

use super::context::Context;
use super::launch::Grid;
use crate::backend::LaunchTime;

/// So long the device is held up at first, in nanoseconds: by then the host has queued every
/// launch, and no time between two of them is the host's.
const HELD: u64 = 8_000_000;

/// Launches of nothing, whose median is what a launch between two events takes beside its kernel.
const EMPTY: usize = 9;

/// An event behind a launch.
pub(super) struct Mark {
    name: &'static str,
    event: sys::CUevent,
}

// SAFETY: the driver's handle may be used from any thread.
unsafe impl Send for Mark {}

/// The launches behind the empty ones, each less what an empty one takes.
fn net(times: &[LaunchTime]) -> Vec<LaunchTime> {
    let (empty, times) = times.split_at(EMPTY.min(times.len()));
    let mut empty: Vec<f64> = empty.iter().map(|launch| launch.seconds).collect();
    empty.sort_unstable_by(f64::total_cmp);
    let beside = empty.get(EMPTY / 2).copied().unwrap_or(0.0);
    let net =
        |launch: &LaunchTime| LaunchTime { seconds: (launch.seconds - beside).max(0.0), ..*launch };
    times.iter().map(net).collect()
}

impl Context {
    /// Times everything from here in the stream until the times are asked for.
    pub(super) fn start_timing(&self) {
        self.launch("hold", Grid::line(1, 1)).arg(HELD).run();
        self.set_timing(true);
        self.mark("");
        for _ in 0..EMPTY {
            self.launch("hold", Grid::line(1, 1)).arg(0_u64).run();
        }
    }

    /// Notes that `name` has been put into the stream, if launches are timed.
    pub(crate) fn mark(&self, name: &'static str) {
        if !self.is_timing() || self.has_failed() {
            return;
        }
        let mut event = std::ptr::null_mut();
        // SAFETY: the context is current and the driver writes one handle.
        let result = unsafe { sys::cuEventCreate(&raw mut event, 0) };
        if !self.note("making an event", result) {
            return;
        }
        // SAFETY: both handles are alive.
        let result = unsafe { sys::cuEventRecord(event, self.stream()) };
        self.note("recording an event", result);
        self.marks().push(Mark { name, event });
    }

    /// What was launched since [`Self::start_timing`], in order; waits for it. Nothing is timed any
    /// more.
    pub(super) fn launch_times(&self) -> Vec<LaunchTime> {
        self.set_timing(false);
        self.synchronize();
        let marks = std::mem::take(&mut *self.marks());
        let times = marks.windows(2).map(|pair| {
            let mut milliseconds = 0.0;
            let (from, to) = (pair[0].event, pair[1].event);
            // SAFETY: both handles are alive and the driver writes one number.
            let result = unsafe { sys::cuEventElapsedTime_v2(&raw mut milliseconds, from, to) };
            self.note("measuring time", result);
            LaunchTime { name: pair[1].name, seconds: f64::from(milliseconds) / 1e3 }
        });
        let times: Vec<_> = times.collect();
        for mark in marks {
            // SAFETY: the handle is the driver's and destroyed once.
            unsafe { sys::cuEventDestroy_v2(mark.event) };
        }
        net(&times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_launch_of_nothing_takes_is_not_the_kernels() {
        let launch = |name, seconds| LaunchTime { name, seconds };
        // The median of the empty ones is three; one was late.
        let mut times: Vec<_> = (0..EMPTY).map(|_| launch("hold", 3.0)).collect();
        times[2].seconds = 90.0;
        times.extend([launch("linear_one", 10.0), launch("embed", 2.5)]);
        assert_eq!(net(&times), [launch("linear_one", 7.0), launch("embed", 0.0)]);
        assert_eq!(net(&[]), [], "after a failure there are none");
    }
}
