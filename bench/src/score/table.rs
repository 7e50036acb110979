//! Counts by kind, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

/// What became of a question.
pub(crate) enum Outcome {
    /// It was answered right.
    Right,
    /// It was answered, and why that is wrong.
    Wrong(String),
    /// It was not answered at all; it counts as wrong.
    Failed(String),
}

/// Counts of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Score {
    /// All of them.
    pub(crate) asked: u32,
    /// Those answered right.
    pub(crate) right: u32,
    /// Those without an answer.
    pub(crate) failed: u32,
}

impl Score {
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        self.asked += 1;
        match outcome {
            Outcome::Right => self.right += 1,
            Outcome::Wrong(_) => {}
            Outcome::Failed(_) => self.failed += 1,
        }
    }

    pub(crate) fn plus(self, other: &Self) -> Self {
        Self {
            asked: self.asked + other.asked,
            right: self.right + other.right,
            failed: self.failed + other.failed,
        }
    }

    /// The share of right answers.
    pub(crate) fn percent(self) -> f64 {
        if self.asked == 0 { 0.0 } else { 100.0 * f64::from(self.right) / f64::from(self.asked) }
    }
}

/// A row for each kind and one for all.
pub(crate) fn text(kinds: &BTreeMap<&str, Score>, total: &Score) -> String {
    let width = kinds.keys().map(|kind| kind.len()).max().unwrap_or(0).max("total".len());
    let mut out = format!("{:width$}  asked  right  failed  share\n", "kind");
    for (kind, score) in kinds.iter().chain([(&"total", total)]) {
        let Score { asked, right, failed } = score;
        let percent = score.percent();
        writeln!(out, "{kind:width$}  {asked:5}  {right:5}  {failed:6}  {percent:5.1} %")
            .expect("a String takes everything");
    }
    out
}

/// The same as one JSON object.
pub(crate) fn json(kinds: &BTreeMap<&str, Score>, total: &Score) -> Value {
    let row = |score: &Score| {
        let Score { asked, right, failed } = score;
        json!({"asked": asked, "right": right, "failed": failed, "percent": score.percent()})
    };
    let kinds: BTreeMap<_, _> = kinds.iter().map(|(kind, score)| (*kind, row(score))).collect();
    json!({"kinds": kinds, "total": row(total)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_counts_as_wrong() {
        let mut score = Score::default();
        score.count(&Outcome::Right);
        score.count(&Outcome::Wrong(String::new()));
        score.count(&Outcome::Failed(String::new()));
        score.count(&Outcome::Failed(String::new()));
        assert_eq!(score, Score { asked: 4, right: 1, failed: 2 });
        assert!((score.percent() - 25.0).abs() < 1e-9);
        let kinds = BTreeMap::from([("recall", score)]);
        let expected = "kind    asked  right  failed  share\n\
                        recall      4      1       2   25.0 %\n\
                        total       4      1       2   25.0 %\n";
        assert_eq!(text(&kinds, &score), expected);
        assert_eq!(json(&kinds, &score)["kinds"]["recall"]["right"], 1);
    }
}
