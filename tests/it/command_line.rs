//! The command line as a user meets it: bad input ends with exit code 2 and a message that helps.

use std::fs;
use std::path::Path;

use polylogue_tests::{polylogue, polylogue_with, root};

fn refused(arguments: &[&str], expected: &[&str]) {
    let output = polylogue(arguments);
    let text = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
    // Reports are wrapped at the terminal's width and framed.
    let text = text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    for part in expected {
        assert!(text.contains(part), "{arguments:?}: `{part}` is not in: {text}");
    }
}

const SCENARIO: &str = "scenarios/customer_service";

#[test]
fn check_accepts_the_shipped_scenario() {
    let output = polylogue(&["check", SCENARIO]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("memory of cpu: ") && text.contains("ready to run"), "{text}");
}

/// A scenario is named after its folder.
#[cfg(unix)]
#[test]
fn a_name_is_shown_and_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = folder.path().join("a\u{1b}[2Jb");
    fs::create_dir(&hostile).unwrap();
    for name in ["scenario.toml", "travel.jsonl", "travel-holdout.jsonl"] {
        fs::copy(root().join(SCENARIO).join(name), hostile.join(name)).unwrap();
    }
    let output = polylogue(&["check", &hostile.display().to_string()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text.starts_with("a<1B>[2Jb: 3 agents"), "{text:?}");
}

#[test]
fn bad_scenarios_are_refused() {
    refused(&["run", "no/such/scenario"], &["no/such/scenario"]);
    refused(&["check", SCENARIO, "--set", "episode=3"], &["episode", "episodes"]);
    refused(&["check", SCENARIO, "--set", "protocol.pipeline.order=[\"nobody\"]"], &["nobody"]);
    refused(&["check", SCENARIO, "--set", "agents.reply.transfer.lora.rank=-1"], &["rank", "-1"]);
}

#[test]
fn bad_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        format!("task.support.train={}", path.display())
    };
    let run = |set: &str, expected: &[&str]| {
        let out = folder.path().join("out");
        let out = out.to_string_lossy();
        refused(&["run", SCENARIO, "--out", &out, "--display", "none", "--set", set], expected);
    };
    run(&path("empty.jsonl", ""), &["empty.jsonl"]);
    run(&path("other.csv", "text,label\nhello,a\nbye,b\n"), &["other.csv", "intent", "label"]);
    run(&path("torn.jsonl", "{\"text\": \"a\", \"intent\""), &["torn.jsonl"]);
}

#[test]
fn bad_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = root().join("agents/polylogue-tiny");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(model.join(name), folder.path().join(name)).unwrap();
    }
    let source = format!("backbone.base={{ path = \"{}\" }}", folder.path().display());
    let out = folder.path().join("out");
    let out = out.to_string_lossy();
    let run = |expected: &[&str]| {
        refused(&["run", SCENARIO, "--out", &out, "--display", "none", "--set", &source], expected);
    };
    let weights = folder.path().join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    run(&["model.safetensors", "not a valid safetensors file"]);
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.extend_from_slice(b"{}");
    fs::write(&weights, huge).unwrap();
    run(&["model.safetensors"]);
    fs::write(&weights, whole).unwrap();
    let template = folder.path().join("chat_template.jinja");
    for (text, expected) in [("{{ raise_exception('never') }}", "never"), ("{% if %}", "line 1")] {
        fs::write(&template, text).unwrap();
        run(&["agent `reply`", "it cannot be prompted", expected]);
        assert!(!Path::new(&*out).exists(), "no run directory is left");
    }
    fs::remove_file(template).unwrap();
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    fs::write(folder.path().join("config.json"), config.replace("\"llama\"", "\"gpt2\"")).unwrap();
    run(&["gpt2", "llama"]);
    // What stands in a file cannot move the cursor.
    let hostile = config.replace("\"llama\"", "\"a\\u001b[2Jb\"");
    fs::write(folder.path().join("config.json"), hostile).unwrap();
    run(&["a?[2Jb"]);
}

#[test]
fn a_model_of_the_hub_is_not_fetched_by_check_and_named_when_it_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().to_string_lossy().into_owned();
    // Nobody listens there: a request would fail, and the command with it.
    let nowhere = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", "http://127.0.0.1:1")];
    let set = "backbone.base={hub=\"owner/tiny@v1\"}";
    let output = polylogue_with(&["check", SCENARIO, "--set", set], &nowhere);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let says = |code: i32, arguments: &[&str], more: (&str, &str)| {
        let output = polylogue_with(arguments, &[nowhere[0], nowhere[1], more]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).replace('│', " ");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let out = format!("{home}/run");
    let run = ["run", SCENARIO, "--set", set, "--out", &out];
    let said = says(2, &run, ("HF_HUB_OFFLINE", "1"));
    assert!(said.contains("backbone `base`: owner/tiny@v1 is not complete in the cache"), "{said}");
    let said = says(1, &run, ("HF_HUB_OFFLINE", "0"));
    assert!(said.contains("could not reach 127.0.0.1:1"), "{said}");
    let data = format!("{SCENARIO}/travel.jsonl");
    let tune = ["tune", "--model", "hub:owner/tiny", "--method", "frozen", "--folds", "2"];
    let tune = [&tune[..], &["--train", &data, "--label", "intent", "--out", &out]].concat();
    let said = says(2, &tune, ("HF_HUB_OFFLINE", "1"));
    assert!(said.contains("owner/tiny@main is not complete in the cache"), "{said}");
    let said = says(1, &tune, ("HF_HUB_OFFLINE", "0"));
    assert!(said.contains("could not reach 127.0.0.1:1"), "{said}");
    // A run directory that cannot be made.
    let file = format!("{home}/file");
    fs::write(&file, "").unwrap();
    let out = ["run", SCENARIO, "--out", &format!("{file}/below"), "--display", "none"];
    let output = polylogue_with(&out, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not write"), "{output:?}");
}

#[test]
fn plain_lines_tell_the_whole_story() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let out = out.to_string_lossy();
    let mut arguments = vec!["run", SCENARIO, "--out", &out, "--display", "plain"];
    for set in polylogue_tests::SMALL {
        arguments.extend(["--set", set]);
    }
    let output = polylogue(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let engine = [" tokens/s, ", " sequences a step, at most ", " training steps in "];
    for part in ["holdout", "grpo", "intent accuracy", "everything is in"].iter().chain(&engine) {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no escape sequences in plain lines");
}

#[test]
fn a_recording_is_told_in_the_lines_of_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").to_string_lossy().into_owned();
    let mut arguments = vec!["run", SCENARIO, "--out", &out, "--display", "plain"];
    for set in polylogue_tests::SMALL.into_iter().chain(["episodes=8"]) {
        arguments.extend(["--set", set]);
    }
    let told = |arguments: &[&str]| {
        let output = polylogue(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // The wall time in the summary is not part of what happened.
        text.lines().filter(|line| !line.contains(" episodes in ")).map(str::to_owned).collect()
    };
    let live: Vec<String> = told(&arguments);
    let replay = ["replay", &out, "--display", "plain"];
    assert!(live.iter().any(|line| line.contains("tick")) && told(&replay) == live);
    assert_eq!(told(&[&replay[..], &["--speed", "4096"]].concat()), live);
    let last = live.iter().rposition(|line| line.starts_with("tick")).unwrap();
    let tick = live[last].split_whitespace().nth(1).unwrap();
    let late = told(&[&replay[..], &["--from", tick]].concat());
    assert!(late.len() < live.len() && late.contains(&live[last]), "{late:?}");
    refused(&["replay", "no/such/run"], &["no/such/run holds no events.jsonl"]);
    refused(&["replay", &out, "--speed", "0"], &["choose from"]);
    let log = format!("{out}/events.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, &text[..text.len() - 30]).unwrap();
    let output = polylogue(&replay);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("the recording was cut off"), "{said}");
    fs::write(&log, text.replace("\"seq\":7,", "\"seq\":8,")).unwrap();
    refused(&replay, &["line 9 is damaged", "event 8 stands where 7 should"]);
}

/// What a scenario takes by its numbers alone is refused before anything is written.
#[test]
fn a_society_that_says_too_much_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let everyone = ["topology={ complete = {} }", "protocol={ broadcast = { rounds = 1 } }"];
    for (more, told) in [
        (&["agents.citizen.copies=4096", "concurrent_episodes=64"][..], "messages"),
        (&["agents.citizen.copies=1024", "concurrent_episodes=8", "episodes=8"], "keep=0"),
    ] {
        let mut arguments = vec!["run", "scenarios/opinions", "--display", "none", "--out", &out];
        arguments.extend(everyone.iter().chain(more).flat_map(|set| ["--set", *set]));
        let output = polylogue(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{said}");
        assert!(!Path::new(&out).exists());
    }
}
