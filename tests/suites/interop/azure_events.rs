//! Azure's Event Hubs SDK for Python, unmodified, over TLS (5671) and over WebSocket (443); and the part of Azure's service SDK
//! that speaks AMQP.

use devicebound_testkit::interop::service::Method;
use devicebound_testkit::interop::{Hub, Sdk};
use devicebound_testkit::site;
use serde_json::{Value, json};

/// Makes a test of each scenario, over TLS.
macro_rules! over_tls {
    ($($scenario:ident),+ $(,)?) => {
        $(#[test] fn $scenario() {
            let hub = Hub::on_azure_ports(site!());
            let sdk = Sdk::events(site!(), &hub, "tls");
            scenarios::$scenario(&hub, sdk);
        })+
    };
}

/// The same over WebSocket; left out, loudly, where 443 may not be had: the SDK knows no other port.
macro_rules! over_websocket {
    ($($scenario:ident),+ $(,)?) => {
        mod websocket {
            use super::{Hub, Sdk, scenarios, site};

            $(#[test] fn $scenario() {
                let name = concat!("the Event Hubs SDK over WebSocket, ", stringify!($scenario));
                if let Some(hub) = Hub::on_azure_ports_with_443(site!(), name) {
                    let sdk = Sdk::events(site!(), &hub, "websocket");
                    scenarios::$scenario(&hub, sdk);
                }
            })+
        }
    };
}

over_tls!(
    what_devices_sent_is_received_from_each_kind_of_position,
    a_message_of_256_kb_arrives_whole,
    a_reader_with_a_higher_owner_level_takes_a_partition_over,
    a_cloud_message_reaches_its_device_and_one_for_nobody_fails,
    a_consumer_group_is_read_with_from_when_it_is_added_until_it_is_removed,
    operations_are_an_event_hub_of_their_own,
    a_wrong_key_is_refused,
);

over_websocket!(what_devices_sent_is_received_from_each_kind_of_position, a_message_of_256_kb_arrives_whole);

#[test]
fn numbers_and_offsets_are_the_same_after_a_restart() {
    let mut hub = Hub::on_azure_ports(site!());
    let mut sdk = Sdk::events(site!(), &hub, "tls");
    let _device = hub.register("dev1");
    for n in 0..3 {
        send(&hub, "dev1", format!("{n}").as_bytes());
    }
    let partition = partition_of_all(&mut sdk, 3);
    let before = sdk.run(json!({"do": "receive", "count": 3, "partition": partition}));
    hub.stop();
    hub.start_again();
    send(&hub, "dev1", b"3");
    let after = sdk.run(json!({"do": "receive", "count": 4, "partition": partition}));
    assert_eq!(after.as_array().unwrap()[..3], before.as_array().unwrap()[..]);
    assert_eq!(sequences(&after), [0, 1, 2, 3]);
    sdk.end();
}

mod scenarios {
    use super::*;

    pub(super) fn what_devices_sent_is_received_from_each_kind_of_position(hub: &Hub, mut sdk: Sdk) {
        let _device = hub.register("dev1");
        assert_eq!(
            sdk.run(json!({"do": "hub"})),
            json!({"name": "devicebound", "partitions": ["0", "1", "2", "3"]})
        );
        for n in 0..5 {
            send(hub, "dev1", format!("{{\"n\":{n}}}").as_bytes());
        }
        let partition = partition_of_all(&mut sdk, 5);
        let mut receive = |count: u64, more: Value| {
            let mut command = json!({"do": "receive", "count": count, "partition": partition});
            command.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
            sdk.run(command)
        };
        let all = receive(5, json!({}));
        assert_eq!(sequences(&all), [0, 1, 2, 3, 4]);
        assert_eq!(all[0]["body"], r#"{"n":0}"#);
        let system = &all[0]["system"];
        assert_eq!(system["iothub-connection-device-id"], "dev1");
        assert_eq!(system["iothub-message-source"], "Telemetry");
        let offset = |n: usize| all[n]["offset"].clone();
        for (more, first) in [
            (json!({"position": offset(1)}), 2),
            (json!({"position": offset(1), "inclusive": true}), 1),
            (json!({"position": 2}), 3),
            (json!({"position": 2, "inclusive": true}), 2),
            (json!({"time": 0}), 0),
            (json!({"time": all[3]["system"]["x-opt-enqueued-time"], "inclusive": true}), 3),
        ] {
            assert_eq!(sequences(&receive(1, more.clone())), [first], "{more}");
        }
        let newest = json!({"do": "partition", "id": partition});
        let properties = sdk.run(newest);
        assert_eq!(
            (&properties["beginning_sequence_number"], &properties["last_enqueued_offset"]),
            (&json!(0), &offset(4)),
            "{properties}"
        );
        sdk.end();
    }

    pub(super) fn a_message_of_256_kb_arrives_whole(hub: &Hub, mut sdk: Sdk) {
        let _device = hub.register("dev1");
        let body: Vec<u8> = (0..262_143_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
        send(hub, "dev1", &body);
        send(hub, "dev1", b"after it");
        let partition = partition_of_all(&mut sdk, 2);
        let events = sdk.run(json!({"do": "receive", "count": 2, "partition": partition}));
        assert!(events[0]["body"].as_str().is_some_and(|text| text.as_bytes() == body));
        assert_eq!(events[1]["body"], "after it");
        sdk.end();
    }

    pub(super) fn a_reader_with_a_higher_owner_level_takes_a_partition_over(hub: &Hub, mut sdk: Sdk) {
        let _device = hub.register("dev1");
        send(hub, "dev1", b"x");
        let partition = partition_of_all(&mut sdk, 1);
        sdk.run(json!({"do": "own", "partition": partition, "level": 1}));
        sdk.run(json!({"do": "own", "partition": partition, "level": 2}));
        let lost = sdk.run(json!({"do": "lost"}));
        assert_eq!(lost["level"], 1);
        assert!(lost["text"].as_str().is_some_and(|text| text.contains("amqp:link:stolen")), "{lost}");
        // Without a level, or with a lower one, there is no place beside the owner.
        let refused = sdk.fail(json!({"do": "receive", "count": 1, "partition": partition}));
        assert!(refused["text"].as_str().is_some_and(|text| text.contains("epoch 2")), "{refused}");
        sdk.end();
    }

    pub(super) fn a_consumer_group_is_read_with_from_when_it_is_added_until_it_is_removed(
        hub: &Hub,
        mut sdk: Sdk,
    ) {
        const GROUP: &str = "/eventHubEndpoints/events/ConsumerGroups/dashboard";
        let _device = hub.register("dev1");
        send(hub, "dev1", b"x");
        let partition = partition_of_all(&mut sdk, 1);
        // An owner in one group is in nobody's way in another.
        sdk.run(json!({"do": "own", "partition": partition, "level": 1}));
        let receive = json!({"do": "receive", "count": 1, "partition": partition, "group": "dashboard"});
        let refused = sdk.fail(receive.clone());
        let text = refused["text"].as_str().unwrap_or_default();
        let says = "'devicebound/ConsumerGroups/dashboard' could not be found";
        assert!(text.contains("amqp:not-found") && text.contains(says), "{text}");
        hub.service().put(GROUP, &json!({"properties": {"name": "dashboard"}}));
        assert_eq!(sequences(&sdk.run(receive)), [0]);
        sdk.run(json!({"do": "own", "partition": partition, "level": 3, "group": "DASHBOARD"}));
        let removed = hub.service().ask(Method::DELETE, GROUP, &[], b"").unwrap();
        assert_eq!(removed.status(), 200);
        let lost = sdk.run(json!({"do": "lost"}));
        assert_eq!(lost["level"], 3, "the reader of the other group goes on: {lost}");
        sdk.end();
    }

    pub(super) fn a_cloud_message_reaches_its_device_and_one_for_nobody_fails(hub: &Hub, mut sdk: Sdk) {
        let device = hub.register("dev1");
        let mut client = Sdk::connected(site!(), hub, "tls", &device);
        client.run(json!({"do": "listen"}));
        let properties = json!({"messageId": "m1", "correlationId": "c1", "n": 5});
        sdk.run(json!({"do": "send", "device": "dev1", "body": "hello", "properties": properties}));
        let message = client.expect("message");
        assert_eq!(
            (&message["message_id"], &message["correlation_id"]),
            (&json!("m1"), &json!("c1")),
            "{message}"
        );
        let refused = sdk.fail(json!({"do": "send", "device": "nobody", "body": "x", "properties": {}}));
        assert_eq!(refused["text"], "C2D message send failure");
        client.end();
        sdk.end();
    }

    pub(super) fn operations_are_an_event_hub_of_their_own(hub: &Hub, mut sdk: Sdk) {
        const ENTITY: &str = "messages/operationsMonitoringEvents";
        let _devices = ["dev1", "dev2"].map(|id| hub.register(id));
        let properties = sdk.run(json!({"do": "hub", "entity": ENTITY}));
        assert_eq!(properties, json!({"name": ENTITY, "partitions": ["0"]}));
        let mut receive = |position: Value| {
            sdk.run(json!({"do": "receive", "count": 1, "partition": "0", "entity": ENTITY, "position": position}))
        };
        let created = |events: &Value| {
            let event: Value = serde_json::from_str(events[0]["body"].as_str().unwrap()).unwrap();
            assert_eq!(event["category"], "DeviceIdentityOperations", "{event}");
            (event["operationName"].clone(), event["deviceId"].clone())
        };
        let first = receive(json!("-1"));
        assert_eq!((sequences(&first), created(&first)), (vec![0], (json!("create"), json!("dev1"))));
        let second = receive(first[0]["offset"].clone());
        assert_eq!((sequences(&second), created(&second)), (vec![1], (json!("create"), json!("dev2"))));
        sdk.end();
    }

    pub(super) fn a_wrong_key_is_refused(hub: &Hub, sdk: Sdk) {
        sdk.end();
        let mut sdk = Sdk::events_with(site!(), hub, "tls", "MDEyMzQ1Njc4OWFiY2RlZg==");
        let refused = sdk.fail(json!({"do": "hub"}));
        assert_eq!(refused["error"], "AuthenticationError", "{refused}");
        sdk.end();
    }
}

/// Sends as a device without MQTT does.
pub(crate) fn send(hub: &Hub, device: &str, body: &[u8]) {
    let path = format!("/devices/{device}/messages/events");
    let (status, text) = hub.service().try_post(&path, body).unwrap();
    assert_eq!(status, 204, "{text}");
}

/// The partition that has all of so many events, and the others none.
pub(crate) fn partition_of_all(sdk: &mut Sdk, count: i64) -> String {
    let mut found = Vec::new();
    for id in ["0", "1", "2", "3"] {
        let properties = sdk.run(json!({"do": "partition", "id": id}));
        match properties["last_enqueued_sequence_number"].as_i64() {
            Some(-1) => assert_eq!(properties["is_empty"], true),
            last => {
                assert_eq!(last, Some(count - 1), "{properties}");
                found.push(id.to_owned());
            }
        }
    }
    assert_eq!(found.len(), 1, "a device stays with its partition");
    found.remove(0)
}

pub(crate) fn sequences(events: &Value) -> Vec<i64> {
    events.as_array().into_iter().flatten().filter_map(|event| event["sequence"].as_i64()).collect()
}
