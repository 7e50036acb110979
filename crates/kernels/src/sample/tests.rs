use super::philox::philox;
use super::{Logprobs, SampleRow, TokenMask, reference, uniform};

/// The chosen token alone.
fn choose(row: &SampleRow, logits: &mut [f32]) -> Option<u32> {
    super::choose(row, logits).map(|choice| choice.token)
}

fn row(temperature: f32) -> SampleRow {
    SampleRow { temperature, ..SampleRow::greedy() }
}

/// How often each of four tokens is chosen over many positions.
fn shares(row: &SampleRow, logits: [f32; 4]) -> [f64; 4] {
    let mut counts = [0.0; 4];
    let draws = 20_000;
    for position in 0..draws {
        let row = SampleRow { position, ..row.clone() };
        counts[choose(&row, &mut logits.clone()).unwrap() as usize] += 1.0 / draws as f64;
    }
    counts
}

fn softmax(logits: [f32; 4], temperature: f32) -> [f64; 4] {
    let weights = logits.map(|logit| f64::from(logit / temperature).exp());
    weights.map(|weight| weight / weights.iter().sum::<f64>())
}

fn assert_close(got: [f64; 4], want: [f64; 4]) {
    let close = got.iter().zip(want).all(|(got, want)| (got - want).abs() < 0.015);
    assert!(close, "{got:?} for {want:?}");
}

const LOGITS: [f32; 4] = [1.0, 2.0, 0.5, 1.5];

#[test]
fn greedy_takes_the_first_of_the_largest() {
    assert_eq!(choose(&row(0.0), &mut [1.0, 3.0, 3.0]), Some(1));
}

#[test]
fn draws_follow_the_softmax() {
    for temperature in [0.5, 1.0, 2.0] {
        assert_close(shares(&row(temperature), LOGITS), softmax(LOGITS, temperature));
    }
}

#[test]
fn top_k_keeps_the_largest() {
    let row = SampleRow { top_k: 2, ..row(1.0) };
    let [_, second, _, fourth] = softmax(LOGITS, 1.0);
    let total = second + fourth;
    assert_close(shares(&row, LOGITS), [0.0, second / total, 0.0, fourth / total]);
}

#[test]
fn top_p_keeps_the_fewest_that_reach_it() {
    // Shares are .45 .27 .17 .10 in descending order: .6 needs the first two.
    let row = SampleRow { top_p: 0.6, ..row(1.0) };
    let got = shares(&row, LOGITS);
    assert!(got[0] == 0.0 && got[2] == 0.0 && got[1] > 0.5 && got[3] > 0.3, "{got:?}");
    let one = SampleRow { top_p: 1e-6, ..row };
    assert_eq!(shares(&one, LOGITS)[1].round(), 1.0);
}

#[test]
fn min_p_compares_with_the_best() {
    // exp(-1) = .37 and exp(-1.5) = .22 of the best one's weight.
    let row = SampleRow { min_p: 0.3, ..row(1.0) };
    let got = shares(&row, LOGITS);
    assert!(got[2] == 0.0 && got[0] > 0.15, "{got:?}");
}

/// Requirement 106: penalties, bias and bans do what their names say.
#[test]
fn adjustments_change_the_choice() {
    let choice = |row: &SampleRow| choose(row, &mut [1.0, 2.0, -1.0, 1.9]).unwrap();
    let greedy = SampleRow::greedy();
    assert_eq!(choice(&greedy), 1);
    assert_eq!(choice(&SampleRow { logit_bias: vec![(2, 5.0)], ..greedy.clone() }), 2);
    assert_eq!(choice(&SampleRow { banned: vec![1, 3], ..greedy.clone() }), 0);
    let repeated = SampleRow { repetition_penalty: 1.5, seen: vec![1, 2], ..greedy.clone() };
    assert_eq!(choice(&repeated), 3);
    let present = SampleRow { presence_penalty: 0.2, generated: vec![(1, 1)], ..greedy.clone() };
    assert_eq!(choice(&present), 3);
    let frequent = SampleRow { frequency_penalty: 0.06, generated: vec![(1, 2)], ..greedy };
    assert_eq!(choice(&frequent), 3);
}

/// Tokens that can be drawn at all.
fn support(row: &SampleRow, logits: [f32; 4]) -> Vec<u32> {
    let mut kept: Vec<u32> =
        reference::distribution(row, &logits).into_iter().map(|(id, _)| id).collect();
    kept.sort_unstable();
    for position in 0..2_000 {
        let token = choose(&SampleRow { position, ..row.clone() }, &mut logits.clone()).unwrap();
        assert!(kept.contains(&token), "{token} is not of {kept:?}");
    }
    kept
}

/// Each line would come out differently if its two steps were swapped.
#[test]
fn the_order_of_the_cuts_is_fixed() {
    // Shares .45 .27 .17 .10 for the tokens 1, 3, 0, 2.
    let row = |top_k, top_p, min_p| SampleRow { top_k, top_p, min_p, ..row(1.0) };
    // Of the mass of the best two, .6 is within the best; of all four it would need both.
    assert_eq!(support(&row(2, 0.6, 0.0), LOGITS), [1]);
    // The best three reach .8 of all; without the worst one, which min-p drops, two would.
    assert_eq!(support(&row(0, 0.8, 0.25), LOGITS), [0, 1, 3]);
    // Temperature flattens before top-p and min-p look.
    let flat = SampleRow { temperature: 4.0, ..row(0, 0.6, 0.0) };
    assert_eq!(support(&flat, LOGITS), [0, 1, 3]);
    let flat = SampleRow { temperature: 4.0, ..row(0, 1.0, 0.65) };
    assert_eq!(support(&flat, LOGITS), [0, 1, 2, 3]);
    // The mask comes before every cut: the cuts see only what it left.
    let masked = SampleRow { allowed: Some([0, 2].into_iter().collect()), ..row(1, 0.1, 0.9) };
    assert_eq!(support(&masked, LOGITS), [0]);
    // Bias before penalties: the bias makes the logit positive, so that it is divided.
    let greedy = SampleRow::greedy();
    let biased = SampleRow {
        logit_bias: vec![(2, 3.5)],
        repetition_penalty: 2.1,
        seen: vec![2],
        ..greedy.clone()
    };
    assert_eq!(support(&biased, [1.0, 2.0, 0.5, 1.5]), [1]);
    // A bias cannot lift a token over the mask.
    let masked = SampleRow {
        logit_bias: vec![(1, 100.0)],
        allowed: Some(TokenMask::from_words([4])),
        ..greedy
    };
    assert_eq!(support(&masked, LOGITS), [2]);
}

/// A row of parameters of all kinds, many of them off.
fn random_row(seed: u64, vocab: u32) -> SampleRow {
    let draw = |at: u64| uniform(seed, at);
    let maybe = |at: u64, off: f32, low: f32, high: f32| match draw(at) < 0.5 {
        true => off,
        false => low + (high - low) * draw(at + 1) as f32,
    };
    let ids = |at: u64, share: f64| (0..vocab).filter(move |id| draw(at + u64::from(*id)) < share);
    SampleRow {
        temperature: maybe(0, 0.0, 0.1, 2.0),
        top_p: maybe(2, 1.0, 0.05, 1.0),
        top_k: maybe(4, 0.0, 1.0, 50.0) as u32,
        min_p: maybe(6, 0.0, 0.0, 0.9),
        seed,
        position: seed,
        repetition_penalty: maybe(8, 1.0, 0.5, 2.0),
        seen: ids(1000, 0.3).collect(),
        presence_penalty: maybe(10, 0.0, -2.0, 2.0),
        frequency_penalty: maybe(12, 0.0, -2.0, 2.0),
        generated: ids(2000, 0.2).map(|id| (id, 1 + id % 3)).collect(),
        logit_bias: ids(3000, 0.1).map(|id| (id, id as f32 % 5.0 - 2.0)).collect(),
        banned: ids(4000, 0.05).collect(),
        allowed: (draw(14) < 0.5).then(|| ids(5000, 0.4).collect()),
        top_logprobs: (draw(15) < 0.5).then_some((seed % 21) as u8),
    }
}

/// E1: the choice is the reference's, unless the draw falls on the edge between two tokens.
#[test]
fn choices_equal_the_reference() {
    let mut edges = 0;
    for seed in 0..4_000 {
        let vocab = 1 + (seed % 70) as u32;
        let row = random_row(seed, vocab);
        let logits: Vec<f32> =
            (0..vocab).map(|id| 8.0 * uniform(seed, 9_000 + u64::from(id)) as f32 - 4.0).collect();
        let got = super::choose(&row, &mut logits.clone());
        let distribution = reference::distribution(&row, &logits);
        let Some(choice) = got else {
            assert!(distribution.is_empty(), "seed {seed}");
            continue;
        };
        let draw = uniform(row.seed, row.position);
        let mut sum = 0.0;
        let want = distribution.iter().find(|(_, share)| {
            sum += share;
            sum > draw
        });
        if want.is_none_or(|(id, _)| *id != choice.token) {
            edges += 1;
        }
        check_logprobs(&row, &logits, choice.token, choice.logprobs.as_ref());
    }
    assert!(edges <= 2, "{edges} choices differ");
}

fn check_logprobs(row: &SampleRow, logits: &[f32], token: u32, got: Option<&Logprobs>) {
    assert_eq!(got.is_some(), row.top_logprobs.is_some());
    let Some(got) = got else { return };
    let want = reference::logprobs(logits);
    let close = |got: f32, want: f64| (f64::from(got) - want).abs() < 1e-5;
    assert!(close(got.chosen, want[token as usize]));
    let count = usize::from(row.top_logprobs.unwrap()).min(logits.len());
    assert_eq!(got.top.len(), count);
    assert!(got.top.iter().all(|(id, logprob)| close(*logprob, want[*id as usize])));
    let mut sorted: Vec<u32> = (0..logits.len() as u32).collect();
    sorted.sort_by(|a, b| want[*b as usize].total_cmp(&want[*a as usize]).then(a.cmp(b)));
    assert!(got.top.iter().map(|(id, _)| id).eq(&sorted[..count]));
}

/// Log-probabilities are of the model's distribution, whatever the parameters make of it.
#[test]
fn logprobs_ignore_the_parameters() {
    let row = SampleRow {
        logit_bias: vec![(2, 50.0)],
        allowed: Some([2].into_iter().collect()),
        top_logprobs: Some(2),
        ..row(1.7)
    };
    let [third, first, fourth, second] = softmax(LOGITS, 1.0).map(|share| share.ln() as f32);
    let logprobs = super::choose(&row, &mut LOGITS.clone()).unwrap().logprobs.unwrap();
    let close = |got: f32, want: f32| (got - want).abs() < 1e-6;
    assert!(close(logprobs.chosen, fourth) && third > fourth);
    let [(1, best), (3, next)] = logprobs.top[..] else { panic!("{:?}", logprobs.top) };
    assert!(close(best, first) && close(next, second));
    // Equals come in the order of their ids.
    let row = SampleRow { top_logprobs: Some(3), ..SampleRow::greedy() };
    let top = super::choose(&row, &mut [1.0, 2.0, 2.0, 2.0]).unwrap().logprobs.unwrap().top;
    assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3]);
}

/// Its inverse is infinite, and the best token's distance is zero.
#[test]
fn a_tiny_temperature_is_greedy() {
    assert_eq!(choose(&row(1e-40), &mut [1.0, 3.0, 2.0]), Some(1));
}

/// Whatever the parameters are, something is chosen, and nothing panics.
#[test]
fn extreme_parameters_choose_something() {
    let extremes = [0.0, 1e-45, 1e-40, 1e-6, 1.0, 1e38, f32::MAX, f32::INFINITY, f32::NAN, -1.0];
    for a in extremes {
        for b in extremes {
            let seen = vec![0, 1, 2, 3];
            for row in [
                SampleRow { repetition_penalty: a, seen: seen.clone(), ..row(b) },
                SampleRow { presence_penalty: a, generated: vec![(1, 3), (2, 1)], ..row(b) },
                SampleRow { frequency_penalty: -a, generated: vec![(1, 3), (2, 1)], ..row(b) },
                SampleRow { logit_bias: vec![(2, a)], ..row(b) },
                SampleRow { top_p: a, min_p: b, ..row(1.0) },
                SampleRow { top_k: 2, top_p: b, min_p: a, ..row(0.7) },
            ] {
                let token = choose(&row, &mut [1.0, -2.0, 0.0, 30.0]);
                // Penalties may rule all out.
                let ruled_out = row.seen == seen && !(a > 0.0 && a < f32::INFINITY);
                assert!(token.is_some() || ruled_out, "{row:?}");
            }
        }
    }
}

#[test]
fn a_mask_that_allows_nothing_chooses_nothing() {
    let row = SampleRow { allowed: Some(TokenMask::from_words([])), ..row(1.0) };
    assert_eq!(choose(&row, &mut [1.0, 2.0]), None);
}

#[test]
fn rows_that_are_not_finite_choose_nothing() {
    assert_eq!(choose(&row(0.0), &mut [1.0, f32::NAN]), None);
    assert_eq!(choose(&row(0.0), &mut [1.0, f32::INFINITY]), None);
    assert_eq!(choose(&row(1.0), &mut [f32::NEG_INFINITY; 3]), None);
    assert_eq!(choose(&row(1.0), &mut [f32::NEG_INFINITY, 0.0]), Some(1));
}

/// The vectors that the generator's authors publish.
#[test]
fn philox_equals_its_known_answers() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
    assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
}

#[test]
fn seeds_and_positions_give_different_draws() {
    assert_ne!(uniform(1, 0), uniform(2, 0));
    assert_ne!(uniform(1, 0), uniform(1, 1));
    assert_eq!(uniform(1, 0), uniform(1, 0));
}
