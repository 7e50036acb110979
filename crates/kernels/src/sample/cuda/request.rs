//! What the host tells a card about the rows, in words.

use super::super::{SampleRow, uniform};

/// Words of a row's part that has always the same size.
pub(super) const ROW_WORDS: usize = 14;
/// Words of a row's lists and mask, at most: a mask of 262,144 tokens and as much again.
const MOST_LIST_WORDS: usize = 16 << 10;

/// A batch of rows in the making.
pub(super) struct Request {
    fixed: Vec<[u32; ROW_WORDS]>,
    lists: Vec<u32>,
    for_host: Vec<bool>,
    draws: bool,
}

impl Request {
    /// Words that `rows` rows can need.
    pub(super) fn words(rows: usize) -> usize {
        rows * (ROW_WORDS + MOST_LIST_WORDS)
    }

    pub(super) fn new(rows: &[SampleRow]) -> Self {
        let mut request =
            Self { fixed: Vec::new(), lists: Vec::new(), for_host: Vec::new(), draws: false };
        rows.iter().for_each(|row| request.add(row));
        request
    }

    fn add(&mut self, row: &SampleRow) {
        let for_host =
            row.top_logprobs.is_some() || list_words(row) > MOST_LIST_WORDS || twice(row);
        self.for_host.push(for_host);
        let empty = SampleRow::greedy();
        let row = if for_host { &empty } else { row };
        self.draws |= row.temperature > 0.0;
        // Entries of two words begin at even ones, and so do rows of an even number of words.
        self.lists.resize(self.lists.len().next_multiple_of(2), 0);
        let first = self.entries();
        let [bias, seen, generated, banned] = lists(row).map(|list| {
            let words = list.flat_map(|(id, value)| [id, value.to_bits()]);
            self.lists.extend(words);
            self.entries()
        });
        let mask = self.lists.len() as u32;
        let allowed = row.allowed.as_ref().map_or(&[][..], |allowed| allowed.words());
        self.lists.extend(allowed);
        // A mask without words allows nothing, and one without a row's wish is not there.
        if row.allowed.is_some() && allowed.is_empty() {
            self.lists.push(0);
        }
        // Without a draw, a row's words are the same in every step.
        let draw = if row.temperature > 0.0 { uniform(row.seed, row.position) } else { 0.0 };
        let draw = draw.to_bits();
        self.fixed.push([
            draw as u32,
            (draw >> 32) as u32,
            row.temperature.to_bits(),
            row.top_p.to_bits(),
            row.min_p.to_bits(),
            row.top_k,
            first,
            bias,
            seen,
            generated,
            banned,
            mask,
            self.lists.len() as u32 - mask,
            row.repetition_penalty.to_bits(),
        ]);
    }

    fn entries(&self) -> u32 {
        self.lists.len() as u32 / 2
    }

    pub(super) fn rows(&self) -> usize {
        self.fixed.len()
    }

    /// Whether the host chooses this row.
    pub(super) fn is_for_host(&self, row: usize) -> bool {
        self.for_host[row]
    }

    /// Whether logits are changed.
    pub(super) fn adjusts(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Whether a row is not greedy.
    pub(super) fn draws(&self) -> bool {
        self.draws
    }

    /// Whether these are its words; only for one without lists.
    pub(super) fn is(&self, words: &[u32]) -> bool {
        self.fixed.as_flattened() == words
    }

    /// Writes all of it and says how many words that is.
    pub(super) fn write(&self, words: &mut [u32]) -> usize {
        let all = self.fixed.as_flattened().iter().chain(&self.lists);
        words.iter_mut().zip(all).for_each(|(word, value)| *word = *value);
        self.fixed.as_flattened().len() + self.lists.len()
    }
}

type List<'a> = Box<dyn Iterator<Item = (u32, f32)> + 'a>;

/// Bias, seen, generated, banned: ids, each with what is added to or taken from its logit.
fn lists(row: &SampleRow) -> [List<'_>; 4] {
    let penalty = |count: u32| row.presence_penalty + row.frequency_penalty * count as f32;
    let seen = if row.repetition_penalty == 1.0 { &[][..] } else { &row.seen };
    [
        Box::new(row.logit_bias.iter().copied()),
        Box::new(seen.iter().map(|id| (*id, 0.0))),
        Box::new(row.generated.iter().map(move |(id, count)| (*id, penalty(*count)))),
        Box::new(row.banned.iter().map(|id| (*id, 0.0))),
    ]
}

fn list_words(row: &SampleRow) -> usize {
    let entries: usize = lists(row).into_iter().map(Iterator::count).sum();
    let mask = row.allowed.as_ref().map_or(0, |allowed| allowed.words().len());
    2 * entries + mask + 2
}

/// Whether an id has two biases: threads would meet at its logit.
fn twice(row: &SampleRow) -> bool {
    let mut ids: Vec<u32> = row.logit_bias.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::TokenMask;

    #[test]
    fn lists_follow_one_another() {
        let first = SampleRow {
            logit_bias: vec![(7, 2.0)],
            repetition_penalty: 1.5,
            seen: vec![1, 2],
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            generated: vec![(2, 3)],
            allowed: Some(TokenMask::from_words(vec![9, 8, 7])),
            ..SampleRow::greedy()
        };
        let second = SampleRow { banned: vec![4], temperature: 1.0, ..SampleRow::greedy() };
        let request = Request::new(&[first, second]);
        assert!(request.adjusts() && request.draws());
        assert_eq!(request.fixed[0][6..13], [0, 1, 3, 4, 4, 8, 3]);
        assert_eq!(request.lists[6..11], [2, 1.25_f32.to_bits(), 9, 8, 7]);
        // The second row's entries begin at an even word.
        assert_eq!(request.fixed[1][6..13], [6, 6, 6, 6, 7, 14, 0]);
        assert_eq!(request.lists[12], 4);
        let mut words = vec![0; Request::words(2)];
        let written = request.write(&mut words);
        assert_eq!(written, 2 * ROW_WORDS + 14);
        assert_eq!(words[2 * ROW_WORDS], 7);
    }

    #[test]
    fn what_is_too_much_for_the_card_is_left_to_the_host() {
        let row = SampleRow::greedy;
        let rows = [
            row(),
            SampleRow { top_logprobs: Some(0), ..row() },
            SampleRow { banned: (0..9000).collect(), ..row() },
            SampleRow { logit_bias: vec![(3, 1.0), (3, 1.0)], ..row() },
            SampleRow { seen: (0..9000).collect(), ..row() },
        ];
        let request = Request::new(&rows);
        let for_host: Vec<_> = (0..5).map(|at| request.is_for_host(at)).collect();
        assert_eq!(for_host, [false, true, true, true, false], "no penalty looks at the last");
        assert!(!request.adjusts() && !request.draws());
    }
}
