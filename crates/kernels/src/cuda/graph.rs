//! Decode steps, recorded once for each size and played again.
//!
//! The first step of a size runs launch by launch, which also makes the driver load what it needs.
//! The second one is recorded as it runs, and every later one is one call. All that differs between
//! two steps of a size is in device memory, at the same places, so a replay computes bit for bit
//! what the launches would.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::Context;
use super::step::StepSize;
use crate::backend::Begun;

/// Recordings kept at once; one is needed for each batch size and span of contexts in use.
const MOST: usize = 128;

/// What is known of a size of steps.
enum Known {
    /// One such step has run.
    Seen,
    /// They are recorded.
    Recorded(Recording),
}

/// The recordings of one model on one device.
pub(super) struct Graphs {
    context: Arc<Context>,
    enabled: bool,
    known: HashMap<StepSize, Known>,
    recording: Option<StepSize>,
}

impl Graphs {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self { context: context.clone(), enabled: true, known: HashMap::new(), recording: None }
    }

    /// Plays a step of this size, or says that it must be computed, and perhaps records that.
    pub(super) fn begin(&mut self, size: StepSize) -> Begun {
        let is_watched = self.context.is_timing() || self.context.has_failed();
        if !self.enabled || !size.is_decode || is_watched {
            return Begun::Compute;
        }
        match self.known.get(&size) {
            Some(Known::Recorded(recording)) => {
                recording.play();
                return Begun::Replayed;
            }
            Some(Known::Seen) => {
                let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
                // SAFETY: the stream is alive and nothing records it yet.
                let result = unsafe { sys::cuStreamBeginCapture_v2(self.context.stream(), mode) };
                if self.context.note("recording a step", result) {
                    self.recording = Some(size);
                }
            }
            None if self.known.len() < MOST => {
                self.known.insert(size, Known::Seen);
            }
            None => {}
        }
        Begun::Compute
    }

    /// Ends a recording, if there is one, and plays it: while it was made, nothing ran.
    pub(super) fn end(&mut self) {
        let Some(size) = self.recording.take() else { return };
        let mut graph = std::ptr::null_mut();
        // SAFETY: this stream is being recorded; the driver writes one handle.
        let result = unsafe { sys::cuStreamEndCapture(self.context.stream(), &raw mut graph) };
        if !self.context.note("ending the recording of a step", result) {
            return;
        }
        let mut raw = std::ptr::null_mut();
        // SAFETY: the graph was just made; what runs is made of it and does not need it.
        let result = unsafe {
            let result = sys::cuGraphInstantiateWithFlags(&raw mut raw, graph, 0);
            sys::cuGraphDestroy(graph);
            result
        };
        if self.context.note("preparing the recording of a step", result) {
            let recording = Recording { context: self.context.clone(), raw };
            recording.play();
            self.known.insert(size, Known::Recorded(recording));
        }
    }

    /// Whether a step is being recorded: then only launches and copies on the device are allowed.
    pub(super) fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// From now on, every step runs launch by launch.
    pub(super) fn disable(&mut self) {
        self.enabled = false;
        self.known.clear();
    }

    /// Whether steps are recorded.
    pub(super) fn are_enabled(&self) -> bool {
        self.enabled
    }

    /// How many sizes are recorded.
    pub(super) fn recorded(&self) -> usize {
        self.known.values().filter(|known| matches!(known, Known::Recorded(_))).count()
    }
}

struct Recording {
    context: Arc<Context>,
    raw: sys::CUgraphExec,
}

// SAFETY: the driver's handle may be used from any thread.
unsafe impl Send for Recording {}

impl Recording {
    fn play(&self) {
        // SAFETY: both handles are alive, and so is all the memory that the launches name: the
        // backend's owner keeps a model as long as its backend.
        let result = unsafe { sys::cuGraphLaunch(self.raw, self.context.stream()) };
        self.context.note("playing a recorded step", result);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.context.bind();
        // SAFETY: the handle is the driver's and destroyed once.
        unsafe { sys::cuGraphExecDestroy(self.raw) };
    }
}
