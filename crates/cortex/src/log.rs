//! A log that never makes a request wait: a full pipe costs lines, and says how many.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for the reader of the log.
const LINES: usize = 4096;
/// The least time between two writes, in which lines gather: waking the thread costs more than most
/// lines do.
const GATHER: Duration = Duration::from_millis(20);
/// How often a drain looks whether the last line is out.
const LOOK: Duration = Duration::from_millis(2);

/// Hands lines to a thread that writes them.
#[derive(Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    lines: usize,
    dropped: u64,
    /// The thread waits for a first line.
    is_asleep: bool,
    /// The thread is in the middle of writing.
    is_writing: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two counters costs a line's place in the count, no more.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogWriter {
    /// Starts the thread that writes to `out`; it lives as long as the process.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<LogWriter> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(out, &own))?;
        Ok(LogWriter { shared })
    }

    /// Waits until what was logged so far is written, but no longer than `limit`: the last lines
    /// of a process are worth a moment, and a stuck reader is not worth more.
    pub fn drain(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            let state = self.shared.state();
            if state.lines == 0 && !state.is_writing {
                return;
            }
            drop(state);
            std::thread::sleep(LOOK);
        }
    }
}

fn write_all(mut out: impl Write, shared: &Shared) {
    let mut text = Vec::new();
    let mut written: Option<Instant> = None;
    loop {
        wait_for_lines(shared);
        if let Some(written) = written {
            std::thread::sleep(GATHER.saturating_sub(written.elapsed()));
        }
        let lost = {
            let mut state = shared.state();
            std::mem::swap(&mut text, &mut state.text);
            (state.lines, state.is_writing) = (0, true);
            std::mem::take(&mut state.dropped)
        };
        // Nowhere is left to complain to when the log itself cannot be written.
        if lost > 0 {
            let _ = writeln!(out, "{lost} log lines were dropped: the log is read too slowly");
        }
        let _ = out.write_all(&text);
        text.clear();
        text.shrink_to(64 << 10);
        written = Some(Instant::now());
        shared.state().is_writing = false;
    }
}

fn wait_for_lines(shared: &Shared) {
    let mut state = shared.state();
    while state.lines == 0 {
        state.is_asleep = true;
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.is_asleep = false;
    }
}

impl Write for LogWriter {
    /// Takes one whole event, as `tracing_subscriber::fmt` writes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.state();
        if state.lines >= LINES {
            state.dropped += 1;
            return Ok(line.len());
        }
        state.lines += 1;
        state.text.extend_from_slice(line);
        // Whoever wakes the thread says so, lest the next ones wake it too.
        if std::mem::take(&mut state.is_asleep) {
            drop(state);
            self.shared.changed.notify_one();
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
    use std::time::Duration;

    use super::{LINES, LogWriter};

    /// Takes what it is given only when the test gives a turn.
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
        for _ in 0..3 * LINES {
            log.write_all(b"line\n").expect("never fails");
        }
        for _ in 0..8 {
            turn.send(()).expect("the writer waits");
        }
        let until_told = lines.iter().find(|text| text.contains("log lines were dropped"));
        assert!(until_told.is_some());
        let last = lines.recv().expect("what was kept comes after it");
        assert!(last.starts_with("line\n"), "{}", &last[..10]);
    }

    #[test]
    fn a_drain_waits_for_the_last_line() {
        let (turn, turns) = channel();
        let (written, lines) = channel();
        let mut log = LogWriter::start(Slow { turns, written }).expect("a thread");
        log.write_all(b"last\n").expect("never fails");
        log.drain(Duration::from_millis(20));
        assert!(lines.try_recv().is_err(), "a stuck reader is not waited for");
        turn.send(()).expect("the writer waits");
        log.drain(Duration::from_secs(20));
        assert_eq!(lines.try_recv().as_deref(), Ok("last\n"));
    }
}
