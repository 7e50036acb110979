//! Steps that begin before the step before has been read, so that a device never waits for its
//! reader.
//!
//! While a step is under way the scheduler plans the next one, if it can without knowing the tokens
//! that are being chosen ([`scheduler::Scheduler::schedule_ahead`]); the device takes them from
//! where it has put them. Only then is the first step read. A request whose next token depends on
//! more than its logits and its draw (penalties, a grammar, a limited part) has no such steps, and
//! nobody beside it in the batch either.

use kernels::sample::{Pick, SampleRow};
use scheduler::{Sampled, StepPlan};

use crate::contract::Fault;
use crate::core::Engine;
use crate::inputs::step_work;

impl Engine {
    /// Begins a step that is read later, if the device gains by that and can choose by itself; says
    /// whether it did.
    pub(crate) fn begin_unread(&mut self, plan: &StepPlan) -> Result<bool, Fault> {
        if !self.executor.gains_by_running_ahead() {
            return Ok(false);
        }
        let Some(rows) = self.plain_rows(plan) else { return Ok(false) };
        self.begin(plan, &rows).map(|()| true)
    }

    /// How a plan's tokens are chosen, if each of its entries has one to be chosen and that needs
    /// nothing but the device.
    fn plain_rows(&self, plan: &StepPlan) -> Option<Vec<SampleRow>> {
        let row = |entry: &scheduler::Entry| {
            let live = self.live.get(&entry.request).filter(|live| entry.sample && live.is_plain());
            let position = u64::from(entry.start) + entry.tokens.len() as u64;
            live.map(|live| live.sampler.row(position)).filter(SampleRow::is_plain)
        };
        plan.entries.iter().map(row).collect()
    }

    /// Computes a step without waiting for it.
    fn begin(&mut self, plan: &StepPlan, rows: &[SampleRow]) -> Result<(), Fault> {
        self.executor.forward(&step_work(plan))?;
        self.executor.start_sample(rows)
    }

    /// Begins the step behind `plan`, which is under way, if it can be planned.
    pub(crate) fn begin_ahead(&mut self, plan: &StepPlan) -> Result<(), Fault> {
        if self.plain_rows(plan).is_none() {
            return Ok(());
        }
        let Some(next) = self.scheduler.schedule_ahead(plan) else { return Ok(()) };
        // Its rows are plain, since those of `plan` are: only the positions differ.
        let rows = self.plain_rows(&next).expect("what its requests want has not changed");
        self.begin(&next, &rows)?;
        self.ahead = Some(next);
        Ok(())
    }

    /// What the oldest step under way has chosen.
    pub(crate) fn finish(&mut self, plan: &StepPlan) -> Result<Vec<Sampled>, Fault> {
        let picks = self.executor.finish_sample()?;
        let sampled = picks.iter().zip(&plan.entries).map(|(pick, entry)| match *pick {
            Pick::Token(token) => Sampled::Token(token),
            Pick::Nothing => Sampled::NotFinite,
            Pick::Undecided => {
                // Its like would be lost as well.
                self.live.entry(entry.request).and_modify(|live| live.is_undecided = true);
                Sampled::Lost
            }
        });
        Ok(sampled.collect())
    }

    /// The step that has begun ahead, unless everybody in it has gone: then nobody wants to know.
    pub(crate) fn take_ahead(&mut self) -> Result<Option<StepPlan>, Fault> {
        let Some(plan) = self.ahead.take() else { return Ok(None) };
        if self.scheduler.works_on(&plan) {
            return Ok(Some(plan));
        }
        self.executor.finish_sample()?;
        Ok(None)
    }
}
