//! `polylogue verify RUN`: plays a recorded run again and says whether it is the same, or where it parts.

use std::path::PathBuf;

use clap::Args;
use miette::IntoDiagnostic;
use sim::backbone::{Devices, HubSettings};
use sim::verify::{Place, Progress, Verdict, VerifyError, VerifyOptions};

use crate::divergence;
use crate::exit_code::Exit;
use crate::fetching::Downloads;
use crate::signals::Signals;
use crate::view::number::{counted, grouped};

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Directory of a run, finished or not.
    run: PathBuf,
    /// The scenario's folder, where it is not where it was.
    #[arg(long, value_name = "FOLDER")]
    scenario: Option<PathBuf>,
    /// What runs the models, as for `run`; what the run had where absent. Another kind has other bits.
    #[arg(long, value_name = "LIST")]
    device: Option<Devices>,
    /// Threads that compute; the result must not depend on them.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Equal events to show before the first difference.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=100))]
    context: u16,
    /// Begin even where memory or disk are predicted not to suffice.
    #[arg(long)]
    unchecked: bool,
}

/// Runs the command.
pub(crate) fn verify(arguments: &VerifyArguments) -> miette::Result<Exit> {
    match verdict(arguments) {
        Ok(Err(left)) => Ok(left),
        Ok(Ok(verdict)) => {
            for line in lines(&verdict, &sim::verify::shown(&arguments.run)) {
                crate::output::say(line);
            }
            Ok(if verdict.is_equal() { Exit::Done } else { Exit::RunFailed })
        }
        Err(VerifyError::Scenario(problems)) => Err(problems.into()),
        Err(error) if error.is_input() => Err(error).into_diagnostic(),
        Err(error) => {
            crate::summary::complain(&error.to_string());
            Ok(Exit::RunFailed)
        }
    }
}

/// The verdict, or how the process was asked to end before there was one.
fn verdict(arguments: &VerifyArguments) -> Result<Result<Verdict, Exit>, VerifyError> {
    let options = VerifyOptions {
        directory: arguments.run.clone(),
        folder: arguments.scenario.clone(),
        devices: arguments.device.clone(),
        hub: HubSettings::from_environment(),
        context: usize::from(arguments.context),
        unchecked: arguments.unchecked,
    };
    let place = Place::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(VerifyError::Place)?;
    let compared = compared(options, place.run());
    let found = runtime.block_on(async {
        let Ok(mut signals) = Signals::listen() else { return Ok(Ok(compared.await?)) };
        tokio::select! {
            verdict = compared => Ok(Ok(verdict?)),
            left = signals.next() => Ok(Err(left)),
        }
    });
    // What still plays ends with the runtime; then nobody writes there any more but the preparation, which ends
    // with the process.
    drop(runtime);
    drop(place);
    found
}

/// Plays the run again in `made`. It is prepared on a thread of its own, because that takes long with a large
/// model and can be interrupted as well.
async fn compared(options: VerifyOptions, made: PathBuf) -> Result<Verdict, VerifyError> {
    let (ready, prepared) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut downloads = Downloads::new();
        let prepared =
            sim::verify::prepare(&options, made, &mut |fetching| downloads.show(fetching));
        // Nobody waits any more where the process was asked to end.
        let _ = ready.send(prepared);
    });
    let lost = |_| VerifyError::Place(std::io::Error::other("the preparation broke off"));
    let verification = prepared.await.map_err(lost)??;
    for notice in verification.notices() {
        crate::summary::remark(notice);
    }
    let mut told = Tenths::default();
    let hear = move |progress: Progress| {
        if let Some(line) = told.line(progress) {
            crate::summary::remark(&line);
        }
    };
    Box::pin(verification.run(hear)).await
}

/// Says how far a verification is, about ten times.
#[derive(Debug, Default)]
struct Tenths(u64);

impl Tenths {
    fn line(&mut self, progress: Progress) -> Option<String> {
        let tenth = progress.events.saturating_mul(10) / progress.of.max(1);
        if std::mem::replace(&mut self.0, tenth) == tenth {
            return None;
        }
        let (events, of) = (grouped(progress.events), grouped(progress.of));
        Some(format!("{events} of {of} events are equal, tick {}", progress.tick))
    }
}

fn lines(verdict: &Verdict, directory: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(found) = &verdict.divergence {
        lines.push(format!("{directory} does not come out the same"));
        lines.extend(divergence::lines(found, "recorded", "now"));
        return lines;
    }
    let (events, adapters) = (counted(verdict.events, "event"), verdict.adapters as u64);
    if verdict.other_adapters.is_empty() {
        lines.push(format!(
            "{directory} comes out the same: {events} up to tick {}, {}",
            verdict.tick,
            counted(adapters, "adapter")
        ));
    } else {
        lines.push(format!("{directory}: {events} come out the same, but not all adapters are"));
        lines.extend(verdict.other_adapters.iter().map(|other| format!("  {other}")));
    }
    if !verdict.survey.finished {
        let torn = if verdict.survey.torn.is_some() { ", within a line" } else { "" };
        lines.push(format!("  the recording has no end: it was cut off there{torn}"));
    }
    lines.push(format!("  SHA-256 of these events and the header: {}", verdict.sha256));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_about_ten_times() {
        let mut told = Tenths::default();
        let lines: Vec<String> = (0..=1_000)
            .filter_map(|events| told.line(Progress { events, of: 1_000, tick: events / 10 }))
            .collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[0], "100 of 1,000 events are equal, tick 10");
    }
}
