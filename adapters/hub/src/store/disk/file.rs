//! The file in a state folder.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::{Disk, DiskStore};
use crate::Failure;
use crate::state::{StateDir, sync_parent};

/// The name of the file in the state folder.
pub const FILE: &str = "hub.redb";

#[derive(Debug)]
struct OnDisk {
    path: PathBuf,
}

impl Disk for OnDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// A folder that was used before and has no store has lost it: it does not start empty in silence.
pub(super) fn find_or_make(state: &StateDir, is_first_use: bool) -> Result<Box<dyn Disk>, Failure> {
    let path = state.file(FILE);
    if !path.exists() {
        if !is_first_use {
            return Err(Failure::new(
                format!("{} is missing, and the state folder was used before", path.display()),
                "restore the file from a backup, or use an empty state folder, --state DIR, and register the devices again",
            ));
        }
        make(&path).map_err(|error| {
            Failure::new(
                format!("cannot make {}: {error}", path.display()),
                "check the permissions of the folder and the space on its disk",
            )
        })?;
    }
    Ok(Box::new(OnDisk { path }))
}

/// Under another name first, so that a file of this name is whole.
fn make(path: &Path) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let file = options.open(&beside)?;
    DiskStore::format(Box::new(FileBackend::new(file).map_err(io::Error::other)?))?;
    File::open(&beside)?.sync_all()?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}
