//! What every store does, and what the one on a disk does besides.

use std::time::Duration;

use devicebound::hub::{Authentication, CloudMessage, DeviceIdentity, DeviceKey, Hub, HubConfig, Telemetry};
use devicebound::iothub::PropertyBag;
use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::Instant;

use super::*;
use crate::clock::{AgeClock, unix_time};
use crate::state::StateDir;
use crate::telemetry::sender::Sender;

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

    /// Commits a batch, whole, and notes what the store has made of it.
    fn commit(&mut self, store: &mut dyn Store, batch: Batch) -> Vec<Version> {
        let client_ids: Vec<String> = batch.records.iter().map(|change| change.client_id.clone()).collect();
        let versions: Vec<_> =
            store.commit(batch).unwrap().versions.into_iter().map(Option::unwrap).collect();
        assert_eq!(versions.len(), client_ids.len());
        client_ids.iter().zip(&versions).for_each(|(id, version)| self.ledger.written(id, *version));
        versions
    }
}

/// A batch of one record, which the store has to refuse.
fn refused(store: &mut dyn Store, records: Vec<RecordChange>) -> bool {
    store.commit(Batch { records, ..Batch::default() }).unwrap().versions == [None]
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

/// The numbers that are kept after a position.
fn cursors(log: &TelemetryLog, after: u64) -> Vec<u64> {
    let (mut position, mut cursors) = (Position::after(after), Vec::new());
    loop {
        let page = log.read(position).unwrap();
        if page.next == position {
            return cursors;
        }
        position = page.next;
        cursors.extend(page.messages().map(|(cursor, _)| cursor));
    }
}

fn ids(records: &[Stored]) -> Vec<&str> {
    records.iter().map(|stored| stored.record.identity.client_id()).collect()
}

/// Each kind of store, empty, with this retention; the folder lives as long as the store.
fn each_store(retention: Retention, test: impl Fn(&mut dyn Store)) {
    test(&mut MemoryStore::new(retention));
    let folder = tempfile::tempdir().unwrap();
    test(&mut DiskStore::at(&StateDir::open(folder.path()).unwrap(), retention).unwrap());
}

#[test]
fn a_record_is_committed_once_and_then_from_its_version_alone() {
    each_store(Retention::default(), |store| {
        let mut records = Records::new(&["a"]);
        let first = records.changes(&["a"]);
        let again = first.records.clone();
        records.commit(store, first);
        assert!(refused(store, again), "there is a record already");

        records.enqueue("a", "one");
        let newer = records.changes(&["a"]);
        let stale = newer.records.clone();
        let version = records.commit(store, newer)[0];
        assert!(refused(store, stale), "the store has moved on");
        let safe = store.reload("a").unwrap().unwrap();
        assert_eq!(safe.version, version);
        assert_eq!(safe.record.revision(), records.hub.record(records.key("a")).unwrap().revision());
        assert_eq!(safe.record.waiting().len(), 1);
    });
}

#[test]
fn no_version_is_given_twice_even_when_a_record_was_removed_in_between() {
    each_store(Retention::default(), |store| {
        let mut versions = Vec::new();
        for _ in 0..3 {
            let mut records = Records::new(&["a", "b"]);
            let batch =
                Batch { removed: vec!["a".to_owned(), "b".to_owned()], ..records.changes(&["a", "b"]) };
            versions.extend(records.commit(store, batch));
        }
        let given = versions.len();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), given);
    });
}

#[test]
fn a_record_that_another_process_made_anew_is_not_written_over() {
    each_store(Retention::default(), |store| {
        let mut ours = Records::new(&["a"]);
        let first = ours.changes(&["a"]);
        ours.commit(store, first);
        let mut theirs = Records::new(&["a"]);
        let anew = Batch { removed: vec!["a".to_owned()], ..theirs.changes(&["a"]) };
        theirs.commit(store, anew);
        ours.enqueue("a", "one");
        assert!(refused(store, ours.changes(&["a"]).records), "it is another record of this name");
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
        records.commit(store, first);
        records.enqueue("a", "three");
        let second = records.changes(&["a"]);
        let numbers: Vec<u64> = second.records[0].enqueued.iter().map(|(number, _)| number.0).collect();
        assert_eq!(numbers, [3], "the others are there");
        records.commit(store, second);
        assert_eq!(store.reload("a").unwrap().unwrap().record.waiting().len(), 3);

        let key = records.key("a");
        let _ = records.hub.purge(NOW, key).unwrap();
        let purged = records.changes(&["a"]);
        records.commit(store, purged);
        assert_eq!(store.reload("a").unwrap().unwrap().record.waiting().len(), 0);
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
    assert!(refused(&mut store, batch.records));
    assert_eq!(store.reload("a").unwrap(), None);
}

#[test]
fn a_removed_record_stays_away_and_one_made_anew_in_the_same_batch_stays() {
    each_store(Retention::default(), |store| {
        let mut records = Records::new(&["a", "b", "b/m"]);
        records.enqueue("b", "one");
        let all = records.changes(&["a", "b", "b/m"]);
        records.commit(store, all);
        let mut anew = Records::new(&["b"]);
        let removed = ["a", "b", "never there"].map(str::to_owned).to_vec();
        let batch = Batch { removed, ..anew.changes(&["b"]) };
        anew.commit(store, batch);
        assert_eq!(store.reload("a").unwrap(), None);
        assert_eq!(store.reload("b").unwrap().unwrap().record.waiting().len(), 0);
        assert!(store.reload("b/m").unwrap().is_some(), "a module goes only by its own name");
    });
}

#[test]
fn telemetry_is_read_from_any_cursor_on() {
    each_store(Retention::default(), |store| {
        let log = store.telemetry();
        assert_eq!((cursors(&log, 0), log.newest()), (vec![], 0));
        for bodies in [&["a", "b", "c"][..], &["d"], &["e", "f"]] {
            let _ = store.commit(telemetry(bodies)).unwrap();
        }
        for after in 0..8 {
            assert_eq!(cursors(&log, after), (after + 1..=6).collect::<Vec<_>>());
        }
        let page = log.read(3).unwrap();
        let bodies: Vec<_> = page.messages().map(|(cursor, message)| (cursor, message.body)).collect();
        assert_eq!(bodies, [(4, &b"d"[..])]);
        assert_eq!((page.gap, page.next), (None, Position::after(4)));
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
        let page = store.telemetry().read(1).unwrap();
        assert_eq!((page.gap, page.next), (Some(Gap { from: 2, to: 6 }), Position::after(8)));
    });
    let by_age = Retention { age: Duration::ZERO, ..Retention::default() };
    each_store(by_age, |store| {
        let _ = store.commit(telemetry(&["a", "b"])).unwrap();
        assert!(cursors(&store.telemetry(), 0).is_empty());
        assert_eq!(store.telemetry().newest(), 2);
        let page = store.telemetry().read(Position::START).unwrap();
        assert_eq!((page.gap, page.next), (Some(Gap { from: 1, to: 2 }), Position::after(2)));
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
    records.commit(&mut store, all);
    let _ = store.commit(telemetry(&["a", "b"])).unwrap();
    drop(store);

    let mut store = DiskStore::at(&state, Retention::default()).unwrap();
    let loaded = store.load().unwrap();
    names.sort_unstable();
    assert_eq!(ids(&loaded), names);
    for Stored { record, .. } in &loaded {
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
    log.wait_after(0).await;
    let (waited, ()) = tokio::join!(
        async {
            log.wait_after(1).await;
            log.newest()
        },
        async {
            let _ = store.commit(telemetry(&["b"])).unwrap();
        }
    );
    assert_eq!(waited, 2);
}

#[test]
fn a_partition_counts_without_gaps_over_restarts_and_whatever_gives_way() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let block = telemetry(&["a", "b"]).blocks[0].as_bytes().len() as u64 + 20;
    let retention = Retention { bytes: block, ..Retention::default() };
    let own = usize::from(partitions::partition_of("dev", partitions::PARTITIONS));
    for start in 0..3 {
        let mut store = DiskStore::at(&state, retention).unwrap();
        let _ = store.commit(telemetry(&["a", "b"])).unwrap();
        let pieces = store.telemetry().pieces(Position::START, usize::MAX).unwrap();
        let counted: Vec<u64> =
            (0..4).map(|number| pieces[0].head.before.get(number).unwrap().next).collect();
        let mut expected = vec![0; 4];
        expected[own] = start * 2;
        assert_eq!((pieces.len(), counted), (1, expected), "start {start}");
    }
}

#[test]
fn a_store_is_one_hubs_whatever_is_deleted_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let mut first = DiskStore::at(&state, Retention::default()).unwrap();
    state.remove("lock");
    state.remove("store");
    let failure = DiskStore::at(&state, Retention::default()).unwrap_err();
    assert!(failure.cause().contains("another hub uses it"), "{failure}");
    assert!(failure.next().contains("--state"), "{failure}");
    let _ = first.commit(telemetry(&["a"])).unwrap();
    drop(first);
    assert_eq!(cursors(&DiskStore::at(&state, Retention::default()).unwrap().telemetry(), 0), [1]);
}

#[test]
fn ages_go_on_when_the_wall_clock_was_a_year_ahead_and_came_back() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let hour = Duration::from_secs(3600);
    let retention = Retention { age: hour, ..Retention::default() };
    let ahead = unix_time().after(365 * 24 * hour);
    let mut store = DiskStore::at(&state, retention).unwrap();
    store.set_ages(AgeClock::after(ahead));
    let _ = store.commit(telemetry(&["a"])).unwrap();
    drop(store);

    // The clock is right again: what was written is neither young for a year nor gone at once.
    let mut store = DiskStore::at(&state, retention).unwrap();
    let _ = store.commit(telemetry(&["b"])).unwrap();
    assert_eq!(cursors(&store.telemetry(), 0), [1, 2]);
    for (minutes, body, kept) in [(30, "c", &[1, 2, 3][..]), (80, "d", &[3, 4]), (200, "e", &[5])] {
        store.set_ages(AgeClock::after(ahead.after(Duration::from_secs(minutes * 60))));
        let _ = store.commit(telemetry(&[body])).unwrap();
        assert_eq!(cursors(&store.telemetry(), 0), kept, "after {minutes} minutes");
    }
}
