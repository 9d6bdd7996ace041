//! `polylogue diff RUN_A RUN_B`: where two recordings part, and what that came to.

use std::path::PathBuf;

use clap::Args;
use miette::IntoDiagnostic;
use sim::diff::{Difference, Side};
use sim::event::Scores;

use crate::divergence;
use crate::exit_code::Exit;
use crate::untrusted::Untrusted;
use crate::view::number::counted;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// Directory of the first run.
    first: PathBuf,
    /// Directory of the second run.
    second: PathBuf,
    /// Equal events to show before the first difference.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=100))]
    context: u16,
    /// Write everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn diff(arguments: &DiffArguments) -> miette::Result<Exit> {
    let context = usize::from(arguments.context);
    let found = sim::diff::compare(&arguments.first, &arguments.second, context);
    let found = found.into_diagnostic()?;
    if arguments.json {
        // Escaped, so that nothing in it acts on a terminal.
        crate::output::say(sim::diff::json(&found).into_diagnostic()?);
    } else {
        for line in lines(&found) {
            crate::output::say(line);
        }
    }
    Ok(if found.divergence.is_some() { Exit::RunFailed } else { Exit::Done })
}

fn lines(found: &Difference) -> Vec<String> {
    let mut lines = vec![side("first", &found.first), side("second", &found.second)];
    let Some(divergence) = &found.divergence else {
        lines.push(format!("all {} are equal", counted(found.first.events, "event")));
        return lines;
    };
    lines.extend(divergence::lines(divergence, "first", "second"));
    lines.push(row("messages", ["equal", "different", "only first", "only second"]));
    for (agent, count) in &found.messages {
        let counts = [count.equal, count.different, count.only_first, count.only_second];
        lines.push(row(
            agent.as_str(),
            counts.map(|count| count.to_string()).each_ref().map(|s| s.as_str()),
        ));
    }
    lines.push(row("generations", ["equal", "different", "only first", "only second"]));
    for (agent, own) in &found.generations {
        let counts = [own.different.len(), own.only_first.len(), own.only_second.len()];
        let [different, first, second] = counts.map(|count| count.to_string());
        lines.push(row(agent.as_str(), [&own.equal.to_string(), &different, &first, &second]));
    }
    lines.push(row("scores", ["first", "second", "", ""]));
    scores(&mut lines, "before", &found.first.before, &found.second.before);
    scores(&mut lines, "after", &found.first.after, &found.second.after);
    lines
}

fn row(name: &str, cells: [&str; 4]) -> String {
    let [a, b, c, d] = cells;
    format!("  {name:<24}{a:>10}{b:>12}{c:>12}{d:>12}").trim_end().to_owned()
}

fn scores(lines: &mut Vec<String>, when: &str, first: &Option<Scores>, second: &Option<Scores>) {
    for (place, name) in ["intent", "resolved", "AUC"].into_iter().enumerate() {
        let score = |scores: &Scores| {
            [scores.intent_accuracy, scores.resolved_rate, scores.evaluator_auc][place]
        };
        let shown = |side: &Option<Scores>| {
            side.as_ref().map_or_else(|| "-".to_owned(), |scores| format!("{:.3}", score(scores)))
        };
        lines.push(row(&format!("{name} {when}"), [&shown(first), &shown(second), "", ""]));
    }
}

fn side(word: &str, side: &Side) -> String {
    let end = match (side.finished, side.torn) {
        (true, _) => "",
        (false, true) => ", cut off",
        (false, false) => ", without an end",
    };
    let (directory, scenario) = (Untrusted(&side.directory), Untrusted(&side.scenario));
    let events = counted(side.events, "event");
    format!(
        "{word:<6}  {directory}: {scenario}, seed {}, {events}, tick {}{end}",
        side.seed, side.last_tick
    )
}
