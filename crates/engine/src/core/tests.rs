//! The loop over a device that does what a test says.

mod ahead;

use scheduler::{HostLimits, Limits};

use super::*;
use crate::cache::PrefixCacheInfo;
use crate::contract::Device;
use crate::inputs::StepWork;

/// Chooses for each row by itself.
struct Chooses<F>(F);

impl<F: FnMut(&SampleRow) -> Option<Choice> + Send> Execute for Chooses<F> {
    fn forward(&mut self, _: &StepWork) -> Result<(), Fault> {
        Ok(())
    }

    fn sample(&mut self, rows: &[SampleRow]) -> Result<Vec<Option<Choice>>, Fault> {
        Ok(rows.iter().map(&mut self.0).collect())
    }

    fn gains_by_running_ahead(&self) -> bool {
        false
    }

    fn start_sample(&mut self, _: &[SampleRow]) -> Result<(), Fault> {
        unreachable!("it does not run ahead")
    }

    fn finish_sample(&mut self) -> Result<Vec<kernels::sample::Pick>, Fault> {
        unreachable!("it does not run ahead")
    }

    fn hidden(&mut self, rows: usize) -> Result<Vec<f32>, Fault> {
        Ok(vec![0.0; rows])
    }
}

/// Chooses the same for every row.
fn always(token: Option<u32>) -> Box<dyn Execute> {
    Box::new(Chooses(move |_: &SampleRow| token.map(|token| Choice { token, logprobs: None })))
}

/// A device whose logits are those of a model that is sure of nothing.
fn level() -> Box<dyn Execute> {
    let logits = || (0..100).map(|id| id as f32 - 50.0).collect::<Vec<_>>();
    Box::new(Chooses(move |row: &SampleRow| kernels::sample::choose(row, &mut logits())))
}

fn engine(token: Option<u32>) -> Engine {
    engine_on(always(token))
}

fn engine_on(device: Box<dyn Execute>) -> Engine {
    let limits = Limits {
        token_budget: 512,
        max_running: 4,
        max_waiting: 4,
        context: 256,
        block_size: 16,
        kv_blocks: 64,
        state_slots: None,
        prefix_cache: true,
        checkpoint_slots: 0,
        host: HostLimits::default(),
    };
    let info = EngineInfo {
        architecture: "none".to_owned(),
        quant: "none".to_owned(),
        device: Device::Cpu,
        vocab_size: 100,
        context: limits.context,
        max_running: limits.max_running,
        block_size: limits.block_size,
        kv_blocks: limits.kv_blocks,
        state_slots: 0,
        checkpoint_slots: 0,
        ranks: Vec::new(),
        prefix_cache: PrefixCacheInfo::default(),
        unsound: None,
    };
    Engine::new(info, Scheduler::new(limits), device, Pace::new(250))
}

fn request(id: RequestId) -> TokenRequest {
    TokenRequest::new(id, vec![1; 65], 1)
}

/// The cached tokens of a request that runs alone.
fn cached(engine: &mut Engine, request: TokenRequest) -> u32 {
    engine.submit(request).expect("there is room");
    engine.step().expect("no fault").started[0].cached_tokens
}

/// A step that only waited for a grammar took as long as that, whatever the one before it did.
#[test]
fn a_step_that_computes_nothing_does_not_change_the_pace() {
    let mut engine = engine(Some(5));
    engine.submit(request(1)).expect("there is room");
    engine.step().expect("no fault");
    engine.pace(64_000);
    let learnt = engine.pace.prompt_tokens();
    engine.step().expect("no fault");
    engine.pace(10);
    assert_eq!(engine.pace.prompt_tokens(), learnt);
}

#[test]
fn an_id_belongs_to_one_request_at_a_time() {
    let mut engine = engine(Some(5));
    let mut bytes: Vec<Vec<u8>> = (0..99).map(|byte| vec![byte]).collect();
    bytes.push(b"<end>".to_vec());
    engine.set_vocabulary(Vocabulary { bytes, specials: vec![99] });
    let formed = |word: &str| TokenRequest {
        grammar: Some(crate::grammar::Grammar(format!("start: \"{word}\""))),
        stop_tokens: vec![99],
        ..request(1)
    };
    assert_eq!(engine.submit(formed("a")).expect("there is room"), Admission::Pending);
    for second in [request(1), formed("b")] {
        assert!(matches!(engine.submit(second), Err(Refusal::Invalid(_))));
    }
    engine.abort(1);
    engine.submit(request(1)).expect("it is free again");
    assert!(matches!(engine.submit(formed("b")), Err(Refusal::Invalid(_))));
}

/// What made a NaN is computed anew; a request that bans all tokens costs nobody else anything.
#[test]
fn what_is_not_finite_is_not_cached_and_what_is_banned_is() {
    let mut engine = engine(None);
    let biased = |id| {
        let mut request = request(id);
        request.sampling.logit_bias = vec![(5, -100.0)];
        request
    };
    assert_eq!(cached(&mut engine, biased(1)), 0);
    assert_eq!(cached(&mut engine, request(2)), 64);
    assert_eq!(cached(&mut engine, request(3)), 0);
}

/// No parameters that pass the door end the process, and those that are no numbers do not pass.
#[test]
fn extreme_parameters_end_no_process() {
    let with = |change: &dyn Fn(&mut crate::contract::Sampling)| {
        let mut request = request(1);
        change(&mut request.sampling);
        let mut engine = engine_on(level());
        engine.submit(request).map(|_| engine.step().expect("no fault").updates[0].tokens.len())
    };
    for penalty in [1e-45, 1e-40, 1e-3, 10.0] {
        for temperature in [0.0, 1e-45, 1.0, 2.0] {
            let tokens = with(&|sampling| {
                (sampling.repetition_penalty, sampling.temperature) = (penalty, temperature);
            });
            assert_eq!(tokens, Ok(1), "{penalty}, {temperature}");
        }
    }
    let refused = with(&|sampling| sampling.temperature = f32::NAN).expect_err("it is no number");
    assert_eq!(refused.to_string(), "temperature is NaN; it must be a number");
    assert!(with(&|sampling| sampling.repetition_penalty = 0.0).is_err());
    assert!(with(&|sampling| sampling.logit_bias = vec![(3, f32::INFINITY)]).is_err());
}
