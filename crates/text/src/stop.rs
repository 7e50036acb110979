//! Stop texts, found across the edges of tokens.

/// Passes text on until one of the stop texts has come, which is not passed on.
///
/// The stop that ends first wins; of two that end together the longer one.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// The longest end of the text so far that may be the beginning of a stop.
    held: String,
}

/// What may be shown after a piece of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text that no stop can claim any more.
    pub text: String,
    /// Whether a stop text has come; the answer ends with `text`.
    pub hit: bool,
    /// The stop text that has come.
    pub by: Option<String>,
}

impl StopMatcher {
    /// A matcher for these texts; empty ones are no stops.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new() }
    }

    /// Takes more text; after a hit it must not be called again.
    pub fn push(&mut self, text: &str) -> Stopped {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((end, start)) = found.min() {
            let by = Some(self.held[start..end].to_owned());
            self.held.truncate(start);
            return Stopped { text: std::mem::take(&mut self.held), hit: true, by };
        }
        let longest = self.stops.iter().map(|stop| partial_suffix(&self.held, stop)).max();
        let keep_from = self.held.len() - longest.unwrap_or(0);
        let held = self.held.split_off(keep_from);
        Stopped { text: std::mem::replace(&mut self.held, held), hit: false, by: None }
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The length of the longest end of `text` that is a beginning of `marker`, but not all of it.
pub(crate) fn partial_suffix(text: &str, marker: &str) -> usize {
    let longest = marker.len().saturating_sub(1).min(text.len());
    let (text, marker) = (text.as_bytes(), marker.as_bytes());
    // A common part that begins with a whole character of `marker` begins one of `text` too.
    (1..=longest).rev().find(|length| text.ends_with(&marker[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|stop| (*stop).to_owned()));
        let mut text = String::new();
        for piece in pieces {
            let stopped = matcher.push(piece);
            text.push_str(&stopped.text);
            if stopped.hit {
                return (text, true);
            }
        }
        text.push_str(&matcher.finish());
        (text, false)
    }

    #[test]
    fn a_stop_is_found_across_pieces_and_not_shown() {
        assert_eq!(run(&["END"], &["one E", "N", "D two"]), ("one ".to_owned(), true));
        assert_eq!(run(&["END"], &["one E", "N", "C"]), ("one ENC".to_owned(), false));
        assert_eq!(run(&["é!"], &["caf", "é", "!"]), ("caf".to_owned(), true));
        assert_eq!(run(&["bc", "abcd"], &["abcd"]), ("a".to_owned(), true));
        assert_eq!(run(&["b", "ab"], &["xab"]), ("x".to_owned(), true));
        assert_eq!(run(&[], &["plain"]), ("plain".to_owned(), false));
    }

    #[test]
    fn only_what_may_be_a_stop_is_held_back() {
        let mut matcher = StopMatcher::new(["<end>".to_owned()]);
        assert_eq!(matcher.push("a <").text, "a ");
        assert_eq!(matcher.push("b").text, "<b");
        assert_eq!(matcher.push("x<e").by, None);
        assert_eq!(matcher.push("nd>y").by.as_deref(), Some("<end>"));
    }

    proptest! {
        // Equality E8
        #[test]
        fn any_split_stops_at_the_same_place(
            stops in prop::collection::vec("[abé]{1,3}", 0..3),
            pieces in prop::collection::vec("[abcé]{0,3}", 0..10),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let split: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            prop_assert_eq!(run(&stops, &split), run(&stops, &[&whole]));
        }
    }
}
