//! What a device says of its own time, for benchmarks.

use kernels::LaunchTime;

use crate::core::Engine;

impl Engine {
    /// Takes the time of every launch of the step that begins next, and slows it down by that.
    pub fn time_next_step(&mut self) {
        self.executor.time_next_step();
    }

    /// What was found since: nothing on a device that cannot tell.
    pub fn launch_times(&mut self) -> Vec<LaunchTime> {
        self.executor.launch_times()
    }
}
