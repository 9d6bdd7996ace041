//! Where a scenario came from: what its paths are relative to. Recorded with a run, so that the run can be
//! played again from its directory.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a scenario came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The scenario's folder: paths of the file are relative to it and stay below it.
    pub folder: PathBuf,
    /// Where the command was given: paths that were given with `--set` are relative to it.
    pub working_folder: PathBuf,
    /// Dotted paths of the values that were given with `--set`.
    pub from_command_line: Vec<Vec<String>>,
}

impl Origin {
    /// The origin of a scenario that is loaded now from a folder.
    pub(super) fn now(folder: &Path, from_command_line: Vec<Vec<String>>) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_empty| path.into());
        let working_folder = std::env::current_dir().unwrap_or_default();
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Self { folder: absolute(folder), working_folder, from_command_line }
    }
}
