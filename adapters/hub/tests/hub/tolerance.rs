//! What the hub takes with a warning, and where that is told; what a strict hub refuses; what refusals show.

use std::sync::mpsc::Receiver;

use axum::http::StatusCode;
use devicebound::hub::HubConfig;
use devicebound::packet::{Packet, Publish, PublishQoS, TopicName};
use devicebound_hub::observe::view::{Format, View};
use serde_json::{Value, json};

use crate::client::{Client, message};
use crate::common::{Hub, bytes, connect, connect_as, puback};

fn start(strict: bool, format: Format) -> (Client, Receiver<String>) {
    let (view, lines) = View::lines(format);
    (Client::of(Hub::start_as(HubConfig { strict, ..HubConfig::default() }, view, 1)), lines)
}

fn events(lines: &Receiver<String>, event: &str) -> Vec<Value> {
    let lines = lines.try_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

fn telemetry(topic: &str) -> Vec<u8> {
    let topic = TopicName::new(topic).unwrap();
    bytes(Packet::Publish(Publish { qos: PublishQoS::AtMostOnce, retain: false, topic, payload: b"x" }))
}

const PINGREQ: [u8; 2] = [0xC0, 0];

#[tokio::test(flavor = "local")]
async fn a_slash_in_a_bag_is_warned_of_in_the_view_and_in_operations() {
    for (format, told) in [(Format::Text, "warning, HUB-BAG-SLASH"), (Format::Json, r#""event":"warning""#)] {
        let (client, lines) = start(false, format);
        let mut device = client.hub.connected(&connect()).await;
        device.send(&telemetry("devices/demo/messages/events/cmnd/POWER")).await;
        device.send(&PINGREQ).await;
        assert!(device.receive().await.is_some());
        let lines: Vec<String> = lines.try_iter().collect();
        let line = lines.iter().find(|line| line.contains(told)).unwrap();
        assert!(line.contains("cmnd/POWER") && line.contains("cmnd%2FPOWER"), "{line}");
        let event = client.hub.operation(2).await;
        assert_eq!(
            (&event["rule"], &event["level"]),
            (&json!("HUB-BAG-SLASH"), &json!("Warning")),
            "{event}"
        );
        assert_eq!(
            (&event["received"], &event["category"]),
            (&json!("cmnd/POWER"), &json!("DeviceTelemetry"))
        );
    }
}

#[tokio::test(flavor = "local")]
async fn members_that_a_registration_does_not_have_are_warned_of_or_refused() {
    let body = json!({"authentication": {"SymmetricKey": {"primaryKey": "x"}}, "Tags": 1});
    let (client, lines) = start(false, Format::Json);
    let (status, _) = client.ask("PUT", "/devices/new", &[], body.clone()).await;
    assert_eq!(status, StatusCode::OK);
    let [warning] = &events(&lines, "warning")[..] else { panic!("one warning") };
    assert_eq!((&warning["rule"], &warning["device"]), (&json!("HUB-REGISTRATION-MEMBER"), &json!("new")));
    assert_eq!(warning["received"], "unknown members Tags, authentication.SymmetricKey");

    let (strict, lines) = start(true, Format::Json);
    let (status, answer) = strict.ask("PUT", "/devices/new", &[], body).await;
    assert_eq!((status, events(&lines, "warning").len()), (StatusCode::BAD_REQUEST, 0));
    assert!(message(&answer).contains("authentication.SymmetricKey"), "{answer}");
    let (status, _) = strict.ask("GET", "/devices/new", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // What was read can be sent back, to a strict hub too.
    let (_, read) = strict.ask("GET", "/devices/demo", &[], Value::Null).await;
    let (status, answer) = strict.ask("PUT", "/devices/demo", &[("if-match", "*")], read).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test(flavor = "local")]
async fn what_a_device_is_to_iot_edge_is_kept_and_shown() {
    let client = Client::start();
    let (_, edge) = client.ask("PUT", "/devices/edge", &[], json!({"capabilities": {"iotEdge": true}})).await;
    let scope = edge["deviceScope"].as_str().unwrap().to_owned();
    assert!(scope.starts_with("ms-azure-iot-edge://edge-"), "{edge}");
    let (status, _) = client.ask("PUT", "/devices/leaf", &[], json!({"deviceScope": scope})).await;
    assert_eq!(status, StatusCode::OK);
    for path in ["/devices/leaf", "/twins/leaf"] {
        let (_, leaf) = client.ask("GET", path, &[], Value::Null).await;
        assert_eq!((&leaf["deviceScope"], &leaf["parentScopes"]), (&json!(scope), &json!([scope])), "{leaf}");
        assert_eq!(leaf["capabilities"]["iotEdge"], false);
    }
    let (_, edge) = client.ask("GET", "/twins/edge", &[], Value::Null).await;
    assert_eq!(
        (&edge["capabilities"]["iotEdge"], &edge["parentScopes"]),
        (&json!(true), &json!([])),
        "{edge}"
    );
    let nested = json!({"capabilities": {"iotEdge": true}, "parentScopes": [scope]});
    client.ask("PUT", "/devices/lower", &[], nested).await;
    let (_, lower) = client.ask("GET", "/devices/lower", &[], Value::Null).await;
    assert_eq!(lower["parentScopes"], json!([scope]));
}

#[tokio::test(flavor = "local")]
async fn a_scope_that_no_edge_device_has_is_refused_and_that_of_an_edge_device_stays() {
    let client = Client::start();
    let (_, edge) = client.ask("PUT", "/devices/edge", &[], json!({"capabilities": {"iotEdge": true}})).await;
    let scope = edge["deviceScope"].as_str().unwrap().to_owned();
    let (_, leaf) = client.ask("PUT", "/devices/leaf", &[], json!({"deviceScope": scope})).await;
    assert_eq!(
        client.ask("PUT", "/devices/leaf", &[("if-match", "*")], leaf.clone()).await.0,
        StatusCode::OK
    );
    for wrong in
        ["ms-azure-iot-edge://edge-1", "ms-azure-iot-edge://none-1", "ms-azure-iot-edge://demo-1", "x"]
    {
        for body in [json!({"deviceScope": wrong}), json!({"parentScopes": [wrong]})] {
            for (path, etag) in [("/devices/leaf", Some("*")), ("/devices/new", None)] {
                let headers: Vec<(&str, &str)> = etag.into_iter().map(|etag| ("if-match", etag)).collect();
                let (status, refused) = client.ask("PUT", path, &headers, body.clone()).await;
                assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
                assert!(message(&refused).contains("no Edge device has the scope"), "{refused}");
            }
        }
    }
    let (_, same) = client.ask("GET", "/devices/leaf", &[], Value::Null).await;
    assert_eq!(same["deviceScope"], scope);
    let mut other = edge;
    other["deviceScope"] = "ms-azure-iot-edge://edge-7".into();
    let (status, kept) = client.ask("PUT", "/devices/edge", &[("if-match", "*")], other).await;
    assert_eq!((status, &kept["deviceScope"]), (StatusCode::OK, &json!(scope)), "{kept}");
}

#[tokio::test(flavor = "local")]
async fn every_400_of_a_twin_names_the_property_and_a_null_section_empties_it() {
    let client = Client::start();
    client.ask("PUT", "/devices/demo/modules/m", &[], json!({})).await;
    for twin in ["/twins/demo", "/twins/demo/modules/m"] {
        for (method, body, told) in [
            ("PUT", json!({"tags": {"my-tag": null}}), "tags.my-tag"),
            ("PUT", json!({"properties": {"desired": {"a": {"b": null}}}}), "properties.desired.a.b"),
            ("PATCH", json!({"properties": {"desired": {"a": {"b#": 1}}}}), "properties.desired.a.b#"),
            ("PATCH", json!({"tags": {"x": [null]}}), "tags.x[0]"),
            ("PATCH", json!({"properties": {"desired": "x"}}), "properties.desired: a string"),
        ] {
            let (status, answer) = client.ask(method, twin, &[], body.clone()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
            assert!(message(&answer).contains(told), "{answer}");
        }
        let full = json!({"properties": {"desired": {"a": 1, "b": {"c": 2}}}, "tags": {"t": 1}});
        client.ask("PATCH", twin, &[], full).await;
        let nulls = json!({"properties": {"desired": null}, "tags": null});
        let (status, answer) = client.ask("PATCH", twin, &[], nulls).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let desired = answer["properties"]["desired"].as_object().unwrap();
        assert!(desired.keys().all(|name| name.starts_with('$')), "{answer}");
        assert_eq!((&answer["tags"], &desired["$version"]), (&json!({}), &json!(3)));
    }
}

#[tokio::test(flavor = "local")]
async fn a_refused_connect_is_told_with_what_came_and_what_was_expected() {
    for (format, told) in [(Format::Text, "received: "), (Format::Json, r#""received":"#)] {
        let (client, lines) = start(false, format);
        let mut device = crate::common::Device::new(client.hub.transport(1024));
        device.send(&connect_as("ghost", 60, None)).await;
        assert_eq!(device.receive().await.as_deref(), Some(&[0x20, 2, 0, 5][..]));
        assert_eq!(device.receive().await, None);
        let lines: Vec<String> = lines.try_iter().collect();
        assert!(lines.iter().any(|line| line.contains(told) && line.contains("ghost")), "{lines:?}");
        let event = client.hub.operation(1).await;
        assert_eq!((&event["received"], &event["rule"]), (&json!("ghost"), &json!("HUB-DEVICE-UNKNOWN")));
    }
}

#[tokio::test(flavor = "local")]
async fn a_puback_for_nothing_is_not_shown_as_a_completed_message() {
    let (client, lines) = start(false, Format::Json);
    let mut device = client.hub.connected(&connect()).await;
    device.send(&puback(99)).await;
    device.send(&PINGREQ).await;
    assert!(device.receive().await.is_some());
    let lines: Vec<Value> = lines.try_iter().map(|line| serde_json::from_str(&line).unwrap()).collect();
    let shown = lines.iter().find(|line| line["packet"] == "PUBACK").unwrap();
    assert_eq!(shown["text"], "PUBACK, id 99: for no message that was sent");
    assert!(lines.iter().any(|line| line["rule"] == "MQTT-4.3.2-1"), "{lines:?}");
}
