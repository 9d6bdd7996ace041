//! Writing so that it is there after a crash: files and folders that appear whole or not at all.
//!
//! A file is written beside its place, handed to the disk, renamed into its place, and the folder is handed to
//! the disk too (Pillai et al. 2014, "All File Systems Are Not Created Equal"). A folder that is made is handed
//! to the disk in the one that holds it. Nothing here is opened for writing through a link.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Ends the names of what is not finished.
pub const PARTIAL: &str = ".partial";

/// Writes a new file and hands it to the disk.
///
/// # Errors
/// When the disk refuses it.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = unlinked(File::options().write(true).create(true).truncate(true)).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Opening with these options fails where the path is a link, so that nobody is led to write elsewhere.
#[cfg(unix)]
pub fn unlinked(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flag = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits());
    options.custom_flags(flag.unwrap_or_default())
}

/// Here links are looked for before anything is opened: see [`crate::recorder::Claim`].
#[cfg(not(unix))]
pub fn unlinked(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Makes a folder and those that hold it, as far as they are not there, and hands each name to the disk.
///
/// # Errors
/// When the disk refuses it.
pub fn make_folders(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folders(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
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
    if partial.symlink_metadata().is_ok() {
        fs::remove_dir_all(&partial)?;
    }
    if let Some(parent) = path.parent() {
        make_folders(parent)?;
    }
    fs::create_dir(&partial)?;
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
    #[cfg(test)]
    tests::SYNCED.with_borrow_mut(|all| all.push(path.to_owned()));
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
pub(crate) mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        /// The folders that this thread has handed to the disk.
        pub(super) static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    }

    /// The folders that were handed to the disk since the last call, in order.
    pub(crate) fn synced() -> Vec<PathBuf> {
        SYNCED.take()
    }

    #[test]
    fn a_folder_that_is_made_is_handed_to_the_disk_in_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        synced();
        let partial = begin(&root.join("adapters/reply/g1")).unwrap();
        assert_eq!(synced(), [root.to_owned(), root.join("adapters")]);
        publish(&partial, &root.join("adapters/reply/g1")).unwrap();
        assert_eq!(synced(), [partial, root.join("adapters/reply")]);
        begin(&root.join("adapters/reply/g2")).unwrap();
        assert!(synced().is_empty(), "they were there");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (target, path) = (folder.path().join("target"), folder.path().join("a.json"));
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, partial(&path)).unwrap();
        assert!(replace(&path, b"one").is_err());
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }

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
