//! Files of a container while they are written. What is here blocks.
//!
//! A batch is written beside the container, and moved into it when it is closed and safe: readers see whole files only. One that
//! a crash cuts off is written anew, from the store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use devicebound::time::UnixTime;

use super::container::Container;
use crate::state::sync_parent;

/// Bytes that the files of a container may have (own limit): beyond it the endpoint waits until some are taken away.
const BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A batch: a file for each partition that has messages.
#[derive(Debug)]
pub(super) struct Batch {
    folder: PathBuf,
    unfinished: PathBuf,
    files: BTreeMap<u16, Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    file: BufWriter<File>,
    path: PathBuf,
    bytes: u64,
    /// The cursor of its first message, and when the file was begun.
    first: u64,
    began: UnixTime,
}

/// One record on its way into a file.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) partition: u16,
    pub(super) cursor: u64,
    pub(super) line: String,
}

impl Batch {
    /// An empty one, below the folder of all containers.
    pub(super) fn new(root: &Path, container: &Container) -> Self {
        let unfinished = root.join(".unfinished").join(&container.name);
        Self { folder: root.join(&container.folder), unfinished, files: BTreeMap::new() }
    }

    /// Appends records; gives the length of the longest file.
    ///
    /// # Errors
    /// What the file system says, and that the container is full.
    pub(super) fn push(&mut self, records: &[Record], now: UnixTime) -> io::Result<u64> {
        if self.files.is_empty() && size_of(&self.folder)? >= BYTES_MAX {
            let what = format!("{} has more than {BYTES_MAX} bytes; take files away", self.folder.display());
            return Err(io::Error::new(io::ErrorKind::StorageFull, what));
        }
        for record in records {
            let file = match self.files.entry(record.partition) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    fs::create_dir_all(&self.unfinished)?;
                    let path = self.unfinished.join(record.partition.to_string());
                    let file = BufWriter::new(File::create(&path)?);
                    entry.insert(Unfinished { file, path, bytes: 0, first: record.cursor, began: now })
                }
            };
            file.file.write_all(record.line.as_bytes())?;
            file.file.write_all(b"\r\n")?;
            file.bytes = file.bytes.saturating_add(record.line.len() as u64).saturating_add(2);
        }
        Ok(self.files.values().map(|file| file.bytes).max().unwrap_or(0))
    }

    /// Makes all of it safe and moves it into the container; the batch is empty then.
    ///
    /// # Errors
    /// What the file system says; what was moved before stays, and is written again under another name.
    pub(super) fn close(&mut self, container: &Container, hub_name: &str) -> io::Result<()> {
        for (partition, file) in std::mem::take(&mut self.files) {
            let Unfinished { file, path, first, began, .. } = file;
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            let mut target = self.folder.join(container.path(hub_name, partition, began));
            if target.exists() {
                // Two batches within a minute.
                let mut name = target.file_name().unwrap_or_default().to_owned();
                name.push(format!("-{first}"));
                target.set_file_name(name);
            }
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::rename(&path, &target)?;
            sync_parent(&target)?;
        }
        Ok(())
    }

    /// Forgets what is not in the container.
    pub(super) fn abandon(&mut self) {
        self.files.clear();
    }
}

fn size_of(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // A link counts as itself, and leads nowhere.
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                bytes = bytes.saturating_add(entry.metadata()?.len());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::container::FORMAT;
    use super::*;

    #[test]
    fn a_batch_has_a_file_for_each_partition_and_takes_no_files_place() {
        let root = tempfile::tempdir().unwrap();
        let container = Container {
            name: "cold".to_owned(),
            folder: "archive".to_owned(),
            format: FORMAT.to_owned(),
            frequency: std::time::Duration::ZERO,
            chunk: 0,
        };
        let mut batch = Batch::new(root.path(), &container);
        let record = |partition, cursor| Record { partition, cursor, line: format!("{{\"n\":{cursor}}}") };
        let now = UnixTime::from_secs(1_700_000_000);
        let read = |name: &str| fs::read_to_string(root.path().join("archive/hub").join(name));
        assert_eq!(batch.push(&[record(0, 1), record(2, 2), record(0, 3)], now).unwrap(), 18);
        assert!(read("00/2023/11/14/22/13").is_err(), "nobody sees half a file");
        batch.close(&container, "hub").unwrap();
        assert_eq!(read("00/2023/11/14/22/13").unwrap(), "{\"n\":1}\r\n{\"n\":3}\r\n");
        assert_eq!(read("02/2023/11/14/22/13").unwrap(), "{\"n\":2}\r\n");
        batch.push(&[record(0, 4)], now).unwrap();
        batch.close(&container, "hub").unwrap();
        assert_eq!(read("00/2023/11/14/22/13-4").unwrap(), "{\"n\":4}\r\n");
        assert_eq!(size_of(&root.path().join("archive")).unwrap(), 36);
    }
}
