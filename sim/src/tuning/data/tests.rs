//! Tests of reading and parting examples.

use super::super::plan::Plan;
use super::super::recipe::Recipe;
use super::*;

fn plan(files: &[(&str, &str)], more: &str) -> (tempfile::TempDir, DataPlan) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let text = format!("model = 'm'\nmethod.frozen = {{}}\n[data]\n{more}");
    std::fs::write(folder.path().join("tune.toml"), text).unwrap();
    let recipe = Recipe::read(folder.path()).unwrap();
    (folder, Plan::of(&recipe).unwrap().data)
}

fn lines(count: usize) -> String {
    (0..count).map(|i| format!("line {i}\n")).collect()
}

#[test]
fn folds_cover_everything_once_and_keep_the_shares() {
    let files = [("a.txt", lines(20)), ("b.txt", lines(10))];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    let (_folder, plan) = plan(&files, "train = ['x=a.txt', 'y=b.txt']\nfolds = 5");
    let data = Data::read(&plan).unwrap();
    let parts = data.parts(&plan, 7, 1).unwrap();
    assert_eq!((parts.len(), data.labels.as_slice()), (5, &["x".to_owned(), "y".to_owned()][..]));
    let mut all: Vec<usize> = parts.iter().flat_map(|part| part.test.clone()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..30).collect::<Vec<_>>());
    for part in &parts {
        let of_class = |list: &[usize], class| {
            list.iter().filter(|&&index| data.examples[index].label == class).count()
        };
        assert_eq!((of_class(&part.test, 0), of_class(&part.test, 1)), (4, 2));
        assert!(part.train.iter().all(|index| !part.test.contains(index)));
    }
    assert_eq!(parts, data.parts(&plan, 7, 1).unwrap());
    assert_ne!(parts, data.parts(&plan, 8, 1).unwrap());
}

#[test]
fn shots_are_drawn_anew_with_every_seed() {
    let csv = "text,category\n".to_owned()
        + &(0..40).map(|i| format!("\"text, {i}\",c{}\n", i % 4)).collect::<String>();
    let (_folder, plan) = plan(
        &[("a.csv", &csv), ("b.jsonl", "{\"text\": \"t\", \"label\": \"c3\"}\n")],
        "train = ['a.csv']\ntest = ['b.jsonl']\nshots = 3",
    );
    let data = Data::read(&plan).unwrap();
    assert_eq!((data.train, data.examples.len()), (40, 41));
    assert_eq!(data.examples[1].text, "text, 1");
    let parts = data.parts(&plan, 1, 2).unwrap();
    assert_eq!(parts.iter().map(|part| part.seed).collect::<Vec<_>>(), [1, 2]);
    assert!(parts.iter().all(|part| part.train.len() == 12 && part.test == [40]));
    assert_ne!(parts[0].train, parts[1].train);
    let many = DataPlan { shots: Some(11), ..plan };
    assert!(data.parts(&many, 1, 1).unwrap_err().to_string().contains("only 10 of 11"));
}

#[test]
fn bad_files_are_refused() {
    let refused = |name: &str, text: &str, part: &str| {
        let (_folder, plan) = plan(&[(name, text)], &format!("train = ['{name}']\nfolds = 2"));
        let error = Data::read(&plan).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(part), "{shown}");
    };
    refused("a.csv", "", "no column");
    refused("a.csv", "text,class\na,b\n", "--label");
    refused("a.csv", "txet,label\na,b\n", "text");
    refused("a.csv", "text,label\na\n", "line");
    refused("a.jsonl", "{\"text\": 1\n", "line: 1");
    refused("a.jsonl", "{\"text\": [], \"label\": \"a\"}\n", "not a text");
    refused("a.jsonl", "\n", "no examples");
    refused("a.txt", "a", "LABEL=FILE");
    refused("a.csv", "text,label\na,b\nc,b\n", "1 class");
}

#[test]
fn a_part_held_out_leaves_something_of_every_class_and_is_not_empty() {
    let files = [("a.txt", lines(8)), ("b.txt", lines(2))];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    let refused = |share: &str| {
        let more = format!("train = ['x=a.txt', 'y=b.txt']\nvalidate = {share}");
        let (_folder, plan) = plan(&files, &more);
        Data::read(&plan).unwrap().parts(&plan, 7, 1).map_err(|error| error.to_string())
    };
    assert!(refused("0.8").unwrap_err().contains("`y` nothing would be left"));
    assert!(refused("0.05").unwrap_err().contains("no class has so many"));
    let parts = refused("0.25").unwrap();
    assert_eq!((parts[0].test.len(), parts[0].train.len()), (3, 7));
}
