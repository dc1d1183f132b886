//! The state folder: what a hub keeps between two runs, and where its tools find it.
//!
//! ```text
//! ca.pem  ca.key           the authority that devices trust; made once
//! device-ca.pem  .key      the authority that signs certificates of devices
//! server.pem  server.key   the hub's certificate; made anew when names change, and 30 days before it runs out
//! server-rsa.pem  .key     the same for clients that take RSA keys only
//! policies.json            access policies and their keys
//! hub.redb                 the store: identities, sessions, queues, twins, and telemetry for as long as it is kept
//! store                    says that there is such a store, so that a lost one is missed
//! uploads/                 files that devices upload, for as long as they are kept
//! routed/                  files of the containers that routes lead to
//! storage.key              what the signatures of uploads are made with
//! quota.json               what was used of the daily quota, where the hub has a tier
//! service.json             while a hub runs: where its service API is
//! lock                     held by the hub that runs
//! ```
//!
//! Each file that holds a key is for its owner only (0600), from its first byte on; what is wider is corrected at start. The
//! folder is listed by its owner only, and others may pass through it (0711): to `ca.pem`, which is for every program, also
//! one that gives up its rights.

mod authority;
pub mod certs;
mod chain;
pub mod device_certs;
mod files;
pub mod own_certificate;
pub mod policies;
pub mod provider;
pub(crate) mod validity;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

pub use files::{Secrecy, replace, sync_parent};

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
    /// The folder itself, where one can be locked: a new lock file is a new lock.
    _folder: Option<File>,
}

impl StateDir {
    /// Opens the folder, and makes it where there is none.
    ///
    /// # Errors
    /// When the folder cannot be made or entered.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        files::make_folder(path).map_err(|error| {
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
        let file = files::open_lock(&path).map_err(|error| self.cannot("write", &path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(busy(String::new())),
            Err(fs::TryLockError::Error(error)) => return Err(busy(format!(" ({error})"))),
        }
        let folder = files::open_folder(&self.path);
        if let Some(folder) = &folder
            && matches!(folder.try_lock(), Err(fs::TryLockError::WouldBlock))
        {
            return Err(busy(String::new()));
        }
        files::tidy(&self.path).map_err(|error| {
            Failure::new(
                format!("cannot make the files in {} private: {error}", self.path.display()),
                "run the hub as the owner of the folder, or give it a folder of its own: --state DIR",
            )
        })?;
        Ok(Lock { _file: file, _folder: folder })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_hubs_whatever_is_deleted_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let lock = state.lock().unwrap();
        let is_busy = || state.lock().is_err_and(|failure| failure.cause().contains("another hub uses"));
        assert!(is_busy());
        if cfg!(unix) {
            state.remove("lock");
            assert!(is_busy(), "its lock file is gone");
        }
        drop(lock);
        state.lock().unwrap();
    }
}
