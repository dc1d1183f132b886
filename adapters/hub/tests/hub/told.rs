//! What the hub tells of itself: operations and numbers; and faults, which are told as well.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use devicebound::hub::{HubConfig, Limits};
use devicebound::iothub::sas;
use devicebound::packet::{Packet, Publish, PublishQoS, TopicName};
use devicebound_hub::clock::unix_time;
use devicebound_hub::observe::view::View;
use devicebound_hub::transport::tls::TlsPeer;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::client::Client;
use crate::common::{DISCONNECT, Hub, PINGREQ, PINGRESP, bytes, connect, key, puback, publish};

#[tokio::test(flavor = "local")]
async fn every_request_leaves_an_event_and_a_refused_one_says_who_asked() {
    let client = Client::start();
    client.ask("PUT", "/devices/pump", &[], json!({"deviceId": "pump"})).await;
    client.ask("POST", "/devices/pump/messages/deviceBound", &[], json!("hi")).await;
    client.ask("POST", "/twins/pump/methods", &[], json!({"methodName": "reboot"})).await;
    client.ask_as("device", "GET", "/twins/pump", &[], Value::Null).await;
    let (_, whole) = client.ask("GET", "/operations?follow=false", &[], Value::Null).await;
    assert!(whole.is_string(), "several lines are not one JSON value");
    let mut events = Vec::new();
    while let Some(entry) = client.hub.engine.operations.log.after(events.len() as u64) {
        events.push(serde_json::from_str::<Value>(&entry.line).unwrap());
    }
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let text = |name| event[name].as_str().unwrap_or_default();
            (text("category"), text("operationName"), text("statusType"), text("deviceId"))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("DeviceIdentityOperations", "create", "", "pump"),
            ("C2DCommands", "ingress", "", "pump"),
            ("DirectMethods", "send", "404103", "pump"),
            ("C2DTwinOperations", "read", "401002", "pump"),
        ]
    );
    assert_eq!(events[3]["sharedAccessPolicy"], "device");
}

#[tokio::test(flavor = "local")]
async fn a_fault_cuts_the_device_that_it_is_for_and_no_other() {
    let client = Client::start();
    let mut device = client.hub.connected(&connect()).await;
    let fault = json!({"fault": "kill-tcp"});
    let (status, _) = client.ask("POST", "/faults/demo", &[], fault.clone()).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(device.receive().await, None);
    let (status, _) = client.ask("POST", "/faults/nobody", &[], fault).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = client.ask("POST", "/faults/demo", &[], json!({"fault": "earthquake"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "local")]
async fn the_numbers_of_the_hub_are_for_who_is_on_its_machine_or_shows_a_token() {
    let client = Client::start();
    let mut device = client.hub.connected(&connect()).await;
    device.send(&publish(1, b"hello")).await;
    assert_eq!(device.receive().await, Some(puback(1)));
    device.send(DISCONNECT).await;
    client.hub.operation(2).await;

    let numbers = |peer: [u8; 4], token: Option<String>| {
        let mut request = Request::get("/metrics");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let peer = devicebound_hub::service::Peer {
            address: (peer, 1).into(),
            tls: TlsPeer { certificate: None, server_name: None },
        };
        request.extensions_mut().insert(peer);
        let router = client.router.clone();
        async move {
            let response = router.oneshot(request).await.unwrap();
            let status = response.status();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }
    };
    let (status, text) = numbers([127, 0, 0, 1], None).await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "devicebound_connections_opened_total 1",
        "devicebound_connections 0",
        "devicebound_records 1",
        r#"devicebound_connections_closed_total{rule="MQTT-3.14.4-2"} 1"#,
        r#"devicebound_packets_total{type="CONNECT"} 1"#,
        r#"devicebound_packets_total{type="PUBLISH"} 1"#,
        r#"devicebound_messages_total{kind="telemetry"} 1"#,
        r#"devicebound_bytes_total{direction="sent"} 8"#,
        "devicebound_acknowledgement_seconds_count 1",
        "devicebound_store_write_seconds_count 1",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is missing in\n{text}");
    }
    assert_eq!(numbers([192, 0, 2, 1], None).await.0, StatusCode::UNAUTHORIZED);
    let expiry = unix_time().after(std::time::Duration::from_secs(60));
    let token = sas::sign("localhost", &key(), expiry, Some("service"));
    assert_eq!(numbers([192, 0, 2, 1], Some(token)).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "local")]
async fn a_twin_request_that_is_refused_leaves_an_event_and_the_connection_goes_on() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect()).await;
    device.send(&publish_to("$iothub/twin/PATCH/properties/reported/?$rid=1", b"[1]")).await;
    device.send(&publish_to("$iothub/twin/PATCH/properties/reported/?$rid=2&$version=9", b"{}")).await;
    for (count, status, rule) in [(2, 400, "HUB-TWIN-JSON"), (3, 412, "HUB-TWIN-VERSION")] {
        let event = hub.operation(count).await;
        assert_eq!(
            (event["category"].as_str(), event["operationName"].as_str()),
            (Some("D2CTwinOperations"), Some("update"))
        );
        assert_eq!(
            (event["statusCode"].as_u64(), event["rule"].as_str()),
            (Some(status), Some(rule)),
            "{event}"
        );
        assert_eq!(event["deviceId"], "demo");
    }
    device.send(PINGREQ).await;
    assert_eq!(device.receive().await.as_deref(), Some(PINGRESP));
}

#[tokio::test(flavor = "local")]
async fn twins_that_devices_read_and_change_are_told_to_who_follows_and_to_nobody_else() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect()).await;
    let requests = [
        publish_to("$iothub/twin/GET/?$rid=1", b""),
        publish_to("$iothub/twin/PATCH/properties/reported/?$rid=2", b"{}"),
    ];
    let mut ask = async || {
        for request in &requests {
            device.send(request).await;
        }
        device.send(PINGREQ).await;
        assert_eq!(device.receive().await.as_deref(), Some(PINGRESP));
    };
    ask().await;
    assert_eq!(hub.engine.operations.log.newest(), 1, "nothing but the connection is told");
    let follower = hub.engine.operations.log.follow();
    ask().await;
    drop(follower);
    ask().await;
    assert_eq!(hub.engine.operations.log.newest(), 3);
    for (cursor, operation) in [(2, "read"), (3, "update")] {
        let event = hub.operation(cursor).await;
        for (name, value) in [
            ("category", "D2CTwinOperations"),
            ("operationName", operation),
            ("level", "Information"),
            ("deviceId", "demo"),
        ] {
            assert_eq!(event[name], value, "{event}");
        }
    }
}

#[tokio::test(flavor = "local")]
async fn a_reader_of_operations_counts_as_a_follower_until_it_hangs_up() {
    let client = Client::start();
    let log = &client.hub.engine.operations.log;
    let ask = |query: &str| {
        let expiry = unix_time().after(std::time::Duration::from_secs(60));
        let token = sas::sign("localhost", &key(), expiry, Some("service"));
        let request = Request::get(format!("/operations?{query}")).header("authorization", token);
        client.router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let response = ask("follow=true").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(log.is_followed());
    drop(response);
    assert!(!log.is_followed());
    let _response = ask("follow=false").await.unwrap();
    assert!(!log.is_followed());
}

#[tokio::test(flavor = "local")]
async fn a_message_that_nobody_gets_any_more_leaves_an_event() {
    let limits = Limits { delivery_count: 1, ..Limits::default() };
    let config = HubConfig { limits, ..HubConfig::default() };
    let client = Client::of(Hub::start_as(config, View::default(), 2));
    let path = "/devices/demo/messages/deviceBound";
    client.ask("POST", path, &[("iothub-messageid", "m1"), ("iothub-ack", "full")], json!("hi")).await;
    let (status, headers, _) = client.exchange("device", "GET", path, &[], Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let lock = headers["etag"].to_str().unwrap().trim_matches('"');
    let abandon = format!("{path}/{lock}/abandon");
    let (status, _) = client.ask_as("device", "POST", &abandon, &[], Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let event = client.hub.operation(2).await;
    for (name, value) in [
        ("category", "C2DCommands"),
        ("operationName", "messageDeliveryCountExceeded"),
        ("level", "Error"),
        ("deviceId", "demo"),
        ("messageId", "m1"),
        ("deliveryAcknowledgement", "Full"),
    ] {
        assert_eq!(event[name], value, "{event}");
    }
    assert_eq!((event["deliveryCount"].as_u64(), event["messageSizeInBytes"].as_u64()), (Some(1), Some(4)));
}

/// A PUBLISH at QoS 0.
fn publish_to(topic: &str, payload: &[u8]) -> Vec<u8> {
    let topic = TopicName::new(topic).unwrap();
    bytes(Packet::Publish(Publish { qos: PublishQoS::AtMostOnce, retain: false, topic, payload }))
}
