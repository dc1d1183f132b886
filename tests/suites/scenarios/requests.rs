//! A device and a hub joined by a byte pipe: twin, direct methods, and what the device does by itself.
#![allow(clippy::panic, reason = "a test that has lost its thread must stop")]

use std::time::Duration;

use devicebound::device::{RequestFailure, RespondError, Timing};
use devicebound::hub::{
    CallFailure, CallId, InvokeError, MethodRequest, Section, TwinUpdate, TwinUpdateError,
};
use devicebound::iothub::Subscription;
use devicebound::packet::{Publish, PublishQoS, TopicName};
use devicebound::session::CloseReason;
use devicebound_world::fixtures::{config, connected, connected_with, hub, patch_desired};
use devicebound_world::hub_host::{CallResult, HubHost, StoreMode};
use devicebound_world::station::{Heard, Station, advance};
use serde_json::{Value, json};

fn report(
    hub: &mut HubHost,
    station: &mut Station,
    patch: &str,
    if_version: Option<u64>,
) -> (u16, Option<u64>, String) {
    let now = hub.now;
    station
        .command(hub, |device, tx| device.report(now, patch.as_bytes(), if_version, tx))
        .expect("it is connected");
    match station.heard.pop() {
        Some(Heard::Answered { status, version, body, .. }) => (status, version, body),
        other => panic!("the report is answered: {other:?}"),
    }
}

fn get_twin(hub: &mut HubHost, station: &mut Station) -> (u16, String) {
    let now = hub.now;
    station.command(hub, |device, tx| device.get_twin(now, tx)).expect("it is connected");
    match station.heard.pop() {
        Some(Heard::Answered { status, body, .. }) => (status, body),
        other => panic!("the request is answered: {other:?}"),
    }
}

fn invoke(hub: &mut HubHost, connect_timeout: u64) -> Result<CallId, InvokeError> {
    let request = MethodRequest {
        name: "reboot".to_owned(),
        payload: Some(r#"{"delay":1}"#.to_owned()),
        response_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(connect_timeout),
    };
    let device = hub.device("dev");
    let call = hub.hub.invoke(hub.now, device, request);
    hub.settle();
    call
}

/// A connected device that takes method calls.
fn with_methods() -> (HubHost, Station) {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::Methods);
    station.take_heard();
    (hub, station)
}

// --- twin ---

#[test]
fn get_gives_both_sections_with_their_versions() {
    let (mut hub, mut station) = connected();
    patch_desired(&mut hub, &json!({"interval": 5}));
    let (status, body) = get_twin(&mut hub, &mut station);
    let body: Value = serde_json::from_str(&body).expect("the body is JSON");
    assert_eq!(status, 200);
    assert_eq!(body, json!({"desired": {"interval": 5, "$version": 2}, "reported": {"$version": 1}}));
}

#[test]
fn reported_patches_merge_and_null_removes() {
    let (mut hub, mut station) = connected();
    assert_eq!(
        report(&mut hub, &mut station, r#"{"a":{"x":1,"y":2},"b":1}"#, None),
        (204, Some(2), String::new())
    );
    assert_eq!(
        report(&mut hub, &mut station, r#"{"a":{"x":null},"b":[1]}"#, None),
        (204, Some(3), String::new())
    );
    let reported = Value::Object(hub.record("dev").twin().reported().clone());
    assert_eq!(reported, json!({"a": {"y": 2}, "b": [1]}));
}

#[test]
fn a_report_for_another_version_is_answered_412_and_changes_nothing() {
    let (mut hub, mut station) = connected();
    assert_eq!(report(&mut hub, &mut station, r#"{"a":1}"#, Some(1)).0, 204);
    let (status, version, body) = report(&mut hub, &mut station, r#"{"a":2}"#, Some(1));
    assert_eq!((status, version), (412, None));
    assert!(body.contains("\"errorCode\":412001"), "{body}");
    assert_eq!(hub.record("dev").twin().reported()["a"], 1);
}

#[test]
fn what_a_twin_cannot_hold_is_answered_400_with_an_error_that_sdks_read() {
    let deep = (0..12).fold("1".to_owned(), |inner, _| format!(r#"{{"a":{inner}}}"#));
    let long_name = format!(r#"{{"{}":1}}"#, "n".repeat(1025));
    let long_text = format!(r#"{{"a":"{}"}}"#, "v".repeat(4097));
    let large = format!(
        "{{{}}}",
        (0..9).map(|n| format!(r#""k{n}":"{}""#, "v".repeat(4000))).collect::<Vec<_>>().join(",")
    );
    for patch in [
        "no json",
        "[1]",
        "null",
        r#"{"a.b":1}"#,
        r#"{"$a":1}"#,
        r#"{"a b":1}"#,
        r#"{"a":4503599627370496}"#,
        r#"{"a":[null]}"#,
        &deep,
        &long_name,
        &long_text,
        &large,
    ] {
        let (mut hub, mut station) = connected();
        let (status, version, body) = report(&mut hub, &mut station, patch, None);
        let shown = &patch[..patch.len().min(40)];
        assert_eq!((status, version), (400, None), "{shown}");
        let body: Value = serde_json::from_str(&body).expect("the body is JSON");
        assert!(body["errorCode"] == 400_004 && body["message"].is_string(), "{shown}: {body}");
        assert_eq!(hub.record("dev").twin().reported_version(), 1, "{shown}");
    }
}

#[test]
fn twin_requests_of_a_device_without_api_version_are_answered_400() {
    let (mut hub, mut station) = connected_with(config("dev").with_api_version(""));
    let (status, body) = get_twin(&mut hub, &mut station);
    assert_eq!(status, 400);
    assert!(body.contains("api-version"), "{body}");
}

#[test]
fn the_2016_edition_wraps_the_twin_and_answers_a_patch_with_200() {
    let (mut hub, mut station) = connected_with(config("dev").with_api_version("2016-11-14"));
    let (_, body) = get_twin(&mut hub, &mut station);
    assert!(body.starts_with(r#"{"properties":{"desired":"#), "{body}");
    assert_eq!(report(&mut hub, &mut station, "{}", None).0, 200);
}

#[test]
fn a_desired_change_is_told_with_its_version_in_topic_and_body() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::DesiredPatches);
    assert!(matches!(station.heard.last(), Some(Heard::Twin { version: 1, .. })), "{:?}", station.heard);
    patch_desired(&mut hub, &json!({"interval": 5, "gone": null}));
    station.talk(&mut hub);
    let Some(Heard::Desired { version: 2, patch }) = station.heard.last() else {
        panic!("the change is told: {:?}", station.heard);
    };
    let patch: Value = serde_json::from_str(patch).expect("the patch is JSON");
    assert_eq!(patch, json!({"interval": 5, "gone": null, "$version": 2}));
}

#[test]
fn an_update_for_another_etag_is_refused() {
    let (mut hub, _) = connected();
    let device = hub.device("dev");
    let desired = Some(Section::Replace(serde_json::Map::new()));
    let update = TwinUpdate { desired, if_match: Some("AAAAAAAAAGM=".to_owned()), ..TwinUpdate::default() };
    assert_eq!(hub.hub.update_twin(hub.now, device, update), Err(TwinUpdateError::EtagMismatch));
}

#[test]
fn a_get_behind_a_patch_that_is_not_safe_waits_for_it() {
    let (mut hub, mut station) = connected();
    get_twin(&mut hub, &mut station);
    station.take_heard();
    hub.store = StoreMode::Held;
    let now = hub.now;
    station
        .command(&mut hub, |device, tx| device.report(now, br#"{"a":1}"#, None, tx))
        .expect("it is connected");
    station.command(&mut hub, |device, tx| device.get_twin(now, tx)).expect("it is connected");
    assert_eq!(station.heard, []);
    hub.release_store();
    station.talk(&mut hub);
    let statuses: Vec<_> = station
        .heard
        .iter()
        .map(|heard| match heard {
            Heard::Answered { status, .. } => *status,
            other => panic!("only answers come: {other:?}"),
        })
        .collect();
    assert_eq!(statuses, [204, 200]);
}

#[test]
fn a_get_does_not_show_a_desired_change_before_it_is_safe() {
    let (mut hub, mut station) = connected();
    get_twin(&mut hub, &mut station);
    station.take_heard();
    hub.store = StoreMode::Held;
    patch_desired(&mut hub, &json!({"interval": 5}));
    let now = hub.now;
    station.command(&mut hub, |device, tx| device.get_twin(now, tx)).expect("it is connected");
    assert_eq!(station.heard, []);
    hub.release_store();
    station.talk(&mut hub);
    assert!(matches!(station.heard[..], [Heard::Answered { status: 200, .. }]), "{:?}", station.heard);
}

#[test]
fn a_commit_that_is_rejected_ends_the_connection_and_a_late_word_of_it_counts_for_nothing() {
    let (mut hub, mut station) = connected();
    get_twin(&mut hub, &mut station);
    let safe = hub.record("dev").clone();
    hub.store = StoreMode::Held;
    let now = hub.now;
    station
        .command(&mut hub, |device, tx| device.report(now, br#"{"a":1}"#, None, tx))
        .expect("it is connected");
    let lost = hub.record("dev").revision();
    let device = hub.device("dev");
    hub.hub.rejected(device, safe);
    hub.settle();
    station.talk(&mut hub);
    assert_eq!(hub.closes.last().map(|close| close.rule()), Some(devicebound::Rule::StoreFailed));
    assert!(hub.record("dev").twin().reported().is_empty(), "the record starts from what is safe");

    hub.store = StoreMode::Immediate;
    station.connect(&mut hub);
    station.take_heard();
    hub.store = StoreMode::Held;
    station
        .command(&mut hub, |device, tx| device.report(now, br#"{"b":1}"#, None, tx))
        .expect("it is connected");
    hub.hub.committed(device, lost);
    hub.settle();
    station.talk(&mut hub);
    assert_eq!(station.heard, [], "the new patch is not safe");
}

// --- the device keeps up with its twin ---

#[test]
fn after_a_reconnection_the_device_reads_the_twin_again() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::DesiredPatches);
    station.cut(&mut hub);
    patch_desired(&mut hub, &json!({"interval": 7}));
    station.take_heard();
    station.connect(&mut hub);
    let Some(Heard::Twin { version: 2, document }) = station.heard.last() else {
        panic!("the twin is read again: {:?}", station.heard);
    };
    assert!(document.contains(r#""interval":7"#));
}

#[test]
fn a_notification_that_is_not_newer_than_the_twin_is_dropped() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::DesiredPatches);
    patch_desired(&mut hub, &json!({"interval": 7}));
    station.talk(&mut hub);
    station.take_heard();
    // The hub would not do that; a gateway might: the notification comes once more.
    let topic =
        TopicName::new("$iothub/twin/PATCH/properties/desired/?$version=2").expect("it is a topic name");
    let mut bytes = Vec::new();
    Publish { qos: PublishQoS::AtMostOnce, retain: false, topic, payload: br#"{"interval":7,"$version":2}"# }
        .encode(&mut bytes)
        .expect("it is short");
    let mut rest = bytes.as_slice();
    let now = hub.now;
    let action = station.device.handle(now, devicebound::device::Event::Received(&mut rest), &mut Vec::new());
    assert_eq!(action, Ok(devicebound::device::Action::Handled));
    assert_eq!(station.device.status().ignored.stale_changes, 1);
}

#[test]
fn a_request_without_answer_fails_at_its_deadline() {
    let (mut hub, mut station) = connected();
    get_twin(&mut hub, &mut station);
    station.take_heard();
    hub.store = StoreMode::Held;
    let now = hub.now;
    station.command(&mut hub, |device, tx| device.report(now, b"{}", None, tx)).expect("it is connected");
    advance(&mut hub, &mut [&mut station], Duration::from_millis(59_999));
    assert_eq!(station.heard, []);
    advance(&mut hub, &mut [&mut station], Duration::from_millis(1));
    assert!(matches!(station.heard[..], [Heard::Failed(_, RequestFailure::TimedOut)]), "{:?}", station.heard);
    hub.release_store();
    station.talk(&mut hub);
    assert_eq!(station.heard.len(), 1, "the late answer is no news");
    assert_eq!(station.device.status().ignored.late_answers, 1);
}

#[test]
fn a_lost_connection_is_made_again_after_a_second_and_a_refused_one_after_minutes() {
    let (mut hub, mut station) = connected();
    station.cut(&mut hub);
    station.take_heard();
    advance(&mut hub, &mut [&mut station], Duration::from_millis(999));
    assert_eq!(station.heard, []);
    advance(&mut hub, &mut [&mut station], Duration::from_secs(60));
    assert_eq!(station.heard, [Heard::Connected { session_present: true }]);

    let mut stranger = Station::new(config("ghost"));
    stranger.connect(&mut hub);
    assert!(
        matches!(stranger.heard[..], [Heard::Closed(close)] if matches!(close.reason(), CloseReason::Refused(..)))
    );
    stranger.take_heard();
    advance(&mut hub, &mut [&mut stranger], Duration::from_secs(119));
    assert_eq!(stranger.heard, [], "a device that is refused does not hammer");
}

#[test]
fn the_token_is_renewed_before_it_ends_and_nothing_is_lost() {
    let timing = Timing { token_lifetime: Duration::from_secs(600), ..Timing::default() };
    let (mut hub, mut station) = connected_with(config("dev").with_timing(timing));
    station.subscribe(&mut hub, Subscription::CloudMessages);
    station.take_heard();
    advance(&mut hub, &mut [&mut station], Duration::from_secs(3600));
    assert!(hub.closes.iter().all(|close| close.reason() == CloseReason::Disconnected), "{:?}", hub.closes);
    assert!((6..=8).contains(&hub.closes.len()), "{}", hub.closes.len());
}

#[test]
fn a_live_connection_ends_with_its_token() {
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    hub.step_wall(Duration::from_secs(3599));
    assert_eq!(hub.closed(link), None);
    hub.advance(Duration::from_secs(1));
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(devicebound::Rule::SasExpired));
}

// --- methods ---

#[test]
fn a_call_reaches_the_device_and_its_answer_the_caller() {
    let (mut hub, mut station) = with_methods();
    let call = invoke(&mut hub, 0).expect("the device is there");
    station.talk(&mut hub);
    let Some(Heard::Invoked { id, name, payload }) = station.heard.last().cloned() else {
        panic!("the call arrives: {:?}", station.heard);
    };
    assert_eq!((name.as_str(), payload.as_str()), ("reboot", r#"{"delay":1}"#));
    let now = hub.now;
    station
        .command(&mut hub, |device, tx| device.respond(now, id, -3, br#"{"ok":true}"#, tx))
        .expect("it is open");
    let answer = CallResult::Answered { status: -3, payload: br#"{"ok":true}"#.to_vec() };
    assert_eq!(hub.calls.get(&call), Some(&answer));
    let again = station.command(&mut hub, |device, tx| device.respond(now, id, 200, b"", tx));
    assert_eq!(again, Err(RespondError::Gone));
}

#[test]
fn several_calls_are_answered_in_any_order() {
    let (mut hub, mut station) = with_methods();
    let calls: Vec<_> = (0..3).map(|_| invoke(&mut hub, 0).expect("the device is there")).collect();
    station.talk(&mut hub);
    let ids: Vec<_> = station
        .heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Invoked { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    let now = hub.now;
    for (status, at) in [(2, 2), (0, 0), (1, 1)] {
        station
            .command(&mut hub, |device, tx| device.respond(now, ids[at], status, b"", tx))
            .expect("it is open");
    }
    for (at, call) in calls.iter().enumerate() {
        let status = i32::try_from(at).expect("three calls");
        assert_eq!(hub.calls.get(call), Some(&CallResult::Answered { status, payload: Vec::new() }));
    }
}

#[test]
fn a_call_for_a_device_that_is_away_or_did_not_subscribe_fails_with_404103() {
    let mut empty = hub(&["dev"]);
    assert_eq!(invoke(&mut empty, 0), Err(InvokeError::NotOnline));
    let (mut hub, _station) = connected();
    assert_eq!(invoke(&mut hub, 0), Err(InvokeError::NotSubscribed));
    for (error, told) in [(InvokeError::NotOnline, "connect"), (InvokeError::NotSubscribed, "subscribe")] {
        let text = error.to_string();
        assert!(text.contains("404103") && text.contains(&format!("for device to {told}")), "{text}");
    }
}

#[test]
fn a_call_that_waited_says_whether_the_device_was_away_or_did_not_subscribe() {
    let mut empty = hub(&["dev"]);
    let away = invoke(&mut empty, 10).expect("it may wait");
    advance(&mut empty, &mut [], Duration::from_secs(11));
    assert_eq!(empty.calls.get(&away), Some(&CallResult::Failed(CallFailure::NotOnline)));

    let (mut hub, mut station) = connected();
    let unheard = invoke(&mut hub, 10).expect("it may wait");
    advance(&mut hub, &mut [&mut station], Duration::from_secs(11));
    assert_eq!(hub.calls.get(&unheard), Some(&CallResult::Failed(CallFailure::NotSubscribed)));
}

#[test]
fn a_call_that_may_wait_reaches_the_device_when_it_is_there() {
    let (mut hub, mut station) = connected();
    let call = invoke(&mut hub, 20).expect("it may wait");
    advance(&mut hub, &mut [&mut station], Duration::from_secs(10));
    station.subscribe(&mut hub, Subscription::Methods);
    assert!(matches!(station.heard.last(), Some(Heard::Invoked { .. })), "{:?}", station.heard);
    advance(&mut hub, &mut [&mut station], Duration::from_secs(29));
    assert_eq!(hub.calls.get(&call), None, "the time for the answer runs from the sending");
    advance(&mut hub, &mut [&mut station], Duration::from_secs(1));
    assert_eq!(hub.calls.get(&call), Some(&CallResult::Failed(CallFailure::NoAnswer)));
}

#[test]
fn calls_that_come_to_nothing_fail_at_their_deadline_and_a_late_answer_is_ignored() {
    let (mut hub, mut station) = with_methods();
    let mut away = self::hub(&["dev"]);
    let waiting = invoke(&mut away, 20).expect("it may wait");
    away.advance(Duration::from_secs(20));
    assert_eq!(away.calls.get(&waiting), Some(&CallResult::Failed(CallFailure::NotOnline)));

    let call = invoke(&mut hub, 0).expect("the device is there");
    station.talk(&mut hub);
    let Some(Heard::Invoked { id, .. }) = station.heard.last().cloned() else { panic!("the call arrives") };
    advance(&mut hub, &mut [&mut station], Duration::from_secs(30));
    assert_eq!(hub.calls.get(&call), Some(&CallResult::Failed(CallFailure::NoAnswer)));
    let now = hub.now;
    station
        .command(&mut hub, |device, tx| device.respond(now, id, 200, b"", tx))
        .expect("the device cannot know");
    assert_eq!(hub.calls.get(&call), Some(&CallResult::Failed(CallFailure::NoAnswer)));
    assert_eq!(hub.closes, []);
}

/// A device's answer to a call, with any `$rid`.
fn answer(rid: &str) -> Vec<u8> {
    let topic = format!("$iothub/methods/res/200/?$rid={rid}");
    let topic = TopicName::new(&topic).expect("it is a topic name");
    let mut bytes = Vec::new();
    Publish { qos: PublishQoS::AtMostOnce, retain: false, topic, payload: b"" }
        .encode(&mut bytes)
        .expect("it is short");
    bytes
}

#[test]
fn an_answer_whose_request_id_is_only_the_same_number_does_not_count() {
    let (mut hub, mut station) = with_methods();
    let call = invoke(&mut hub, 0).expect("the device is there");
    station.talk(&mut hub);
    let link = station.link.expect("it is connected");
    for prefix in ["0", "%2B"] {
        hub.receive(link, &answer(&format!("{prefix}{}", call.get())));
    }
    assert_eq!(hub.calls.get(&call), None);
    hub.receive(link, &answer(&call.get().to_string()));
    assert!(matches!(hub.calls.get(&call), Some(CallResult::Answered { .. })));
}

#[test]
fn an_answer_of_another_device_does_not_count() {
    let (mut hub, mut station) = with_methods();
    hub.register(devicebound_world::fixtures::record("thief"));
    let call = invoke(&mut hub, 0).expect("the device is there");
    station.talk(&mut hub);
    let mut thief = Station::new(config("thief"));
    thief.connect(&mut hub);
    hub.receive(thief.link.expect("it is connected"), &answer(&call.get().to_string()));
    assert_eq!(hub.calls.get(&call), None);
}

#[test]
fn a_call_without_payload_reaches_the_device_as_null() {
    let (mut hub, mut station) = with_methods();
    let request = MethodRequest {
        name: "m".to_owned(),
        payload: None,
        response_timeout: Duration::from_secs(30),
        connect_timeout: Duration::ZERO,
    };
    let device = hub.device("dev");
    hub.hub.invoke(hub.now, device, request).expect("the device is there");
    hub.settle();
    station.talk(&mut hub);
    assert!(matches!(station.heard.last(), Some(Heard::Invoked { payload, .. }) if payload == "null"));
}

#[test]
fn the_rules_of_method_calls_are_kept() {
    let (mut hub, _station) = with_methods();
    let device = hub.device("dev");
    let good = MethodRequest {
        name: "m".to_owned(),
        payload: None,
        response_timeout: Duration::from_secs(30),
        connect_timeout: Duration::ZERO,
    };
    for bad in [
        MethodRequest { name: String::new(), ..good.clone() },
        MethodRequest { name: "a/b".to_owned(), ..good.clone() },
        MethodRequest { name: "a b".to_owned(), ..good.clone() },
        MethodRequest { name: "ä".to_owned(), ..good.clone() },
        MethodRequest { name: "a$b".to_owned(), ..good.clone() },
        MethodRequest { name: "m".repeat(101), ..good.clone() },
        MethodRequest { response_timeout: Duration::from_secs(4), ..good.clone() },
        MethodRequest { response_timeout: Duration::from_secs(301), ..good.clone() },
        MethodRequest { connect_timeout: Duration::from_secs(301), ..good.clone() },
        MethodRequest { payload: Some("x".repeat(131_073)), ..good.clone() },
    ] {
        assert!(matches!(hub.hub.invoke(hub.now, device, bad), Err(InvokeError::Argument(_))));
    }
}
