//! Requests to the hub: `https` only (or this machine), with time limits, the token for the endpoint alone.
//!
//! Redirects are followed here and not by `ureq`, because where they lead decides who may see the token.

use std::io::Read as _;
use std::net::IpAddr;
use std::time::Duration;

use ureq::http::uri::Scheme;
use ureq::http::{Response, StatusCode, Uri, header};
use ureq::{Agent, Body};

use super::error::HubError;
use super::model::{HubModel, is_commit, is_plain};
use super::settings::HubSettings;

/// Longest time for a name to be found and a connection to be made.
const CONNECTING: Duration = Duration::from_secs(20);
/// Longest silence in the middle of an answer, and longest wait for its beginning.
const SILENCE: Duration = Duration::from_secs(60);
/// Most redirects of one request.
const MOST_REDIRECTS: usize = 5;

/// A way to the hub for one model.
pub(super) struct Connection<'a> {
    agent: Agent,
    model: &'a HubModel,
    settings: &'a HubSettings,
    endpoint: Uri,
    /// Whether the endpoint is this machine, where `http` will do.
    loopback: bool,
}

/// What the hub says of a file before it is fetched.
#[derive(Debug)]
pub(super) struct Described {
    /// Names its contents: a SHA-256 for large files.
    pub(super) etag: String,
    /// Its length in bytes.
    pub(super) size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Head,
    Get,
}

impl<'a> Connection<'a> {
    pub(super) fn new(model: &'a HubModel, settings: &'a HubSettings) -> Result<Self, HubError> {
        let refuse =
            |reason| Err(HubError::Endpoint { endpoint: settings.endpoint.clone(), reason });
        let Ok(endpoint) = settings.endpoint.parse::<Uri>() else {
            return refuse("is no address");
        };
        if endpoint.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return refuse("has no host, or names a user");
        }
        if endpoint.query().is_some() {
            return refuse("has a query");
        }
        let loopback = is_loopback(&endpoint);
        if !(is_https(&endpoint) || loopback && is_http(&endpoint)) {
            return refuse("is not https (http is allowed only on this machine)");
        }
        if settings
            .token
            .as_ref()
            .is_some_and(|t| !t.reveal().bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(HubError::Token);
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("polylogue/", env!("CARGO_PKG_VERSION")))
            // Compressed answers have another length than the file.
            .accept_encoding("identity")
            .timeout_resolve(Some(CONNECTING))
            .timeout_connect(Some(CONNECTING))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE));
        if loopback {
            config = config.proxy(None);
        }
        let agent = config.build().new_agent();
        Ok(Self { agent, model, settings, endpoint, loopback })
    }

    /// Reads an answer that is not larger than `limit` bytes.
    pub(super) fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, HubError> {
        let (uri, answer) = self.follow(Verb::Get, path, None)?;
        self.expect(&uri, path, &answer, &[StatusCode::OK])?;
        let mut bytes = Vec::new();
        let reader = answer.into_body().into_reader();
        reader.take(limit + 1).read_to_end(&mut bytes).map_err(|e| unreachable(&uri, &e))?;
        if bytes.len() as u64 > limit {
            let (file, size) = (path.to_owned(), bytes.len() as u64);
            return Err(HubError::TooLarge { file, size, limit });
        }
        Ok(bytes)
    }

    /// Asks what a file is. Only redirects within the endpoint are followed: the hub itself describes what
    /// lies elsewhere.
    pub(super) fn describe(
        &self,
        path: &str,
        file: &str,
        commit: &str,
    ) -> Result<Described, HubError> {
        let mut uri = self.address(path)?;
        let mut answer = self.send(Verb::Head, &uri, None)?;
        for _ in 0..MOST_REDIRECTS {
            let described = answer.headers().contains_key("x-linked-etag");
            if described || !answer.status().is_redirection() {
                break;
            }
            let target = self.target(&uri, &answer)?;
            if !same_origin(&target, &self.endpoint) {
                break;
            }
            uri = target;
            answer = self.send(Verb::Head, &uri, None)?;
        }
        if !answer.status().is_redirection() {
            self.expect(&uri, path, &answer, &[StatusCode::OK])?;
        }
        let what = "description of a file";
        let malformed = |reason: String| HubError::Malformed { what, reason };
        let get = |names: [&str; 2]| {
            let value = names.into_iter().find_map(|name| answer.headers().get(name));
            value.and_then(|value| value.to_str().ok())
        };
        let etag = get(["x-linked-etag", "etag"]).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        // It becomes a file's name.
        if !is_plain(etag) || etag.contains('.') {
            let shown: String = etag.chars().take(100).collect();
            return Err(malformed(format!("{file} has the etag {shown:?}")));
        }
        let size = get(["x-linked-size", "content-length"]).and_then(|size| size.parse().ok());
        let size = size.ok_or_else(|| malformed(format!("{file} has no length")))?;
        let of = answer.headers().get("x-repo-commit").and_then(|value| value.to_str().ok());
        if let Some(other) = of.filter(|other| is_commit(other) && *other != commit) {
            return Err(malformed(format!("{file} of commit {commit} is said to be of {other}")));
        }
        Ok(Described { etag: etag.to_owned(), size })
    }

    /// Begins to fetch a file from byte `start` on; the status is 200, 206 or 416.
    pub(super) fn fetch(&self, path: &str, start: u64) -> Result<Response<Body>, HubError> {
        let (uri, answer) = self.follow(Verb::Get, path, (start > 0).then_some(start))?;
        let usable =
            [StatusCode::OK, StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE];
        self.expect(&uri, path, &answer, &usable)?;
        Ok(answer)
    }

    fn follow(
        &self,
        verb: Verb,
        path: &str,
        start: Option<u64>,
    ) -> Result<(Uri, Response<Body>), HubError> {
        let mut uri = self.address(path)?;
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.send(verb, &uri, start)?;
            if !answer.status().is_redirection() {
                return Ok((uri, answer));
            }
            uri = self.target(&uri, &answer)?;
        }
        let (host, target) = (host(&self.endpoint), uri.to_string());
        Err(HubError::Redirect { host, target, reason: "is one redirect too many" })
    }

    /// One request; the token goes along only to the endpoint itself.
    fn send(&self, verb: Verb, uri: &Uri, start: Option<u64>) -> Result<Response<Body>, HubError> {
        let mut request = match verb {
            Verb::Head => self.agent.head(uri),
            Verb::Get => self.agent.get(uri),
        };
        if let Some(start) = start {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        if let Some(token) = &self.settings.token
            && same_origin(uri, &self.endpoint)
        {
            let token = format!("Bearer {}", token.reveal());
            request = request.header(header::AUTHORIZATION, token);
        }
        request.call().map_err(|e| unreachable(uri, &e))
    }

    fn address(&self, path: &str) -> Result<Uri, HubError> {
        let text = format!("{}{path}", self.settings.endpoint.trim_end_matches('/'));
        text.parse()
            .map_err(|e| HubError::Malformed { what: "address", reason: format!("{e}: {text}") })
    }

    /// Where a redirect leads, if it may be followed.
    fn target(&self, from: &Uri, answer: &Response<Body>) -> Result<Uri, HubError> {
        let location = answer.headers().get(header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refuse = |reason| {
            let target = location.chars().take(200).collect();
            Err(HubError::Redirect { host: host(from), target, reason })
        };
        let Ok(target) = location.parse::<Uri>() else { return refuse("is no address") };
        let mut parts = target.into_parts();
        if parts.scheme.is_none() {
            if !location.starts_with('/') || location.starts_with("//") {
                return refuse("is no full address");
            }
            let from = from.clone().into_parts();
            (parts.scheme, parts.authority) = (from.scheme, from.authority);
        }
        let Ok(target) = Uri::from_parts(parts) else { return refuse("is no address") };
        let local = self.loopback && is_http(&target) && is_loopback(&target);
        if is_https(&target) || local { Ok(target) } else { refuse("is not https") }
    }

    /// Turns a status that does not help into an error that does.
    fn expect(
        &self,
        uri: &Uri,
        path: &str,
        answer: &Response<Body>,
        usable: &[StatusCode],
    ) -> Result<(), HubError> {
        let status = answer.status();
        if usable.contains(&status) {
            return Ok(());
        }
        let code = answer.headers().get("x-error-code").and_then(|value| value.to_str().ok());
        let (endpoint, model) = (self.settings.endpoint.clone(), self.model.to_string());
        let repository = self.model.repository();
        match (status, code) {
            (StatusCode::NOT_FOUND, Some("EntryNotFound")) => {
                let file = path.rsplit('/').next().unwrap_or_default();
                Err(HubError::NotFound { endpoint, what: format!("{file} in {model}") })
            }
            (StatusCode::NOT_FOUND, Some("RevisionNotFound")) => {
                let what = format!("revision {} of {repository}", self.model.revision());
                Err(HubError::NotFound { endpoint, what })
            }
            (StatusCode::NOT_FOUND, _) => Err(HubError::NotFound { endpoint, what: model }),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, code) => {
                let advice = if code == Some("GatedRepo") {
                    format!(
                        "its authors ask for agreement; accept their terms at {endpoint}/{repository} and \
                         set HF_TOKEN to a token of the account that did"
                    )
                } else if self.settings.token.is_some() {
                    "there is no such model, or the token (HF_TOKEN, or the file of `hf auth login`) may not \
                     read it"
                        .to_owned()
                } else {
                    "there is no such model, or it is private: check the spelling, or set HF_TOKEN"
                        .to_owned()
                };
                Err(HubError::Refused { endpoint, model, status: status.as_u16(), advice })
            }
            _ => {
                let (host, path) = (host(uri), path.to_owned());
                Err(HubError::Status { host, path, status: status.as_u16() })
            }
        }
    }
}

fn unreachable(uri: &Uri, error: &dyn std::error::Error) -> HubError {
    HubError::Unreachable { host: host(uri), reason: error.to_string() }
}

fn host(uri: &Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_default()
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS)
}

fn is_http(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTP)
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether two addresses mean the same server.
fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if is_https(uri) { 443 } else { 80 });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::settings::{OFFICIAL, Token};

    fn connection<'a>(
        model: &'a HubModel,
        settings: &'a HubSettings,
    ) -> Result<Connection<'a>, HubError> {
        Connection::new(model, settings)
    }

    #[test]
    fn only_safe_endpoints_are_asked() {
        let model: HubModel = "a/b".parse().unwrap();
        let accepts = |endpoint: &str| {
            let settings = HubSettings { endpoint: endpoint.to_owned(), ..HubSettings::default() };
            connection(&model, &settings).is_ok()
        };
        let good =
            [OFFICIAL, "https://mirror.example/hf", "http://127.0.0.1:80", "http://[::1]:8080"];
        assert!(good.into_iter().all(accepts));
        let bad = [
            "",
            "huggingface.co",
            "http://huggingface.co",
            "ftp://127.0.0.1",
            "https://",
            "file:///x",
            "https://a@b.example",
            "http://127.0.0.1.example",
            "https://a.example/?x=1",
            "http://10.0.0.1",
        ];
        for endpoint in bad {
            assert!(!accepts(endpoint), "{endpoint}");
        }
        let token = Some(Token::new("a\r\nX: y".to_owned()));
        let settings = HubSettings { token, ..HubSettings::default() };
        assert!(matches!(connection(&model, &settings), Err(HubError::Token)));
    }

    #[test]
    fn redirects_stay_on_safe_ways() {
        let model: HubModel = "a/b".parse().unwrap();
        let settings = HubSettings::default();
        let official = connection(&model, &settings).unwrap();
        let local = HubSettings { endpoint: "http://127.0.0.1:9".to_owned(), ..settings.clone() };
        let local = connection(&model, &local).map(|c| c.loopback).unwrap();
        assert!(local);
        let from: Uri = format!("{OFFICIAL}/a/b/resolve/main/x").parse().unwrap();
        let to = |location: Option<&str>| {
            let mut answer = Response::builder().status(302);
            if let Some(location) = location {
                answer = answer.header("location", location);
            }
            let answer = answer.body(Body::builder().data("")).unwrap();
            official.target(&from, &answer).ok().map(|target| target.to_string())
        };
        assert_eq!(to(Some("/x?y=1")), Some(format!("{OFFICIAL}/x?y=1")));
        assert_eq!(to(Some("https://cdn.example/x")), Some("https://cdn.example/x".to_owned()));
        for bad in
            ["", "x", "//evil.example/x", "http://cdn.example/x", "http://127.0.0.1/x", "file:///x"]
        {
            assert_eq!(to(Some(bad)), None, "{bad}");
        }
        assert_eq!(to(None), None);
        let same = |a: &str, b: &str| same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://A.example/x", "https://a.example:443/y"));
        assert!(!same("https://a.example", "https://a.example:444"));
        assert!(!same("https://a.example", "http://a.example:443"));
        assert!(!same("https://a.example", "https://cdn.a.example"));
    }
}
