//! A hub on this machine, as small as can be: the routes of the real one, and its misfortunes on demand.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) verb: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) token: Option<String>,
}

/// What the hub holds, and how it behaves.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    /// Small files, given out by the hub itself.
    pub(crate) small: BTreeMap<String, Vec<u8>>,
    /// Large files, which the hub redirects to a store.
    pub(crate) large: BTreeMap<String, Vec<u8>>,
    /// Names that are listed besides.
    pub(crate) listed: Vec<String>,
    /// What the listing says the commit is.
    pub(crate) commit: String,
    /// The store of large files; the hub itself where absent.
    pub(crate) store: Option<String>,
    /// So many answers end after so many bytes of their body.
    pub(crate) cuts: (usize, usize),
    /// Requests for a part get all of it.
    pub(crate) ignores_ranges: bool,
    /// The store changes a byte.
    pub(crate) corrupts: bool,
    /// The store sends more than was declared.
    pub(crate) extends: bool,
    /// Every answer has this status and error code.
    pub(crate) fails: Option<(u16, &'static str)>,
    /// The etag of every file, instead of the right one.
    pub(crate) etag: Option<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            small: BTreeMap::new(),
            large: BTreeMap::new(),
            listed: Vec::new(),
            commit: COMMIT.to_owned(),
            store: None,
            cuts: (0, 0),
            ignores_ranges: false,
            corrupts: false,
            extends: false,
            fails: None,
            etag: None,
        }
    }
}

struct State {
    behaviour: Behaviour,
    requests: Vec<Request>,
    over: bool,
}

/// The running hub; it ends when it is dropped.
pub(crate) struct Hub {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { behaviour, requests: Vec::new(), over: false }));
        let (shared, own) = (Arc::clone(&state), format!("http://{address}"));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut state = shared.lock().unwrap();
                if state.over {
                    return;
                }
                // A client that leaves early is no failure of the hub.
                let _ = serve(&mut state, &own, &stream.unwrap());
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().unwrap().behaviour);
    }

    /// What was asked for since the last time.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.over = true;
        }
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serve(state: &mut State, own: &str, stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (verb, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { verb, path, range: None, token: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.to_owned()),
            "authorization" => request.token = Some(value.to_owned()),
            _ => {}
        }
    }
    state.requests.push(request.clone());
    let (head, body) = answer(&mut state.behaviour, own, &request);
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    if request.verb == "GET" {
        stream.write_all(&body)?;
    }
    Ok(())
}

/// The head of the answer, and as much of its body as is sent.
fn answer(hub: &mut Behaviour, own: &str, request: &Request) -> (String, Vec<u8>) {
    let line = |status: u16, more: &str, length: usize| {
        format!(
            "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n"
        )
    };
    let missing = (line(404, "X-Error-Code: EntryNotFound\r\n", 0), Vec::new());
    if let Some((status, code)) = hub.fails {
        return (line(status, &format!("X-Error-Code: {code}\r\n"), 0), Vec::new());
    }
    let path = request.path.as_str();
    if path.starts_with("/api/models/owner/tiny/revision/") {
        let names = hub.small.keys().chain(hub.large.keys()).chain(&hub.listed);
        let siblings: Vec<_> = names.map(|n| serde_json::json!({"rfilename": n})).collect();
        let list = serde_json::json!({"id": "owner/tiny", "sha": hub.commit, "siblings": siblings});
        let body = list.to_string().into_bytes();
        return (line(200, "Content-Type: application/json\r\n", body.len()), body);
    }
    let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
    if let Some(file) = path.strip_prefix(&format!("/owner/tiny/resolve/{COMMIT}/")) {
        if hub.small.contains_key(file) {
            let more = format!("Location: /api/resolve-cache/{file}\r\n{commit}");
            return (line(307, &more, 0), Vec::new());
        }
        let Some(bytes) = hub.large.get(file) else { return missing };
        let etag = hub.etag.clone().unwrap_or_else(|| sha256(bytes));
        let (store, size) = (hub.store.as_deref().unwrap_or(own), bytes.len());
        let more = format!(
            "Location: {store}/cdn/{file}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {size}\r\n{commit}"
        );
        return (line(302, &more, 0), Vec::new());
    }
    if let Some(file) = path.strip_prefix("/api/resolve-cache/") {
        if let Some(bytes) = hub.small.get(file) {
            let etag = hub.etag.clone().unwrap_or_else(|| sha256(bytes)[..40].to_owned());
            let more = format!("ETag: \"{etag}\"\r\n{commit}");
            return (line(200, &more, bytes.len()), bytes.clone());
        }
        return missing;
    }
    let Some(bytes) = path.strip_prefix("/cdn/").and_then(|file| hub.large.get(file)) else {
        return missing;
    };
    let mut bytes = bytes.clone();
    if hub.corrupts {
        bytes[3] ^= 1;
    }
    if hub.extends {
        bytes.push(0);
    }
    let range = request.range.as_ref().filter(|_| !hub.ignores_ranges);
    let start =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let start: usize = start.unwrap_or_default();
    let mut body = bytes[start..].to_vec();
    let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    let head = if start > 0 { line(206, &range, body.len()) } else { line(200, "", body.len()) };
    if hub.cuts.0 > 0 {
        hub.cuts.0 -= 1;
        body.truncate(hub.cuts.1);
    }
    (head, body)
}
