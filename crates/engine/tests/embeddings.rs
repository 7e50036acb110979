//! Embeddings: the hidden states from which the logits come, pooled.

use std::path::PathBuf;

use engine::{Engine, EngineSpec, Pooling, TokenEngine, TokenRequest};

const MODELS: [&str; 2] = ["qwen3", "qwen3_5"];

fn load(model: &str, token_budget: u32, prefix_cache: bool) -> Engine {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let spec = EngineSpec {
        context: Some(256),
        max_running: 4,
        token_budget,
        prefix_cache,
        ..EngineSpec::new(fixtures.join(model))
    };
    engine::load(&spec, &mut |_, _| {}).expect("the fixture loads")
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|at| (at * 37 + 11) % 250).collect()
}

/// The embeddings of prompts that are asked for together.
fn embed(engine: &mut Engine, pooling: Pooling, prompts: &[Vec<u32>]) -> Vec<Vec<f32>> {
    for (id, prompt) in (1..).zip(prompts) {
        let request = TokenRequest::new(id, prompt.clone(), 1);
        engine.submit(TokenRequest { pooling: Some(pooling), ..request }).expect("there is room");
    }
    let mut found = Vec::new();
    while !engine.is_idle() {
        found.extend(engine.step().expect("no fault").embeddings);
    }
    found.sort_by_key(|embedding| embedding.id);
    found.into_iter().map(|embedding| embedding.values).collect()
}

#[test]
fn an_embedding_is_the_same_cold_cached_in_pieces_and_in_company() {
    for model in MODELS {
        for pooling in [Pooling::Last, Pooling::Mean] {
            let alone: Vec<Vec<f32>> = [40, 55]
                .map(|length| {
                    embed(&mut load(model, 512, false), pooling, &[prompt(length)]).remove(0)
                })
                .into();
            let both = [prompt(40), prompt(55)];
            for budget in [7, 32, 512] {
                let mut engine = load(model, budget, true);
                for round in ["cold", "warm"] {
                    let found = embed(&mut engine, pooling, &both);
                    assert_eq!(found, alone, "{model} {pooling:?} {budget} {round}");
                }
            }
        }
    }
}

#[test]
fn a_mean_is_that_of_the_last_states_of_all_beginnings() {
    for model in MODELS {
        let mut engine = load(model, 512, false);
        let whole = prompt(9);
        let beginnings: Vec<Vec<u32>> = (1..=9).map(|length| whole[..length].to_vec()).collect();
        let mut mean = vec![0.0; 0];
        for beginning in &beginnings {
            let last = embed(&mut engine, Pooling::Last, std::slice::from_ref(beginning)).remove(0);
            mean.resize(last.len(), 0.0);
            mean.iter_mut().zip(&last).for_each(|(sum, value)| *sum += value / 9.0);
        }
        let found = embed(&mut engine, Pooling::Mean, &[whole]).remove(0);
        let worst = mean.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{model}: {worst}");
    }
}

/// The output head times the last state is what the logits are: the state is taken at the right
/// place and behind the norm.
#[test]
fn the_last_state_gives_the_logits() {
    for model in MODELS {
        let mut engine = load(model, 512, false);
        let state = embed(&mut engine, Pooling::Last, &[prompt(20)]).remove(0);
        let request =
            TokenRequest { top_logprobs: Some(255), ..TokenRequest::new(9, prompt(20), 1) };
        engine.submit(request).expect("there is room");
        let report = engine.step().expect("no fault");
        let logprobs = &report.updates[0].logprobs[0].top;
        let head = head(model, state.len());
        let logit = |token: u32| -> f32 {
            let row = &head[token as usize * state.len()..][..state.len()];
            row.iter().zip(&state).map(|(a, b)| a * b).sum()
        };
        // Logits are log-probabilities up to one constant.
        let (first, logprob) = logprobs[0];
        let constant = logit(first) - logprob;
        assert!(logprobs.len() > 100);
        for &(token, logprob) in logprobs {
            let distance = (logit(token) - logprob - constant).abs();
            assert!(distance < 1e-3, "{model} {token}: {distance}");
        }
    }
}

/// The rows of a fixture's output head.
fn head(model: &str, hidden: usize) -> Vec<f32> {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let source = model::Source::open(&fixtures.join(model)).expect("the fixture opens");
    let name = match source.config().tied {
        true => model::TensorName::Embedding,
        false => model::TensorName::Output,
    };
    let matrix = source.matrix(name).expect("every model has it").to_f32();
    assert_eq!(matrix.len() % hidden, 0);
    matrix
}
