//! The file in a state folder.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::{Disk, DiskStore};
use crate::Failure;
use crate::state::{Secrecy, StateDir, sync_parent};

/// The name of the file in the state folder.
pub const FILE: &str = "hub.redb";
/// Says that there is such a file.
const MARK: &str = "store";

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

/// A folder that has lost its store does not start empty in silence: [`MARK`] tells.
pub(super) fn find_or_make(state: &StateDir) -> Result<Box<dyn Disk>, Failure> {
    let path = state.file(FILE);
    let used = state.read(MARK)?.is_some();
    let lost = |what: String| {
        let next = "restore the file from a backup, or use an empty state folder, --state DIR, and register the devices again";
        Failure::new(what, next)
    };
    if !path.exists() {
        if used {
            return Err(lost(format!("{} is missing, and the state folder had one", path.display())));
        }
        let devices = state.file("devices");
        if devices.exists() {
            return Err(lost(format!(
                "{} is of a version that kept each device in a file",
                devices.display()
            )));
        }
        make(&path).map_err(|error| {
            Failure::new(
                format!("cannot make {}: {error}", path.display()),
                "check the permissions of the folder and the space on its disk",
            )
        })?;
    }
    if !used {
        state.write(MARK, format!("{FILE}\n").as_bytes(), Secrecy::Open)?;
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
