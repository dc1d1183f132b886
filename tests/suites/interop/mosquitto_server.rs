//! Both device adapters against Debian's mosquitto, a server that nobody here wrote: what MQTT 3.1.1 asks of a client, as
//! somebody else has read it. What is Azure's own it does not know.

#![allow(clippy::panic, reason = "what must not be heard stops the test where it is heard")]

use std::thread;
use std::time::Duration;

use devicebound::Device;
use devicebound::device::{Action, DeviceConfig, Message, Timing};
use devicebound::iothub::Subscription;
use devicebound_blocking::{Client, Offline, Tls};
use devicebound_testkit::drive::{Drive, OnTokio, Waiting};
use devicebound_testkit::interop::Broker;
use devicebound_testkit::interop::broker::Over;
use devicebound_tokio::Client as TokioClient;
use devicebound_world::fixtures;

const HOST: &str = "localhost";

/// The device `dev`, which connects again at once.
fn config() -> DeviceConfig {
    let [reconnect_min, reconnect_max] = [1, 10].map(Duration::from_millis);
    let timing = Timing { reconnect_min, reconnect_max, ..Timing::default() };
    fixtures::config_at(HOST, "dev").with_timing(timing)
}

fn blocking(config: DeviceConfig, tls: Tls) -> impl Drive + Send {
    Client::new(Device::new(config).expect("the config is good"), tls)
}

fn tokio(config: DeviceConfig, tls: Tls) -> impl Drive + Send {
    let client = TokioClient::new(Device::new(config).expect("the config is good"), tls);
    OnTokio::new(client, Waiting::Patiently)
}

/// Whether that is the connection, with this word about the session.
fn is_connected(next: &Result<Action<'_>, Offline>, present: bool) -> bool {
    matches!(next, Ok(Action::Connected { session_present }) if *session_present == present)
}

// --- a session that outlives its connection ---

fn a_session_is_resumed<D: Drive>(mut broker: Broker, client: fn(DeviceConfig, Tls) -> D) {
    let mut first = client(config(), broker.tls());
    first.device().subscribe(Subscription::CloudMessages).expect("there is room");
    let mut heard = Vec::new();
    first.drive(|_, next| {
        heard.push(format!("{next:?}"));
        matches!(next, Ok(Action::Subscribed(_)))
    });
    assert_eq!(heard, ["Ok(Connected { session_present: false })", "Ok(Subscribed(CloudMessages))"]);
    broker.expect("p2, c0, k60, u'localhost/dev/?api-version=2021-04-12");
    broker.expect("Sending CONNACK to dev (0, 0)");
    first.close();
    broker.expect("Received DISCONNECT from dev");

    let mut second = client(config(), broker.tls());
    second.drive(|_, next| {
        assert!(is_connected(&next, true), "{next:?}");
        true
    });
    broker.expect("Sending CONNACK to dev (1, 0)");
}

#[test]
fn a_blocking_device_resumes_the_session_that_it_left() {
    a_session_is_resumed(Broker::start(Over::Tls), blocking);
}

#[test]
fn a_tokio_device_resumes_the_session_that_it_left() {
    a_session_is_resumed(Broker::start(Over::Tls), tokio);
}

#[test]
fn a_blocking_device_resumes_the_session_that_it_left_over_websocket() {
    a_session_is_resumed(Broker::start(Over::WebSocket), blocking);
}

#[test]
fn a_tokio_device_resumes_the_session_that_it_left_over_websocket() {
    a_session_is_resumed(Broker::start(Over::WebSocket), tokio);
}

// --- a message whose acknowledgement is lost ---

fn a_message_is_sent_again_with_dup(mut broker: Broker, mut client: impl Drive + Send) {
    let relay = broker.relay();
    let mut heard = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            client.drive(|device, next| {
                if is_connected(&next, false) {
                    relay.mute(); // so that no PUBACK comes
                    device.telemetry(Message::new(b"21.5")).expect("there is room");
                }
                let acknowledged = matches!(next, Ok(Action::Acknowledged(_)));
                // The words about the cut differ with the moment at which it is noticed.
                heard.extend(next.ok().map(|action| format!("{action:?}")));
                acknowledged
            });
        });
        broker.expect("Received PUBLISH from dev (d0, q1, r0, m1, 'devices/dev/messages/events/'");
        broker.expect("Sending PUBACK to dev (m1");
        broker.relay().cut();
    });
    broker.expect("Received PUBLISH from dev (d1, q1, r0, m1, 'devices/dev/messages/events/'");
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert_eq!(heard[1], "Connected { session_present: true }");
}

#[test]
fn a_blocking_device_sends_again_with_dup_what_was_not_acknowledged_before_the_cut() {
    let broker = Broker::start(Over::Tls);
    let client = blocking(config(), broker.tls());
    a_message_is_sent_again_with_dup(broker, client);
}

#[test]
fn a_tokio_device_sends_again_with_dup_what_was_not_acknowledged_before_the_cut() {
    let broker = Broker::start(Over::Tls);
    let client = tokio(config(), broker.tls());
    a_message_is_sent_again_with_dup(broker, client);
}

// --- keep alive ---

fn an_idle_connection_is_kept(mut broker: Broker, mut client: impl Drive + Send) {
    let relay = broker.relay();
    let mut heard = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            client.drive(|_, next| {
                heard.push(next.is_ok());
                next.is_err()
            });
        });
        // No second PINGREQ is sent before the first is answered.
        for _ in 0..2 {
            broker.expect("Received PINGREQ from dev");
            broker.expect("Sending PINGRESP to dev");
        }
        relay.cut();
    });
    assert_eq!(heard, [true, false], "one connection, which lasted until the cut");
}

#[test]
fn a_blocking_device_keeps_an_idle_connection() {
    let broker = Broker::start(Over::Tls);
    let client = blocking(config().with_keep_alive(1), broker.tls());
    an_idle_connection_is_kept(broker, client);
}

#[test]
fn a_tokio_device_keeps_an_idle_connection() {
    let broker = Broker::start(Over::Tls);
    let client = tokio(config().with_keep_alive(1), broker.tls());
    an_idle_connection_is_kept(broker, client);
}
