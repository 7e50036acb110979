//! A log that never makes a request wait: a full pipe costs lines, and says how many.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for the reader of the log.
const LINES: usize = 4096;

/// Hands lines to a thread that writes them.
#[derive(Clone)]
pub struct LogWriter {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
    /// Everything before this is written once the sender is dropped.
    Mark(SyncSender<()>),
}

impl LogWriter {
    /// Starts the thread that writes to `out`; it ends with the last writer.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<LogWriter> {
        let (lines, waiting) = sync_channel(LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(out, &waiting, &counted))?;
        Ok(LogWriter { lines, dropped })
    }

    /// Waits until what was logged so far is written, but no longer than `limit`: the last lines
    /// of a process are worth a moment, and a stuck reader is not worth more.
    pub fn drain(&self, limit: Duration) {
        let (mark, written) = sync_channel(1);
        if self.lines.try_send(Line::Mark(mark)).is_ok() {
            // The mark's sender is dropped when it is reached: either answer means written.
            let _ = written.recv_timeout(limit);
        }
    }
}

fn write_all(mut out: impl Write, waiting: &Receiver<Line>, dropped: &AtomicU64) {
    while let Ok(line) = waiting.recv() {
        let lost = dropped.swap(0, Ordering::Relaxed);
        // Nowhere is left to complain to when the log itself cannot be written.
        if lost > 0 {
            let _ = writeln!(out, "{lost} log lines were dropped: the log is read too slowly");
        }
        match line {
            Line::Text(text) => {
                let _ = out.write_all(&text);
            }
            Line::Mark(mark) => drop(mark),
        }
    }
}

impl Write for LogWriter {
    /// Takes one whole event, as `tracing_subscriber::fmt` writes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::{LINES, LogWriter};

    /// Takes a line only when the test gives a turn.
    struct Slow {
        turns: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turns.recv().map_err(io::Error::other)?;
            let line = String::from_utf8_lossy(bytes).into_owned();
            self.written.send(line).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_hears_how_many() {
        let (turn, turns) = channel();
        let (written, lines) = channel();
        let mut log = LogWriter::start(Slow { turns, written }).expect("a thread");
        for _ in 0..LINES + 100 {
            log.write_all(b"line\n").expect("never fails");
        }
        for _ in 0..LINES {
            turn.send(()).expect("the writer waits");
        }
        let all: String = lines.iter().take(LINES).collect();
        assert!(all.contains("log lines were dropped"), "{}", &all[..100]);
    }
}
