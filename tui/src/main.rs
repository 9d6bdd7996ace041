//! The command line of Polylogue.
//!
//! Parses arguments and hands over; decides nothing about simulations. Exit codes: 0 done, 1 the run failed
//! (network and disk included) or what was compared differs, 2 bad scenario, data, model or arguments, 70 a bug
//! of ours, 129, 130 and 143 a run ended early.

mod adapter;
mod allocator;
mod app;
mod bench;
mod check;
mod diff;
mod divergence;
mod exit_code;
mod fetching;
mod fork;
mod input;
mod keys;
mod output;
mod plain;
mod player;
mod pretrain;
mod replay;
mod report;
mod resume;
mod run;
mod signals;
mod state;
mod summary;
mod terminal;
mod tune;
mod untrusted;
mod verify;
mod view;
mod watching;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sim::backbone::cores;

use self::exit_code::Exit;

/// A laboratory for language models that talk and learn.
#[derive(Debug, Parser)]
#[command(name = "polylogue", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a scenario and watch it.
    Run(run::RunArguments),
    /// Say whether a scenario can be run, and all that is wrong with it.
    Check(check::CheckArguments),
    /// Go on with a run that was cut off, from its last checkpoint.
    Resume(resume::ResumeArguments),
    /// Begin a new run with the history of another up to a tick, and a change there.
    Fork(Box<fork::ForkArguments>),
    /// Show a recorded run again.
    Replay(replay::ReplayArguments),
    /// Play a recorded run again and say whether it comes out the same.
    Verify(verify::VerifyArguments),
    /// Say where two recorded runs part.
    Diff(diff::DiffArguments),
    /// Put finished runs side by side.
    Report(report::ReportArguments),
    /// Pretrain a backbone from a recipe.
    Pretrain(pretrain::PretrainArguments),
    /// Tune a pretrained model as a classifier: freeze the base, add a head, train, report.
    Tune(Box<tune::TuneArguments>),
    /// Measure what this machine does with a model.
    Bench(bench::BenchArguments),
    /// Look at adapters, combine them, merge one into its model.
    Adapter(adapter::AdapterArguments),
}

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    let command = Cli::parse().command;
    settle_threads();
    if let Command::Verify(verify::VerifyArguments { threads: Some(threads), .. }) = &command {
        tell_libraries("RAYON_NUM_THREADS", &threads.to_string());
    }
    ended(|| match command {
        Command::Run(arguments) => run::run(arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Resume(arguments) => resume::resume(arguments),
        Command::Fork(arguments) => fork::fork(*arguments),
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Verify(arguments) => verify::verify(&arguments),
        Command::Diff(arguments) => diff::diff(&arguments),
        Command::Report(arguments) => report::report(&arguments),
        Command::Pretrain(arguments) => pretrain::pretrain(&arguments),
        Command::Tune(arguments) => tune::tune(&arguments),
        Command::Bench(arguments) => bench::measure(&arguments),
        Command::Adapter(arguments) => adapter::adapter(&arguments),
    })
    .into()
}

/// How a command ended, panics included.
fn ended(work: impl FnOnce() -> miette::Result<Exit>) -> Exit {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(Ok(exit)) => exit,
        Ok(Err(report)) => {
            summary::complain_about_input(&report);
            Exit::BadInput
        }
        // What panicked has said so by itself.
        Err(_) => Exit::OurBug,
    }
}

/// Elementwise kernels run on the calling thread: candle's own pool spins while it waits and takes the cores from
/// the matrix products, which is slower by half on small models. Products have a number of threads that is said
/// once: else candle asks which cores there are before each of them, on Linux by reading a file, which takes longer
/// than a small product (figures of both in LOG.md). A user's settings win.
fn settle_threads() {
    for (name, count) in [("CANDLE_NUM_THREADS", 1), ("RAYON_NUM_THREADS", cores())] {
        if std::env::var_os(name).is_none() {
            tell_libraries(name, &count.to_string());
        }
    }
}

/// Sets what libraries read from the environment only.
fn tell_libraries(name: &str, value: &str) {
    #[expect(unsafe_code, reason = "there is no other way to tell them")]
    // SAFETY: called first in `main`; no other thread exists that could read the environment.
    unsafe {
        std::env::set_var(name, value);
    }
}
