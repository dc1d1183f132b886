//! The state folder: what a hub keeps between two runs, and where its tools find it.
//!
//! ```text
//! ca.pem  ca.key           the authority that devices trust; made once
//! server.pem  server.key   the hub's certificate; made anew when names change or it runs out
//! policies.json            access policies and their keys
//! hub.redb                 the store: identities, sessions, queues, twins, and telemetry for as long as it is kept
//! store                    says that there is such a store, so that a lost one is missed
//! quota.json               what was used of the daily quota, where the hub has a tier
//! service.json             while a hub runs: where its service API is
//! lock                     held by the hub that runs
//! ```
//!
//! The folder is for its owner only (0700), and so is each file that holds a key (0600).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::Failure;

/// A state folder that exists.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// The right to be the hub of a state folder; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Whoever may enter the folder.
    Open,
    /// The owner alone (0600): the file holds a key.
    Secret,
}

impl StateDir {
    /// Opens the folder, and makes it where there is none.
    ///
    /// # Errors
    /// When the folder cannot be made or entered.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        create_private_dir(path).map_err(|error| {
            Failure::new(
                format!("cannot use the state folder {}: {error}", path.display()),
                "name a folder that you may write to: --state DIR",
            )
        })?;
        // An absolute path, because it is printed for programs that run elsewhere.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        Ok(Self { path })
    }

    /// The folder that is meant when none is named: `$XDG_STATE_HOME/devicebound`, by default `~/.local/state/devicebound`.
    #[must_use]
    pub fn default_path() -> PathBuf {
        let from_env = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        from_env("XDG_STATE_HOME")
            .or_else(|| from_env("LOCALAPPDATA"))
            .or_else(|| from_env("HOME").map(|home| home.join(".local").join("state")))
            .unwrap_or_else(|| PathBuf::from("."))
            .join("devicebound")
    }

    /// Takes the folder for one hub.
    ///
    /// # Errors
    /// When another hub runs on it, or the lock file cannot be made.
    pub fn lock(&self) -> Result<Lock, Failure> {
        let path = self.file("lock");
        let busy = |detail: String| {
            Failure::new(
                format!("another hub uses the state folder {}{detail}", self.path.display()),
                "stop that hub, or give this one a folder of its own: --state DIR",
            )
        };
        let file = File::create(&path).map_err(|error| self.cannot("write", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(busy(String::new())),
            Err(fs::TryLockError::Error(error)) => Err(busy(format!(" ({error})"))),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of one file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The text of a file, `None` where there is no such file.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<String>, Failure> {
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.cannot("read", &path, &error)),
        }
    }

    /// Writes a file as a whole: after a crash it holds the old text or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, contents: &[u8], secrecy: Secrecy) -> Result<(), Failure> {
        let path = self.file(name);
        replace(&path, contents, secrecy).map_err(|error| self.cannot("write", &path, &error))
    }

    /// Removes a file; it is no failure if there is none.
    pub fn remove(&self, name: &str) {
        // Only `service.json` goes this way; a stale one is told apart when it is used.
        let _ = fs::remove_file(self.file(name));
    }

    fn cannot(&self, verb: &str, path: &Path, error: &io::Error) -> Failure {
        Failure::new(
            format!("cannot {verb} {}: {error}", path.display()),
            format!("check the permissions of {} and the space on its disk", self.path.display()),
        )
    }
}

/// Replaces a file: new file beside it, fsync, rename, fsync of the folder.
///
/// # Errors
/// Whatever the file system says; the old file is untouched then.
pub fn replace(path: &Path, contents: &[u8], secrecy: Secrecy) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(if secrecy == Secrecy::Secret { 0o600 } else { 0o644 });
    }
    #[cfg(not(unix))]
    let _ = secrecy;
    let mut file = options.open(&beside)?;
    file.write_all(contents)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
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

fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}
