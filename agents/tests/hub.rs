//! Fetching models from a hub that runs on this machine: complete, broken off, corrupted, refused, hostile.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[path = "hub/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use agents::backbone::{Backbone, digest};
use agents::error::ModelError;
use agents::hub::{HubError, HubSettings, Progress, Token, fetch};
use candle_core::Device;

use self::server::{Behaviour, COMMIT, Hub, sha256};

const GOLDEN: &str = "../tests/golden/llama";
const TOKENIZER: &str = r#"{"version": "1.0", "model": {"type": "WordLevel",
    "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "hello": 3}, "unk_token": "<unk>"},
    "pre_tokenizer": {"type": "Whitespace"}}"#;

/// A hub and an empty cache.
struct Place {
    hub: Hub,
    home: tempfile::TempDir,
    settings: HubSettings,
}

impl Place {
    fn new(behaviour: Behaviour) -> Self {
        let (hub, home) = (Hub::start(behaviour), tempfile::tempdir().unwrap());
        let cache = Some(home.path().join("hub"));
        let settings = HubSettings { cache, endpoint: hub.endpoint(), ..HubSettings::default() };
        Self { hub, home, settings }
    }

    fn fetch(&self, model: &str) -> Result<PathBuf, ModelError> {
        fetch(&model.parse()?, &self.settings, &mut |_| {})
    }

    fn refused(&self, model: &str) -> HubError {
        match self.fetch(model) {
            Err(ModelError::Hub(error)) => *error,
            other => panic!("{other:?}"),
        }
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("hub/models--owner--tiny")
    }

    /// The names of all contents in the cache.
    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder().join("blobs")).into_iter().flatten();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        entries.map(|entry| name(entry.unwrap())).collect()
    }
}

fn files(files: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}

/// A model that can be loaded, with files that nobody needs.
fn llama() -> Behaviour {
    let read = |name: &str| fs::read(Path::new(GOLDEN).join(name)).unwrap();
    Behaviour {
        small: files(&[
            ("config.json", &read("config.json")),
            ("tokenizer.json", TOKENIZER.as_bytes()),
            ("README.md", b"# tiny"),
        ]),
        large: files(&[
            ("model.safetensors", &read("model.safetensors")),
            ("pytorch_model.bin", b"a pickle"),
        ]),
        ..Behaviour::default()
    }
}

/// One file of 100,000 bytes.
fn gguf() -> (Behaviour, Vec<u8>) {
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i / 7 % 251) as u8).collect();
    (Behaviour { large: files(&[("x.gguf", &bytes)]), ..Behaviour::default() }, bytes)
}

const FILE: &str = "owner/tiny/x.gguf";

#[test]
fn a_fetched_model_lies_in_the_standard_cache_and_is_loaded() {
    let place = Place::new(llama());
    let mut heard = Vec::new();
    let model = "owner/tiny".parse().unwrap();
    let path = fetch(&model, &place.settings, &mut |p| heard.push(p.clone())).unwrap();
    assert_eq!(path, place.folder().join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(place.folder().join("refs/main")).unwrap(), COMMIT);
    let weights = fs::read(Path::new(GOLDEN).join("model.safetensors")).unwrap();
    let blob = place.folder().join("blobs").join(sha256(&weights));
    assert_eq!(fs::read(&blob).unwrap(), weights);
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(path.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(sha256(&weights))
    );
    assert_eq!(place.blobs().len(), 3, "{:?}", place.blobs());
    let began = heard.iter().filter(|p| matches!(p, Progress::Began { done: 0, .. })).count();
    let finished = heard.iter().filter(|p| **p == Progress::Finished).count();
    assert_eq!((began, finished), (3, 3), "{heard:?}");
    let last = Progress::Advanced { done: weights.len() as u64 };
    assert_eq!(heard.iter().rev().nth(1), Some(&last));
    let asked = place.hub.requests();
    assert!(
        asked.iter().all(|r| !r.path.ends_with(".bin") && !r.path.ends_with(".md")),
        "{asked:?}"
    );
    let backbone = Backbone::load(&path, &Device::Cpu).unwrap();
    assert_eq!(backbone.network.depth(), 2);
    let found = digest::digests(&path).unwrap();
    assert_eq!(found["model.safetensors"], sha256(&weights));
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let place = Place::new(llama());
    let first = place.fetch("owner/tiny@main").unwrap();
    assert!(place.hub.requests().iter().filter(|r| r.verb == "GET").count() > 3);
    assert_eq!(place.fetch("owner/tiny@main").unwrap(), first);
    let asked = place.hub.requests();
    let paths: Vec<&str> = asked.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, ["/api/models/owner/tiny/revision/main"]);
    assert_eq!(place.fetch(&format!("owner/tiny@{COMMIT}")).unwrap(), first);
    assert!(place.hub.requests().is_empty(), "a commit never changes");
    // Contents that are gone are fetched again, and the link that led nowhere leads there.
    let weights = fs::read(Path::new(GOLDEN).join("model.safetensors")).unwrap();
    fs::remove_file(place.folder().join("blobs").join(sha256(&weights))).unwrap();
    assert_eq!(place.fetch("owner/tiny@main").unwrap(), first);
    assert_eq!(fs::read(first.join("model.safetensors")).unwrap(), weights);
    place.fetch("owner/tiny@refs/pr/1").unwrap();
    assert_eq!(fs::read_to_string(place.folder().join("refs/refs/pr/1")).unwrap(), COMMIT);
    let asked = place.hub.requests();
    assert!(asked.iter().any(|r| r.path.ends_with("/revision/refs%2Fpr%2F1")), "{asked:?}");
}

#[test]
fn a_chat_template_that_the_cache_lacks_is_asked_for_or_told() {
    const FILE: &str = "tokenizer_config.json";
    let mut behaviour = llama();
    behaviour.small.insert(FILE.to_owned(), br#"{"chat_template": "hello"}"#.to_vec());
    let mut place = Place::new(behaviour);
    let pinned = format!("owner/tiny@{COMMIT}");
    let path = place.fetch(&pinned).unwrap();
    // As another tool may leave it.
    fs::remove_file(path.join(FILE)).unwrap();
    place.settings.offline = true;
    let heard = |place: &Place| {
        let mut heard = Vec::new();
        fetch(&pinned.parse().unwrap(), &place.settings, &mut |p| heard.push(p.clone())).unwrap();
        heard
    };
    assert_eq!(heard(&place), [Progress::Lacks { file: FILE }]);
    place.settings.offline = false;
    heard(&place);
    assert!(path.join(FILE).is_file());
    place.hub.requests();
    assert!(heard(&place).is_empty());
    // The hub has none, which is remembered.
    place.hub.behave(|hub| drop(hub.small.remove(FILE)));
    fs::remove_file(path.join(FILE)).unwrap();
    heard(&place);
    assert_eq!(place.hub.requests().len(), 1);
    assert!(place.folder().join(".no_exist").join(COMMIT).join(FILE).is_file());
    assert!(heard(&place).is_empty() && place.hub.requests().is_empty());
    place.settings.offline = true;
    assert!(heard(&place).is_empty());
}

#[test]
fn a_broken_download_goes_on_where_it_ended() {
    let (behaviour, bytes) = gguf();
    let place = Place::new(Behaviour { cuts: (5, 10_000), ..behaviour });
    let error = place.refused(FILE);
    let HubError::Interrupted { done: 50_000, size: 100_000, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(place.blobs(), [format!("{}.incomplete", sha256(&bytes))]);
    let ranges = |place: &Place| -> Vec<String> {
        place.hub.requests().into_iter().filter_map(|request| request.range).collect()
    };
    // The hub is asked and redirects to the store, which is asked the same.
    let expected = ["10000", "20000", "30000", "40000"].map(|start| format!("bytes={start}-"));
    let twice: Vec<String> = expected.into_iter().flat_map(|r| [r.clone(), r]).collect();
    assert_eq!(ranges(&place), twice);
    let mut began = None;
    let path = fetch(&FILE.parse().unwrap(), &place.settings, &mut |progress| {
        if let Progress::Began { done, .. } = progress {
            began = Some(*done);
        }
    })
    .unwrap();
    assert_eq!(began, Some(50_000));
    assert_eq!(ranges(&place), ["bytes=50000-", "bytes=50000-"]);
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(place.blobs(), [sha256(&bytes)]);
}

#[test]
fn a_server_that_cannot_continue_is_asked_for_all_of_it() {
    let (behaviour, bytes) = gguf();
    let place = Place::new(Behaviour { cuts: (1, 10_000), ignores_ranges: true, ..behaviour });
    assert_eq!(fs::read(place.fetch(FILE).unwrap()).unwrap(), bytes);
}

#[test]
fn wrong_contents_are_refused_and_deleted() {
    let (behaviour, bytes) = gguf();
    let place = Place::new(Behaviour { corrupts: true, ..behaviour });
    let error = place.refused(FILE);
    assert!(matches!(&error, HubError::Corrupt { expected, .. } if *expected == sha256(&bytes)));
    assert_eq!(place.blobs(), [""; 0]);
    place.hub.behave(|hub| (hub.corrupts, hub.extends) = (false, true));
    assert!(matches!(place.refused(FILE), HubError::TooLong { expected: 100_000, .. }));
    assert_eq!(place.blobs(), [""; 0]);
    place.hub.behave(|hub| hub.extends = false);
    assert_eq!(fs::read(place.fetch(FILE).unwrap()).unwrap(), bytes);
    // What an earlier download left is checked with the rest.
    let place = Place::new(Behaviour { cuts: (5, 10_000), ..gguf().0 });
    place.refused(FILE);
    let partial = place.folder().join("blobs").join(format!("{}.incomplete", sha256(&bytes)));
    let mut half = fs::read(&partial).unwrap();
    half[7] ^= 1;
    fs::write(&partial, half).unwrap();
    assert!(matches!(place.refused(FILE), HubError::Corrupt { .. }));
    assert_eq!(fs::read(place.fetch(FILE).unwrap()).unwrap(), bytes);
}

#[test]
fn refusals_say_what_to_do() {
    let mut place = Place::new(llama());
    let mut says = |status: u16, code: &'static str, token: bool| {
        place.hub.behave(|hub| hub.fails = Some((status, code)));
        place.settings.token = token.then(|| Token::new("hf_secret".to_owned()));
        place.refused("owner/tiny@v2").to_string()
    };
    assert!(says(401, "RepoNotFound", false).ends_with("check the spelling, or set HF_TOKEN"));
    assert!(says(401, "RepoNotFound", true).contains("the token (HF_TOKEN"));
    let gated = says(403, "GatedRepo", true);
    assert!(gated.contains("accept their terms at http://127.0.0.1:"), "{gated}");
    assert!(gated.contains("/owner/tiny and set HF_TOKEN"), "{gated}");
    assert!(says(404, "RevisionNotFound", false).contains("no revision v2 of owner/tiny"));
    assert!(says(404, "RepoNotFound", false).contains("no owner/tiny@v2: check the spelling"));
    assert!(says(503, "", false).contains("status 503"));
    for said in [says(401, "", true), says(404, "", true), says(500, "", true)] {
        assert!(!said.contains("hf_secret"), "{said}");
    }
    place.settings.endpoint = "http://127.0.0.1:1".to_owned();
    let unreachable = place.refused("owner/tiny").to_string();
    assert!(unreachable.contains("127.0.0.1:1") && unreachable.contains("HF_HUB_OFFLINE=1"));
    place.settings.endpoint = "http://huggingface.co".to_owned();
    assert!(matches!(place.refused("owner/tiny"), HubError::Endpoint { .. }));
    place.settings.cache = None;
    assert!(matches!(place.refused("owner/tiny"), HubError::NoCache));
}

#[test]
fn the_token_goes_to_the_endpoint_and_nowhere_else() {
    let (behaviour, bytes) = gguf();
    let store = Hub::start(behaviour.clone());
    let mut place = Place::new(Behaviour { store: Some(store.endpoint()), ..behaviour });
    place.settings.token = Some(Token::new("hf_secret".to_owned()));
    assert_eq!(fs::read(place.fetch(FILE).unwrap()).unwrap(), bytes);
    let asked = place.hub.requests();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|request| request.token.as_deref() == Some("Bearer hf_secret")));
    let asked = store.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((asked[0].path.as_str(), &asked[0].token), ("/cdn/x.gguf", &None));
}

#[test]
fn offline_only_the_cache_counts() {
    let mut place = Place::new(llama());
    place.settings.offline = true;
    let said = place.refused("owner/tiny").to_string();
    assert!(
        said.contains("revision main missing") && said.contains("models--owner--tiny"),
        "{said}"
    );
    place.settings.offline = false;
    let path = place.fetch("owner/tiny").unwrap();
    place.hub.requests();
    place.settings.offline = true;
    assert_eq!(place.fetch("owner/tiny").unwrap(), path);
    assert_eq!(place.fetch(&format!("owner/tiny@{COMMIT}")).unwrap(), path);
    assert!(matches!(place.refused("owner/tiny@v2"), HubError::NotCached { .. }));
    fs::remove_file(path.join("tokenizer.json")).unwrap();
    let said = place.refused("owner/tiny").to_string();
    assert!(said.contains("(tokenizer.json missing)"), "{said}");
    assert!(place.hub.requests().is_empty());
    // A reference that names no commit leads nowhere.
    fs::write(place.folder().join("refs/main"), "../../../elsewhere").unwrap();
    assert!(matches!(place.refused("owner/tiny"), HubError::NotCached { .. }));
}

#[test]
fn shards_are_fetched_and_their_index_is_not_trusted() {
    let sharded = |index: &str| {
        let mut hub = llama();
        hub.large.remove("model.safetensors");
        hub.large.extend(files(&[("a.safetensors", b"first"), ("b.safetensors", b"second")]));
        hub.small.insert("model.safetensors.index.json".to_owned(), index.as_bytes().to_vec());
        Place::new(hub)
    };
    let place = sharded(r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#);
    let path = place.fetch("owner/tiny").unwrap();
    assert_eq!(fs::read(path.join("b.safetensors")).unwrap(), b"second");
    fs::remove_file(path.join("a.safetensors")).unwrap();
    let settings = HubSettings { offline: true, ..place.settings.clone() };
    let error = fetch(&"owner/tiny".parse().unwrap(), &settings, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("(a.safetensors missing)"), "{error}");
    for hostile in [
        r#"{"weight_map": {"x": "../../evil.safetensors"}}"#,
        r#"{"weight_map": {"x": "/evil.safetensors"}}"#,
        r#"{"weight_map": {"x": "..\\evil.safetensors"}}"#,
        r#"{"weight_map": {"x": "evil.safetensors?x=.safetensors"}}"#,
        r#"{"weight_map": {"x": "not-listed.safetensors"}}"#,
        r#"{"weight_map": {}}"#,
        "{",
    ] {
        let place = sharded(hostile);
        place.hub.behave(|hub| hub.listed = vec!["../../evil.safetensors".to_owned()]);
        let error = place.fetch("owner/tiny").unwrap_err();
        assert!(error.to_string().contains("index of shards"), "{hostile}: {error}");
        let asked = place.hub.requests();
        assert!(asked.iter().all(|request| !request.path.contains("evil")), "{asked:?}");
        assert!(!place.folder().join("refs/main").exists());
    }
}

#[test]
fn a_hub_that_names_places_outside_the_cache_is_refused() {
    for etag in ["../../../evil", "..", "a/b", "", "a.incomplete", "%2e%2e"] {
        let place = Place::new(Behaviour { etag: Some(etag.to_owned()), ..llama() });
        assert!(matches!(place.refused("owner/tiny"), HubError::Malformed { .. }), "{etag:?}");
        assert_eq!(place.blobs(), [""; 0]);
    }
    for commit in ["../../evil", "main", &COMMIT[1..], &COMMIT.to_ascii_uppercase()] {
        let place = Place::new(Behaviour { commit: commit.to_owned(), ..llama() });
        assert!(matches!(place.refused("owner/tiny"), HubError::Malformed { .. }), "{commit:?}");
        assert!(!place.folder().exists());
    }
    let other = "f".repeat(40);
    let place = Place::new(Behaviour { commit: other, ..llama() });
    assert!(matches!(place.refused("owner/tiny"), HubError::NotFound { .. }));
}

#[test]
fn pickles_are_never_fetched() {
    let mut hub = llama();
    hub.large.remove("model.safetensors");
    let place = Place::new(hub);
    let error = place.refused("owner/tiny");
    assert!(
        matches!(&error, HubError::Pickle { file, .. } if file == "pytorch_model.bin"),
        "{error}"
    );
    assert_eq!(place.hub.requests().len(), 1);
}
