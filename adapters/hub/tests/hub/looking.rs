//! What the hub shows of a device beyond Azure's API: its live connection, and the messages that wait.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::client::Client;
use crate::common::connect_with;

#[tokio::test(flavor = "local")]
async fn a_live_connection_shows_where_it_comes_from_and_when_its_credential_expires() {
    let client = Client::start();
    let (status, offline) = client.ask("GET", "/connections/demo", &[], Value::Null).await;
    let never = json!({"connectionState": "Disconnected", "since": null, "lastActivityTime": null});
    assert_eq!((status, offline), (StatusCode::OK, never));

    let connect = connect_with("demo", "&DeviceClientType=py-azure-iot-device", 60, None);
    let _device = client.hub.connected(&connect).await;
    let (_, shown) = client.ask("GET", "/connections/demo", &[], Value::Null).await;
    assert_eq!(shown["connectionState"], "Connected");
    assert_eq!(shown["address"], "127.0.0.1:1");
    assert_eq!(shown["credential"], "token by the primary key");
    assert_eq!(shown["sdk"], "py-azure-iot-device");
    assert_eq!(shown["apiVersion"], "2021-04-12");
    assert_eq!(shown["cleanSession"], true);
    assert_eq!(shown["subscriptions"], json!([]));
    for time in ["since", "lastActivityTime", "credentialExpires"] {
        assert!(shown[time].as_str().is_some_and(|time| time.ends_with('Z')), "{time}: {shown}");
    }

    let (status, _) = client.ask("GET", "/connections/nobody", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "local")]
async fn a_queue_shows_each_message_that_waits_with_its_deliveries_and_locks() {
    let client = Client::start();
    for (id, ack) in [("first", "full"), ("second", "none")] {
        let headers = [("iothub-messageid", id), ("iothub-ack", ack)];
        client.ask("POST", "/devices/demo/messages/deviceBound", &headers, json!("hi")).await;
    }
    let headers = [("iothub-messagelocktimeout", "60")];
    client.ask("GET", "/devices/demo/messages/deviceBound", &headers, Value::Null).await;

    let (status, queue) = client.ask("GET", "/queues/demo", &[], Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let row = |index: usize| {
        let message = &queue[index];
        (message["messageId"].as_str().unwrap(), message["ack"].as_str().unwrap(), &message["locked"])
    };
    assert_eq!(row(0), ("first", "full", &json!(true)));
    assert_eq!(row(1), ("second", "none", &json!(false)));
    assert_eq!(queue[1]["deliveryCount"], 0);
    assert_eq!(queue[1]["body"], "ImhpIg==");
    assert_eq!(queue.as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "local")]
async fn several_streams_come_over_one_connection_and_each_event_says_whose_it_is() {
    let client = Client::start();
    let message = [("iothub-messageid", "m")];
    client.ask("POST", "/devices/demo/messages/events", &message, json!({"temperature": 21.5})).await;
    client.ask("GET", "/twins/demo", &[], Value::Null).await;

    let of = ["/messages/events?deviceId=demo&follow=false", "/operations?follow=false"];
    let of = of.map(|path| format!("of={}", path.replace('?', "%3F").replace('&', "%26"))).join("&");
    let (status, text) = client.ask("GET", &format!("/streams?{of}"), &[], Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let text = text.as_str().unwrap();
    let events_of = |number: usize| {
        let parts = text.split("event: of\ndata: ").filter(|part| part.starts_with(&format!("{number}\n")));
        parts.collect::<String>()
    };
    assert!(
        events_of(0).contains("\"message-id\":\"m\"") && !events_of(0).contains("C2DTwinOperations"),
        "{text}"
    );
    assert!(events_of(1).contains("C2DTwinOperations") && !events_of(1).contains("message-id"), "{text}");

    let ahead = "of=/operations%3Fafter%3D99%26follow%3Dfalse";
    let (_, text) = client.ask("GET", &format!("/streams?{ahead}"), &[], Value::Null).await;
    let text = text.as_str().unwrap();
    assert!(text.contains("event: restarted") && text.contains("C2DTwinOperations"), "{text}");

    let nine = ["of=/operations"; 9].join("&");
    for wrong in ["of=/devices", "of=/operations%3Fafter%3Dnever", "", &nine] {
        let (status, _) = client.ask("GET", &format!("/streams?{wrong}"), &[], Value::Null).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}
