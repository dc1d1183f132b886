//! A record in the parts that a store keeps: its head, and an entry for each message that waits.

use std::time::Duration;

use devicebound::hub::{DeviceRecord, SnapshotError};
use devicebound_world::fixtures::{connected, patch_desired, send};
use devicebound_world::hub_host::reread;
use serde_json::json;

/// A record with a session, three messages that wait and a twin.
fn record() -> DeviceRecord {
    let (mut hub, mut device) = connected();
    device.talk(&mut hub);
    device.cut(&mut hub);
    for message_id in ["a", "b", "c"] {
        send(&mut hub, message_id);
    }
    patch_desired(&mut hub, &json!({"interval": 5}));
    hub.advance(Duration::from_secs(1));
    hub.record("dev").clone()
}

fn entries(record: &DeviceRecord) -> Vec<String> {
    record.waiting().map(|sequence| record.to_entry(sequence).expect("it waits")).collect()
}

fn read(head: &str, entries: &[&String]) -> Result<DeviceRecord, SnapshotError> {
    DeviceRecord::from_parts(head.as_bytes(), entries.iter().map(|entry| entry.as_bytes()))
}

#[test]
fn a_record_is_the_same_after_it_was_stored_in_parts() {
    let record = record();
    let again = reread(&record);
    assert_eq!(again.to_head(), record.to_head());
    assert_eq!(entries(&again), entries(&record));
    assert_eq!(again.revision(), record.revision());
}

#[test]
fn the_head_holds_nothing_of_the_bodies_and_an_entry_does_not_change_when_it_is_sent() {
    let (mut hub, mut device) = connected();
    device.cut(&mut hub);
    send(&mut hub, "payload-that-is-easy-to-find");
    let before = hub.record("dev").clone();
    assert!(!before.to_head().contains("payload-that-is-easy-to-find"));
    device.connect(&mut hub);
    device.subscribe(&mut hub, devicebound::iothub::Subscription::CloudMessages);
    device.talk(&mut hub);
    let after = hub.record("dev");
    assert_ne!(after.to_head(), before.to_head(), "that it was sent is stored");
    assert_eq!(entries(after), entries(&before));
}

#[test]
fn a_message_that_is_missing_or_not_listed_or_in_the_wrong_place_is_refused() {
    let record = record();
    let head = record.to_head();
    let all = entries(&record);
    let [a, b, c] = &all[..] else { unreachable!("three messages wait") };
    assert!(read(&head, &[a, b, c]).is_ok());
    for wrong in [vec![], vec![a, b], vec![a, c, b], vec![a, a, b], vec![a, b, c, c], vec![b, c]] {
        assert_eq!(read(&head, &wrong).unwrap_err(), SnapshotError::Messages);
    }
}

#[test]
fn a_list_that_would_give_a_number_twice_is_refused() {
    let record = record();
    let all = entries(&record);
    let all: Vec<_> = all.iter().collect();
    let head = record.to_head();
    let behind = head.replace(r#""last":3"#, r#""last":2"#);
    assert_ne!(behind, head);
    assert_eq!(read(&behind, &all).unwrap_err(), SnapshotError::Member("sequence"));
}

#[test]
fn a_head_or_an_entry_that_is_cut_short_is_refused() {
    let record = record();
    let head = record.to_head();
    let all = entries(&record);
    let refs: Vec<_> = all.iter().collect();
    for end in 0..head.len() {
        assert_eq!(read(&head[..end], &refs).unwrap_err(), SnapshotError::Json);
    }
    for end in 0..all[1].len() {
        let cut = all[1][..end].to_owned();
        assert_eq!(read(&head, &[&all[0], &cut, &all[2]]).unwrap_err(), SnapshotError::Json);
    }
}

#[test]
fn another_layout_is_refused_by_name() {
    let record = record();
    for layout in ["1", "3", "null"] {
        let head = record.to_head().replace(r#""layout":2"#, &format!(r#""layout":{layout}"#));
        assert_eq!(read(&head, &[]).unwrap_err(), SnapshotError::Layout);
    }
}
