//! What back ends do with Azure's SDKs, unmodified, besides single reads: the asynchronous Event Hubs SDK for Python, the
//! service and Event Hubs SDKs for Node; and what the hub tells of them.

use devicebound_testkit::interop::service::Method;
use devicebound_testkit::interop::{Hub, Sdk};
use devicebound_testkit::site;
use serde_json::{Value, json};

use crate::azure_events::{partition_of_all, send, sequences};

#[test]
fn the_asynchronous_sdk_receives_batches_from_each_kind_of_position() {
    let hub = Hub::on_azure_ports(site!());
    let mut sync = Sdk::events(site!(), &hub, "tls");
    let mut sdk = Sdk::events_aio(site!(), &hub);
    let _device = hub.register("dev1");
    for n in 0..5 {
        send(&hub, "dev1", format!("{n}").as_bytes());
    }
    let partition = partition_of_all(&mut sync, 5);
    let told = sync.run(json!({"do": "receive", "count": 5, "partition": partition}));
    let mut batch = |count: usize, more: Value| {
        let mut command = json!({"do": "batch", "count": count, "partition": partition});
        command.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        sequences(&sdk.run(command))
    };
    assert_eq!(batch(5, json!({})), [0, 1, 2, 3, 4]);
    assert_eq!(batch(3, json!({"position": told[1]["offset"]})), [2, 3, 4]);
    assert_eq!(batch(2, json!({"position": 3, "inclusive": true})), [3, 4]);
    let time = &told[4]["system"]["x-opt-enqueued-time"];
    assert_eq!(batch(1, json!({"time": time, "inclusive": true})), [4]);
    let body = "x".repeat(262_143);
    send(&hub, "dev1", body.as_bytes());
    let large = sdk.run(json!({"do": "batch", "count": 1, "partition": partition, "position": 4}));
    assert!(large[0]["body"] == body.as_str());
    sync.end();
    sdk.end();
}

#[test]
fn two_consumers_share_the_partitions_and_go_on_after_a_restart() {
    let mut hub = Hub::on_azure_ports(site!());
    let mut sdk = Sdk::events_aio(site!(), &hub);
    let _device = hub.register("dev1");
    sdk.run(json!({"do": "follow", "consumers": 2}));
    sdk.expect_where("two partitions for each", |line| {
        line["event"] == "shares"
            && line["partitions"].as_array().unwrap().iter().all(|share| share.as_array().unwrap().len() == 2)
    });
    let received = |sdk: &mut Sdk, body: &str| {
        let line = sdk.expect_where(body, |line| line["event"] == "received" && line["body"] == body);
        line["sequence"].as_i64().unwrap()
    };
    send(&hub, "dev1", b"before");
    assert_eq!(received(&mut sdk, "before"), 0);
    hub.stop();
    hub.start_again();
    send(&hub, "dev1", b"after");
    assert_eq!(received(&mut sdk, "after"), 1, "none is lost, and the checkpoint counts");
    sdk.end();
}

/// A back end in Node reads what a device sent, and sends to it; the device reads that, and the back end hears of it.
fn node_reads_and_sends(hub: &Hub, mut sdk: Sdk) {
    let device = hub.register("dev1");
    let mut client = Sdk::connected(site!(), hub, "tls", &device);
    client.run(json!({"do": "listen"}));
    let properties = sdk.run(json!({"do": "hub"}));
    assert_eq!(properties, json!({"name": "devicebound", "partitions": ["0", "1", "2", "3"]}));
    for n in 0..3 {
        send(hub, "dev1", format!("{{\"n\":{n}}}").as_bytes());
    }
    let last = |id: &str, sdk: &mut Sdk| {
        sdk.run(json!({"do": "partition", "id": id}))["lastEnqueuedSequenceNumber"].as_i64()
    };
    let partition = ["0", "1", "2", "3"].into_iter().find(|id| last(id, &mut sdk) == Some(2)).unwrap();
    let all = sdk.run(json!({"do": "receive", "partition": partition, "count": 3}));
    assert_eq!((sequences(&all), &all[0]["body"]), (vec![0, 1, 2], &json!({"n": 0})));
    assert_eq!(all[0]["system"]["iothub-connection-device-id"], "dev1");
    let position = json!({"sequenceNumber": 0, "isInclusive": false});
    let rest = sdk.run(json!({"do": "receive", "partition": partition, "count": 2, "position": position}));
    assert_eq!(sequences(&rest), [1, 2]);

    sdk.run(json!({"do": "open"}));
    let properties = json!({"a": "b"});
    sdk.run(json!({
        "do": "send", "device": "dev1", "body": "hello", "messageId": "m1", "ack": "full", "properties": properties,
    }));
    let message = client.expect("message");
    assert_eq!(message["message_id"], "m1", "{message}");
    let feedback = sdk.expect("feedback");
    let report = &feedback["reports"][0];
    assert_eq!(
        (&report["originalMessageId"], &report["statusCode"], &report["deviceId"]),
        (&json!("m1"), &json!("Success"), &json!("dev1")),
        "{feedback}"
    );
    let refused = sdk.fail(json!({"do": "send", "device": "nobody", "body": "x"}));
    assert_eq!(refused["error"], "DeviceNotFoundError", "{refused}");
    sdk.run(json!({"do": "close"}));
    client.end();
    sdk.end();
}

#[test]
fn a_back_end_in_node_reads_and_sends_over_tls() {
    let hub = Hub::on_azure_ports(site!());
    let sdk = Sdk::node(site!(), &hub, "tls");
    node_reads_and_sends(&hub, sdk);
}

#[test]
fn a_back_end_in_node_reads_and_sends_over_websocket() {
    if let Some(hub) = Hub::on_azure_ports_with_443(site!(), "Azure's SDKs for Node over WebSocket") {
        let sdk = Sdk::node(site!(), &hub, "websocket");
        node_reads_and_sends(&hub, sdk);
    }
}

#[test]
fn a_back_end_that_is_refused_is_told_with_who_which_link_why_and_what_to_do() {
    let mut hub = Hub::on_azure_ports(site!());
    let mut sdk = Sdk::events(site!(), &hub, "tls");
    let _device = hub.register("dev1");
    sdk.run(json!({"do": "hub"}));
    let told: Value = serde_json::from_str(&hub.expect_text("amqpCredit")).unwrap();
    assert!(told["credit"].as_u64().is_some_and(|credit| credit > 0), "{told}");
    sdk.fail(json!({"do": "send", "device": "nobody", "body": "x", "properties": {}}));
    let told: Value = serde_json::from_str(&hub.expect_text("amqpRejected")).unwrap();
    for (name, expected) in [
        ("rule", json!("amqp:not-found")),
        ("policy", json!("iothubowner")),
        ("address", json!("messages/devicebound")),
        ("mend", json!("register it first: devicebound device add nobody")),
    ] {
        assert_eq!(told[name], expected, "{told}");
    }
    assert!(told["container"].as_str().is_some_and(|name| !name.is_empty()), "{told}");
    let mut metrics = hub.service().ask(Method::GET, "/metrics", &[], b"").unwrap();
    let metrics = metrics.body_mut().read_to_string().unwrap();
    assert!(metrics.contains(r#"devicebound_amqp_failures_total{rule="amqp:not-found"} 1"#), "{metrics}");
    let operations = hub.service().ask(Method::GET, "/operations?follow=false", &[], b"");
    let operations = operations.unwrap().body_mut().read_to_string().unwrap();
    for part in [r#""operationName":"amqpRejected""#, r#""protocol":"Amqp""#, r#""category":"C2DCommands""#] {
        assert!(operations.contains(part), "{part}: {operations}");
    }
    sdk.end();
}
