//! Server-sent events out of byte chunks that may end anywhere.

use anyhow::{Context, Result};

/// Collects bytes and gives the data of each whole `data:` line.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The data lines that `bytes` completes.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Vec<String>> {
        self.rest.extend_from_slice(bytes);
        let Some(last) = self.rest.iter().rposition(|b| *b == b'\n') else { return Ok(Vec::new()) };
        let whole: Vec<u8> = self.rest.drain(..=last).collect();
        let text = String::from_utf8(whole).context("the stream is no UTF-8")?;
        let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        Ok(data.map(|data| data.trim().to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_wherever_the_bytes_are_split() {
        let stream = ": ping\n\ndata: {\"a\":\"é\"}\r\n\r\ndata:[DONE]\n\n";
        for split in 0..=stream.len() {
            let mut lines = Lines::default();
            let mut all = lines.take(&stream.as_bytes()[..split]).expect("UTF-8");
            all.extend(lines.take(&stream.as_bytes()[split..]).expect("UTF-8"));
            assert_eq!(all, ["{\"a\":\"é\"}", "[DONE]"], "split at {split}");
        }
    }
}
