//! Writing so that it is there after a crash: files and folders that appear whole or not at all.
//!
//! A file is written beside its place, handed to the disk, renamed into its place, and the folder is handed to
//! the disk too (Pillai et al. 2014, "All File Systems Are Not Created Equal").

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Ends the names of what is not finished.
pub const PARTIAL: &str = ".partial";

/// Writes a new file and hands it to the disk.
///
/// # Errors
/// When the disk refuses it.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a file that takes the place of an older one, if there is one, whole or not at all.
///
/// # Errors
/// When the disk refuses it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = partial(path);
    write(&partial, bytes)?;
    fs::rename(&partial, path)?;
    sync_parent(path)
}

/// Makes an empty folder beside the place of `path`, to be filled and then put there with [`publish`].
///
/// # Errors
/// When the disk refuses it.
pub fn begin(path: &Path) -> io::Result<PathBuf> {
    let partial = partial(path);
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    Ok(partial)
}

/// Puts a folder that [`begin`] made in its place; what was there before is removed.
///
/// # Errors
/// When the disk refuses it.
pub fn publish(partial: &Path, path: &Path) -> io::Result<()> {
    sync_folder(partial)?;
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    fs::rename(partial, path)?;
    sync_parent(path)
}

/// Hands a file's content to the disk.
///
/// # Errors
/// When the disk refuses it.
pub fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Hands the names in a folder to the disk.
///
/// # Errors
/// When the disk refuses it.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened like a file; a rename is as durable as the system makes it.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_folder(parent),
        None => sync_folder(Path::new(".")),
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(PARTIAL);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        // What a crash left.
        fs::write(folder.path().join("a.json.partial"), "ha").unwrap();
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_takes_the_place_of_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/g1");
        for text in ["one", "two"] {
            let partial = begin(&path).unwrap();
            write(&partial.join(text), text.as_bytes()).unwrap();
            assert!(text == "two" || !path.exists());
            publish(&partial, &path).unwrap();
        }
        let names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["two"]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
