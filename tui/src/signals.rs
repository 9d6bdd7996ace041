//! What the system asks of a process that plays a run: to end. Asked once, the run finishes its tick and
//! closes its log; asked twice, the process leaves at once.

use std::io;

use crate::exit_code::Exit;

/// The requests to end that can come from outside.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// None where the process was told not to mind it, as by `nohup`.
    #[cfg(unix)]
    hang_up: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    /// From here on a request is heard instead of ending the process. Needs a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hang_up = (!ignored(HANG_UP)).then(|| signal(SignalKind::hangup())).transpose()?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())?, hang_up })
    }

    /// The next request, as the way in which the process will have ended.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Stopped,
            _ = self.terminate.recv() => Exit::Terminated,
            Some(_) = async { self.hang_up.as_mut()?.recv().await } => Exit::HungUp,
        }
    }

    /// From here on a request is heard instead of ending the process.
    ///
    /// # Errors
    /// Never here.
    #[cfg(not(unix))]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next request, as the way in which the process will have ended.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> Exit {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Exit::Stopped,
            Err(_) => std::future::pending().await,
        }
    }
}

/// The number of the request that comes when the terminal is gone.
#[cfg(unix)]
const HANG_UP: u32 = 1;

/// Whether the process ignores a request of that number; where the system does not say, it does not.
#[cfg(unix)]
fn ignored(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_by(&status, number)
}

/// Reads the mask of what is ignored, whose lowest bit stands for number 1.
#[cfg(unix)]
fn ignored_by(status: &str, number: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (number - 1)) != 0)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_status() {
        let status = "Name:\tpolylogue\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        assert!(ignored_by(status, 1) && ignored_by(status, 13) && !ignored_by(status, 2));
        assert!(!ignored_by("", 1));
    }
}
