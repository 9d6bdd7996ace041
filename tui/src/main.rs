//! The command line of Polylogue.
//!
//! Parses arguments and hands over; decides nothing about simulations.

mod pretrain;

use clap::{Parser, Subcommand};

/// A chunk of memory is reused rather than returned to the system and zeroed again: tensors come and go
/// by the thousand.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A laboratory for language models that talk and learn.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pretrain a backbone from a recipe.
    Pretrain(pretrain::PretrainArguments),
}

fn main() -> miette::Result<()> {
    match Cli::parse().command {
        Command::Pretrain(arguments) => pretrain::pretrain(&arguments),
    }
}
