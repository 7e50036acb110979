//! Generated tokens -> events.

use std::sync::Arc;

use dialog::{Event, FinishReason, GenerateRequest, Prompt, TokenLogprob, ToolSpec};

use crate::prompt::offered;
use crate::tool_call::{CLOSE, OPEN};
use crate::{
    Detokenizer, Prepared, ReasoningSplitter, Said, StopMatcher, TextModel, Thought, ToolCallParser,
};

/// What varies from answer to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Texts that end the answer. They are looked for behind the reasoning, not in it.
    pub stop: Vec<String>,
    /// Tools on offer; without any, nothing is taken for a call.
    pub tools: Vec<ToolSpec>,
    /// Whether the answer ends with its first call.
    pub one_call: bool,
    /// Whether the prompt ended inside the reasoning.
    pub reasoning_open: bool,
    /// Whether reasoning is told like any other text, for prompts without a template.
    pub is_raw: bool,
    /// Makes the ids of calls unique: the call with index 0 is `call_{prefix}0`.
    pub call_id_prefix: String,
}

impl StreamOptions {
    /// The options that belong to a request and its prompt.
    pub fn new(
        request: &GenerateRequest,
        prepared: &Prepared,
        call_id_prefix: impl Into<String>,
    ) -> Self {
        Self {
            stop: request.stop.clone(),
            tools: offered(request).to_vec(),
            one_call: !request.parallel_tool_calls,
            reasoning_open: prepared.reasoning_open,
            is_raw: !matches!(request.prompt, Prompt::Chat(_)),
            call_id_prefix: call_id_prefix.into(),
        }
    }
}

/// Log-probabilities of one token.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Of the token.
    pub chosen: f32,
    /// The most probable tokens in its place.
    pub top: Vec<(u32, f32)>,
}

/// Turns the tokens of one answer into events.
///
/// How the tokens are split into pushes makes no difference to the words and calls that come out
/// (equality E8).
pub struct TextStream {
    model: Arc<TextModel>,
    detokenizer: Detokenizer,
    reasoning: ReasoningSplitter,
    stop: StopMatcher,
    tools: ToolCallParser,
    call_id_prefix: String,
    one_call: bool,
    calls: u32,
    stopped: bool,
    stop_text: Option<String>,
    reasoning_tokens: u32,
}

impl TextStream {
    /// The stream of an answer by this model.
    pub fn new(model: Arc<TextModel>, options: StreamOptions) -> Self {
        let markers = model.reasoning.clone();
        let reasoning = match options.is_raw {
            true => ReasoningSplitter::none(markers),
            false => ReasoningSplitter::new(markers, options.reasoning_open),
        };
        Self {
            model,
            detokenizer: Detokenizer::default(),
            reasoning,
            stop: StopMatcher::new(options.stop),
            tools: ToolCallParser::new(options.tools),
            call_id_prefix: options.call_id_prefix,
            one_call: options.one_call,
            calls: 0,
            stopped: false,
            stop_text: None,
            reasoning_tokens: 0,
        }
    }

    /// Takes the next tokens. Neighbouring pieces of text come as one event.
    pub fn push(&mut self, tokens: &[u32]) -> Vec<Event> {
        self.push_scored(tokens, &[])
    }

    /// The same with the log-probabilities of the tokens, or of none of them: those of words come
    /// as an event before the words.
    pub fn push_scored(&mut self, tokens: &[u32], scores: &[Scores]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut told = Vec::new();
        for (at, &token) in tokens.iter().enumerate() {
            if self.stopped {
                break;
            }
            let was_open = self.reasoning.is_open();
            let was_call = self.tools.in_call();
            let is_shown = self.token(token, &mut events);
            let is_reasoning = was_open || self.reasoning.is_open();
            if is_reasoning {
                self.reasoning_tokens += 1;
            }
            let is_call = was_call || self.tools.in_call();
            if let Some(scores) = scores.get(at).filter(|_| is_shown && !is_reasoning && !is_call) {
                told.push(self.told(token, scores));
            }
        }
        if !told.is_empty() {
            events.insert(0, Event::Logprobs(told));
        }
        events
    }

    fn told(&self, token: u32, scores: &Scores) -> TokenLogprob {
        let bytes = |id| self.model.tokenizer.token_bytes(id).to_vec();
        let top = scores.top.iter().map(|(id, logprob)| (bytes(*id), *logprob)).collect();
        TokenLogprob { bytes: bytes(token), logprob: scores.chosen, top }
    }

    /// Whether a stop text has come: the answer is over, and the engine's request is to be
    /// aborted. Tokens pushed after it change nothing.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Ends the answer for the engine's reason: the events that were held back, the reason that
    /// the caller is told, and how many tokens belonged to the reasoning.
    ///
    /// Requirement 15: an answer that made a call ends with [`FinishReason::ToolCalls`], since an
    /// agent that reads anything else stops. A call that was cut short is none.
    pub fn finish(mut self, reason: FinishReason) -> (Vec<Event>, FinishReason, u32) {
        let mut events = Vec::new();
        if !self.stopped {
            let text = self.detokenizer.finish();
            self.text(&text, &mut events);
        }
        if !self.stopped {
            let thoughts = self.reasoning.finish();
            self.thoughts(thoughts, &mut events);
        }
        if !self.stopped {
            let held = self.stop.finish();
            let said = self.tools.push(&held);
            self.said(said, &mut events);
        }
        let said = self.tools.finish();
        self.said(said, &mut events);
        events.extend(self.stop_text.take().map(Event::StopText));
        let reason = match reason {
            _ if self.tools.called() => FinishReason::ToolCalls,
            _ if self.stopped => FinishReason::Stop,
            reason => reason,
        };
        (events, reason, self.reasoning_tokens)
    }

    /// Whether a reader is shown the token.
    fn token(&mut self, token: u32, events: &mut Vec<Event>) -> bool {
        let model = Arc::clone(&self.model);
        if model.stop_tokens.binary_search(&token).is_ok() {
            return false;
        }
        let bytes = model.tokenizer.token_bytes(token);
        if model.tokenizer.is_special(token) && !self.is_marker(bytes) {
            return false;
        }
        let text = self.detokenizer.push(bytes);
        self.text(&text, events);
        true
    }

    /// The parsers look for these, however the tokenizer marks them.
    fn is_marker(&self, bytes: &[u8]) -> bool {
        let reasoning = &self.model.reasoning;
        [OPEN, CLOSE, &reasoning.open, &reasoning.close]
            .iter()
            .any(|marker| marker.as_bytes() == bytes)
    }

    fn text(&mut self, text: &str, events: &mut Vec<Event>) {
        let thoughts = self.reasoning.push(text);
        self.thoughts(thoughts, events);
    }

    fn thoughts(&mut self, thoughts: Vec<Thought>, events: &mut Vec<Event>) {
        for thought in thoughts {
            match thought {
                Thought::Reasoning(text) => append(events, Event::Reasoning(text)),
                Thought::Text(text) => {
                    let stopped = self.stop.push(&text);
                    let said = self.tools.push(&stopped.text);
                    self.said(said, events);
                    if stopped.hit {
                        self.stopped = true;
                        self.stop_text = stopped.by;
                        return;
                    }
                }
            }
        }
    }

    fn said(&mut self, pieces: Vec<Said>, events: &mut Vec<Event>) {
        for piece in pieces {
            match piece {
                Said::Text(_) | Said::Call(_) if self.one_call && self.calls > 0 => {
                    self.stopped = true;
                    return;
                }
                Said::Text(text) => append(events, Event::Text(text)),
                Said::Call(name) => {
                    let index = self.calls;
                    self.calls += 1;
                    let id = format!("call_{}{index}", self.call_id_prefix);
                    events.push(Event::ToolCall { index, id, name });
                }
                Said::Arguments(delta) => {
                    let index = self.calls.saturating_sub(1);
                    append(events, Event::ToolArguments { index, delta });
                }
                Said::Called => self.stopped |= self.one_call,
            }
        }
    }
}

fn append(events: &mut Vec<Event>, event: Event) {
    match (events.last_mut(), event) {
        (Some(Event::Text(before)), Event::Text(text))
        | (Some(Event::Reasoning(before)), Event::Reasoning(text)) => before.push_str(&text),
        (
            Some(Event::ToolArguments { index: last, delta: before }),
            Event::ToolArguments { index, delta },
        ) if *last == index => before.push_str(&delta),
        (_, event) => events.push(event),
    }
}
