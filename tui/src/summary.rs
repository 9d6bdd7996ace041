//! The last words of a run: what was better afterwards, what was trained, where everything is.

use std::path::Path;

use sim::event::Scores;
use sim::run::Finished;

/// Prints the summary of a finished run.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub(crate) fn print(finished: &Finished, directory: &Path) {
    for line in lines(finished, directory) {
        println!("{line}");
    }
}

/// Prints why a run failed.
#[expect(clippy::print_stderr, reason = "the command's complaint")]
pub(crate) fn complain(reason: &str) {
    eprintln!("the run failed: {reason}");
}

/// Prints what a person should know before a run begins.
#[expect(clippy::print_stderr, reason = "no part of the command's answer")]
pub(crate) fn remark(notice: &str) {
    eprintln!("{notice}");
}

/// Prints what is wrong with what the user gave us.
#[expect(clippy::print_stderr, reason = "the command's complaint")]
pub(crate) fn complain_about_input(report: &miette::Report) {
    eprintln!("{report:?}");
}

fn lines(finished: &Finished, directory: &Path) -> Vec<String> {
    let summary = &finished.summary;
    let ended = if summary.stopped { "stopped early" } else { "done" };
    let mut lines = vec![
        String::new(),
        format!(
            "{} {ended}: {} episodes in {:.0} s (seed {})",
            summary.scenario, summary.episodes, finished.seconds, summary.seed
        ),
    ];
    if let (Some(first), Some(last)) = (summary.reward_first, summary.reward_last) {
        let window = summary.reward_window;
        let change = last - first;
        lines.push(format!(
            "  reward while playing   first {window}: {first:.3}   last {window}: {last:.3}   {change:+.3}"
        ));
    }
    if let Some(before) = &summary.before {
        lines.push(format!("  holdout ({} queries)    before    after", before.items));
        let row = |title: &str, value: fn(&Scores) -> f64| {
            let after = summary.after.as_ref().map(value);
            let shown = match after {
                Some(after) => format!("{after:9.3}   {:+.3}", after - value(before)),
                None => "        -".to_owned(),
            };
            format!("    {title:<18}{:9.3}{shown}", value(before))
        };
        lines.push(row("intent accuracy", |scores| scores.intent_accuracy));
        lines.push(row("resolved rate", |scores| scores.resolved_rate));
        lines.push(row("evaluator AUC", |scores| scores.evaluator_auc));
    }
    for (name, agent) in &summary.agents {
        let jobs: Vec<String> =
            agent.jobs.iter().map(|(objective, count)| format!("{count} {objective}")).collect();
        let mut line = format!(
            "  {name:<12} {:<8} {:>8} trainable   {} after {} steps ({})",
            agent.transfer,
            agent.trainable,
            agent.generation,
            agent.steps,
            jobs.join(", ")
        );
        if agent.rolled_back > 0 {
            line.extend([", ", &agent.rolled_back.to_string(), " rolled back"]);
        }
        if agent.quarantined {
            line.push_str(", in quarantine");
        }
        if agent.skipped > 0 {
            line.extend([", ", &agent.skipped.to_string(), " turns skipped"]);
        }
        if agent.restarts > 0 {
            line.extend([", ", &agent.restarts.to_string(), " restarts"]);
        }
        lines.push(line);
    }
    lines.push(format!("  everything is in {}", directory.display()));
    lines
}
