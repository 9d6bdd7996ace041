//! Files of others, damaged at random: nothing panics, and nothing takes memory that a file is not long enough
//! to ask for.
//!
//! The golden models and adapters are changed bit by bit, cut, spliced and given other numbers, always the
//! same way for the same seed. `fuzz/` does the same without end and with guidance.

#![expect(clippy::unwrap_used, reason = "a test stops where an assumption breaks")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use agents::adapter::Adapter;
use agents::backbone::checkpoint::Checkpoint;
use agents::backbone::gguf::Gguf;
use agents::backbone::{Architecture, Backbone, Pass, Rows, Tokens};
use agents::chat_template::{ChatTemplate, Message};
use agents::probe;
use agents::seed::{Seed, Stream};
use agents::tokenizer::Tokenizer;
use candle_core::{DType, Device};
use rand::Rng;

/// Most bytes that reading a damaged file of a few kilobytes may take at one time.
const MOST_BYTES: isize = 48 << 20;

/// Counts what a thread holds.
struct Counting;

thread_local! {
    /// Bytes held now and at most since the last reset; frees of what other threads took count too.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
    /// Whether a panic of this thread is expected and says nothing.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = now.wrapping_add(bytes);
        held.set((now, most.max(now)));
    });
}

#[expect(unsafe_code, reason = "only an allocator sees what is allocated")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work`; complains when it panics or holds too much.
fn watch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        // With RUST_BACKTRACE, the first error that is shown reads all debug information.
        let _ = candle_core::Error::Msg(String::new()).bt().to_string();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !WATCHED.get() {
                usual(panic);
            }
        }));
    });
    let before = HELD.get().0;
    HELD.set((before, before));
    WATCHED.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    WATCHED.set(false);
    let taken = HELD.get().1.wrapping_sub(before);
    let value = done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or(panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        format!("it panicked: {}", text.unwrap_or_default())
    })?;
    if taken > MOST_BYTES {
        return Err(format!("it took {taken} bytes"));
    }
    Ok(value)
}

/// Numbers that programs get wrong.
const NUMBERS: [&str; 17] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "255",
    "65536",
    "16777216",
    "16777217",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e-320",
    "1e308",
    "0.5",
];
/// Other values of JSON.
const WORDS: [&str; 6] = ["null", "true", "[]", "{}", "\"\"", "[[[[]]]]"];

/// A damaged copy of `bytes`; `other` is what pieces are spliced in from.
fn damaged(bytes: &[u8], other: &[u8], stream: &mut Stream) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..stream.random_range(1..=3) {
        if bytes.is_empty() {
            break;
        }
        let at = stream.random_range(0..bytes.len());
        match stream.random_range(0..8) {
            0 => bytes[at] ^= 1 << stream.random_range(0..8),
            1 => bytes[at] = stream.random(),
            2 => bytes.truncate(at),
            3 => {
                let end = (at + stream.random_range(1..64)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let from = stream.random_range(0..other.len());
                let end = (from + stream.random_range(1..64)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            5 => {
                let word: &[u8] = WORDS[stream.random_range(0..WORDS.len())].as_bytes();
                let value = values(&bytes, at, |byte| byte != b',' && byte != b'}');
                bytes.splice(value, word.iter().copied());
            }
            _ => {
                let number: &[u8] = NUMBERS[stream.random_range(0..NUMBERS.len())].as_bytes();
                let value = values(&bytes, at, |byte| byte.is_ascii_digit() || byte == b'.');
                bytes.splice(value, number.iter().copied());
            }
        }
    }
    bytes
}

/// The next stretch of bytes from `at` on that `is` holds for and that follows a colon, bracket or comma.
fn values(bytes: &[u8], at: usize, is: impl Fn(u8) -> bool) -> std::ops::Range<usize> {
    let opens = |&byte: &u8| matches!(byte, b':' | b'[' | b',');
    let start = bytes[at..].iter().position(opens).map_or(at, |found| at + found + 1);
    let start = start + bytes[start..].iter().take_while(|byte| **byte == b' ').count();
    start..start + bytes[start..].iter().take_while(|byte| is(**byte)).count()
}

fn golden(at: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(at)
}

fn file(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// The files of a folder of seeds, sorted.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), file(path))).collect()
}

/// Reads each file as it is and `rounds` damaged copies of it; `reads` says whether something was read.
fn check(what: &str, files: &[(String, Vec<u8>)], rounds: u64, reads: impl Fn(&[u8]) -> bool) {
    let mut complaints = Vec::new();
    let (mut good, mut bad) = (0, 0);
    for (number, (name, bytes)) in files.iter().enumerate() {
        let seed = Seed::new(11).child(what).child(name);
        let other = &files[(number + 1) % files.len()].1;
        assert!(watch(|| reads(bytes)).unwrap(), "{what} {name} is not read as it is");
        for round in 0..rounds {
            let input = damaged(bytes, other, &mut seed.index(round).stream());
            match watch(|| reads(&input)) {
                Ok(true) => good += 1,
                Ok(false) => bad += 1,
                Err(complaint) => {
                    let shown = String::from_utf8_lossy(&input[..input.len().min(3000)]);
                    complaints.push(format!("{what} {name}, round {round}: {complaint}\n{shown}"));
                }
            }
        }
    }
    let count = complaints.len();
    complaints.truncate(3);
    assert!(count == 0, "{count} complaints, such as\n{}", complaints.join("\n"));
    // Damage that is never noticed, or always at once, would test little.
    assert!(good > 0 && bad > 0, "{what}: {good} read, {bad} refused");
}

#[test]
fn the_watch_sees_a_panic_and_too_much_memory() {
    let panicked = watch(|| assert_eq!(1, "two".len())).unwrap_err();
    assert!(panicked.contains("panicked"), "{panicked}");
    let large = watch(|| drop(vec![1_u8; MOST_BYTES as usize + 4096])).unwrap_err();
    assert!(large.contains("bytes"), "{large}");
    assert_eq!(watch(|| vec![1_u8; 4096].len()), Ok(4096));
}

#[test]
fn damaged_configurations_are_refused_or_read() {
    check("config", &seeds("config"), 300, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let read = Architecture::from_json(&text, Path::new("config.json"));
        read.is_ok_and(|architecture| architecture.parameters() > 0)
    });
}

#[test]
fn damaged_checkpoints_are_refused_or_read() {
    let read = |bytes: &[u8]| {
        let path = Path::new("model.safetensors");
        let opened = Checkpoint::from_bytes(bytes.to_vec(), path);
        opened.and_then(|checkpoint| checkpoint.all(&Device::Cpu)).is_ok()
    };
    let small: Vec<_> =
        seeds("safetensors_header").into_iter().filter(|(name, _)| name != "integers").collect();
    check("safetensors", &small, 400, read);
    let whole = ["llama", "bert"]
        .map(|family| (family.to_owned(), file(&golden(family).join("model.safetensors"))));
    check("model.safetensors", &whole, 300, read);
}

#[test]
fn damaged_gguf_files_are_refused_or_read() {
    let read = |bytes: &[u8]| {
        let path = Path::new("model.gguf");
        let Ok(file) = Gguf::from_bytes(bytes.to_vec(), path) else { return false };
        let _ = file.chat_tokenizer(path);
        let Ok(config) = file.config() else { return true };
        let Ok(architecture) = Architecture::from_json(&config.to_string(), path) else {
            return true;
        };
        for (name, shape) in architecture.weights() {
            if file.has(&name) {
                let _ = file.read(&name, &shape, DType::F32, &Device::Cpu);
            }
        }
        true
    };
    check("gguf", &seeds("gguf"), 300, read);
    let whole = ["llama-yarn-q4_0", "phi3-q8_0"]
        .map(|name| (name.to_owned(), file(&golden(&format!("gguf/{name}.gguf")))));
    // Most of such a file is weights, so only its beginning is damaged.
    for (name, bytes) in &whole {
        let (head, rest) = bytes.split_at(4096.min(bytes.len()));
        let heads = [(name.clone(), head.to_vec())];
        check("model.gguf", &heads, 300, |head| read(&[head, rest].concat()));
    }
}

#[test]
fn damaged_chat_templates_are_refused_or_rendered() {
    let turns = [Message::new("system", "Be brief."), Message::new("user", "Where's my \"bag\"?")];
    check("chat_template", &seeds("chat_template"), 300, |bytes| {
        let source = String::from_utf8_lossy(bytes);
        let template = ChatTemplate::parse(&source, Some("<s>"), Some("</s>"));
        template.is_ok_and(|template| {
            let _ = template.render(&turns, true);
            true
        })
    });
}

/// Loads a model and an adapter of it and runs them.
fn runs(backbone: &Backbone, config: &[u8], weights: &[u8]) -> bool {
    let folder = Path::new("adapter");
    let Ok(adapter) = Adapter::from_bytes(config, weights.to_vec(), folder, backbone) else {
        return false;
    };
    let rows = [vec![3, 17, 5, 9], vec![11]];
    let owners = [Rows { adapter: Some(&adapter), count: rows.len() }];
    let network = &backbone.network;
    let Ok(tokens) = Tokens::pack(&rows, &owners, &Device::Cpu) else { return false };
    let states = network.states(&tokens, Pass::of(&owners), network.depth());
    states.is_ok_and(|states| network.finish(states.last().unwrap(), &owners).is_ok())
}

const ADAPTERS: [&str; 7] = ["lora", "dora", "ia3", "vera", "prompt", "prefix", "seq_cls"];

#[test]
fn damaged_adapters_are_refused_or_run() {
    let llama = probe::load(&golden("llama"), &Device::Cpu).unwrap();
    for kind in ADAPTERS {
        let folder = golden("llama").join(kind);
        let config = file(&folder.join("adapter_config.json"));
        let weights = file(&folder.join("adapter_model.safetensors"));
        // What we write is read by other rules than what PEFT writes.
        let adapter = Adapter::load(&folder, &llama).unwrap();
        let saved = tempfile::tempdir().unwrap();
        adapter.save(saved.path()).unwrap();
        let own = file(&saved.path().join("adapter_config.json"));
        let name = |name: &str| format!("{kind} {name}");
        let configs = [(name("of PEFT"), config.clone()), (name("of ours"), own)];
        check("adapter_config", &configs, 250, |bytes| runs(&llama, bytes, &weights));
        let files = [(name("tensors"), weights.clone())];
        check("adapter_model", &files, 250, |bytes| runs(&llama, &config, bytes));
    }
}

#[test]
fn damaged_tokenizers_are_refused_or_used() {
    check("tokenizer", &seeds("tokenizer"), 500, |bytes| {
        let Ok(tokenizer) = Tokenizer::from_bytes(bytes) else { return false };
        for text in ["", "Hello, wörld!  a_b\t12", "日本 e\u{301}\u{200b}\u{0}<|end|>"] {
            let tokens = tokenizer.encode(text).unwrap_or_default();
            let _ = tokenizer.decode(&tokens);
            let _ = tokenizer.encode_with_specials(text, 4);
        }
        let _ = tokenizer.decode(&[0, 1, 2, u32::MAX]);
        true
    });
}

/// A configuration of a golden family with one entry set.
fn config_with(family: &str, name: &str, value: &str) -> String {
    let text = std::fs::read_to_string(golden(family).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config[name] = serde_json::from_str(value).unwrap();
    config.to_string()
}

/// What was found once in configurations: numbers that overflowed, and a window without a token.
#[test]
fn impossible_numbers_in_a_configuration_are_refused() {
    for (family, name, value) in [
        ("roberta", "pad_token_id", "18446744073709551615"),
        ("roberta", "pad_token_id", "4294967296"),
        ("bert", "type_vocab_size", "18446744073709551615"),
        ("mistral", "sliding_window", "0"),
    ] {
        let text = config_with(family, name, value);
        let read = watch(|| Architecture::from_json(&text, Path::new("config.json"))).unwrap();
        assert!(read.is_err(), "{family} with {name} {value}");
    }
}

/// What was found once in checkpoints: a tensor without values whose other sides overflow together.
#[test]
fn an_empty_tensor_with_absurd_sides_is_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    let path = Path::new("model.safetensors");
    let opened = watch(|| Checkpoint::from_bytes(bytes, path).map(|_| ())).unwrap();
    assert!(opened.unwrap_err().to_string().contains("shape"));
}

/// What was found once in adapters: sizes that are stated were allocated before anything was compared with
/// them, a generation after which none could follow, more frozen layers than there are.
#[test]
fn sizes_that_an_adapter_only_states_are_refused() {
    let llama = probe::load(&golden("llama"), &Device::Cpu).unwrap();
    let own = |kind: &str, method: &str, generation: &str| {
        let spec = format!(r#"{{"method":{method}}}"#);
        let config = format!(r#"{{"polylogue":{{"generation":{generation},"spec":{spec}}}}}"#);
        let weights = file(&golden("llama").join(kind).join("adapter_model.safetensors"));
        let folder = Path::new("adapter");
        let loaded =
            watch(|| Adapter::from_bytes(config.as_bytes(), weights, folder, &llama).map(|_| ()));
        loaded.unwrap().map_err(|error| error.to_string())
    };
    let vera = |rank: &str| format!(r#"{{"vera":{{"rank":{rank},"targets":["q_proj"]}}}}"#);
    let tokens = |kind: &str, count: &str| format!(r#"{{"{kind}":{{"tokens":{count}}}}}"#);
    for (kind, method, reason) in [
        ("vera", vera("99999999"), "99999999"),
        ("vera", vera("18446744073709551615"), "18446744073709551615"),
        ("prompt", tokens("prompt", "99999999"), "99999999"),
        ("prefix", tokens("prefix", "18446744073709551615"), "18446744073709551615"),
        ("lora", r#"{"layers":{"freeze_layers":99}}"#.to_owned(), "99"),
        ("lora", tokens("prompt", "3"), "prompt_embeddings"),
    ] {
        let refused = own(kind, &method, "1").unwrap_err();
        assert!(refused.contains(reason), "{method}: {refused}");
    }
    // Tensors of the stated size that hold nothing.
    let empty = |method: &str, name: &str| {
        let spec = format!(r#"{{"method":{method}}}"#);
        let config = format!(r#"{{"polylogue":{{"generation":1,"spec":{spec}}}}}"#);
        let header = format!(
            r#"{{"{name}":{{"dtype":"F32","shape":[1099511627776,0],"data_offsets":[0,0]}}}}"#
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        let folder = Path::new("adapter");
        watch(|| Adapter::from_bytes(config.as_bytes(), bytes, folder, &llama).map(|_| ())).unwrap()
    };
    for (method, name) in [
        (vera("1099511627776"), "base_model.vera_A"),
        (tokens("prompt", "1099511627776"), "prompt_embeddings"),
        (tokens("prefix", "1099511627776"), "prompt_embeddings"),
    ] {
        let refused = empty(&method, name).unwrap_err().to_string();
        assert!(refused.contains("1099511627776"), "{method}: {refused}");
    }
    let lora = r#"{"lora":{"rank":4,"alpha":6.0,"targets":["q_proj","v_proj"]}}"#;
    own("lora", lora, "7").unwrap();
    own("lora", lora, "null").unwrap();
    for generation in ["4294967295", "4294967303", "-1", "0.5", "\"7\""] {
        let refused = own("lora", lora, generation).unwrap_err();
        assert!(refused.contains("generation"), "{generation}: {refused}");
    }
}
