//! The last words of a run: what was better afterwards, what was trained, where everything is.

use std::path::Path;
use std::time::Duration;

use sim::event::Scores;
use sim::recording::Times;
use sim::run::Finished;
use sim::summary::AgentSummary;

use crate::untrusted::Untrusted;

/// Prints the summary of a finished run.
pub(crate) fn print(finished: &Finished, directory: &Path) {
    for line in lines(finished, directory) {
        crate::output::say(line);
    }
}

/// Prints why a run failed.
pub(crate) fn complain(reason: &str) {
    crate::output::tell(format_args!("the run failed: {reason}"));
}

/// Prints what a person should know before a run begins.
pub(crate) fn remark(notice: &str) {
    crate::output::tell(notice);
}

/// Prints what is wrong with what the user gave us.
pub(crate) fn complain_about_input(report: &miette::Report) {
    crate::output::tell(format_args!("{report:?}"));
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
    if let Some(talk) = &summary.talk {
        lines.push(format!(
            "  {} messages, {} deliveries, {} lost, {} refused, {} times silenced",
            talk.messages, talk.deliveries, talk.lost, talk.refused, talk.silenced
        ));
        lines.push(format!("  agreement at the end of a talk: {:.3} in the mean", talk.agreement));
    }
    for (name, agent) in &summary.agents {
        if summary.talk.is_some() {
            lines.extend(troubles(agent).map(|troubles| format!("  {name:<12} {troubles}")));
            continue;
        }
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
        if let Some(troubles) = troubles(agent) {
            line.extend([", ", &troubles]);
        }
        lines.push(line);
    }
    let work = Times::of(directory).work(u64::MAX);
    if work.whole.time() > 0 {
        let did = crate::plain::engine(&work.whole, Duration::from_millis(work.took));
        lines.extend(did.map(|line| format!("  {line}")));
    }
    lines.push(format!("  everything is in {}", directory.display()));
    // Names come from the scenario, or from a recording that anybody may have written.
    lines.iter().map(|line| Untrusted(line).to_string()).collect()
}

/// What went wrong with an agent, where anything did.
fn troubles(agent: &AgentSummary) -> Option<String> {
    let counts = [
        (u64::from(agent.rolled_back), "rolled back"),
        (agent.skipped, "turns skipped"),
        (agent.silenced, "times silenced"),
        (u64::from(agent.restarts), "restarts"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let mut all: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    if agent.quarantined {
        all.push("in quarantine".to_owned());
    }
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use sim::summary::Summary;

    use super::*;

    #[test]
    fn names_of_others_are_shown_and_not_obeyed() {
        let hostile = "a\u{1b}[2J\u{202e}b\nc";
        let mut summary = Summary::default();
        hostile.clone_into(&mut summary.scenario);
        let shown = lines(&Finished { summary, seconds: 1.0 }, Path::new(hostile));
        let text = shown.concat();
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\n']), "{text}");
        assert_eq!(text.matches("a<1B>[2J<202E>b<0A>c").count(), 2, "{text}");
    }
}
