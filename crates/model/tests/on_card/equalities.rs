//! What must not change a row's logits.

use super::runner::difference;
use super::{FLOAT, MODELS, QUANTISED, card, on_card, on_cpu};

/// What another rounding of activations, keys and values may change.
pub(crate) const ROUNDING: f64 = 3e-2;

/// E1 for whole models: prompt and decode on the card are those of the CPU.
#[test]
fn models_compute_what_the_cpu_does_on_a_card() {
    let Some(context) = card() else { return };
    for model in MODELS.into_iter().filter(|model| *model != QUANTISED) {
        let (mut gpu, mut cpu) = (on_card(&context, model), on_cpu(model));
        let tokens = gpu.tokens(1, 150);
        let (prompt, rest) = tokens.split_at(137);
        let error = difference(&gpu.chunked(0, prompt, 64), &cpu.chunked(0, prompt, 64));
        eprintln!("{model}: prompt differs by {error:.1e}");
        assert!(error <= ROUNDING, "{model}: a prompt's logits differ by {error}");
        for (at, token) in rest.chunks(1).enumerate() {
            let error = difference(&gpu.step(&[(0, token)]), &cpu.step(&[(0, token)]));
            assert!(error <= ROUNDING, "{model}: decoded row {at} differs by {error}");
        }
    }
}

/// The CPU rounds activations of quantised layers to 8 bits, a card to halves: both are held
/// against the model that was quantised, and the card may not be further from it.
#[test]
fn quantised_models_are_as_near_to_the_float_ones_on_a_card() {
    let Some(context) = card() else { return };
    let mut exact = on_cpu(FLOAT);
    let tokens = exact.tokens(1, 150);
    let want = exact.chunked(0, &tokens, 64);
    let gpu = difference(&on_card(&context, QUANTISED).chunked(0, &tokens, 64), &want);
    let cpu = difference(&on_cpu(QUANTISED).chunked(0, &tokens, 64), &want);
    eprintln!("{QUANTISED}: {gpu:.1e} from the float model, on the CPU {cpu:.1e}");
    assert!(cpu <= 0.1 && gpu <= 1.1 * cpu, "{gpu} on the card and {cpu} on the CPU");
}

/// E3: at any chunk size, a prompt gives what it gives in one piece.
#[test]
fn chunks_equal_one_shot_on_a_card() {
    let Some(context) = card() else { return };
    for model in MODELS {
        let mut runner = on_card(&context, model);
        for length in [500, 513] {
            let tokens = runner.tokens(2, length);
            runner.restart(0);
            let whole = runner.chunked(0, &tokens, 640);
            for chunk in [1, 2, 3, 5, 64, 511, 512] {
                if chunk < 5 && length > 500 {
                    continue;
                }
                runner.restart(0);
                let error = difference(&runner.chunked(0, &tokens, chunk), &whole);
                eprintln!("{model}: {length} tokens in chunks of {chunk} differ by {error:.1e}");
                assert!(error <= ROUNDING, "{model}: {length} in chunks of {chunk}: {error}");
            }
        }
    }
}

/// E4: a row's logits are those that it gets alone, in prompts, in decode and in both together.
#[test]
fn batched_equals_alone_on_a_card() {
    let Some(context) = card() else { return };
    for model in MODELS {
        let mut runner = on_card(&context, model);
        let vocab = runner.vocab();
        let prompts: Vec<_> =
            (0..4).map(|at| runner.tokens(10 + at, 20 + 31 * at as usize)).collect();
        let alone: Vec<_> = (0..4).map(|at| runner.chunked(at, &prompts[at], 640)).collect();
        (0..4).for_each(|at| runner.restart(at));
        // The last token of each prompt is decoded; one of them computes its prompt meanwhile.
        let cut = |at: usize| prompts[at].split_at(prompts[at].len() - 1);
        let first = runner.step(&[(0, cut(0).0), (1, cut(1).0), (2, cut(2).0)]);
        let want: Vec<_> =
            (0..3).flat_map(|at| &alone[at][..cut(at).0.len() * vocab]).copied().collect();
        let error = difference(&first, &want);
        assert!(error <= ROUNDING, "{model}: prompts together: {error}");
        let mixed = runner.step(&[(0, cut(0).1), (3, cut(3).0)]);
        let error = difference(&mixed[..vocab], &alone[0][cut(0).0.len() * vocab..]);
        assert!(error <= ROUNDING, "{model}: decode beside a prompt: {error}");
        let decoded = runner.step(&[(1, cut(1).1), (2, cut(2).1), (3, cut(3).1)]);
        for (at, decoded) in (1..4).zip(decoded.chunks_exact(vocab)) {
            let error = difference(decoded, &alone[at][cut(at).0.len() * vocab..]);
            assert!(error <= ROUNDING, "{model}: decode together, sequence {at}: {error}");
        }
    }
}

/// E6: state and blocks that were copied go on as the original does, bit for bit.
#[test]
fn copied_state_goes_on_bit_for_bit_on_a_card() {
    let Some(context) = card() else { return };
    for model in MODELS {
        let mut runner = on_card(&context, model);
        let tokens = runner.tokens(5, 90);
        let (before, after) = tokens.split_at(61);
        runner.chunked(0, before, 640);
        runner.copy(0, 3);
        let original = runner.chunked(0, after, 7);
        assert_eq!(runner.chunked(3, after, 7), original, "{model}");
    }
}

/// A recorded step computes what its launches do, bit for bit, whatever its padding.
#[test]
fn replays_equal_launches_bit_for_bit_on_a_card() {
    let Some(context) = card() else { return };
    for model in MODELS {
        let mut replaying = on_card(&context, model);
        let mut launching = on_card(&context, model);
        launching.backend = launching.backend.without_graphs();
        let prompts: Vec<_> = (0..4).map(|at| replaying.tokens(20 + at, 30)).collect();
        let decode = |runner: &mut super::Runner<_>| {
            let mut logits = Vec::new();
            for at in 0..30 {
                // Batches of one to three, so that sizes come back after others.
                let batch = 1 + at % 3;
                let tokens: Vec<_> = (0..batch).map(|it| (it, &prompts[it][at..=at])).collect();
                logits.push(runner.step(&tokens));
            }
            logits
        };
        let launched = decode(&mut launching);
        assert_eq!(launching.backend.recorded_sizes(), 0);
        assert_eq!(decode(&mut replaying), launched, "{model}");
        assert_eq!(replaying.backend.recorded_sizes(), 3, "{model}: nothing was recorded");
    }
}

/// What runs twice gives the same bits twice.
#[test]
fn runs_are_the_same_bit_for_bit_on_a_card() {
    let Some(context) = card() else { return };
    for model in MODELS {
        let mut runner = on_card(&context, model);
        let tokens = runner.tokens(7, 300);
        let first = runner.chunked(1, &tokens, 128);
        runner.restart(1);
        assert_eq!(runner.chunked(1, &tokens, 128), first, "{model}");
    }
}
