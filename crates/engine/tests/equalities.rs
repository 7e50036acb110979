//! What must not change an answer: how a prompt is cut, who else is in the batch, whether the
//! request was interrupted, how many ranks share the model.
//!
//! On the CPU every equality holds bit for bit but the last, where sums have another order.

use std::collections::HashMap;
use std::path::PathBuf;

use engine::{Engine, EngineSpec, RequestId, Sampling, TokenEngine, TokenRequest};
use kernels::check::Noise;

const MODELS: [&str; 5] = ["qwen3", "qwen3_5", "qwen3_moe", "qwen3_5_moe", "qwen3_next"];

fn spec(model: &str) -> EngineSpec {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    EngineSpec {
        context: Some(256),
        max_running: 8,
        prefix_cache: false,
        ..EngineSpec::new(fixtures.join(model))
    }
}

fn load(spec: &EngineSpec) -> Engine {
    engine::load(spec, &mut |_, _| {}).expect("the fixture loads")
}

/// Eight requests of different lengths; some greedy, some drawn, one with penalties.
fn requests() -> Vec<TokenRequest> {
    (0..8u64)
        .map(|id| {
            let length = 5 + 9 * id as u32;
            let sampling = match id % 3 {
                0 => Sampling::greedy(),
                1 => Sampling { temperature: 0.9, top_p: 0.9, seed: id, ..Sampling::greedy() },
                _ => Sampling {
                    temperature: 1.2,
                    top_k: 40,
                    repetition_penalty: 1.1,
                    frequency_penalty: 0.2,
                    seed: id,
                    ..Sampling::greedy()
                },
            };
            TokenRequest {
                id,
                prompt: (0..length).map(|at| (at * 37 + 11 * id as u32) % 250).collect(),
                answered: vec![],
                sampling,
                max_tokens: 24,
                min_tokens: 0,
                stop_tokens: vec![],
                boundaries: vec![],
                isolation: 0,
                top_logprobs: None,
                grammar: None,
                part_limit: None,
                pooling: None,
            }
        })
        .collect()
}

/// Runs all requests together and returns each one's tokens and the number of steps.
fn run(engine: &mut Engine, requests: Vec<TokenRequest>) -> (HashMap<RequestId, Vec<u32>>, usize) {
    for request in requests {
        engine.submit(request).expect("there is room");
    }
    let mut answers: HashMap<RequestId, Vec<u32>> = HashMap::new();
    let mut steps = 0;
    while !engine.is_idle() {
        let report = engine.step().expect("no fault");
        steps += 1;
        for update in report.updates {
            answers.entry(update.id).or_default().extend(update.tokens);
        }
    }
    assert_idle(engine);
    (answers, steps)
}

fn assert_idle(engine: &Engine) {
    let (info, gauges) = (engine.info(), engine.gauges());
    assert_eq!(gauges.kv_blocks_free, info.kv_blocks, "idle means that no block is held");
    assert_eq!(gauges.state_slots_free, info.state_slots, "idle means that no slot is held");
}

fn alone(model: &str) -> HashMap<RequestId, Vec<u32>> {
    let mut engine = load(&spec(model));
    requests()
        .into_iter()
        .map(|request| {
            let id = request.id;
            (id, run(&mut engine, vec![request]).0.remove(&id).expect("an answer"))
        })
        .collect()
}

/// E3: at any chunk size, prefill gives what one shot gives: a row sees what is before it in the
/// sequence, not in its chunk. Requirements 57 and 104.
#[test]
fn chunked_prefill_equals_one_shot() {
    for model in MODELS {
        let whole = alone(model);
        for token_budget in [1, 2, 3, 5, 16, 64] {
            let mut engine = load(&EngineSpec { token_budget, ..spec(model) });
            for request in requests() {
                let id = request.id;
                let (answers, _) = run(&mut engine, vec![request]);
                assert_eq!(answers[&id], whole[&id], "{model}, chunks of {token_budget}");
            }
        }
    }
}

/// E4: a batch gives each request what it gets alone. Requirement 61.
#[test]
fn batched_equals_each_alone() {
    for model in MODELS {
        let alone = alone(model);
        for token_budget in [7, 32, 512] {
            let mut engine = load(&EngineSpec { token_budget, ..spec(model) });
            let (together, _) = run(&mut engine, requests());
            assert_eq!(together, alone, "{model}, budget {token_budget}");
        }
    }
}

/// E7: preempted and resumed requests go on as if nothing had happened.
#[test]
fn preempted_equals_undisturbed() {
    for model in MODELS {
        let alone = alone(model);
        let mut roomy = load(&spec(model));
        let (_, undisturbed_steps) = run(&mut roomy, requests());
        // The longest request needs 6 blocks; all eight together need some 34.
        let mut tight = load(&EngineSpec { kv_blocks: Some(13), ..spec(model) });
        let (answers, steps) = run(&mut tight, requests());
        assert_eq!(answers, alone, "{model}");
        assert!(steps > undisturbed_steps, "{model}: nothing was preempted in {steps} steps");
    }
}

/// E7 across engines: what one engine began, another ends as if it had never changed hands. Also of
/// requests with penalties, whose history is the answer's.
#[test]
fn continued_elsewhere_equals_undisturbed() {
    for model in MODELS {
        let alone = alone(model);
        let mut engine = load(&EngineSpec { prefix_cache: true, ..spec(model) });
        for done in [1, 7, 23] {
            let continued = requests().into_iter().map(|request| {
                let answered = alone[&request.id][..done].to_vec();
                TokenRequest { answered, ..request }
            });
            let (rest, _) = run(&mut engine, continued.collect());
            for (id, whole) in &alone {
                assert_eq!(rest[id], whole[done..], "{model}, request {id} from {done} on");
            }
        }
        let full = TokenRequest { answered: alone[&0].clone(), ..requests().remove(0) };
        assert!(engine.submit(full).is_err(), "there is nothing left to generate");
    }
}

/// E5: ranks that share a model answer as one does.
#[test]
fn sharded_equals_solo() {
    for model in MODELS {
        let greedy = || {
            let requests = requests().into_iter();
            requests.map(|r| TokenRequest { sampling: Sampling::greedy(), ..r }).collect()
        };
        let (solo, _) = run(&mut load(&spec(model)), greedy());
        for world_size in [2, 4] {
            let (shared, _) = run(&mut load(&EngineSpec { world_size, ..spec(model) }), greedy());
            assert_eq!(shared, solo, "{model}, {world_size} ranks");
        }
    }
}

/// A conversation of `turns` messages, each with its end; edits change one of them.
fn conversation(noise: &mut Noise, turns: usize) -> Vec<Vec<u32>> {
    let mut turn = || {
        let length = 3 + noise.below(20);
        (0..length).map(|_| noise.below(250) as u32).collect()
    };
    (0..turns).map(|_| turn()).collect()
}

fn turn_request(id: u64, turns: &[Vec<u32>]) -> TokenRequest {
    let mut boundaries = Vec::new();
    let mut prompt = Vec::new();
    for turn in turns {
        prompt.extend(turn);
        boundaries.push(prompt.len() as u32);
    }
    TokenRequest {
        id,
        prompt,
        answered: vec![],
        sampling: Sampling::greedy(),
        max_tokens: 6,
        min_tokens: 0,
        stop_tokens: vec![],
        boundaries,
        isolation: 0,
        top_logprobs: None,
        grammar: None,
        part_limit: None,
        pooling: None,
    }
}

/// Runs one request and returns its tokens and how many of its prompt were cached.
fn run_one(engine: &mut Engine, request: TokenRequest) -> (Vec<u32>, u32) {
    engine.submit(request).expect("there is room");
    let (mut tokens, mut cached) = (Vec::new(), 0);
    while !engine.is_idle() {
        let report = engine.step().expect("no fault");
        cached += report.started.iter().map(|started| started.cached_tokens).sum::<u32>();
        tokens.extend(report.updates.into_iter().flat_map(|update| update.tokens));
    }
    assert_idle(engine);
    (tokens, cached)
}

/// Conversations that grow, fork and are edited, `together` of them in turns, each request run by
/// an engine with a cache and by one without. The answer is how many tokens of how many were
/// cached.
fn hits_equal_cold(model: &str, warm: &EngineSpec, together: usize) -> (u32, u32, Engine) {
    let cold = EngineSpec { prefix_cache: false, ..warm.clone() };
    let (mut cold, mut warm) = (load(&cold), load(warm));
    let mut noise = Noise::new(50);
    let (mut id, mut reused, mut prompted) = (0, 0, 0);
    for _ in 0..50 / together {
        let mut all: Vec<_> = (0..together).map(|_| conversation(&mut noise, 2)).collect();
        for _ in 0..4 {
            for turns in &mut all {
                id += 1;
                let request = turn_request(id, turns);
                prompted += request.prompt.len() as u32;
                let (want, nothing) = run_one(&mut cold, request.clone());
                let (got, cached) = run_one(&mut warm, request);
                assert_eq!(got, want, "{model}, request {id}, {cached} tokens cached");
                assert_eq!(nothing, 0);
                reused += cached;
                if noise.below(4) == 0 {
                    let edited = noise.below(turns.len());
                    turns[edited] = conversation(&mut noise, 1).remove(0);
                } else {
                    turns.push(got);
                    turns.extend(conversation(&mut noise, 1));
                }
            }
        }
    }
    (reused, prompted, warm)
}

/// E6: what the prefix cache supplies is what would have been computed, after 50 random
/// conversations. Requirements 46, 47, 50 and 51.
#[test]
fn prefix_hit_equals_cold() {
    for model in MODELS {
        // Few blocks and few states, so that both are evicted all the time.
        let warm = EngineSpec {
            prefix_cache: true,
            token_budget: 16,
            kv_blocks: Some(40),
            checkpoints: Some(5),
            ..spec(model)
        };
        let (reused, prompted, _) = hits_equal_cold(model, &warm, 1);
        assert!(reused * 3 > prompted, "{model}: {reused} of {prompted} tokens were cached");
    }
}

/// E6 through host memory: ten conversations in turns on a device that holds one of them, so that
/// what a turn finds has left the device and comes back.
#[test]
fn prefix_hit_equals_cold_through_the_host() {
    for model in MODELS {
        let warm = EngineSpec {
            prefix_cache: true,
            token_budget: 16,
            kv_blocks: Some(12),
            checkpoints: Some(1),
            host_cache_bytes: 8 << 20,
            ..spec(model)
        };
        let (reused, prompted, engine) = hits_equal_cold(model, &warm, 10);
        let counts = engine.gauges().cache;
        let said = format!("{model}: {reused} of {prompted} tokens were cached, {counts:?}");
        assert!(reused * 3 > prompted, "{said}");
        assert!(counts.hit_tokens.host > 4 * counts.hit_tokens.device, "{said}");
        assert_eq!(counts.hit_tokens.host + counts.hit_tokens.device, u64::from(reused), "{said}");
        assert!(counts.bytes.host <= 8 << 20, "{said}");
    }
}

/// E4, E6 and E7 together: requests with common beginnings at once, on a device that holds less
/// than all of them and a host that holds little more, some of them leaving in the middle: whoever
/// is preempted, resumed, copied to the host or forgotten, each answer is that of a cold run alone.
#[test]
fn a_crowded_cache_equals_cold_alone() {
    for model in MODELS {
        let cold = EngineSpec { token_budget: 16, ..spec(model) };
        let crowded = EngineSpec {
            prefix_cache: true,
            max_running: 5,
            kv_blocks: Some(14),
            checkpoints: Some(3),
            host_cache_bytes: 200 << 10,
            ..cold.clone()
        };
        let (mut cold, mut crowded) = (load(&cold), load(&crowded));
        let mut noise = Noise::new(51);
        let common: Vec<_> = (0..3).map(|_| conversation(&mut noise, 2)).collect();
        let mut cached = 0;
        for round in 0..12_u64 {
            let requests = (0..8).map(|at| {
                let mut turns = common[noise.below(3)].clone();
                turns.extend(conversation(&mut noise, 1));
                TokenRequest { max_tokens: 20, ..turn_request(100 * round + at, &turns) }
            });
            let requests: Vec<_> = requests.collect();
            let leaves = [requests[noise.below(8)].id, requests[noise.below(8)].id];
            let mut answers: HashMap<RequestId, Vec<u32>> = HashMap::new();
            requests.iter().for_each(|it| _ = crowded.submit(it.clone()).expect("there is room"));
            while !crowded.is_idle() {
                let report = crowded.step().expect("no fault");
                cached += report.started.iter().map(|it| it.cached_tokens).sum::<u32>();
                for update in report.updates {
                    answers.entry(update.id).or_default().extend(update.tokens);
                    if leaves.contains(&update.id) && answers[&update.id].len() == 5 {
                        crowded.abort(update.id);
                    }
                }
            }
            assert_idle(&crowded);
            for request in requests {
                let id = request.id;
                let (want, _) = run_one(&mut cold, request);
                let got = answers.remove(&id).unwrap_or_default();
                let left = leaves.contains(&id);
                assert!(got == want || left && want.starts_with(&got), "{model}, request {id}");
            }
        }
        assert!(cached > 500, "{model}: {cached} tokens were cached");
    }
}

/// The second turn of a long conversation computes only what is new.
#[test]
fn a_second_turn_computes_the_new_tokens_alone() {
    for model in MODELS {
        let mut engine = load(&EngineSpec { prefix_cache: true, ..spec(model) });
        let mut turns = vec![(0..200).collect::<Vec<u32>>(), vec![3, 4]];
        let (answer, _) = run_one(&mut engine, turn_request(1, &turns));
        turns.extend([answer, vec![7, 8, 9]]);
        let (_, cached) = run_one(&mut engine, turn_request(2, &turns));
        assert!(cached >= 192, "{model}: {cached} tokens");
        let other_key = TokenRequest { isolation: 9, ..turn_request(3, &turns) };
        assert_eq!(run_one(&mut engine, other_key).1, 0, "{model}: another key");
    }
}

/// E5 on GGUF files, where value heads lie in either order and experts are stacked; and a block of
/// a quantised format is never cut.
#[test]
fn sharded_files_equal_solo() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = |model: &str, ty| {
        let path = directory.join(format!("{model}-{ty}.gguf"));
        model::convert(&spec(model).source, &path, ty).expect("it converts");
        EngineSpec { context: Some(256), max_running: 8, ..EngineSpec::new(path) }
    };
    let greedy = || {
        let requests = requests().into_iter();
        requests.map(|r| TokenRequest { sampling: Sampling::greedy(), ..r }).collect()
    };
    for model in ["qwen3_moe", "qwen3_5_moe", "qwen3_next"] {
        let file = file(model, kernels::WeightType::F32);
        let (solo, _) = run(&mut load(&file), greedy());
        for world_size in [2, 4] {
            let (shared, _) = run(&mut load(&EngineSpec { world_size, ..file.clone() }), greedy());
            assert_eq!(shared, solo, "{model}, {world_size} ranks");
        }
        assert_eq!(solo, run(&mut load(&spec(model)), greedy()).0, "{model}: the checkpoint");
    }
    let cut = EngineSpec { world_size: 2, ..file("qwen3_moe", kernels::WeightType::Q8_0) };
    let error = engine::load(&cut, &mut |_, _| {}).err().expect("32 columns are one block");
    let error = error.to_string();
    assert!(error.contains("1 blocks of the columns of"), "{error}");
}

/// An aborted request leaves nothing behind and changes nobody's answer. Requirements 73, 109.
#[test]
fn an_abort_frees_and_disturbs_nobody() {
    for model in MODELS {
        let alone = alone(model);
        let mut engine = load(&spec(model));
        let mut requests = requests();
        let victim = requests.pop().expect("eight requests");
        let victim_id = victim.id;
        engine.submit(victim).expect("there is room");
        for _ in 0..3 {
            engine.step().expect("no fault");
        }
        for request in requests {
            engine.submit(request).expect("there is room");
        }
        engine.step().expect("no fault");
        let held = engine.gauges().kv_blocks_free;
        engine.abort(victim_id);
        assert!(engine.gauges().kv_blocks_free > held);
        let mut answers: HashMap<RequestId, Vec<u32>> = HashMap::new();
        engine.abort(12345);
        while !engine.is_idle() {
            for update in engine.step().expect("no fault").updates {
                answers.entry(update.id).or_default().extend(update.tokens);
            }
        }
        assert_idle(&engine);
        for (id, tokens) in answers {
            // The first token of some came in the step before the abort.
            assert!(alone[&id].ends_with(&tokens), "{model}, request {id}");
        }
    }
}

/// `max_tokens`, stop tokens and `min_tokens` end an answer where they say.
#[test]
fn answers_end_where_they_should() {
    let request = |max_tokens, min_tokens, stop_tokens: &[u32]| TokenRequest {
        id: 1,
        prompt: vec![1, 2, 3],
        answered: vec![],
        sampling: Sampling::greedy(),
        max_tokens,
        min_tokens,
        stop_tokens: stop_tokens.to_vec(),
        boundaries: vec![],
        isolation: 0,
        top_logprobs: None,
        grammar: None,
        part_limit: None,
        pooling: None,
    };
    for model in MODELS {
        let mut engine = load(&spec(model));
        let (answers, _) = run(&mut engine, vec![request(12, 0, &[])]);
        let free = answers[&1].clone();
        assert_eq!(free.len(), 12);
        let stop = free[4];
        let until = free.iter().position(|token| *token == stop).expect("it is there") + 1;
        let (answers, _) = run(&mut engine, vec![request(12, 0, &[stop])]);
        assert_eq!(answers[&1], free[..until], "{model}: up to the stop token");
        let (answers, _) = run(&mut engine, vec![request(12, 12, &[stop])]);
        assert!(!answers[&1].contains(&stop), "{model}: banned before min_tokens");
    }
}

/// Requirement 63 at the engine's door, and ids that no table row belongs to.
#[test]
fn impossible_requests_are_refused() {
    let mut engine = load(&spec("qwen3"));
    let request = |prompt: Vec<u32>, max_tokens| TokenRequest {
        id: 1,
        prompt,
        answered: vec![],
        sampling: Sampling::greedy(),
        max_tokens,
        min_tokens: 0,
        stop_tokens: vec![],
        boundaries: vec![],
        isolation: 0,
        top_logprobs: None,
        grammar: None,
        part_limit: None,
        pooling: None,
    };
    let error = engine.submit(request(vec![1; 250], 7)).unwrap_err();
    assert!(error.to_string().contains("context of 256"), "{error}");
    let error = engine.submit(request(vec![1, 100_000], 1)).unwrap_err();
    assert!(error.to_string().contains("token 100000"), "{error}");
    assert!(engine.submit(request(vec![], 1)).is_err());
    assert!(engine.is_idle());
}
