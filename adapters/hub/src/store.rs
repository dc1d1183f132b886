//! What makes changes last. The machine acknowledges nothing before a store has said that it is safe.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use devicebound::hub::{DeviceRecord, SnapshotError};
use sha2::{Digest as _, Sha256};

use crate::Failure;
use crate::block::Block;
use crate::log::EventLog;
use crate::state::{Secrecy, StateDir, replace, sync_parent};

/// All that has gathered while the store was busy with the batch before.
#[derive(Debug, Default)]
pub struct Batch {
    /// Telemetry, in order of arrival.
    pub blocks: Vec<Block>,
    /// Client ids whose records are gone; done before `records`.
    pub removed: Vec<String>,
    /// Records as they are now; each contains all earlier changes of its device.
    pub records: Vec<DeviceRecord>,
}

/// A place where a hub's memory outlives the process.
pub trait Store: Send + std::fmt::Debug {
    /// Every record there is, once at start.
    ///
    /// # Errors
    /// When one cannot be read: nothing is left out in silence.
    fn load(&mut self) -> Result<Vec<DeviceRecord>, Failure>;

    /// Whether what is written outlives the process. If so, a write may take its time, and nothing is acknowledged before
    /// it; if not, a write must be over at once, and nothing waits for it.
    fn is_durable(&self) -> bool {
        true
    }

    /// Makes a whole batch safe; on return all of it is. One `fsync` may stand for all of it.
    ///
    /// # Errors
    /// When any of it is not safe. What the batch contained is then as it was before, or as the batch says, but not in
    /// between.
    fn write(&mut self, batch: Batch) -> io::Result<()>;

    /// What is safe of one device after a write failed; `None` if nothing is.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn reload(&mut self, client_id: &str) -> io::Result<Option<DeviceRecord>>;
}

/// Records as one JSON file each in the state folder; telemetry in memory.
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
    telemetry: Arc<EventLog>,
}

impl FileStore {
    /// The store of a state folder.
    #[must_use]
    pub fn new(state: &StateDir, telemetry: Arc<EventLog>) -> Self {
        Self { folder: state.file("devices"), telemetry }
    }

    /// A readable start and a digest: ids may be longer than a file name, hold characters that file systems refuse, and
    /// differ in case alone.
    fn path(&self, client_id: &str) -> PathBuf {
        let plain =
            |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '_' };
        let readable: String = client_id.chars().take(48).map(plain).collect();
        let digest: String =
            Sha256::digest(client_id).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{readable}.{digest}.json"))
    }
}

impl Store for FileStore {
    fn load(&mut self) -> Result<Vec<DeviceRecord>, Failure> {
        let unreadable = |path: &PathBuf, error: &dyn std::fmt::Display| {
            Failure::new(
                format!("cannot read {}: {error}", path.display()),
                "restore the file, or move it away to go on without that device",
            )
        };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|error| unreadable(&self.folder, &error))? {
            let path = entry.map_err(|error| unreadable(&self.folder, &error))?.path();
            // A file that was being written when the power went; the one that it was to replace is still there.
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
            records.push(record_from(&text).map_err(|error| unreadable(&path, &error))?);
        }
        Ok(records)
    }

    fn write(&mut self, batch: Batch) -> io::Result<()> {
        for client_id in &batch.removed {
            let path = self.path(client_id);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => sync_parent(&path)?,
            }
        }
        for record in &batch.records {
            let path = self.path(record.identity.client_id());
            replace(&path, text_of(record).as_bytes(), Secrecy::Secret)?;
        }
        batch.blocks.into_iter().for_each(|block| self.telemetry.append_block(block));
        Ok(())
    }

    fn reload(&mut self, client_id: &str) -> io::Result<Option<DeviceRecord>> {
        match fs::read(self.path(client_id)) {
            Ok(text) => record_from(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The head on the first line, then a line for each message.
fn text_of(record: &DeviceRecord) -> String {
    let entries = record.waiting().filter_map(|sequence| record.to_entry(sequence));
    std::iter::once(record.to_head()).chain(entries).collect::<Vec<_>>().join("\n")
}

fn record_from(text: &[u8]) -> Result<DeviceRecord, SnapshotError> {
    let mut lines = text.split(|byte| *byte == b'\n');
    DeviceRecord::from_parts(lines.next().unwrap_or_default(), lines)
}

#[cfg(test)]
mod tests {
    use devicebound::hub::{Authentication, DeviceIdentity};
    use devicebound::iothub::sas::SymmetricKey;

    use super::*;

    fn record(client_id: &str) -> DeviceRecord {
        let key = || SymmetricKey::from_bytes(&[7; 32]);
        let authentication = Authentication::Sas { primary: key(), secondary: key() };
        DeviceRecord::new(DeviceIdentity::new(client_id, "1".to_owned(), authentication).unwrap())
    }

    fn store(folder: &std::path::Path) -> FileStore {
        FileStore::new(&StateDir::open(folder).unwrap(), Arc::default())
    }

    fn ids(store: &mut FileStore) -> Vec<String> {
        let mut ids: Vec<String> =
            store.load().unwrap().iter().map(|record| record.identity.client_id().to_owned()).collect();
        ids.sort();
        ids
    }

    #[test]
    fn records_come_back_whatever_their_ids_look_like() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(128);
        let names = ["demo", "Demo", "..", "a#b%c*d?e!f(g)h,i=j@k$l'm:n;o", "dev/mod", &long];
        let records = names.map(record).to_vec();
        store(folder.path()).write(Batch { records, ..Batch::default() }).unwrap();
        let mut expected: Vec<String> = names.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(ids(&mut store(folder.path())), expected);
    }

    #[test]
    fn a_removed_device_stays_removed_and_one_made_anew_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        let records = vec![record("a"), record("b")];
        store.write(Batch { records, ..Batch::default() }).unwrap();
        let removed = vec!["a".to_owned(), "b".to_owned(), "never there".to_owned()];
        store.write(Batch { removed, records: vec![record("b")], ..Batch::default() }).unwrap();
        assert_eq!(ids(&mut store), ["b"]);
        assert_eq!(store.reload("a").unwrap(), None);
    }

    #[test]
    fn a_file_that_was_not_finished_is_not_taken_for_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        store.write(Batch { records: vec![record("a")], ..Batch::default() }).unwrap();
        fs::write(store.path("a").with_extension("new"), "{\"layout\"").unwrap();
        assert_eq!(ids(&mut store), ["a"]);
    }

    #[test]
    fn a_damaged_record_is_named_and_not_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        fs::write(store.path("a"), "{}").unwrap();
        let failure = store.load().unwrap_err();
        assert!(failure.cause().contains("a."), "{failure}");
    }
}
