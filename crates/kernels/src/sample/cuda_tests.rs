use super::super::TokenMask;
use super::*;
use crate::backend::Backend;
use crate::check::Noise;
use crate::cuda::on_card;

fn draw(temperature: f32, seed: u64) -> SampleRow {
    SampleRow { temperature, seed, position: seed * 7, ..SampleRow::greedy() }
}

/// Every way of choosing, and some of them together.
fn rows(vocab: usize) -> Vec<SampleRow> {
    let half: TokenMask = (0..vocab as u32).filter(|id| id % 2 == 1).collect();
    let adjusted = SampleRow {
        logit_bias: vec![(5, 4.0), (vocab as u32 - 1, 9.0), (vocab as u32 + 9, 99.0)],
        repetition_penalty: 1.3,
        seen: (0..200).collect(),
        presence_penalty: 0.5,
        frequency_penalty: 0.5,
        generated: vec![(5, 3), (80, 1)],
        banned: vec![3, 70],
        ..SampleRow::greedy()
    };
    let mut rows = vec![
        SampleRow::greedy(),
        adjusted.clone(),
        SampleRow { allowed: Some(half.clone()), ..SampleRow::greedy() },
        SampleRow { allowed: Some([9].into_iter().collect()), ..draw(1.0, 2) },
        SampleRow { allowed: Some(TokenMask::from_words(vec![])), ..draw(1.0, 2) },
        SampleRow { top_logprobs: Some(3), ..draw(0.8, 3) },
        SampleRow { logit_bias: vec![(1, 9.0), (1, 9.0)], ..draw(0.8, 3) },
    ];
    for seed in 0..6 {
        rows.extend([
            draw(1.0, seed),
            draw(0.3, seed),
            draw(30.0, seed),
            SampleRow { top_k: 20, top_p: 0.8, ..draw(0.7, seed) },
            SampleRow { top_k: 1, ..draw(1.0, seed) },
            SampleRow { top_k: 3000, min_p: 0.01, ..draw(1.5, seed) },
            SampleRow { top_p: 0.95, ..draw(1.0, seed) },
            SampleRow { top_p: 0.9, min_p: 0.05, allowed: Some(half.clone()), ..draw(2.0, seed) },
            // Too many are too near: the host decides.
            SampleRow { top_p: 0.99, ..draw(50.0, seed) },
        ]);
    }
    rows.push(SampleRow { top_k: 50, ..draw(0.9, 1) });
    rows.push(SampleRow { temperature: 0.6, top_p: 0.95, top_k: 20, ..adjusted });
    rows
}

/// Sampled on the card and on the CPU, from the same logits.
fn both(
    cuda: &mut Cuda,
    vocab: usize,
    logits: &[f32],
    rows: &[SampleRow],
) -> [Vec<Option<Choice>>; 2] {
    let cols = logits.len() / rows.len();
    let mut on_card = on_card::tensor(cuda, cols, logits);
    let by_card = cuda.sample(&mut on_card, vocab, rows);
    assert_eq!(cuda.fault(), None);
    let by_cpu = (rows.iter().zip(logits.chunks_exact(cols)))
        .map(|(row, logits)| choose(row, &mut logits[..vocab].to_vec()));
    let by_cpu = by_cpu.collect();
    [by_card, by_cpu]
}

/// E1 on a card. A draw may fall on the edge between two tokens, where the last bit of an
/// exponential decides; one in a hundred is far more than that explains.
#[test]
fn chooses_what_the_cpu_does_on_a_card() {
    let Some(mut cuda) = on_card::cuda() else { return };
    let (mut compared, mut apart) = (0, 0);
    for (vocab, cols, scale) in [(1000, 1000, 6.0), (151_936, 151_936, 9.0), (40_001, 40_032, 3.0)]
    {
        let rows = rows(vocab);
        let logits = Noise::new(5).values(rows.len() * cols, scale);
        let [by_card, by_cpu] = both(&mut cuda, vocab, &logits, &rows);
        for ((row, card), cpu) in rows.iter().zip(by_card).zip(by_cpu) {
            compared += 1;
            if card != cpu {
                eprintln!("{vocab}: {card:?} on the card, {cpu:?} on the CPU");
                apart += 1;
                assert!(row.temperature > 0.0, "a greedy choice differs");
            }
        }
    }
    assert!(compared > 180 && apart * 100 <= compared, "{apart} of {compared} differ");
}

/// The lowest of equals; nothing from a row that is not sound, and its neighbours unharmed.
#[test]
fn ties_and_broken_rows_are_treated_alike_on_a_card() {
    let Some(mut cuda) = on_card::cuda() else { return };
    let (vocab, greedy) = (5000, SampleRow::greedy());
    let banned = SampleRow { banned: vec![17], ..greedy.clone() };
    let rows = [greedy.clone(), greedy.clone(), draw(1.0, 1), greedy.clone(), banned, greedy];
    let mut logits = vec![-1.0; rows.len() * vocab];
    for tied in [4999, 4000, 31, 160] {
        logits[tied] = 2.5;
    }
    logits[vocab + 4321] = f32::NAN;
    logits[2 * vocab + 3] = f32::INFINITY;
    logits[3 * vocab..4 * vocab].fill(f32::NEG_INFINITY);
    // What a ban hides is broken all the same.
    logits[4 * vocab + 17] = f32::NAN;
    let [by_card, by_cpu] = both(&mut cuda, vocab, &logits, &rows);
    assert_eq!(by_card, by_cpu);
    let tokens: Vec<_> = by_card.into_iter().map(|choice| choice.map(|it| it.token)).collect();
    assert_eq!(tokens, [Some(31), None, None, None, None, Some(0)]);
}

/// Two batches under way, greedy and drawn in turn, come to what they come to one by one; the card
/// says so where it cannot tell.
#[test]
fn batches_under_way_are_read_in_order_on_a_card() {
    let Some(mut cuda) = on_card::cuda() else { return };
    let (vocab, noise) = (20_000, &mut Noise::new(9));
    let flat = SampleRow { top_p: 0.99, ..draw(50.0, 1) };
    let batches: Vec<Vec<SampleRow>> = vec![
        vec![SampleRow::greedy(), SampleRow { top_k: 20, ..draw(0.7, 1) }],
        vec![SampleRow::greedy(); 3],
        vec![SampleRow::greedy(); 3],
        vec![SampleRow { top_k: 20, ..draw(0.7, 2) }, draw(1.0, 3), flat],
        vec![SampleRow::greedy(); 2],
    ];
    let mut logits: Vec<Tensor> = batches
        .iter()
        .map(|rows| on_card::tensor(&cuda, vocab, &noise.values(rows.len() * vocab, 4.0)))
        .collect();
    let mut want: Vec<Vec<Pick>> = (batches.iter().zip(&mut logits))
        .map(|(rows, logits)| {
            let choices = cuda.sample(logits, vocab, rows);
            choices.into_iter().map(|choice| Pick::Token(choice.expect("sound").token)).collect()
        })
        .collect();
    let mut got = Vec::new();
    for (at, (rows, logits)) in batches.iter().zip(&mut logits).enumerate() {
        cuda.start_sample(logits, vocab, rows);
        if at > 0 {
            got.push(cuda.finish_sample());
        }
    }
    got.push(cuda.finish_sample());
    assert_eq!(got[3].pop(), Some(Pick::Undecided), "too many are too near");
    want[3].pop();
    assert_eq!(got, want);
    assert_eq!(cuda.fault(), None);
}
