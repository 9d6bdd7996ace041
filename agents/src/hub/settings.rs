//! How the hub is reached and where models are kept: the environment variables of the hub's own tools.

use std::ffi::OsString;
use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;

/// The hub itself.
pub(super) const OFFICIAL: &str = "https://huggingface.co";
/// Longest token file that is read, in bytes.
const LONGEST_TOKEN: u64 = 4096;

/// Settings of the hub. The default knows no cache: nothing can be fetched or found with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSettings {
    /// The folder of the cache; none where not even a home is known.
    pub cache: Option<PathBuf>,
    /// Where requests go: `https`, or `http` on this machine. Checked when it is first used.
    pub endpoint: String,
    /// Proves who asks.
    pub token: Option<Token>,
    /// Only the cache is used.
    pub offline: bool,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self { cache: None, endpoint: OFFICIAL.to_owned(), token: None, offline: false }
    }
}

impl HubSettings {
    /// Reads `HF_HOME` (else `XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface`), `HF_HUB_CACHE` (else
    /// `HF_HOME/hub`), `HF_ENDPOINT`, `HF_TOKEN` (else the file `HF_TOKEN_PATH`, else `HF_HOME/token`),
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`, with which none of these tokens is used, and `HF_HUB_OFFLINE`. Empty
    /// variables count as absent; a leading `~/` is the home folder. The older names that `huggingface_hub`
    /// still knows, and variables inside of paths, are not read.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::of(&|name| std::env::var_os(name))
    }

    /// The same from any source of variables.
    #[must_use]
    pub fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| get(name).map(|value| value.to_string_lossy().trim().to_owned());
        let on = |name: &str| {
            let value = text(name).map(|value| value.to_ascii_lowercase());
            value.is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.as_str()))
        };
        let user = get("HOME").or_else(|| get("USERPROFILE")).map(PathBuf::from);
        let folder = |name: &str| {
            let typed = PathBuf::from(get(name)?);
            Some(match (typed.strip_prefix("~"), &user) {
                (Ok(below), Some(user)) => user.join(below),
                _ => typed,
            })
        };
        let home = folder("HF_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| user.as_ref().map(|user| user.join(".cache").join("huggingface")));
        let cache = folder("HF_HUB_CACHE").or_else(|| home.as_ref().map(|home| home.join("hub")));
        let token = (!on("HF_HUB_DISABLE_IMPLICIT_TOKEN")).then(|| {
            text("HF_TOKEN").or_else(|| {
                let file = folder("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")))?;
                let mut token = String::new();
                let file = std::fs::File::open(file).ok()?;
                file.take(LONGEST_TOKEN).read_to_string(&mut token).ok()?;
                Some(token.trim().to_owned())
            })
        });
        let token = token.flatten();
        let offline = on("HF_HUB_OFFLINE");
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| OFFICIAL.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Self { cache, endpoint, token: token.filter(|t| !t.is_empty()).map(Token::new), offline }
    }
}

/// An access token, which no log shall show.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps a token.
    #[must_use]
    pub fn new(token: String) -> Self {
        Self(token)
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        HubSettings::of(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn variables_are_read_as_the_hubs_own_tools_do() {
        let all = settings(&[("HOME", "h")]);
        assert_eq!(all.cache.as_deref(), Some(Path::new("h/.cache/huggingface/hub")));
        assert_eq!((all.endpoint.as_str(), all.token, all.offline), (OFFICIAL, None, false));
        let cache = |variables: &[(&str, &str)]| settings(variables).cache.unwrap();
        let xdg = [("HOME", "h"), ("XDG_CACHE_HOME", "x")];
        assert_eq!(cache(&xdg), Path::new("x/huggingface/hub"));
        let home = [("HOME", "h"), ("XDG_CACHE_HOME", "x"), ("HF_HOME", "f")];
        assert_eq!(cache(&home), Path::new("f/hub"));
        assert_eq!(cache(&[("HF_HOME", "f"), ("HF_HUB_CACHE", "c")]), Path::new("c"));
        assert_eq!(cache(&[("HF_HOME", ""), ("HOME", "h")]), Path::new("h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "~/m"), ("HOME", "h")]), Path::new("h/m/hub"));
        assert_eq!(cache(&[("HF_HUB_CACHE", "~"), ("HOME", "h")]), Path::new("h"));
        assert_eq!(settings(&[]).cache, None);
        let mirror = settings(&[("HF_ENDPOINT", "https://mirror.example/hf/")]);
        assert_eq!(mirror.endpoint, "https://mirror.example/hf");
        for (value, offline) in
            [("1", true), ("TRUE", true), ("yes", true), ("0", false), ("", false)]
        {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[test]
    fn a_token_comes_from_its_variable_or_its_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| settings(variables).token.unwrap();
        assert_eq!(token(&[("HF_HOME", home)]).reveal(), "hf_file");
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "hf_own")]).reveal(), "hf_own");
        let other = folder.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        let path = [("HF_HOME", home), ("HF_TOKEN_PATH", other.to_str().unwrap())];
        assert_eq!(token(&path).reveal(), "hf_other");
        let none = [("HF_HOME", home), ("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert_eq!(settings(&none).token, None);
        let shown = format!("{:?}", settings(&[("HF_TOKEN", "hf_own")]));
        assert!(!shown.contains("hf_own"), "{shown}");
    }
}
