//! A connection between a transport and the machine, over pipes in memory.

use crate::common::{
    ACCEPTED, DISCONNECT, Device, Hub, PINGREQ, PINGRESP, REFUSED, connect, connect_as, connect_with,
    connect_with_will, puback, publish,
};
use devicebound_hub::server::connection;
use devicebound_hub::store::Store as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "local")]
async fn puback_waits_until_the_message_is_stored_and_pingresp_does_not() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect()).await;
    hub.store.close();
    device.send(&publish(1, b"hello")).await;
    device.send(PINGREQ).await;
    assert_eq!(device.receive().await.as_deref(), Some(PINGRESP));
    assert!(hub.store.messages().is_empty());
    hub.store.open();
    assert_eq!(device.receive().await, Some(puback(1)));
    assert_eq!(hub.store.messages()[0]["body"], "aGVsbG8=");
}

#[tokio::test(flavor = "local")]
async fn a_store_that_fails_ends_the_connection_and_acknowledges_nothing() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect()).await;
    hub.store.fail();
    device.send(&publish(1, b"hello")).await;
    assert_eq!(device.receive().await, None);
    assert_eq!(hub.operation(2).await["rule"], "HUB-STORE");
}

#[tokio::test(flavor = "local")]
async fn a_lost_connection_sends_the_will() {
    let hub = Hub::start();
    let device = hub.connected(&connect_with_will()).await;
    drop(device);
    hub.store.telemetry().wait_after(0).await;
    let messages = hub.store.messages();
    assert_eq!(messages[0]["body"], "bGFzdCB3b3Jkcw==");
    assert_eq!(messages[0]["properties"]["iothub-MessageType"], "Will");
}

#[tokio::test(flavor = "local")]
async fn disconnect_right_before_the_end_of_the_stream_keeps_the_will_back() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect_with_will()).await;
    device.send(DISCONNECT).await;
    drop(device);
    assert_eq!(hub.operation(2).await["level"], "Information");
    // What is stored after the will would have been.
    let mut device = hub.connected(&connect()).await;
    device.send(&publish(1, b"next")).await;
    assert_eq!(device.receive().await, Some(puback(1)));
    assert_eq!(hub.store.messages().len(), 1);
}

#[tokio::test(flavor = "local")]
async fn disconnect_counts_even_when_the_device_is_gone_before_it_was_answered() {
    let hub = Hub::start();
    let mut first = connect_with_will();
    first.extend(publish(1, b"hello"));
    // Every write fails, as to a socket whose other end is closed; what it said is read in two steps.
    let (writer, _) = tokio::io::duplex(64);
    let reader = std::io::Cursor::new(first).chain(DISCONNECT);
    connection::adopt(&hub.engine, tokio::io::join(reader, writer), ([127, 0, 0, 1], 1).into(), None, None);
    assert_eq!(hub.operation(2).await["level"], "Information");
}

#[tokio::test(flavor = "local")]
async fn all_that_was_sent_before_the_end_of_the_stream_counts() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect_with_will()).await;
    // More than may wait for the store at a time, so that the hub has to stop reading in between.
    let mut sent: Vec<u8> = (1..=100).flat_map(|id| publish(id, b"x")).collect();
    sent.extend_from_slice(DISCONNECT);
    device.send(&sent).await;
    device.stream.shutdown().await.unwrap();
    hub.store.telemetry().wait_after(99).await;
    // Who says DISCONNECT does not wait for what is still owed; what comes is in order.
    let mut acknowledged = 0;
    while let Some(packet) = device.receive().await {
        acknowledged += 1;
        assert_eq!(packet, puback(acknowledged));
    }
    assert_eq!(hub.operation(2).await["level"], "Information");
}

#[tokio::test(flavor = "local")]
async fn who_closes_without_reading_what_is_owed_is_heard_to_the_end() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect_with_will()).await;
    let mut sent: Vec<u8> = (1..=100).flat_map(|id| publish(id, b"x")).collect();
    sent.extend_from_slice(DISCONNECT);
    device.send(&sent).await;
    // From here on the hub cannot write, as behind a reset.
    drop(device);
    assert_eq!(hub.operation(2).await["level"], "Information");
    hub.store.telemetry().wait_after(99).await;
    assert_eq!(hub.store.messages().len(), 100, "no will");
}

#[tokio::test(flavor = "local")]
async fn a_transport_that_takes_a_byte_at_a_time_carries_everything() {
    let hub = Hub::start();
    let (mut reading, mut writing) = tokio::io::split(hub.transport(1));
    let mut sent = connect();
    (1..=20).for_each(|id| sent.extend(publish(id, &vec![b'x'; 300])));
    let mut expected = ACCEPTED.to_vec();
    (1..=20).for_each(|id| expected.extend(puback(id)));
    let mut received = vec![0; expected.len()];
    let (written, read) = tokio::join!(writing.write_all(&sent), reading.read_exact(&mut received));
    written.unwrap();
    read.unwrap();
    assert_eq!(received, expected);
}

#[tokio::test(flavor = "local")]
async fn a_message_as_large_as_allowed_passes() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect()).await;
    device.send(&publish(1, &vec![b'x'; 262_144])).await;
    assert_eq!(device.receive().await, Some(puback(1)));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn silence_ends_the_connection_after_one_and_a_half_times_the_keep_alive() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect_as("demo", 10, None)).await;
    let began = tokio::time::Instant::now();
    assert_eq!(device.receive().await, None);
    assert_eq!(began.elapsed().as_secs(), 15);
    let event = hub.operation(2).await;
    assert_eq!((&event["rule"], &event["statusType"]), (&json!("MQTT-3.1.2-24"), &json!("404104")));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_that_never_says_who_it_is_ends() {
    let hub = Hub::start();
    let mut device = Device::new(hub.transport(1024));
    device.send(&connect()[..10]).await;
    assert_eq!(device.receive().await, None);
    assert_eq!(hub.operation(1).await["operationName"], "deviceConnect");
}

#[tokio::test(flavor = "local")]
async fn the_second_connection_of_an_identity_ends_the_first() {
    let hub = Hub::start();
    let mut first = hub.connected(&connect()).await;
    let mut second = hub.connected(&connect()).await;
    assert_eq!(first.receive().await, None);
    second.send(PINGREQ).await;
    assert_eq!(second.receive().await.as_deref(), Some(PINGRESP));
}

#[tokio::test(flavor = "local")]
async fn a_broken_rule_ends_the_connection_and_is_told_with_its_bytes() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect()).await;
    device.send(&[0x34, 5, 0, 1, b'a', 0, 1]).await;
    assert_eq!(device.receive().await, None);
    let operation = hub.operation(2).await;
    assert_eq!(operation["rule"], "HUB-D2C-QOS2");
    assert!(operation["bytes"].as_str().is_some_and(|bytes| bytes.starts_with("34")), "{operation}");
}

#[tokio::test(flavor = "local")]
async fn hostile_bytes_leave_the_hub_serving_others() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect()).await;
    let cut = connect();
    for hostile in
        [&[0xff; 64][..], b"GET / HTTP/1.1\r\n\r\n", &[0x10, 0xff, 0xff, 0xff, 0x7f], &cut[..20], &[]]
    {
        let mut stranger = Device::new(hub.transport(1024));
        stranger.send(hostile).await;
        stranger.stream.shutdown().await.unwrap();
        assert_eq!(stranger.receive().await, None);
    }
    device.send(PINGREQ).await;
    assert_eq!(device.receive().await.as_deref(), Some(PINGRESP));
}

#[tokio::test(flavor = "local")]
async fn a_hub_that_stops_ends_every_connection_and_takes_no_new_one() {
    let hub = Hub::start();
    let mut device = hub.connected(&connect()).await;
    hub.engine.stop();
    hub.engine.all_closed().await;
    assert_eq!(device.receive().await, None);
    assert_eq!(hub.operation(2).await["rule"], "HUB-STOPPING");
    let mut late = Device::new(hub.transport(1024));
    assert_eq!(late.receive().await, None);
}

#[tokio::test(flavor = "local")]
async fn what_a_client_calls_its_software_stands_in_the_events_of_its_connections() {
    for (id, told) in [("demo", None), ("stranger", Some("404001"))] {
        let hub = Hub::start();
        let mut device = Device::new(hub.transport(1024));
        device.send(&connect_with(id, "&DeviceClientType=azsdk-c%2F1.0%20(x)", 60, None)).await;
        device.receive().await.expect("CONNACK");
        let event = hub.operation(1).await;
        assert_eq!(event["sdkVersion"], "azsdk-c/1.0 (x)");
        assert_eq!(event["statusType"].as_str(), told);
    }
}

#[tokio::test(flavor = "local")]
async fn who_cannot_be_authenticated_is_told_with_the_number_of_the_real_service() {
    let hub = Hub::start();
    let mut wrong = connect();
    let begin = wrong.windows(4).position(|part| part == b"sig=").unwrap() + 4;
    // A signature may begin with an escape, which would be none any more.
    let is_plain = |at: &usize| !wrong[at - 2..=*at].contains(&b'%');
    let signed = (begin..wrong.len()).find(is_plain).unwrap();
    wrong[signed] = if wrong[signed] == b'A' { b'B' } else { b'A' };
    let mut device = Device::new(hub.transport(1024));
    device.send(&wrong).await;
    assert_eq!(device.receive().await.as_deref(), Some(REFUSED));
    let event = hub.operation(1).await;
    assert_eq!((&event["rule"], &event["statusCode"]), (&json!("HUB-SAS-SIG"), &json!(401)));
    assert_eq!(event["statusType"], "401003");
}

#[tokio::test(flavor = "local")]
async fn a_refused_connection_is_told_under_the_name_that_it_gave() {
    let hub = Hub::start();
    for (name, told) in [("stranger", "stranger".to_owned()), (&"x".repeat(500), "x".repeat(128))] {
        let count = hub.engine.operations.log.newest() + 1;
        let mut device = Device::new(hub.transport(1024));
        device.send(&connect_as(name, 60, None)).await;
        while device.receive().await.is_some() {}
        let event = hub.operation(count).await;
        assert_eq!(
            (event["deviceId"].as_str(), event["operationName"].as_str()),
            (Some(&*told), Some("deviceConnect"))
        );
    }
}
