//! Ctrl-C and its relatives as something to wait for, instead of a sudden end that would leave the
//! two programs behind.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Knows whether somebody asked the demo to stop.
pub(crate) struct Watch {
    signals: Receiver<i32>,
}

impl Watch {
    /// From here on, SIGINT, SIGTERM and SIGHUP no longer end the process by themselves.
    pub(crate) fn new() -> Result<Self> {
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be caught")?;
        let (sender, receiver) = sync_channel(8);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    // A full queue already says what this one would.
                    let _ = sender.try_send(signal);
                }
            })
            .context("a thread for signals cannot be started")?;
        Ok(Self { signals: receiver })
    }

    /// Waits, and says whether it was asked to stop meanwhile.
    pub(crate) fn stopped_within(&self, time: Duration) -> bool {
        !matches!(self.signals.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    /// Waits; an error when it was asked to stop meanwhile.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        if self.stopped_within(time) {
            bail!("interrupted");
        }
        Ok(())
    }
}
