//! Steps that run ahead of their reader, with real models on the CPU: they change no token.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kernels::sample::Pick;

use crate::contract::{EngineSpec, PartLimit, Sampling};
use crate::core::*;
use crate::inputs::StepWork;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Begun { ahead: bool },
    Read,
}

/// A device that gains by running ahead.
struct Eager {
    inner: Box<dyn Execute>,
    events: Arc<Mutex<Vec<Event>>>,
    /// In every so many batches, the first row's token is lost.
    loses: Option<usize>,
    batches: usize,
}

impl Execute for Eager {
    fn forward(&mut self, work: &StepWork) -> Result<(), Fault> {
        self.events.lock().expect("sound").push(Event::Begun { ahead: work.inputs.ahead });
        self.inner.forward(work)
    }

    fn sample(&mut self, rows: &[SampleRow]) -> Result<Vec<Option<Choice>>, Fault> {
        self.inner.sample(rows)
    }

    fn gains_by_running_ahead(&self) -> bool {
        true
    }

    fn start_sample(&mut self, rows: &[SampleRow]) -> Result<(), Fault> {
        self.inner.start_sample(rows)
    }

    fn finish_sample(&mut self) -> Result<Vec<Pick>, Fault> {
        self.events.lock().expect("sound").push(Event::Read);
        let mut picks = self.inner.finish_sample()?;
        self.batches += 1;
        if self.loses.is_some_and(|every| self.batches.is_multiple_of(every)) {
            picks[0] = Pick::Undecided;
        }
        Ok(picks)
    }

    fn hidden(&mut self, rows: usize) -> Result<Vec<f32>, Fault> {
        self.inner.hidden(rows)
    }
}

fn load(model: &str) -> Engine {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let spec = EngineSpec {
        context: Some(256),
        max_running: 4,
        token_budget: 32,
        ..EngineSpec::new(fixtures.join(model))
    };
    crate::load(&spec, &mut |_, _| {}).expect("the fixture loads")
}

fn eager(model: &str, loses: Option<usize>) -> (Engine, Arc<Mutex<Vec<Event>>>) {
    let mut engine = load(model);
    let events = Arc::new(Mutex::new(Vec::new()));
    let inner = std::mem::replace(&mut engine.executor, super::always(None));
    engine.executor = Box::new(Eager { inner, events: events.clone(), loses, batches: 0 });
    (engine, events)
}

/// Ten requests of a few lengths: most plain, greedy or drawn, one with penalties, one that stops
/// early, so that steps run ahead, are passed over and cannot be planned, all in one run.
fn requests() -> Vec<TokenRequest> {
    let request = |id: u64| {
        let prompt = (0..5 + 7 * id as u32).map(|at| (at * 37 + 11 * id as u32) % 250).collect();
        let sampling = match id {
            0 | 4 | 7 => Sampling::greedy(),
            6 => Sampling { frequency_penalty: 0.5, ..Sampling::greedy() },
            _ => Sampling { temperature: 0.9, top_k: 20, seed: id, ..Sampling::greedy() },
        };
        let stop_tokens = if id == 4 { (0..60).collect() } else { vec![] };
        let most = if id == 6 { 6 } else { 60 + 9 * id as u32 };
        TokenRequest { sampling, stop_tokens, ..TokenRequest::new(id, prompt, most) }
    };
    (0..10).map(request).collect()
}

/// Runs the requests, a new one every third step; request 5 leaves after `leaves` steps.
fn answers(engine: &mut Engine, leaves: Option<usize>) -> HashMap<RequestId, Vec<u32>> {
    let mut waiting = requests().into_iter();
    let mut answers: HashMap<RequestId, Vec<u32>> = HashMap::new();
    for step in 0.. {
        if step % 3 == 0
            && let Some(request) = waiting.next()
        {
            engine.submit(request).expect("there is room");
        }
        if leaves == Some(step) {
            engine.abort(5);
        }
        if waiting.len() == 0 && engine.is_idle() {
            break;
        }
        for update in engine.step().expect("no fault").updates {
            answers.entry(update.id).or_default().extend(update.tokens);
        }
    }
    let (info, gauges) = (engine.info(), engine.gauges());
    assert_eq!(gauges.kv_blocks_free, info.kv_blocks, "idle means that no block is held");
    assert_eq!(gauges.state_slots_free, info.state_slots, "idle means that no slot is held");
    answers
}

#[test]
fn running_ahead_changes_no_token() {
    for model in ["qwen3", "qwen3_5"] {
        let want = answers(&mut load(model), None);
        assert!(want[&4].len() < 60 + 36, "it stops early: {:?}", want[&4]);
        for loses in [None, Some(7)] {
            let (mut engine, events) = eager(model, loses);
            assert_eq!(answers(&mut engine, None), want, "{model}, {loses:?}");
            let events = events.lock().expect("sound");
            let ahead = events.iter().filter(|event| **event == Event::Begun { ahead: true });
            let (ahead, all) = (ahead.count(), events.len());
            assert!(ahead > 30, "{model}: {ahead} of {all} events are steps that ran ahead");
        }
        let mut stayed = want.clone();
        let (mut engine, _) = eager(model, None);
        let mut got = answers(&mut engine, Some(40));
        let (whole, part) = (stayed.remove(&5).expect("it"), got.remove(&5).unwrap_or_default());
        assert!(part.len() < whole.len() && whole.starts_with(&part), "it left on the way");
        assert_eq!(got, stayed, "{model}: one leaves");
    }
}

/// The point of it: a step is read when the next one has begun.
#[test]
fn the_next_step_begins_before_this_one_is_read() {
    let (mut engine, events) = eager("qwen3_5", None);
    engine.submit(TokenRequest::new(1, vec![3; 9], 4)).expect("there is room");
    while !engine.is_idle() {
        engine.step().expect("no fault");
    }
    let (begun, ahead) = (Event::Begun { ahead: false }, Event::Begun { ahead: true });
    let order = [begun, ahead, Event::Read, ahead, Event::Read, ahead, Event::Read, Event::Read];
    assert_eq!(*events.lock().expect("sound"), order);
}

/// A request's id is free as soon as it has left, though the step that knew it still runs.
#[test]
fn a_step_that_nobody_waits_for_is_forgotten() {
    let (mut engine, events) = eager("qwen3_5", None);
    let request = |seed| TokenRequest::new(1, vec![seed; 9], 3);
    engine.submit(request(3)).expect("there is room");
    engine.step().expect("no fault");
    engine.abort(1);
    assert!(engine.is_idle());
    engine.submit(request(8)).expect("the id is free");
    let first = engine.step().expect("no fault");
    assert_eq!(first.started.len(), 1, "no step is spent on the one that left");
    let mut tokens = first.updates[0].tokens.clone();
    while !engine.is_idle() {
        let updates = engine.step().expect("no fault").updates;
        tokens.extend(updates.into_iter().flat_map(|update| update.tokens));
    }
    let mut undisturbed = load("qwen3_5");
    undisturbed.submit(request(8)).expect("there is room");
    let mut want = Vec::new();
    while !undisturbed.is_idle() {
        let updates = undisturbed.step().expect("no fault").updates;
        want.extend(updates.into_iter().flat_map(|update| update.tokens));
    }
    assert_eq!(tokens, want);
    let reads = events.lock().expect("sound").iter().filter(|event| **event == Event::Read).count();
    assert_eq!(reads, 5, "two of the first request, three of the second");
}

/// What a token before decides, or what is wanted beside the token, has to be seen first.
#[test]
fn requests_that_go_by_their_answer_are_read_first() {
    let plain = || TokenRequest::new(1, vec![3; 9], 6);
    let with = |change: &dyn Fn(&mut Sampling)| {
        let mut sampling = Sampling::greedy();
        change(&mut sampling);
        TokenRequest { sampling, ..plain() }
    };
    let limit = PartLimit { open: None, close: 7, most: 2, ending: vec![7] };
    let early = TokenRequest { min_tokens: 4, stop_tokens: vec![9], ..plain() };
    for (why, request, ahead) in [
        ("nothing is in the way", plain(), 5),
        ("a draw depends on its place alone", with(&|it| it.temperature = 0.7), 5),
        ("the first four may not end it", early, 1),
        ("repetition", with(&|it| it.repetition_penalty = 1.1), 0),
        ("presence", with(&|it| it.presence_penalty = 0.1), 0),
        ("frequency", with(&|it| it.frequency_penalty = 0.1), 0),
        ("bias", with(&|it| it.logit_bias = vec![(5, 1.0)]), 0),
        ("log-probabilities", TokenRequest { top_logprobs: Some(1), ..plain() }, 0),
        ("a limited part", TokenRequest { part_limit: Some(limit), ..plain() }, 0),
    ] {
        let (mut engine, events) = eager("qwen3", None);
        engine.submit(request).expect("there is room");
        while !engine.is_idle() {
            engine.step().expect("no fault");
        }
        let events = events.lock().expect("sound");
        let begun = events.iter().filter(|event| **event == Event::Begun { ahead: true });
        assert_eq!(begun.count(), ahead, "{why}");
    }
}
