//! What whole-run tests share: small runs of real scenarios, the built binary, and where shared data is.
//!
//! No mocks: the society, the engine and the embedded model are the real ones, only smaller numbers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sim::clock::Timer;
use sim::control::Control;
use sim::event::Event;
use sim::feed::Feed;
use sim::run::{Finished, Prepared, RunError, RunOptions};
use tempfile::TempDir;

/// Settings that make the customer-service scenario small enough for a test.
pub const SMALL: [&str; 8] = [
    "episodes=40",
    "concurrent_episodes=8",
    "task.support.holdout_limit=12",
    "agents.understand.warm_up.steps=20",
    "agents.reply.warm_up.steps=4",
    "agents.evaluate.warm_up.steps=4",
    "triggers.0.when.threshold={ signal = \"reward\", mean_of = 8, below = 1.1, cooldown = 8 }",
    "triggers.1.when.periodic.every=16",
];

/// The workspace's folder.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A finished run and its directory, which is removed with it.
#[derive(Debug)]
pub struct Ran {
    /// The result.
    pub finished: Finished,
    /// Bytes of the event log.
    pub log: String,
    /// The run directory.
    pub directory: TempDir,
}

/// Plays the customer-service scenario with the small settings and some more.
///
/// # Panics
/// When the run fails: tests want to know.
#[must_use]
pub fn run(more: &[&str]) -> Ran {
    let set: Vec<&str> = SMALL.iter().chain(more).copied().collect();
    run_of(&root().join("scenarios/customer_service"), &set)
}

/// Plays a scenario with some settings.
///
/// # Panics
/// When the run fails: tests want to know.
#[must_use]
pub fn run_of(path: &Path, set: &[&str]) -> Ran {
    let (prepared, directory) = prepared(path, set).expect("a run that can begin");
    let finished = play(prepared).expect("a run that ends");
    let log = std::fs::read_to_string(directory.path().join("events.jsonl")).expect("a log");
    Ran { finished, log, directory }
}

/// Plays what is ready, unwatched.
///
/// # Errors
/// When the society cannot go on.
///
/// # Panics
/// When there is no runtime.
pub fn play(prepared: Prepared) -> Result<Finished, RunError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(prepared.play(Feed::unwatched(), Control::default()))
}

/// A scenario ready to play, and its run directory.
///
/// # Errors
/// When data, models or adapters do not suit the scenario.
///
/// # Panics
/// When the scenario itself is not valid.
pub fn prepared(path: &Path, set: &[&str]) -> Result<(Prepared, TempDir), RunError> {
    let set: Vec<String> = set.iter().map(|&s| s.to_owned()).collect();
    let scenario = sim::scenario::load(path, &set, None)
        .unwrap_or_else(|problems| panic!("{:?}", miette::Report::new(problems)));
    let directory = tempfile::tempdir().expect("a temporary folder");
    let options = RunOptions {
        out: Some(directory.path().into()),
        timer: Timer::Jump,
        ..RunOptions::default()
    };
    Ok((sim::run::prepare(scenario, &options, &mut |_| {})?, directory))
}

/// The events of a log, without its header.
///
/// # Panics
/// When a line is not an event.
#[must_use]
pub fn events(log: &str) -> Vec<Event> {
    log.lines().skip(1).map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// Runs the command line as a user would, built first where it is not.
///
/// # Panics
/// When it cannot be built or started.
#[must_use]
pub fn polylogue(arguments: &[&str]) -> Output {
    polylogue_with(arguments, &[])
}

/// The same with more environment variables.
///
/// # Panics
/// When it cannot be built or started.
#[must_use]
pub fn polylogue_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(binary())
        .args(arguments)
        .current_dir(root())
        .env("NO_COLOR", "1")
        .envs(environment.iter().copied())
        .output()
        .expect("the binary starts")
}

/// The command line, built first where it is not.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn binary() -> PathBuf {
    // The test binary lies in `target/PROFILE/deps`, the command line one folder above.
    let here = std::env::current_exe().expect("a path of this test");
    let folder = here.ancestors().nth(2).expect("a target folder");
    let mut cargo = Command::new(env!("CARGO"));
    // Together with this test, so that the features are those of `cargo test --workspace` and nothing that it
    // built is built again.
    cargo.args(["build", "--quiet", "--workspace", "--bin", "polylogue", "--test", "it"]);
    cargo.current_dir(root());
    // What cargo told this test of its package; some build scripts look at it and would run again.
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        cargo.env_remove(name);
    }
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo").success(), "the binary builds");
    folder.join("polylogue")
}

/// A folder of real data nobody here wrote; says so where it is absent.
#[must_use]
pub fn shared_data(name: &str) -> Option<PathBuf> {
    shared("data", "POLYLOGUE_DATA", name)
}

/// A model that somebody else pretrained; says so where it is absent.
#[must_use]
pub fn shared_model(name: &str) -> Option<PathBuf> {
    shared("models", "POLYLOGUE_MODELS", name)
}

#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
fn shared(kind: &str, variable: &str, name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable)
        .map_or_else(|| root().join("../shared").join(kind), PathBuf::from);
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not here (set {variable})", path.display());
    None
}
