//! Cloud-to-device messages that are delivered in vain: which deliveries count, and what becomes of them in the end.

use std::time::Duration;

use devicebound::hub::{CloudMessage, FeedbackRequest, HubConfig, Limits, LockToken, Outcome};
use devicebound::iothub::Subscription;
use devicebound::limits::{CLOUD_MESSAGE_LOCK, DELIVERY_COUNT};
use devicebound_world::fixtures::{HOST, config, record};
use devicebound_world::hub_host::{HubHost, StoreMode};
use devicebound_world::station::{Heard, Station};

/// Deliveries in vain that are too many.
const MOST: u32 = 3;

/// A hub with the device `dev`, on which every delivery counts.
fn counting() -> HubHost {
    hub(Limits { delivery_count: MOST, every_delivery_counts: true, ..Limits::default() })
}

fn hub(limits: Limits) -> HubHost {
    let host_names = vec![HOST.to_owned()];
    let mut hub = HubHost::new(HubConfig { host_names, limits, ..HubConfig::default() });
    hub.register(record("dev"));
    hub
}

/// The device `dev`, connected, with cloud messages subscribed to in its persistent session.
fn subscribed(hub: &mut HubHost) -> Station {
    let mut station = Station::new(config("dev"));
    station.connect(hub);
    station.subscribe(hub, Subscription::CloudMessages);
    station
}

fn send(hub: &mut HubHost, message_id: &str) {
    let message = CloudMessage {
        message_id: Some(message_id.to_owned()),
        ack: Some(FeedbackRequest::Full),
        payload: vec![b'x'; 200],
        ..CloudMessage::default()
    };
    let device = hub.device("dev");
    let (_, commit) = hub.hub.enqueue(hub.now, device, message).expect("the queue has room");
    hub.commit(commit);
}

/// The transport breaks, and what follows from that is done.
fn cut(hub: &mut HubHost, station: &mut Station) {
    station.cut(hub);
    hub.wake(hub.now);
}

/// How often each message that waits was delivered in vain.
fn counts(hub: &HubHost) -> Vec<u32> {
    let record = hub.record("dev");
    let count = |sequence| record.message(sequence).map(|message| message.delivery_count);
    record.waiting().filter_map(count).collect()
}

/// What the back end hears.
fn outcomes(hub: &mut HubHost) -> Vec<(String, Outcome)> {
    let Some(device) = hub.hub.poll_feedback() else { return Vec::new() };
    let feedback = hub.hub.feedback(device);
    feedback.map(|feedback| (feedback.original_message_id, feedback.outcome)).collect()
}

fn in_vain(message_id: &str) -> (String, Outcome) {
    (message_id.to_owned(), Outcome::DeliveryCountExceeded)
}

fn delivered(station: &mut Station) -> Vec<String> {
    let id = |heard| match heard {
        Heard::Delivered { message_id, .. } => message_id,
        _ => None,
    };
    station.take_heard().into_iter().filter_map(id).collect()
}

fn lock(hub: &mut HubHost) -> Option<LockToken> {
    let device = hub.device("dev");
    let (token, commit) = hub.hub.lock_message(hub.now, device).expect("the hub has no tier")?;
    hub.commit(commit);
    Some(token)
}

#[test]
fn a_message_that_no_connection_acknowledged_is_dead_lettered_in_the_end() {
    let mut hub = counting();
    let mut station = subscribed(&mut hub);
    send(&mut hub, "m");
    for count in 0..MOST {
        station.talk(&mut hub);
        assert_eq!(counts(&hub), [count], "what is under way is not in vain yet");
        assert_eq!(outcomes(&mut hub), []);
        cut(&mut hub, &mut station);
        station.connect(&mut hub);
    }
    assert_eq!(counts(&hub), <[u32; 0]>::default());
    assert_eq!(outcomes(&mut hub), [in_vain("m")]);
}

#[test]
fn by_default_a_connection_that_ends_does_not_count() {
    let mut hub = hub(Limits::default());
    let mut station = subscribed(&mut hub);
    send(&mut hub, "m");
    for _ in 0..=DELIVERY_COUNT {
        station.talk(&mut hub);
        cut(&mut hub, &mut station);
        station.connect(&mut hub);
    }
    assert_eq!(counts(&hub), [0]);
}

#[test]
fn a_connection_counts_once_however_often_it_subscribes_and_not_without_a_subscription() {
    let mut hub = counting();
    let mut station = subscribed(&mut hub);
    send(&mut hub, "m");
    station.subscribe(&mut hub, Subscription::CloudMessages);
    station.subscribe(&mut hub, Subscription::CloudMessages);
    cut(&mut hub, &mut station);
    assert_eq!(counts(&hub), [1]);
    let mut clean = Station::new(config("dev").with_clean_session(true));
    clean.connect(&mut hub);
    cut(&mut hub, &mut clean);
    assert_eq!(counts(&hub), [1]);
}

#[test]
fn what_a_connection_was_not_sent_was_not_delivered_over_it() {
    let mut hub = hub(Limits {
        delivery_count: MOST,
        every_delivery_counts: true,
        tx_high_water: 300,
        ..Limits::default()
    });
    let mut station = subscribed(&mut hub);
    let link = station.link.expect("it is connected");
    hub.stall(link, true);
    for message_id in ["one", "two", "three"] {
        send(&mut hub, message_id);
    }
    cut(&mut hub, &mut station);
    assert_eq!(counts(&hub), [1, 0, 0]);
}

#[test]
fn a_crash_of_the_hub_is_the_end_of_a_connection_and_counts_once() {
    let mut hub = counting();
    let mut station = subscribed(&mut hub);
    send(&mut hub, "m");
    station.talk(&mut hub);
    hub.restart();
    assert_eq!(counts(&hub), [1]);
    hub.restart();
    assert_eq!(counts(&hub), [1], "there was no connection in between");
    for _ in 1..MOST {
        station.cut(&mut hub);
        station.connect(&mut hub);
        hub.restart();
    }
    hub.wake(hub.now);
    assert_eq!(counts(&hub), <[u32; 0]>::default());
    assert_eq!(outcomes(&mut hub), [in_vain("m")]);
}

#[test]
fn a_record_that_starts_again_from_what_was_safe_keeps_its_count() {
    let mut hub = counting();
    let mut station = subscribed(&mut hub);
    send(&mut hub, "m");
    station.talk(&mut hub);
    let safe = hub.record("dev").clone();
    let device = hub.device("dev");
    hub.hub.rejected(device, safe);
    hub.settle();
    assert_eq!(counts(&hub), [1]);
    Station::new(config("dev")).connect(&mut hub);
    hub.restart();
    assert_eq!(counts(&hub), [2]);
}

#[test]
fn nothing_is_sent_before_its_count_is_safe_and_no_end_is_told_before_it_is() {
    let mut hub = counting();
    let mut station = subscribed(&mut hub);
    send(&mut hub, "m");
    station.talk(&mut hub);
    delivered(&mut station);
    cut(&mut hub, &mut station);
    hub.store = StoreMode::Held;
    let mut again = Station::new(config("dev"));
    again.connect(&mut hub);
    assert_eq!(delivered(&mut again), <[String; 0]>::default());
    hub.release_store();
    again.talk(&mut hub);
    assert_eq!(delivered(&mut again), ["m"]);
    cut(&mut hub, &mut again);
    again.connect(&mut hub);
    hub.release_store();
    again.talk(&mut hub);
    cut(&mut hub, &mut again);
    assert_eq!(outcomes(&mut hub), []);
    hub.release_store();
    assert_eq!(outcomes(&mut hub), [in_vain("m")]);
}

#[test]
fn a_takeover_counts_and_what_is_behind_a_message_that_is_over_goes_on() {
    let mut hub = counting();
    let mut first = subscribed(&mut hub);
    send(&mut hub, "old");
    first.talk(&mut hub);
    for _ in 1..MOST {
        Station::new(config("dev")).connect(&mut hub);
    }
    assert_eq!(counts(&hub), [MOST - 1]);
    send(&mut hub, "new");
    let mut last = Station::new(config("dev"));
    last.connect(&mut hub);
    hub.wake(hub.now);
    last.talk(&mut hub);
    assert_eq!(delivered(&mut last), ["new"]);
    assert_eq!(outcomes(&mut hub), [in_vain("old")]);
}

#[test]
fn a_lock_that_runs_out_counts_and_so_does_one_that_was_abandoned() {
    let mut hub = counting();
    send(&mut hub, "m");
    for count in 0..MOST {
        let token = lock(&mut hub).expect("a message waits");
        assert_eq!(counts(&hub), [count]);
        if count == 1 {
            let device = hub.device("dev");
            let commit = hub.hub.abandon(hub.now, device, token).expect("it is locked");
            hub.commit(commit);
        } else {
            hub.restart();
            hub.advance(CLOUD_MESSAGE_LOCK);
        }
    }
    assert_eq!(lock(&mut hub), None);
    hub.wake(hub.now);
    assert_eq!(outcomes(&mut hub), [in_vain("m")]);
}

#[test]
fn a_lock_that_has_run_out_counts_though_the_next_receiver_is_faster_than_the_timer() {
    let mut hub = counting();
    send(&mut hub, "m");
    for count in 0..MOST {
        assert!(lock(&mut hub).is_some());
        assert_eq!(counts(&hub), [count]);
        hub.step_clock(hub.now.after(CLOUD_MESSAGE_LOCK + Duration::from_secs(1)));
    }
    assert_eq!(lock(&mut hub), None);
    hub.wake(hub.now);
    assert_eq!(outcomes(&mut hub), [in_vain("m")]);
}
