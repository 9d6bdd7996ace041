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
}

impl Signals {
    /// From here on a request is heard instead of ending the process. Needs a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// The next request, as the way in which the process will have ended.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Stopped,
            _ = self.terminate.recv() => Exit::Terminated,
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
