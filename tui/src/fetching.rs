//! Models that are being fetched, on the error output: a bar on a terminal, plain lines elsewhere.
//!
//! Says nothing where nothing is fetched.

use std::io::IsTerminal as _;

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sim::backbone::Fetching;

use crate::output::tell;

const BAR: &str = "{msg}  {bar:30}  {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  \
                   {eta} left";

/// What is shown of downloads.
#[derive(Debug)]
pub(crate) struct Downloads {
    terminal: bool,
    bar: Option<ProgressBar>,
    file: String,
}

impl Downloads {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), bar: None, file: String::new() }
    }

    /// Shows what happens.
    pub(crate) fn show(&mut self, progress: &Fetching) {
        match progress {
            Fetching::Lacks { file } => tell(lacks(file)),
            Fetching::Waiting { file } => tell(waiting(file)),
            Fetching::Began { file, size, done } => {
                self.file.clone_from(file);
                if self.terminal {
                    self.bar = Some(bar(file, *size, *done));
                } else {
                    tell(began(file, *size, *done));
                }
            }
            Fetching::Advanced { done } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(*done);
                }
            }
            Fetching::Finished => match self.bar.take() {
                Some(bar) => bar.finish(),
                None => tell(format_args!("fetched {}", self.file)),
            },
        }
    }
}

fn lacks(file: &str) -> String {
    format!(
        "offline, and {file} is not in the cache: a chat template that stands there is not used; run once \
         with a network to be sure"
    )
}

fn waiting(file: &str) -> String {
    format!("another process fetches {file}; waiting for it")
}

fn began(file: &str, size: u64, done: u64) -> String {
    let size = DecimalBytes(size);
    match done {
        0 => format!("fetching {file}, {size}"),
        done => format!("fetching {file}, {size}, of which {} are there", DecimalBytes(done)),
    }
}

fn bar(file: &str, size: u64, done: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(BAR)
        .unwrap_or_else(|_invalid| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar.set_message(file.to_owned());
    bar.set_position(done);
    // What was there before says nothing about the speed.
    bar.reset_eta();
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_is_fetched() {
        assert_eq!(began("a.gguf", 1_500_000, 0), "fetching a.gguf, 1.50 MB");
        assert_eq!(
            began("a.gguf", 1_500_000, 500_000),
            "fetching a.gguf, 1.50 MB, of which 500.00 kB are there"
        );
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
