//! The real store on a disk that fails: power cuts at every point (E2), failed syncs and a full disk (E3), damage (E5).
//!
//! Each test prints its seed first; `DEVICEBOUND_SEED=n` runs that one.

#![allow(clippy::panic, reason = "these are parts of tests: a panic is the failure itself")]

mod damage;
mod sim_disk;

use std::collections::BTreeMap;

use devicebound::Hub;
use devicebound::hub::{CloudMessage, DeviceRecord, HubConfig, Section, TwinUpdate};
use devicebound::time::{Instant, UnixTime};
use devicebound_hub::store::{Batch, DiskStore, Ledger, Position, Retention, Store as _};
use devicebound_hub::telemetry::block::Block;
use devicebound_world::fixtures::record;
use devicebound_world::{Entropy as _, Seeded};
use serde_json::json;
use sim_disk::SimDisk;

const NOW: Instant = Instant::from_secs(1);
const UNIX: UnixTime = UnixTime::from_secs(1_700_000_000);
const DEVICES: [&str; 3] = ["a", "b", "c"];

/// What a store shows: each record in its parts, and the number of the newest message.
type Shown = (BTreeMap<String, Vec<String>>, u64);

/// A hub that changes its records, and what its store is told.
struct Work {
    hub: Hub,
    ledger: Ledger,
    entropy: Seeded,
    telemetry: u64,
}

impl Work {
    fn new(seed: u64) -> Self {
        let mut hub = Hub::new(HubConfig::default(), NOW, UNIX);
        for device in DEVICES {
            hub.insert(record(device)).expect("the hub is empty");
        }
        Self { hub, ledger: Ledger::default(), entropy: Seeded::new(seed), telemetry: 0 }
    }

    /// Some changes of some records, and some telemetry; the first has all records.
    fn batch(&mut self, number: u32) -> Batch {
        let mut changed = if number == 0 { DEVICES.to_vec() } else { Vec::new() };
        for device in DEVICES {
            let key = self.hub.find(device).expect("it was registered");
            let change = match self.entropy.below(4) {
                0 => {
                    let payload = vec![b'x'; self.entropy.below(3000) as usize];
                    let message = CloudMessage { payload, ..CloudMessage::default() };
                    let _ = self.hub.enqueue(NOW, key, message).expect("the queue has room");
                    true
                }
                1 => self.hub.purge(NOW, key).map(drop).is_some(),
                2 => {
                    let patch = json!({"n": number}).as_object().cloned().expect("it is an object");
                    let update = TwinUpdate { desired: Some(Section::Patch(patch)), ..TwinUpdate::default() };
                    let _ = self.hub.update_twin(NOW, key, update).expect("the patch is good");
                    true
                }
                _ => false,
            };
            if change && !changed.contains(&device) {
                changed.push(device);
            }
        }
        let ledger = &mut self.ledger;
        let hub = &self.hub;
        let record =
            |device: &&str| hub.find(device).and_then(|key| hub.record(key)).expect("it was registered");
        let records = changed.iter().map(|device| ledger.change(record(device))).collect();
        let count = self.entropy.below(5);
        self.telemetry += u64::from(count);
        Batch { blocks: vec![block(count)], records, ..Batch::default() }
    }

    /// Commits the next batch, and notes what the store has made of it.
    fn commit(&mut self, store: &mut DiskStore, number: u32) -> std::io::Result<()> {
        let batch = self.batch(number);
        let client_ids: Vec<String> = batch.records.iter().map(|change| change.client_id.clone()).collect();
        let committed = store.commit(batch)?;
        for (client_id, version) in client_ids.iter().zip(committed.versions) {
            self.ledger.written(client_id, version.expect("nobody else writes"));
        }
        Ok(())
    }

    fn shown(&self) -> Shown {
        (self.hub.devices().map(|(_, record)| parts(record)).collect(), self.telemetry)
    }
}

fn parts(record: &DeviceRecord) -> (String, Vec<String>) {
    let entries = record.waiting().filter_map(|sequence| record.to_entry(sequence));
    let parts = std::iter::once(record.to_head()).chain(entries).collect();
    (record.identity.client_id().to_owned(), parts)
}

/// A block as its documentation says.
fn block(messages: u32) -> Block {
    let text =
        |text: &str| [&u32::try_from(text.len()).unwrap_or(0).to_le_bytes()[..], text.as_bytes()].concat();
    let sender = ["a", "", "1", "sas", ""].map(text).concat();
    let message = [&[1, 0, 0, 0, 0][..], &UNIX.as_millis().to_le_bytes(), &text(""), &text("body")].concat();
    Block::from_bytes([vec![0], sender, message.repeat(messages as usize)].concat()).expect("it is a block")
}

fn formatted() -> SimDisk {
    let disk = SimDisk::default();
    DiskStore::format(disk.handle()).expect("the disk works");
    SimDisk::holding(disk.bytes())
}

fn open(disk: &SimDisk) -> Result<DiskStore, devicebound_hub::Failure> {
    DiskStore::open(Box::new(disk.clone()), Retention::default())
}

fn shown(store: &mut DiskStore) -> Result<Shown, devicebound_hub::Failure> {
    let records = store.load()?;
    let newest = store.telemetry().newest();
    let (mut position, mut cursor) = (Position::START, 0);
    while position.cursor() < newest {
        let page = store.telemetry().read(position).expect("telemetry can be read");
        cursor = page.messages().last().map_or(cursor, |(last, _)| last);
        position = page.next;
    }
    assert_eq!(cursor, newest, "telemetry ends where its numbers do");
    Ok((records.iter().map(|stored| parts(&stored.record)).collect(), newest))
}

fn seeds(count: u64) -> Vec<u64> {
    let one = std::env::var("DEVICEBOUND_SEED").ok().and_then(|seed| seed.parse().ok());
    one.map_or_else(|| (1..=count).collect(), |seed| vec![seed])
}

#[test]
fn what_was_committed_survives_a_power_cut_at_any_point() {
    for seed in seeds(3) {
        println!("seed {seed}");
        let mut cut = 0;
        loop {
            let disk = formatted();
            disk.cut_at(cut);
            let mut work = Work::new(seed);
            let (mut safe, mut maybe) = ((BTreeMap::new(), 0), None);
            let mut is_done = true;
            match open(&disk) {
                Err(_) => is_done = false,
                Ok(mut store) => {
                    for number in 0..8 {
                        if work.commit(&mut store, number).is_err() {
                            maybe = Some(work.shown());
                            is_done = false;
                            break;
                        }
                        safe = work.shown();
                    }
                }
            }
            let mut entropy = Seeded::new(seed ^ cut << 16);
            disk.reboot(&mut entropy);
            let mut store = open(&disk).unwrap_or_else(|failure| panic!("seed {seed}, cut {cut}: {failure}"));
            let found =
                shown(&mut store).unwrap_or_else(|failure| panic!("seed {seed}, cut {cut}: {failure}"));
            assert!(
                found == safe || Some(&found) == maybe.as_ref(),
                "seed {seed}, cut at {cut}: {found:#?}\nis neither {safe:#?}\nnor {maybe:#?}"
            );
            if is_done {
                println!("seed {seed}: {cut} points");
                break;
            }
            cut += 1;
        }
    }
}

#[test]
fn a_sync_that_failed_is_a_loss_and_is_not_tried_again() {
    for seed in seeds(2) {
        println!("seed {seed}");
        let mut failing = 0;
        loop {
            let disk = formatted();
            let mut store = open(&disk).expect("the disk works");
            let began = disk.syncs();
            disk.fail_sync(began + failing);
            let mut work = Work::new(seed);
            let mut safe = (BTreeMap::new(), 0);
            let mut has_failed = false;
            for number in 0..6 {
                let opened = disk.opened();
                if work.commit(&mut store, number).is_ok() {
                    safe = work.shown();
                    continue;
                }
                has_failed = true;
                assert!(!disk.was_trusted_again(), "seed {seed}, sync {failing}: used again after it failed");
                let now = shown_again(&mut store, &mut work, &safe);
                assert!(disk.opened() > opened, "the file was opened anew");
                safe = now;
            }
            // All that was shown after the failure is on the disk itself.
            disk.reboot(&mut Seeded::new(seed));
            drop(store);
            let found = shown(&mut open(&disk).expect("the disk works again")).expect("nothing is damaged");
            assert!(found == safe, "seed {seed}, sync {failing}: {found:#?}\nis not {safe:#?}");
            if !has_failed {
                break;
            }
            failing += 1;
        }
    }
}

/// After a failed commit: the records are taken back to what the store says is safe, as the hub does.
fn shown_again(store: &mut DiskStore, work: &mut Work, safe: &Shown) -> Shown {
    let maybe = work.shown();
    let mut hub = Hub::new(HubConfig::default(), NOW, UNIX);
    let mut ledger = Ledger::default();
    for device in DEVICES {
        match store.reload(device).expect("the disk works again") {
            Some(stored) => {
                ledger.holds(&stored);
                hub.insert(stored.record).expect("there is one of each");
            }
            None => drop(hub.insert(record(device)).expect("there is one of each")),
        }
    }
    let telemetry = store.telemetry().newest();
    work.hub = hub;
    work.ledger = ledger;
    work.telemetry = telemetry;
    let found = shown(store).expect("nothing is damaged");
    assert!(found == *safe || found.0 == maybe.0, "{found:#?}\nis neither {safe:#?}\nnor {maybe:#?}");
    work.telemetry = found.1;
    found
}

#[test]
fn a_full_disk_refuses_what_is_new_and_the_store_goes_on_when_there_is_room_again() {
    let disk = formatted();
    let mut store = open(&disk).expect("the disk works");
    disk.set_capacity(Some(disk.length()));
    let mut work = Work::new(1);
    work.commit(&mut store, 0).expect("it fits");
    let mut stored = store.telemetry().newest();
    let telemetry = || Batch { blocks: vec![block(5000)], ..Batch::default() };
    let refused = loop {
        match store.commit(telemetry()) {
            Ok(_) => stored += 5000,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    assert!(store.commit(telemetry()).is_err(), "there is still no room");
    assert_eq!(store.telemetry().newest(), stored);

    disk.set_capacity(None);
    assert!(store.commit(telemetry()).expect("there is room").is_whole());
    let found = shown(&mut store).expect("nothing is damaged");
    assert_eq!(found, (work.shown().0, stored + 5000));
}
