//! What every store does, and what the one on a disk does besides.

use std::time::Duration;

use devicebound::hub::{Authentication, CloudMessage, DeviceIdentity, DeviceKey, Hub, HubConfig, Telemetry};
use devicebound::iothub::PropertyBag;
use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::Instant;

use super::*;
use crate::clock::unix_time;
use crate::message::Sender;
use crate::state::StateDir;

const NOW: Instant = Instant::from_secs(1);

/// A hub whose records a test changes, and what its store holds of them.
struct Records {
    hub: Hub,
    ledger: Ledger,
}

impl Records {
    fn new(client_ids: &[&str]) -> Self {
        let mut hub = Hub::new(HubConfig::default(), NOW, unix_time());
        for client_id in client_ids {
            let key = || SymmetricKey::from_bytes(&[7; 32]);
            let authentication = Authentication::Sas { primary: key(), secondary: key() };
            let identity = DeviceIdentity::new(client_id, "1".to_owned(), authentication).unwrap();
            hub.insert(DeviceRecord::new(identity)).unwrap();
        }
        Self { hub, ledger: Ledger::default() }
    }

    fn key(&self, client_id: &str) -> DeviceKey {
        self.hub.find(client_id).unwrap()
    }

    fn enqueue(&mut self, client_id: &str, body: &str) {
        let message = CloudMessage { payload: body.as_bytes().to_vec(), ..CloudMessage::default() };
        let _ = self.hub.enqueue(NOW, self.key(client_id), message).unwrap();
    }

    /// What makes the store's records those of these ids.
    fn changes(&mut self, client_ids: &[&str]) -> Batch {
        let change = |client_id: &&str| {
            let key = self.hub.find(client_id).unwrap();
            self.ledger.change(self.hub.record(key).unwrap())
        };
        Batch { records: client_ids.iter().map(change).collect(), ..Batch::default() }
    }
}

/// A batch with one block of these messages.
pub(crate) fn telemetry(bodies: &[&str]) -> Batch {
    let records = Records::new(&["dev"]);
    let device = records.key("dev");
    let sender = Sender::of(records.hub.record(device).unwrap());
    let mut block = Block::default();
    for body in bodies {
        let telemetry = Telemetry {
            device,
            bag: PropertyBag::parse("").unwrap(),
            payload: body.as_bytes(),
            receipt: None,
            retain_property: None,
            is_dup: false,
            is_will: false,
        };
        block.push(1, &telemetry, &sender, unix_time());
    }
    Batch { blocks: vec![block], ..Batch::default() }
}

/// The numbers that are kept behind `after`.
fn cursors(log: &TelemetryLog, mut after: u64) -> Vec<u64> {
    let mut cursors = Vec::new();
    loop {
        let page = log.page(after).unwrap();
        let Some(last) = page.last() else { return cursors };
        after = last.cursor;
        cursors.extend(page.iter().map(|entry| entry.cursor));
    }
}

fn ids(records: &[DeviceRecord]) -> Vec<&str> {
    records.iter().map(|record| record.identity.client_id()).collect()
}

/// Each kind of store, empty, with this retention; the folder lives as long as the store.
fn each_store(retention: Retention, test: impl Fn(&mut dyn Store)) {
    test(&mut MemoryStore::new(retention));
    let folder = tempfile::tempdir().unwrap();
    test(&mut DiskStore::at(&StateDir::open(folder.path()).unwrap(), retention).unwrap());
}

#[test]
fn a_record_is_committed_once_and_then_from_its_revision_alone() {
    each_store(Retention::default(), |store| {
        let mut records = Records::new(&["a"]);
        let first = records.changes(&["a"]);
        let again = first.records.clone();
        assert_eq!(store.commit(first).unwrap(), Committed::default());
        let twice = store.commit(Batch { records: again, ..Batch::default() }).unwrap();
        assert_eq!(twice.refused, ["a"], "there is a record already");

        records.enqueue("a", "one");
        let newer = records.changes(&["a"]);
        let stale = newer.records.clone();
        assert_eq!(store.commit(newer).unwrap(), Committed::default());
        let stale = store.commit(Batch { records: stale, ..Batch::default() }).unwrap();
        assert_eq!(stale.refused, ["a"], "the store has moved on");
        let safe = store.reload("a").unwrap().unwrap();
        assert_eq!(safe.revision(), records.hub.record(records.key("a")).unwrap().revision());
        assert_eq!(safe.waiting().len(), 1);
    });
}

#[test]
fn a_message_is_written_once_and_goes_with_the_head_that_does_not_list_it() {
    each_store(Retention::default(), |store| {
        let mut records = Records::new(&["a"]);
        records.enqueue("a", "one");
        records.enqueue("a", "two");
        let first = records.changes(&["a"]);
        assert_eq!(first.records[0].enqueued.len(), 2);
        assert_eq!(store.commit(first).unwrap(), Committed::default());
        records.enqueue("a", "three");
        let second = records.changes(&["a"]);
        let numbers: Vec<u64> = second.records[0].enqueued.iter().map(|(number, _)| number.0).collect();
        assert_eq!(numbers, [3], "the others are there");
        assert_eq!(store.commit(second).unwrap(), Committed::default());
        assert_eq!(store.reload("a").unwrap().unwrap().waiting().len(), 3);

        let key = records.key("a");
        let _ = records.hub.purge(NOW, key).unwrap();
        let purged = records.changes(&["a"]);
        assert_eq!(store.commit(purged).unwrap(), Committed::default());
        assert_eq!(store.reload("a").unwrap().unwrap().waiting().len(), 0);
    });
}

#[test]
fn a_record_without_a_message_that_it_lists_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = DiskStore::at(&StateDir::open(folder.path()).unwrap(), Retention::default()).unwrap();
    let mut records = Records::new(&["a"]);
    records.enqueue("a", "one");
    let mut batch = records.changes(&["a"]);
    batch.records[0].enqueued.clear();
    assert_eq!(store.commit(batch).unwrap().refused, ["a"]);
    assert_eq!(store.reload("a").unwrap(), None);
}

#[test]
fn a_removed_record_stays_away_and_one_made_anew_in_the_same_batch_stays() {
    each_store(Retention::default(), |store| {
        let mut records = Records::new(&["a", "b", "b/m"]);
        records.enqueue("b", "one");
        let all = records.changes(&["a", "b", "b/m"]);
        assert_eq!(store.commit(all).unwrap(), Committed::default());
        let mut anew = Records::new(&["b"]);
        let removed = ["a", "b", "never there"].map(str::to_owned).to_vec();
        let batch = Batch { removed, ..anew.changes(&["b"]) };
        assert_eq!(store.commit(batch).unwrap(), Committed::default());
        assert_eq!(store.reload("a").unwrap(), None);
        assert_eq!(store.reload("b").unwrap().unwrap().waiting().len(), 0);
        assert!(store.reload("b/m").unwrap().is_some(), "a module goes only by its own name");
    });
}

#[test]
fn telemetry_is_read_from_any_cursor_on() {
    each_store(Retention::default(), |store| {
        let log = store.telemetry();
        assert_eq!((cursors(&log, 0), log.newest()), (vec![], 0));
        for bodies in [&["a", "b", "c"][..], &["d"], &["e", "f"]] {
            assert_eq!(store.commit(telemetry(bodies)).unwrap(), Committed::default());
        }
        for after in 0..8 {
            assert_eq!(cursors(&log, after), (after + 1..=6).collect::<Vec<_>>());
        }
        assert!(log.page(3).unwrap()[0].line.contains(r#""cursor":4"#));
        assert_eq!(log.newest(), 6);
        assert!(cursors(&log, u64::MAX).is_empty());
    });
}

#[test]
fn the_oldest_telemetry_gives_way_by_size_and_by_age() {
    let block = telemetry(&["a", "b"]).blocks[0].as_bytes().len() as u64 + 20;
    let by_size = Retention { bytes: 2 * block, ..Retention::default() };
    each_store(by_size, |store| {
        for _ in 0..5 {
            let _ = store.commit(telemetry(&["a", "b"])).unwrap();
        }
        assert_eq!(cursors(&store.telemetry(), 0), [7, 8, 9, 10]);
    });
    let by_age = Retention { age: Duration::ZERO, ..Retention::default() };
    each_store(by_age, |store| {
        let _ = store.commit(telemetry(&["a", "b"])).unwrap();
        assert!(cursors(&store.telemetry(), 0).is_empty());
        assert_eq!(store.telemetry().newest(), 2);
    });
}

#[test]
fn all_is_there_after_the_store_was_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let long = "x".repeat(128);
    let mut names = ["demo", "Demo", "..", "a#b%c*d?e!f(g)h,i=j@k$l'm:n;o", "dev/mod", "dev", &long];
    let mut records = Records::new(&names);
    records.enqueue("dev", "one");
    records.enqueue("demo", "two");
    let tiny = Retention { bytes: 0, ..Retention::default() };
    let mut store = DiskStore::at(&state, tiny).unwrap();
    let all = records.changes(&names);
    assert_eq!(store.commit(all).unwrap(), Committed::default());
    let _ = store.commit(telemetry(&["a", "b"])).unwrap();
    drop(store);

    let mut store = DiskStore::at(&state, Retention::default()).unwrap();
    let loaded = store.load().unwrap();
    names.sort_unstable();
    assert_eq!(ids(&loaded), names);
    for record in &loaded {
        let before = records.hub.record(records.key(record.identity.client_id())).unwrap();
        assert_eq!(record.to_head(), before.to_head());
    }
    assert_eq!(store.telemetry().newest(), 2, "numbers are not given again, even if nothing is kept");
    let _ = store.commit(telemetry(&["c"])).unwrap();
    assert_eq!(cursors(&store.telemetry(), 0), [3]);
}

#[test]
fn a_lost_or_emptied_store_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    drop(DiskStore::at(&state, Retention::default()).unwrap());
    let path = state.file(disk::FILE);
    std::fs::write(&path, "").unwrap();
    let failure = DiskStore::at(&state, Retention::default()).unwrap_err();
    assert!(failure.cause().contains("it is empty"), "{failure}");
    std::fs::remove_file(&path).unwrap();
    let failure = DiskStore::at(&state, Retention::default()).unwrap_err();
    assert!(failure.cause().contains("is missing"), "{failure}");
    assert!(!path.exists());
}

#[tokio::test]
async fn whoever_waits_hears_of_the_next_message() {
    let mut store = MemoryStore::default();
    let _ = store.commit(telemetry(&["a"])).unwrap();
    let log = store.telemetry();
    log.wait_behind(0).await;
    let (waited, ()) = tokio::join!(
        async {
            log.wait_behind(1).await;
            log.newest()
        },
        async {
            let _ = store.commit(telemetry(&["b"])).unwrap();
        }
    );
    assert_eq!(waited, 2);
}
