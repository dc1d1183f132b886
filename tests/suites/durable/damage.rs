//! A file that is not what was written (E5): every byte of it damaged in turn, and the file cut at every length.
//!
//! Either the start is refused by name, or all that was acknowledged is there, and nothing else. A byte that opening and
//! reading the whole store never asks for cannot make a difference: of those, some are tried.

use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use devicebound_hub::Failure;
use devicebound_hub::store::disk::Sealed;
use redb::ReadableDatabase as _;

use super::sim_disk::SimDisk;
use super::{Shown, Work, formatted, open, shown};

/// Here each single bit is tried: redb's header, which says what else counts.
const HEADER: usize = 512;
/// Of the bytes behind it that are read: built for release, every one is tried; a debug build takes ten times as long, and
/// tries one of 29, which goes through all places of a field.
const READ: usize = if cfg!(debug_assertions) { 29 } else { 1 };
/// Of the bytes that are never read, one of this number is tried.
const UNREAD: usize = 509;

/// A file as a start finds it, and what is in it.
struct Found {
    after: &'static str,
    bytes: Vec<u8>,
    shown: Shown,
}

/// After a clean end, and after the program was killed.
fn found() -> [Found; 2] {
    let disk = formatted();
    let mut work = Work::new(7);
    let mut store = open(&disk).expect("the disk works");
    for number in 0..3 {
        work.commit(&mut store, number).expect("the disk works");
    }
    drop(store);
    compact(&disk);
    let mut store = open(&disk).expect("the disk works");
    work.commit(&mut store, 3).expect("the disk works");
    let killed = disk.bytes();
    drop(store);
    compact(&disk);
    [("a clean end", disk.bytes()), ("a kill", killed)].map(|(after, bytes)| Found {
        after,
        bytes,
        shown: work.shown(),
    })
}

/// Makes the file as small as it can be: redb begins with a mebibyte.
fn compact(disk: &SimDisk) {
    let file = Sealed::make(disk.handle());
    let mut database = redb::Database::builder().create_with_backend(file).expect("it is one");
    while database.compact().expect("the disk works") {}
}

impl Found {
    /// What came of opening a damaged file: why it was refused, or `None` if all is there.
    fn look(&self, damaged: Vec<u8>, what: &str) -> Option<Failure> {
        let after = self.after;
        let disk = SimDisk::holding(damaged);
        let opened = catch_unwind(AssertUnwindSafe(|| open(&disk).and_then(|mut store| shown(&mut store))));
        match opened.unwrap_or_else(|_| panic!("after {after}, {what}: opening it panics")) {
            Err(failure) => {
                assert!(failure.cause().contains("the simulated disk"), "after {after}, {what}: {failure}");
                Some(failure)
            }
            Ok(shown) => {
                assert_eq!(shown, self.shown, "after {after}, {what} changed what is there");
                None
            }
        }
    }

    /// Which bytes are asked for when the file is opened and all of it is read.
    fn read(&self) -> Vec<bool> {
        let disk = SimDisk::holding(self.bytes.clone());
        let found = open(&disk).and_then(|mut store| shown(&mut store)).expect("it is not damaged");
        assert_eq!(found, self.shown);
        disk.read()
    }

    /// How the byte at `at` is damaged: it is turned over, and one of its bits is flipped.
    fn damages(at: usize) -> impl Iterator<Item = u8> {
        let bits = if at < HEADER { 0..8 } else { at % 8..at % 8 + 1 };
        bits.map(|bit| 1 << bit).chain([0xFF])
    }
}

/// Does something with each number, spread over all cores.
fn each(numbers: Range<usize>, act: impl Fn(usize) + Sync) {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for first in 0..threads {
            let (numbers, act) = (numbers.clone(), &act);
            scope.spawn(move || numbers.skip(first).step_by(threads).for_each(act));
        }
    });
}

#[test]
fn a_damaged_byte_is_named_or_changes_nothing() {
    for found in found() {
        let read = found.read();
        let count = read.iter().filter(|is_read| **is_read).count();
        println!("after {}: {count} of {} bytes are read", found.after, read.len());
        each(0..found.bytes.len(), |at| {
            if at >= HEADER && at % if read[at] { READ } else { UNREAD } != 0 {
                return;
            }
            for damage in Found::damages(at) {
                let mut damaged = found.bytes.clone();
                damaged[at] ^= damage;
                let refused = found.look(damaged, &format!("byte {at} ^ {damage:#x}"));
                assert!(read[at] || refused.is_none(), "byte {at} was read: {refused:?}");
            }
        });
    }
}

#[test]
fn a_file_that_is_cut_short_is_refused_or_has_lost_nothing() {
    for found in found() {
        each(0..found.bytes.len(), |length| {
            let refused = found.look(found.bytes[..length].to_vec(), &format!("cut to {length} bytes"));
            // After a crash the file may end with pages that were free.
            let may_be_taken = found.after == "a kill" && length % 4096 == 0;
            assert!(refused.is_some() || may_be_taken, "{length} of {} bytes were taken", found.bytes.len());
        });
    }
}

#[test]
fn a_file_of_another_version_is_refused_by_that_name() {
    let [found, _] = found();
    let disk = SimDisk::holding(found.bytes.clone());
    let file = Sealed::make(disk.handle());
    let database = redb::Database::builder().create_with_backend(file).expect("it is one");
    let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let transaction = database.begin_write().expect("nobody else writes");
    transaction.open_table(table).expect("it is there").insert("layout", &b"4"[..]).expect("the disk works");
    transaction.commit().expect("the disk works");
    assert!(database.begin_read().is_ok());
    drop(database);
    let failure = found.look(disk.bytes(), "layout 4").expect("it is refused");
    assert!(failure.cause().contains("its layout is `4`"), "{failure}");
    assert!(failure.next().contains("the version that wrote"), "{failure}");
}
