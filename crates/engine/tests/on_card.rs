//! A whole engine on a card against the same engine on the CPU: scheduler, steps, recordings and
//! choices together.
//!
//! Without a card the test says loudly that it has shown nothing; with `REQUIRE_GPU` set it fails.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use engine::{
    Device, Engine, EngineSpec, LoadError, RequestId, Sampling, TokenEngine, TokenRequest,
};

const TOKENS: u32 = 24;

fn sprout() -> PathBuf {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("REPOSITORY").map_or(compiled, PathBuf::from).join("models/sprout")
}

/// 25 beginnings of each of the model's eight conversations.
fn prompts() -> Vec<Vec<u32>> {
    let lines = std::fs::read_to_string(sprout().join("parity.jsonl")).expect("the conversations");
    let ids = |line: &str| -> Vec<u32> {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let ids = line["prompt_ids"].as_array().expect("a list").iter();
        ids.map(|id| id.as_u64().expect("an id") as u32).collect()
    };
    let beginnings =
        |ids: Vec<u32>| (1..=25).map(move |part| ids[..ids.len() * part / 25].to_vec());
    lines.lines().map(ids).flat_map(beginnings).collect()
}

fn answers(engine: &mut Engine, prompts: &[Vec<u32>]) -> HashMap<RequestId, Vec<u32>> {
    answers_by(engine, prompts, &|_| Sampling::greedy())
}

fn answers_by(
    engine: &mut Engine,
    prompts: &[Vec<u32>],
    sampling: &dyn Fn(u64) -> Sampling,
) -> HashMap<RequestId, Vec<u32>> {
    for (id, prompt) in prompts.iter().enumerate() {
        let request = TokenRequest {
            sampling: sampling(id as u64),
            ..TokenRequest::new(id as RequestId, prompt.clone(), TOKENS)
        };
        engine.submit(request).expect("there is room");
    }
    let mut answers: HashMap<RequestId, Vec<u32>> = HashMap::new();
    while !engine.is_idle() {
        for update in engine.step().expect("no fault").updates {
            answers.entry(update.id).or_default().extend(update.tokens);
        }
    }
    answers
}

fn spec(device: Device) -> EngineSpec {
    EngineSpec { device, context: Some(1024), token_budget: 256, ..EngineSpec::new(sprout()) }
}

/// The model on a card, or `None` where there is none.
fn on_card() -> Option<Engine> {
    match engine::load(&spec(Device::Cuda(0)), &mut |_, _| {}) {
        Ok(engine) => Some(engine),
        Err(LoadError::Device(fault)) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED, nothing was tested: {fault}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The most probable tokens after 200 prompts, sixteen sequences at a time, prompts in chunks.
#[test]
fn greedy_tokens_are_those_of_the_cpu_on_a_card() {
    let Some(mut on_card) = on_card() else { return };
    assert_eq!(on_card.info().prefix_cache.off, None, "the prefix cache failed its proof");
    let mut on_cpu = engine::load(&spec(Device::Cpu), &mut |_, _| {}).expect("it loads");
    let prompts = prompts();
    assert_eq!(prompts.len(), 200);
    let (got, want) = (answers(&mut on_card, &prompts), answers(&mut on_cpu, &prompts));
    let other: Vec<_> = (0..200).filter(|id| got[id] != want[id]).collect();
    assert!(other.is_empty(), "answers to prompts {other:?} differ");
    assert!(want.values().all(|tokens| tokens.len() == TOKENS as usize));
}

/// A bias of zero changes no logit, but such requests are read before they go on.
#[test]
fn drawn_tokens_are_the_same_when_steps_run_ahead_on_a_card() {
    let Some(mut on_card) = on_card() else { return };
    let drawn = |seed| Sampling { temperature: 0.8, top_k: 20, seed, ..Sampling::greedy() };
    let biased = |seed| Sampling { logit_bias: vec![(7, 0.0)], ..drawn(seed) };
    let prompts: Vec<_> = prompts().into_iter().step_by(3).collect();
    for some in [&prompts[..], &prompts[40..41]] {
        let ahead = answers_by(&mut on_card, some, &drawn);
        let waited = answers_by(&mut on_card, some, &biased);
        assert_eq!(ahead, waited);
    }
    let other = answers_by(&mut on_card, &prompts, &|seed| drawn(seed + 1));
    assert_ne!(other, answers_by(&mut on_card, &prompts, &drawn), "draws depend on the seed");
}
