//! What one request may use and did use: reserved before it is sent on, settled at its end.

mod estimate;

use dialog::Usage;
use fleet::Snapshot;
use fleet::budget::Budget;
use wire::{ErrorBody, Peek, Tally};

use crate::app::App;
use crate::auth::{Caller, Seat};
use crate::ledger::Share;
use crate::surface::Surface;
use estimate::Estimate;

/// Follows one request.
#[derive(Default)]
pub(crate) struct Meter {
    caller: Option<Caller>,
    seat: Option<Seat>,
    estimate: Estimate,
    tally: Option<Tally>,
}

/// A budget, and what of it is held in the database.
pub(crate) type Paying = (Budget, Option<Share>);

/// What a request used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub usage: Usage,
    /// The node did not say it to the end: words were counted instead.
    pub is_estimate: bool,
}

impl Used {
    pub(crate) fn tokens(&self) -> u64 {
        u64::from(self.usage.prompt_tokens) + u64::from(self.usage.completion_tokens)
    }
}

impl Meter {
    /// For whoever is at the door.
    pub(crate) fn of(caller: Option<Caller>) -> Meter {
        Meter { caller, ..Meter::default() }
    }

    /// Whose request it is.
    pub(crate) fn key(&self) -> Option<&str> {
        self.caller.as_ref().map(Caller::name)
    }

    /// Reserves what a request may use at most.
    ///
    /// # Errors
    /// 429 in words when one of the key's limits is in the way.
    pub(crate) async fn reserve(
        &mut self,
        app: &App,
        surface: &Surface,
        body: &[u8],
        peek: &Peek,
    ) -> Result<(), ErrorBody> {
        let Some(caller) = &self.caller else { return Ok(()) };
        if surface.generates() {
            let limit = limit_of(&app.fleet.load(), &peek.model);
            self.estimate = Estimate::new(body, peek, limit);
        }
        let Estimate { bound, likely, .. } = self.estimate;
        self.seat = Some(caller.reserve(bound, likely).await?);
        Ok(())
    }

    /// The head of the answer is here; its bytes follow.
    pub(crate) fn begin(&mut self, surface: &Surface, status: u16, is_stream: bool) {
        if surface.generates() && (200..300).contains(&status) {
            self.tally = Some(Tally::new(surface.dialect, is_stream));
        }
    }

    /// A piece of the answer passes. `has_words` where the piece is known to carry text.
    pub(crate) fn saw(&mut self, piece: &[u8], has_words: bool) {
        if let Some(tally) = &mut self.tally {
            tally.push(piece);
            if has_words {
                tally.saw_words();
            }
        }
    }

    /// What was used, when nothing more comes, and which budget pays. `is_whole` says that the
    /// answer came to its end.
    pub(crate) fn settle(&mut self, is_whole: bool) -> (Used, Option<Paying>) {
        let used = match &self.tally {
            Some(tally) => self.used(tally, is_whole),
            None => Used::default(),
        };
        let paying = self.seat.take().and_then(|seat| seat.settle(used.tokens()));
        (used, paying)
    }

    fn used(&self, tally: &Tally, is_whole: bool) -> Used {
        let told = tally.usage();
        let mut usage = told.unwrap_or_default();
        if usage.prompt_tokens == 0 {
            usage.prompt_tokens = self.estimate.prompt;
        }
        let is_estimate = !is_whole || told.is_none_or(|told| told.completion_tokens == 0);
        if is_estimate {
            usage.completion_tokens = usage.completion_tokens.max(tally.worded());
        }
        Used { usage, is_estimate }
    }
}

/// The largest context and output that a node has for the model.
fn limit_of(fleet: &Snapshot, model: &str) -> Option<control::Limit> {
    let replicas = fleet.nodes.iter().flat_map(|node| node.models());
    let limits = replicas.filter(|report| report.id == model).map(|report| report.limit);
    limits.filter(|limit| limit.context > 0).max_by_key(|limit| limit.context)
}
