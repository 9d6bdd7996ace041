//! The name of a model on the hub, checked so strictly that nothing made from it leaves the cache.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::error::HubError;

/// Longest owner, name or file, in bytes; the hub's own limit.
const LONGEST_NAME: usize = 96;
/// Longest revision, in bytes.
const LONGEST_REVISION: usize = 128;
/// The revision where none is named.
const MAIN: &str = "main";

/// A model on the hub: `owner/name`, `owner/name@revision`, or `owner/name/file.gguf@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    owner: String,
    name: String,
    file: Option<String>,
    revision: String,
}

impl HubModel {
    /// The GGUF file that is meant, where it is one.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// A branch, a tag, a commit or a reference such as `refs/pr/1`.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// `owner/name`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The commit of what [`super::fetch`] gave: part of the path in the cache.
    #[must_use]
    pub fn commit_at(&self, path: &Path) -> Option<String> {
        let snapshot = if self.file.is_some() { path.parent()? } else { path };
        let commit = snapshot.file_name()?.to_str()?;
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Whether the revision is a full commit, which never changes.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        is_commit(&self.revision)
    }
}

impl FromStr for HubModel {
    type Err = HubError;

    fn from_str(typed: &str) -> Result<Self, HubError> {
        let refuse = |reason| {
            let typed: String = typed.chars().take(200).collect();
            HubError::Name { typed, reason }
        };
        let (repository, revision) = typed.split_once('@').unwrap_or((typed, MAIN));
        let (owner, name, file) = match *repository.split('/').collect::<Vec<_>>().as_slice() {
            [owner, name] => (owner, name, None),
            [owner, name, file] => (owner, name, Some(file)),
            _ => return Err(refuse("it needs an owner and a name with one `/` between them")),
        };
        for part in [owner, name] {
            if !is_name(part) {
                return Err(refuse(
                    "owner and name have 1 to 96 of A-Z, a-z, 0-9, `_`, `-` and `.`, \
                     no `--` or `..`, and neither begin nor end with `-` or `.`",
                ));
            }
        }
        if file.is_some_and(|file| !is_plain(file) || !file.ends_with(".gguf")) {
            return Err(refuse("only the name of a .gguf file may follow owner and name"));
        }
        if !is_revision(revision) {
            return Err(refuse(
                "a revision has 1 to 128 of A-Z, a-z, 0-9, `_`, `-`, `.` and `/`, \
                 and no part of it begins or ends with `.`",
            ));
        }
        let (owner, name, revision) = (owner.to_owned(), name.to_owned(), revision.to_owned());
        Ok(Self { owner, name, file: file.map(str::to_owned), revision })
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        write!(f, "@{}", self.revision)
    }
}

/// Whether a text is a full commit: 40 lower-case hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    is_hexadecimal(text, 40)
}

/// Whether a text is so many lower-case hexadecimal digits.
pub(super) fn is_hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text can be the name of a file and part of an address, whatever the system.
pub(super) fn is_plain(text: &str) -> bool {
    let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    letters && (1..=LONGEST_NAME).contains(&text.len()) && !text.starts_with('.')
}

fn is_name(text: &str) -> bool {
    let edge = |c: char| c == '-' || c == '.';
    // The cache writes `--` between owner and name.
    is_plain(text)
        && !text.starts_with(edge)
        && !text.ends_with(edge)
        && !text.contains("--")
        && !text.contains("..")
}

fn is_revision(text: &str) -> bool {
    text.len() <= LONGEST_REVISION
        && !text.starts_with('-')
        && text.split('/').all(|part| is_plain(part) && !part.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let model: HubModel = "HuggingFaceTB/SmolLM2-135M".parse().unwrap();
        assert_eq!(model.repository(), "HuggingFaceTB/SmolLM2-135M");
        assert_eq!((model.revision(), model.file()), ("main", None));
        assert_eq!(model.to_string(), "HuggingFaceTB/SmolLM2-135M@main");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let model: HubModel = format!("a/b.c_d@{commit}").parse().unwrap();
        assert!(model.is_commit());
        let model: HubModel = "a/b@refs/pr/1".parse().unwrap();
        assert_eq!((model.revision(), model.is_commit()), ("refs/pr/1", false));
        let model: HubModel = "a/b/q4_k_m.gguf@v1.0".parse().unwrap();
        assert_eq!((model.file(), model.revision()), (Some("q4_k_m.gguf"), "v1.0"));
        assert_eq!(model.to_string(), "a/b/q4_k_m.gguf@v1.0");
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "x".repeat(97);
        let names = [
            "",
            "/",
            "a",
            "a/",
            "/b",
            "../b",
            "a/..",
            "a/.",
            "a/b@",
            "a/b@..",
            "a/b@../../x",
            "a/b@/x",
            "a/b@x/",
            "a/b@x//y",
            "a/b@.x",
            "a/b@x.",
            "a/b@-x",
            "a/b@x@y",
            "a/b/c",
            "a/b/../c.gguf",
            "a/b/..gguf",
            "a/b/.x.gguf",
            "a/b/c/d.gguf",
            "a\\b/c",
            "a/b\\..\\c",
            "C:/b",
            "a/b c",
            "a/b\n",
            "a/b%2e",
            "a/b?x",
            "a/b#x",
            "a/ü",
            "a--b/c",
            "a/b--c",
            "a/-b",
            "a/b-",
            "-a/b",
            "a/b..c",
            "a/b\0",
            "https://huggingface.co/a/b",
        ];
        for name in names.into_iter().chain([format!("{long}/b").as_str()]) {
            let refused = name.parse::<HubModel>();
            assert!(matches!(refused, Err(HubError::Name { .. })), "{name:?}: {refused:?}");
        }
    }
}
