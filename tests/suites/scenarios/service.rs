//! What the service's side sees and does: twins with their metadata, messages that are locked, feedback.

use std::time::Duration;

use devicebound::hub::{
    CloudMessage, DeviceKey, EnqueueError, Feedback, FeedbackRequest, Limits, LockLost, LockToken, Outcome,
    Section, TwinUpdate,
};
use devicebound::iothub::Subscription;
use devicebound::limits::{CLOUD_MESSAGE_LOCK, CLOUD_MESSAGE_TTL};
use devicebound::packet::{PacketId, QoS, Subscribe, TopicFilter};
use devicebound_world::fixtures::{config, connected, hub, patch_desired, send};
use devicebound_world::hub_host::{HubHost, START, StoreMode};
use devicebound_world::station::{Heard, Station};
use serde_json::{Map, Value, json};

const SECOND: Duration = Duration::from_secs(1);

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("it is an object")
}

// --- twins ---

#[test]
fn a_new_twin_looks_as_azures_does() {
    let hub = hub(&["dev"]);
    let twin = hub.record("dev").twin();
    assert_eq!((twin.etag().as_str(), twin.version()), ("AAAAAAAAAAE=", 2));
    let empty = json!({"$metadata": {"$lastUpdated": "0001-01-01T00:00:00Z"}, "$version": 1});
    assert_eq!(Value::Object(twin.desired_view()), empty);
    assert_eq!(Value::Object(twin.reported_view()), empty);
}

#[test]
fn the_metadata_tells_of_each_property_when_it_changed_and_survives_a_restart() {
    let (mut hub, mut station) = connected();
    patch_desired(&mut hub, &json!({"fan": {"on": true, "rpm": 900}, "interval": 5}));
    hub.advance(SECOND);
    patch_desired(&mut hub, &json!({"fan": {"rpm": 1200}}));
    let now = hub.now;
    station
        .command(&mut hub, |device, tx| device.report(now, br#"{"t":20}"#, None, tx))
        .expect("it is connected");
    hub.restart();
    let twin = hub.record("dev").twin();
    let (first, second) = (START.to_string(), START.after(SECOND).to_string());
    let stamp = |time: &str, version: u64| json!({"$lastUpdated": time, "$lastUpdatedVersion": version});
    let mut fan = stamp(&second, 3);
    fan["on"] = stamp(&first, 2);
    fan["rpm"] = stamp(&second, 3);
    let mut metadata = stamp(&second, 3);
    metadata["fan"] = fan;
    metadata["interval"] = stamp(&first, 2);
    let desired = json!({
        "fan": {"on": true, "rpm": 1200}, "interval": 5, "$metadata": metadata, "$version": 3,
    });
    assert_eq!(Value::Object(twin.desired_view()), desired);
    let reported = json!({
        "t": 20, "$metadata": {"$lastUpdated": second, "t": {"$lastUpdated": second}}, "$version": 2,
    });
    assert_eq!(Value::Object(twin.reported_view()), reported);
}

#[test]
fn a_document_put_in_place_leaves_no_metadata_of_what_it_replaced() {
    let (mut hub, _station) = connected();
    patch_desired(&mut hub, &json!({"old": 1}));
    let desired = Some(Section::Replace(object(json!({"new": 1}))));
    let device = hub.device("dev");
    let update = TwinUpdate { desired, ..TwinUpdate::default() };
    let commit = hub.hub.update_twin(hub.now, device, update).expect("it is good");
    hub.commit(commit);
    let view = hub.record("dev").twin().desired_view();
    assert!(view["$metadata"].get("old").is_none() && view["$metadata"].get("new").is_some(), "{view:?}");
}

#[test]
fn what_the_device_reports_counts_as_a_version_and_leaves_the_etag() {
    let (mut hub, mut station) = connected();
    let (etag, version) = (hub.record("dev").twin().etag(), hub.record("dev").twin().version());
    let now = hub.now;
    station
        .command(&mut hub, |device, tx| device.report(now, br#"{"t":20}"#, None, tx))
        .expect("it is connected");
    let twin = hub.record("dev").twin();
    assert_eq!((twin.etag(), twin.version()), (etag.clone(), version + 1));
    let device = hub.device("dev");
    let tags = Some(Section::Patch(object(json!({"site": "north"}))));
    let update = TwinUpdate { tags, if_match: Some(etag.clone()), ..TwinUpdate::default() };
    let commit = hub.hub.update_twin(hub.now, device, update).expect("the etag is the same");
    hub.commit(commit);
    assert_ne!(hub.record("dev").twin().etag(), etag);
}

// --- messages, received without MQTT ---

fn lock(hub: &mut HubHost) -> Option<LockToken> {
    let device = hub.device("dev");
    let (token, commit) = hub.hub.lock_message(hub.now, device).expect("the hub has no tier")?;
    hub.commit(commit);
    Some(token)
}

fn payload(hub: &HubHost, token: LockToken) -> Vec<u8> {
    hub.record("dev").message(token.sequence()).expect("it waits").payload.to_vec()
}

#[test]
fn a_message_that_was_received_is_seen_by_nobody_else_for_a_minute() {
    let mut hub = hub(&["dev"]);
    send(&mut hub, "one");
    send(&mut hub, "two");
    let first = lock(&mut hub).expect("a message waits");
    let second = lock(&mut hub).expect("another waits");
    assert_eq!((payload(&hub, first), payload(&hub, second)), (b"one".to_vec(), b"two".to_vec()));
    assert_eq!(lock(&mut hub), None);
    hub.advance(CLOUD_MESSAGE_LOCK - SECOND);
    assert_eq!(lock(&mut hub), None);
    hub.advance(SECOND);
    let again = lock(&mut hub).expect("the lock is over");
    assert_eq!(again.sequence(), first.sequence());
    assert_eq!(hub.record("dev").message(again.sequence()).map(|message| message.delivery_count), Some(0));
    let device = hub.device("dev");
    assert_eq!(hub.hub.complete(hub.now, device, first), Err(LockLost), "it is that of the lock before");
    let commit = hub.hub.complete(hub.now, device, again).expect("it is locked");
    hub.commit(commit);
    assert_eq!(hub.hub.complete(hub.now, device, again), Err(LockLost));
    assert_eq!(hub.record("dev").waiting().collect::<Vec<_>>(), [second.sequence()]);
}

#[test]
fn a_lock_survives_a_restart_and_a_clock_that_is_set() {
    for wall in [START.after(SECOND * 1800), START.before(SECOND * 3600)] {
        let mut hub = hub(&["dev"]);
        send(&mut hub, "one");
        let token = lock(&mut hub).expect("a message waits");
        hub.restart();
        hub.set_wall(wall);
        hub.advance(CLOUD_MESSAGE_LOCK - SECOND);
        assert_eq!(lock(&mut hub), None);
        hub.advance(SECOND);
        let again = lock(&mut hub).expect("the lock is over");
        assert_ne!(again, token);
    }
}

#[test]
fn a_token_is_read_back_from_its_text() {
    let mut hub = hub(&["dev"]);
    send(&mut hub, "one");
    let token = lock(&mut hub).expect("a message waits");
    assert_eq!(LockToken::parse(&token.to_string()), Some(token));
    for text in ["", "-", "1", "1-", "g-1", "1-1-1", "+1-1 "] {
        assert_ne!(LockToken::parse(text), Some(token), "{text}");
    }
}

#[test]
fn what_a_connection_was_sent_is_locked_while_it_lives() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    send(&mut hub, "sent");
    station.talk(&mut hub);
    assert!(station.heard.iter().any(|heard| matches!(heard, Heard::Delivered { .. })));
    hub.advance(CLOUD_MESSAGE_LOCK + SECOND);
    assert_eq!(lock(&mut hub), None);
    station.cut(&mut hub);
    assert!(lock(&mut hub).is_some());
}

#[test]
fn a_connection_waits_behind_a_message_that_another_receiver_holds() {
    let mut hub = hub(&["dev"]);
    let mut station = Station::new(config("dev"));
    send(&mut hub, "held");
    send(&mut hub, "behind");
    let token = lock(&mut hub).expect("a message waits");
    station.connect(&mut hub);
    station.subscribe(&mut hub, Subscription::CloudMessages);
    let delivered = |station: &Station| {
        let id = |heard: &Heard| match heard {
            Heard::Delivered { message_id, .. } => message_id.clone(),
            _ => None,
        };
        station.heard.iter().filter_map(id).collect::<Vec<_>>()
    };
    assert_eq!(delivered(&station), <[String; 0]>::default());
    let device = hub.device("dev");
    let commit = hub.hub.abandon(hub.now, device, token).expect("it is locked");
    hub.commit(commit);
    station.talk(&mut hub);
    assert_eq!(delivered(&station), ["held", "behind"]);
}

// --- feedback ---

fn send_for(hub: &mut HubHost, message_id: &str, ack: FeedbackRequest) -> Result<(), EnqueueError> {
    let message =
        CloudMessage { message_id: Some(message_id.to_owned()), ack: Some(ack), ..CloudMessage::default() };
    let device = hub.device("dev");
    let (_, commit) = hub.hub.enqueue(hub.now, device, message)?;
    hub.commit(commit);
    Ok(())
}

fn outcomes(hub: &mut HubHost) -> Vec<(String, Outcome)> {
    let Some(device) = hub.hub.poll_feedback() else { return Vec::new() };
    let feedback: Vec<Feedback> = hub.hub.feedback(device).collect();
    if let Some(commit) = hub.hub.take_feedback(device, feedback.len()) {
        hub.commit(commit);
    }
    feedback.into_iter().map(|feedback| (feedback.original_message_id, feedback.outcome)).collect()
}

fn end_one(hub: &mut HubHost, outcome: Outcome) {
    let device = hub.device("dev");
    let commit = match outcome {
        Outcome::Success => {
            let token = lock(hub).expect("a message waits");
            hub.hub.complete(hub.now, device, token)
        }
        Outcome::Rejected => {
            let token = lock(hub).expect("a message waits");
            hub.hub.reject(hub.now, device, token)
        }
        Outcome::DeliveryCountExceeded => {
            for _ in 1..Limits::default().delivery_count {
                let token = lock(hub).expect("a message waits");
                let commit = hub.hub.abandon(hub.now, device, token).expect("it is locked");
                hub.commit(commit);
            }
            let token = lock(hub).expect("a message waits");
            hub.hub.abandon(hub.now, device, token)
        }
        Outcome::Purged => Ok(hub.hub.purge(hub.now, device).expect("it is registered").1),
        Outcome::Expired => return hub.advance(CLOUD_MESSAGE_TTL),
    };
    hub.commit(commit.expect("it is locked"));
    hub.wake(hub.now);
}

#[test]
fn each_end_of_a_message_is_told_to_those_who_asked_for_it() {
    use Outcome::{DeliveryCountExceeded, Expired, Purged, Rejected, Success};
    for outcome in [Success, Rejected, DeliveryCountExceeded, Purged, Expired] {
        for (ack, wants) in [
            (FeedbackRequest::None, false),
            (FeedbackRequest::Positive, outcome == Success),
            (FeedbackRequest::Negative, outcome != Success),
            (FeedbackRequest::Full, true),
        ] {
            let mut hub = hub(&["dev"]);
            send_for(&mut hub, "m", ack).expect("there is room");
            end_one(&mut hub, outcome);
            assert_eq!(hub.record("dev").waiting().len(), 0);
            let expected = wants.then(|| ("m".to_owned(), outcome));
            assert_eq!(outcomes(&mut hub), Vec::from_iter(expected), "{ack:?}");
        }
    }
}

#[test]
fn a_puback_is_a_success_and_so_is_a_delivery_at_qos_0() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    send_for(&mut hub, "m", FeedbackRequest::Full).expect("there is room");
    station.talk(&mut hub);
    assert_eq!(outcomes(&mut hub), []);
    let delivery = station.heard.iter().find_map(|heard| match heard {
        Heard::Delivered { delivery, .. } => Some(*delivery),
        _ => None,
    });
    let delivery = delivery.expect("it was delivered");
    station
        .command(&mut hub, |device, tx| device.complete(delivery, tx))
        .expect("it was delivered on this connection");
    assert_eq!(outcomes(&mut hub), [("m".to_owned(), Outcome::Success)]);

    let link = station.link.expect("it is connected");
    let filter = TopicFilter::new("devices/dev/messages/devicebound/#").expect("it is a filter");
    let mut bytes = Vec::new();
    Subscribe::encode(PacketId::MIN, &[(filter, QoS::AtMostOnce)], &mut bytes).expect("it is short");
    hub.receive(link, &bytes);
    send_for(&mut hub, "n", FeedbackRequest::Full).expect("there is room");
    assert_eq!(outcomes(&mut hub), [("n".to_owned(), Outcome::Success)], "nobody waits for a PUBACK");
}

#[test]
fn feedback_is_given_when_it_is_safe_and_again_until_it_was_taken() {
    let mut hub = hub(&["dev"]);
    for message_id in ["a", "b"] {
        send_for(&mut hub, message_id, FeedbackRequest::Full).expect("there is room");
    }
    hub.store = StoreMode::Held;
    end_one(&mut hub, Outcome::Purged);
    assert_eq!(hub.hub.poll_feedback(), None, "a crash would bring the messages back");
    hub.release_store();
    let device = hub.hub.poll_feedback().expect("it is safe now");
    assert_eq!(hub.hub.poll_feedback(), None);
    hub.store = StoreMode::Immediate;
    hub.restart();
    assert_eq!(outcomes(&mut hub).len(), 2);
    assert_eq!(hub.hub.poll_feedback(), None);
    hub.restart();
    assert_eq!(outcomes(&mut hub), []);
    assert_eq!(hub.hub.take_feedback(device, 1), None);
}

#[test]
fn a_message_that_asks_for_feedback_which_nobody_takes_is_refused_in_the_end() {
    let mut hub = hub(&["dev"]);
    let most = Limits::default().feedback;
    for _ in 0..most {
        send_for(&mut hub, "m", FeedbackRequest::Full).expect("there is room");
        end_one(&mut hub, Outcome::Success);
    }
    assert_eq!(send_for(&mut hub, "m", FeedbackRequest::Negative), Err(EnqueueError::QueueFull));
    send_for(&mut hub, "m", FeedbackRequest::None).expect("it asks for nothing");
    end_one(&mut hub, Outcome::Success);
    assert_eq!(outcomes(&mut hub).len(), most);
    send_for(&mut hub, "m", FeedbackRequest::Full).expect("it was taken");
}

#[test]
fn a_device_that_is_gone_has_no_feedback() {
    let mut hub = hub(&["dev"]);
    send_for(&mut hub, "m", FeedbackRequest::Full).expect("there is room");
    end_one(&mut hub, Outcome::Purged);
    let device: DeviceKey = hub.device("dev");
    assert!(hub.hub.remove(device).is_some());
    assert_eq!(hub.hub.poll_feedback(), None);
    assert_eq!(hub.hub.feedback(device).count(), 0);
}
