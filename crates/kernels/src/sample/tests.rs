use super::philox::philox;
use super::{SampleRow, choose, uniform};

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
