//! Runs a step on every rank. Rank 0 runs on the caller's thread and samples; the others have a
//! thread each and follow.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use kernels::sample::{Choice, Pick, SampleRow};
use kernels::{Backend, LaunchTime};

use crate::contract::Fault;
use crate::inputs::StepWork;
use crate::rank::Rank;

/// What runs a model's steps, whatever its ranks run on.
pub(crate) trait Execute: Send {
    /// The rows of one step, on every rank.
    fn forward(&mut self, work: &StepWork) -> Result<(), Fault>;

    /// Chooses tokens for the rows of that step whose logits are wanted.
    fn sample(&mut self, rows: &[SampleRow]) -> Result<Vec<Option<Choice>>, Fault>;

    /// Whether it is worth while to begin a step before the one before has been read.
    fn gains_by_running_ahead(&self) -> bool;

    /// As [`Self::sample`] for plain rows, at least one, without waiting. Two batches at most are
    /// under way, and a step that runs ahead has its tokens from the last one.
    fn start_sample(&mut self, rows: &[SampleRow]) -> Result<(), Fault>;

    /// What came of the oldest batch under way.
    fn finish_sample(&mut self) -> Result<Vec<Pick>, Fault>;

    /// Takes the times of rank 0's launches in the step that begins next, where they can be told.
    fn time_next_step(&mut self) {}

    /// What was found since.
    fn launch_times(&mut self) -> Vec<LaunchTime> {
        Vec::new()
    }

    /// The hidden states of that step's first rows behind the final norm, `[rows, hidden]`.
    fn hidden(&mut self, rows: usize) -> Result<Vec<f32>, Fault>;
}

/// All ranks of a model.
pub(crate) struct Executor<B: Backend> {
    first: Rank<B>,
    followers: Vec<Follower>,
}

struct Follower {
    steps: Option<SyncSender<StepWork>>,
    thread: Option<JoinHandle<()>>,
}

impl<B: Backend> Executor<B> {
    /// `ranks` in order; at least one.
    pub(crate) fn new(ranks: Vec<Rank<B>>) -> Self {
        let mut ranks = ranks.into_iter();
        let first = ranks.next().expect("a model has at least one rank");
        let followers = ranks.enumerate().map(|(at, rank)| Follower::spawn(at + 1, rank)).collect();
        Self { first, followers }
    }

    /// The first `rows` rows of the last step's logits.
    pub(crate) fn logits(&mut self, rows: usize) -> Vec<f32> {
        self.first.logits(rows)
    }
}

impl<B: Backend> Execute for Executor<B> {
    fn forward(&mut self, work: &StepWork) -> Result<(), Fault> {
        for (at, follower) in self.followers.iter().enumerate() {
            let steps = follower.steps.as_ref().expect("taken only when dropped");
            if steps.send(work.clone()).is_err() {
                return Err(Fault(format!("rank {} has ended", at + 1)));
            }
        }
        self.first.forward(work);
        self.first.sound(())
    }

    fn sample(&mut self, rows: &[SampleRow]) -> Result<Vec<Option<Choice>>, Fault> {
        let choices = self.first.sample(rows);
        self.first.sound(choices)
    }

    /// Only where no other rank has to hear of the tokens.
    fn gains_by_running_ahead(&self) -> bool {
        self.followers.is_empty() && self.first.gains_by_running_ahead()
    }

    fn start_sample(&mut self, rows: &[SampleRow]) -> Result<(), Fault> {
        self.first.start_sample(rows);
        self.first.sound(())
    }

    fn finish_sample(&mut self) -> Result<Vec<Pick>, Fault> {
        let picks = self.first.finish_sample();
        self.first.sound(picks)
    }

    fn time_next_step(&mut self) {
        self.first.time_next_step();
    }

    fn launch_times(&mut self) -> Vec<LaunchTime> {
        self.first.launch_times()
    }

    fn hidden(&mut self, rows: usize) -> Result<Vec<f32>, Fault> {
        let states = self.first.hidden(rows);
        self.first.sound(states)
    }
}

impl Follower {
    fn spawn<B: Backend>(at: usize, rank: Rank<B>) -> Self {
        // One step in hand: a follower is never more than that behind rank 0.
        let (steps, queue) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("rank-{at}"))
            .spawn(move || follow(rank, &queue))
            .expect("the system gives no more threads");
        Self { steps: Some(steps), thread: Some(thread) }
    }
}

fn follow<B: Backend>(mut rank: Rank<B>, queue: &Receiver<StepWork>) {
    while let Ok(work) = queue.recv() {
        rank.forward(&work);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            // A follower that panicked has broken the ranks' group, so that rank 0 panics as well.
            let _ = thread.join();
        }
    }
}
