//! The devices that a command line asks for: those that cannot be used are told before anything is written,
//! and a run is taken up again on devices like those it had.

use std::path::Path;

use polylogue_tests::polylogue;

/// What was said, in one line: a report breaks lines where a terminal would.
fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

fn refused(arguments: &[&str], told: &[&str]) {
    let output = polylogue(arguments);
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    for part in told {
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

fn recorded(run: &Path) -> String {
    let text = std::fs::read_to_string(run.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["device"].as_str().unwrap().to_owned()
}

#[test]
fn a_device_that_is_not_there_is_told_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let place = out.to_str().unwrap();
    // No machine has a card of this number, whether the program was built for one or not.
    let device = ["--device", "cuda:97"];
    let tuning = ["--method", "frozen", "--folds", "2", "--out", place];
    for command in [
        vec!["run", "scenarios/customer_service", "--out", place],
        [&["tune", "--model", "polylogue-tiny", "--train", "none.csv"], &tuning[..]].concat(),
        vec!["pretrain", "scenarios/pretrain", "--out", place],
        vec!["bench"],
    ] {
        refused(&[command, device.to_vec()].concat(), &["cannot use the device cuda:97"]);
    }
    assert!(!out.exists());
    refused(
        &["run", "scenarios/opinions", "--device", "cpu,gpu"],
        &["expected cpu, cuda or cuda:N"],
    );
}

#[test]
fn a_run_goes_on_with_devices_like_those_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let [run, other] = ["run", "other"].map(|name| folder.path().join(name));
    let [run_at, other_at] = [&run, &other].map(|path| path.to_str().unwrap());
    let set = ["--set", "episodes=4", "--display", "none"];
    let begin = [&["run", "scenarios/opinions", "--out", run_at], &set[..]].concat();
    assert_eq!(polylogue(&begin).status.code(), Some(0));
    assert_eq!(recorded(&run), "cpu");
    let fork = ["fork", run_at, "--at", "8", "--out", other_at];
    let card = ["--device", "cuda:97"];
    let bits = ["was begun with --device cpu", "--unchecked"];
    refused(&[&fork[..], &card].concat(), &bits);
    // Whoever does not mind other bits is told what is wrong with the device itself.
    let unminded = [&fork[..], &card, &["--unchecked"]].concat();
    refused(&unminded, &["cannot use the device cuda:97"]);
    refused(&["verify", run_at, "--device", "cuda:97"], &["cannot use the device cuda:97"]);
    let forked = polylogue(&[&fork[..], &["--display", "none"]].concat());
    assert_eq!(forked.status.code(), Some(0), "{}", words(&forked.stderr));
    // A run of which only the beginning is left.
    std::fs::write(run.join("events.jsonl"), "").unwrap();
    refused(&["resume", run_at, "--device", "cuda:97"], &bits);
    // Before a run could have others, its device was written like this.
    let manifest = run.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"device\": \"cpu\"", "\"device\": \"Cpu\"")).unwrap();
    let resumed = polylogue(&["resume", run_at, "--device", "cpu", "--display", "none"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", words(&resumed.stderr));
}
