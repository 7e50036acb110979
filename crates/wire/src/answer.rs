//! The events of one answer, gathered into blocks.
//!
//! Streams that announce blocks and bodies that list them both read this, so that they cannot
//! differ (equality E8).

use dialog::{Event, FinishReason, Timings, TokenLogprob, Usage};

use crate::ErrorBody;

/// What an answer consists of, in order. Neighbours of one kind are one block, except for calls.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Block {
    /// What it is.
    pub(crate) kind: Kind,
    /// The words; of a call, its arguments.
    pub(crate) text: String,
    /// Of its tokens, where they are asked for.
    pub(crate) logprobs: Vec<TokenLogprob>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Reasoning,
    Text,
    Call { id: String, name: String },
}

/// What an event does to the block with that index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// It begins.
    Open,
    /// It grows by this.
    Delta(&'a str),
    /// It is complete.
    Close,
}

/// How an answer came to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
}

/// All of an answer so far.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    blocks: Vec<Block>,
    /// Whether the last block may still grow.
    is_open: bool,
    stop_text: Option<String>,
    /// Of tokens whose words have not come yet.
    pending: Vec<TokenLogprob>,
    /// How many log-probabilities the last event brought to the last words.
    fresh: usize,
    end: Option<Result<End, ErrorBody>>,
}

impl Answer {
    /// Takes the next event. Events after the end change nothing; empty words open no block.
    pub(crate) fn take<'e>(&mut self, event: &'e Event) -> Vec<(usize, Change<'e>)> {
        let mut changes = Vec::new();
        if self.ended() {
            return changes;
        }
        self.fresh = 0;
        match event {
            Event::Started { .. } => {}
            Event::Reasoning(words) => self.say(Kind::Reasoning, words, &mut changes),
            Event::Text(words) => self.say(Kind::Text, words, &mut changes),
            Event::Logprobs(logprobs) => self.pending.extend_from_slice(logprobs),
            Event::ToolCall { id, name, .. } => {
                let kind = Kind::Call { id: id.clone(), name: name.clone() };
                self.open(kind, &mut changes);
            }
            Event::ToolArguments { delta, .. } => self.argue(delta, &mut changes),
            Event::StopText(text) => self.stop_text = Some(text.clone()),
            Event::Finished { reason, usage, timings } => {
                self.settle_logprobs();
                self.close(&mut changes);
                let (reason, usage, timings) = (*reason, *usage, *timings);
                self.end = Some(Ok(End { reason, usage, timings }));
            }
            Event::Failed(failure) => self.end = Some(Err(ErrorBody::from_failure(failure))),
        }
        changes
    }

    /// The blocks so far.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// What the last event brought to the last words: for what they grew by, or, if it was the
    /// end, for tokens whose words never came.
    pub(crate) fn fresh_logprobs(&self) -> &[TokenLogprob] {
        let words = self.blocks.iter().rfind(|block| block.kind == Kind::Text);
        let all = words.map_or(&[][..], |block| &block.logprobs);
        &all[all.len() - self.fresh..]
    }

    /// The text by which the answer was stopped.
    pub(crate) fn stop_text(&self) -> Option<&str> {
        self.stop_text.as_deref()
    }

    /// Whether the last event has come.
    pub(crate) fn ended(&self) -> bool {
        self.end.is_some()
    }

    /// How the answer ended, or why it failed; one that has not ended is a fault of ours.
    pub(crate) fn end(&self) -> Result<End, ErrorBody> {
        let unfinished = || ErrorBody::internal("the answer ended without its last event");
        self.end.clone().unwrap_or_else(|| Err(unfinished()))
    }

    /// All words of one kind, joined.
    pub(crate) fn joined(&self, kind: &Kind) -> String {
        let blocks = self.blocks.iter().filter(|block| block.kind == *kind);
        blocks.map(|block| block.text.as_str()).collect()
    }

    fn say<'e>(&mut self, kind: Kind, words: &'e str, changes: &mut Vec<(usize, Change<'e>)>) {
        if words.is_empty() {
            return;
        }
        if !self.is_open || self.blocks.last().is_none_or(|block| block.kind != kind) {
            self.open(kind, changes);
        }
        self.grow(words, changes);
    }

    /// All arguments of a call come before the next other event, so that the call is still open.
    fn argue<'e>(&mut self, delta: &'e str, changes: &mut Vec<(usize, Change<'e>)>) {
        let last = self.blocks.last().map(|block| &block.kind);
        if !delta.is_empty() && self.is_open && matches!(last, Some(Kind::Call { .. })) {
            self.grow(delta, changes);
        }
    }

    fn open<'e>(&mut self, kind: Kind, changes: &mut Vec<(usize, Change<'e>)>) {
        self.close(changes);
        changes.push((self.blocks.len(), Change::Open));
        self.blocks.push(Block { kind, text: String::new(), logprobs: Vec::new() });
        self.is_open = true;
    }

    fn grow<'e>(&mut self, words: &'e str, changes: &mut Vec<(usize, Change<'e>)>) {
        if let Some(block) = self.blocks.last_mut() {
            block.text.push_str(words);
            if block.kind == Kind::Text {
                self.fresh = self.pending.len();
                block.logprobs.append(&mut self.pending);
            }
            changes.push((self.blocks.len() - 1, Change::Delta(words)));
        }
    }

    /// Tokens whose words never came, as those of a stop text, belong to the last words.
    fn settle_logprobs(&mut self) {
        let last = self.blocks.iter_mut().rfind(|block| block.kind == Kind::Text);
        if let Some(block) = last {
            self.fresh = self.pending.len();
            block.logprobs.append(&mut self.pending);
        }
    }

    /// Arguments are JSON, so that a call without any shows an empty object.
    fn close(&mut self, changes: &mut Vec<(usize, Change<'_>)>) {
        if !self.is_open {
            return;
        }
        let is_bare =
            |block: &Block| matches!(block.kind, Kind::Call { .. }) && block.text.is_empty();
        if self.blocks.last().is_some_and(is_bare) {
            self.grow("{}", changes);
        }
        changes.push((self.blocks.len() - 1, Change::Close));
        self.is_open = false;
    }
}
