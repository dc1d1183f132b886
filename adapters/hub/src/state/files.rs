//! Files that hold keys: private from their first byte on, and whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Every program on this machine (0644): an authority's certificate is of use to those that know it.
    Open,
    /// The owner alone (0600): the file holds a key.
    Secret,
}

/// What a file is called before it is whole.
const UNFINISHED: &str = ".new";
/// Files with keys, besides those whose names end with `.key`.
const PRIVATE: [&str; 5] = ["policies.json", "service.json", "quota.json", "hub.redb", "provisioning.json"];

/// Replaces a file: new file beside it, fsync, rename, fsync of the folder. The new file has a name that nobody can know
/// before, so that nothing is written through a link, and it is private until all of it is there.
///
/// # Errors
/// Whatever the file system says; the old file is untouched then.
pub fn replace(path: &Path, contents: &[u8], secrecy: Secrecy) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(name).suffix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(contents)?;
    if secrecy == Secrecy::Open {
        // Not by the mode that it is made with, which the process's umask cuts.
        set_mode(file.path(), 0o644)?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_parent(path)
}

/// Makes a rename or a removal in the file's folder last.
///
/// # Errors
/// Whatever the file system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    // Only Unix lets a folder be opened and synchronised.
    #[cfg(unix)]
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Makes a folder for keys: its owner lists it, and others may pass through it to a file that is for them.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o711);
    }
    builder.create(path)
}

/// Corrects what an earlier version, a copy or a kill left behind: modes that are too wide, and unfinished files.
pub(super) fn tidy(folder: &Path) -> io::Result<()> {
    let mut is_ours = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        // Of a link this is the link itself, which is left alone.
        if !entry.metadata()?.is_file() {
            continue;
        }
        if name.ends_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        } else if PRIVATE.contains(&name) || has_extension(name, "key") {
            is_ours = true;
            narrow(&entry.path(), 0o600)?;
        }
    }
    // A folder that is somebody else's, by mistake on the command line, keeps its mode.
    if is_ours { narrow(folder, 0o711) } else { Ok(()) }
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// Opens a file to be locked: made if it is missing, never cut, never through a link.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
    }
    options.open(path)
}

/// The folder itself, to be locked: that lock stays whatever is deleted in it. `None` where folders cannot be opened.
pub(super) fn open_folder(path: &Path) -> Option<File> {
    if cfg!(unix) { File::open(path).ok() } else { None }
}

/// Takes away what a mode allows beyond `most`.
#[cfg(unix)]
fn narrow(path: &Path, most: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    if mode & !most == 0 { Ok(()) } else { set_mode(path, mode & most) }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Other systems give new files the rights of the folder.
#[cfg(not(unix))]
fn narrow(_path: &Path, _most: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn touch(path: &Path, mode: u32) {
        fs::write(path, "old").unwrap();
        set_mode(path, mode).unwrap();
    }

    #[test]
    fn a_file_with_a_key_is_private_whatever_was_there_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        touch(&path, 0o644);
        // As an earlier version left it when it was killed.
        touch(&folder.path().join("ca.new"), 0o644);
        replace(&path, b"key", Secrecy::Secret).unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"key".to_vec()));
        replace(&folder.path().join("ca.pem"), b"certificate", Secrecy::Open).unwrap();
        assert_eq!(mode(&folder.path().join("ca.pem")), 0o644);
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        touch(&elsewhere, 0o644);
        for name in ["policies.json", "policies.new", "policies.json.new", "lock"] {
            symlink(&elsewhere, folder.path().join(name)).unwrap();
        }
        replace(&folder.path().join("policies.json"), b"key", Secrecy::Secret).unwrap();
        assert!(open_lock(&folder.path().join("lock")).is_err());
        assert_eq!(fs::read(&elsewhere).unwrap(), b"old");
        assert!(folder.path().join("policies.json").symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn what_is_too_wide_is_narrowed_and_what_was_not_finished_goes() {
        let folder = tempfile::tempdir().unwrap();
        set_mode(folder.path(), 0o777).unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["ca.key", "policies.json", "hub.redb", "ca.pem", "server.keyXYZ.new"] {
            touch(&path(name), 0o666);
        }
        tidy(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o711);
        assert_eq!(["ca.key", "policies.json", "hub.redb"].map(|name| mode(&path(name))), [0o600; 3]);
        assert_eq!(mode(&path("ca.pem")), 0o666);
        assert!(!path("server.keyXYZ.new").exists());
    }

    #[test]
    fn a_folder_of_somebody_else_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        set_mode(folder.path(), 0o777).unwrap();
        touch(&folder.path().join("notes.txt"), 0o644);
        tidy(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o777);
    }
}
