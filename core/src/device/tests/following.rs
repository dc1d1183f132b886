//! Desired properties that the device keeps: each change is seen once, whatever happened meanwhile.

use super::*;
use alloc::format;
use serde_json::{Value, json};

/// A device that follows, and has seen `desired` at version 3.
fn following(desired: &str) -> Bench {
    let mut bench = Bench::online();
    bench.device.follow_desired(bench.now, &mut bench.tx).unwrap();
    let asked = bench.grant_all();
    assert!(bench.device.desired().is_none());
    assert!(matches!(answer(&mut bench, &asked, 3, desired), Action::Twin(twin) if twin.version == 3));
    bench
}

/// Answers the one GET that was written with `desired`, a JSON object without its closing brace.
fn answer(bench: &mut Bench, sent: &[Sent], version: u64, desired: &str) -> Action<'static> {
    assert_eq!(sent.len(), 1, "{sent:?}");
    let rid = sent[0].topic.strip_prefix("$iothub/twin/GET/?$rid=").unwrap();
    let topic = format!("$iothub/twin/res/200/?$rid={rid}");
    let document = format!(r#"{{"desired":{desired},"$version":{version}}},"reported":{{"$version":1}}}}"#);
    bench.hear(|out| publish(&topic, PublishQoS::AtMostOnce, document.as_bytes(), out))
}

fn notify(bench: &mut Bench, version: u64, patch: &str) -> Action<'static> {
    let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
    bench.hear(|out| publish(&topic, PublishQoS::AtMostOnce, patch.as_bytes(), out))
}

#[track_caller]
fn assert_desired(action: &Action<'_>, expected_version: u64, expected_patch: &Value) {
    let Action::Desired { version, patch } = action else { panic!("{action:?}") };
    assert_eq!(
        (*version, &serde_json::from_slice::<Value>(patch).unwrap()),
        (expected_version, expected_patch)
    );
}

#[track_caller]
fn assert_kept(bench: &Bench, version: u64, properties: &Value) {
    let desired = bench.device.desired().unwrap();
    assert_eq!((desired.version(), &Value::Object(desired.properties().clone())), (version, properties));
}

#[test]
fn the_kept_properties_are_the_document_and_every_change_after_it() {
    let mut bench = following(r#"{"a":1,"b":{"c":2,"d":3}"#);
    assert_kept(&bench, 3, &json!({"a": 1, "b": {"c": 2, "d": 3}}));
    let action = notify(&mut bench, 4, r#"{"b":{"c":null,"e":4},"$version":4}"#);
    assert_desired(&action, 4, &json!({"b": {"c": null, "e": 4}, "$version": 4}));
    assert_kept(&bench, 4, &json!({"a": 1, "b": {"d": 3, "e": 4}}));
}

#[test]
fn what_changed_while_the_device_was_away_is_told_as_one_change() {
    let mut bench = following(r#"{"a":1,"b":{"c":2,"d":3}"#);
    bench.reconnect(true);
    let asked = bench.sent();
    let action = answer(&mut bench, &asked, 6, r#"{"b":{"c":2,"d":4},"e":5"#);
    assert_desired(&action, 6, &json!({"a": null, "b": {"d": 4}, "e": 5, "$version": 6}));
    assert_kept(&bench, 6, &json!({"b": {"c": 2, "d": 4}, "e": 5}));
}

#[test]
fn nothing_is_told_where_nothing_changed_while_the_device_was_away() {
    let mut bench = following(r#"{"a":1"#);
    bench.reconnect(false);
    let asked = bench.grant_all();
    assert_eq!(answer(&mut bench, &asked, 3, r#"{"a":1"#), Action::Handled);
    assert_desired(&notify(&mut bench, 4, r#"{"a":2}"#), 4, &json!({"a": 2}));
}

#[test]
fn a_missed_change_is_told_with_those_after_it() {
    let mut bench = following(r#"{"a":1"#);
    assert_eq!(notify(&mut bench, 5, r#"{"a":3}"#), Action::Handled);
    let asked = bench.sent();
    assert_desired(
        &answer(&mut bench, &asked, 5, r#"{"a":3,"b":2"#),
        5,
        &json!({"a": 3, "b": 2, "$version": 5}),
    );
}

#[test]
fn a_change_that_cannot_be_merged_is_asked_for() {
    for patch in ["", "[]", r#"{"a":"#] {
        let mut bench = following(r#"{"a":1"#);
        assert_eq!(notify(&mut bench, 4, patch), Action::Handled, "{patch}");
        assert_kept(&bench, 3, &json!({"a": 1}));
        let asked = bench.sent();
        assert_desired(&answer(&mut bench, &asked, 4, r#"{"a":2"#), 4, &json!({"a": 2, "$version": 4}));
    }
}

#[test]
fn the_kept_properties_do_not_outgrow_the_largest_packet() {
    let config = config().with_limits(Limits { packet: 1000, ..Limits::default() });
    let mut bench = Bench::online_with(config);
    bench.device.follow_desired(bench.now, &mut bench.tx).unwrap();
    let asked = bench.grant_all();
    answer(&mut bench, &asked, 3, r#"{"a":1"#);
    let half = "x".repeat(500);
    assert!(matches!(notify(&mut bench, 4, &format!(r#"{{"b":"{half}"}}"#)), Action::Desired { .. }));
    assert_eq!(notify(&mut bench, 5, &format!(r#"{{"c":"{half}"}}"#)), Action::Handled);
    assert_eq!(bench.device.desired().unwrap().version(), 4);
}

#[test]
fn a_document_that_cannot_be_read_is_asked_for_again_later() {
    let mut bench = following(r#"{"a":1"#);
    bench.reconnect(true);
    let asked = bench.sent();
    assert_eq!(answer(&mut bench, &asked, 4, r#"{"a":nonsense"#), Action::Handled);
    assert_kept(&bench, 3, &json!({"a": 1}));
    bench.wait_for_timer().unwrap();
    let asked = bench.sent();
    assert_desired(&answer(&mut bench, &asked, 4, r#"{"a":2"#), 4, &json!({"a": 2, "$version": 4}));
}

#[test]
fn to_follow_what_is_observed_already_starts_with_the_document() {
    let mut bench = Bench::subscribed(&[Subscription::DesiredPatches]);
    bench.reconnect(true);
    let asked = bench.sent();
    answer(&mut bench, &asked, 3, r#"{"a":1"#);
    bench.device.follow_desired(bench.now, &mut bench.tx).unwrap();
    let asked = bench.sent();
    assert!(matches!(answer(&mut bench, &asked, 3, r#"{"a":1"#), Action::Twin(_)));
    assert_kept(&bench, 3, &json!({"a": 1}));
}

#[test]
fn what_is_not_observed_any_more_is_not_kept() {
    let mut bench = following(r#"{"a":1"#);
    bench.device.unsubscribe(bench.now, Subscription::DesiredPatches, &mut bench.tx).unwrap();
    assert!(bench.device.desired().is_none());
}

#[test]
fn a_twin_of_the_2016_edition_is_followed_as_well() {
    let mut bench = Bench::online();
    bench.device.follow_desired(bench.now, &mut bench.tx).unwrap();
    let asked = bench.grant_all();
    let rid = asked[0].topic.strip_prefix("$iothub/twin/GET/?$rid=").unwrap();
    let topic = format!("$iothub/twin/res/200/?$rid={rid}");
    let document = br#"{"properties":{"desired":{"a":1,"$metadata":{},"$version":3},"reported":{}}}"#;
    bench.hear(|out| publish(&topic, PublishQoS::AtMostOnce, document, out));
    assert_kept(&bench, 3, &json!({"a": 1}));
}
