//! The blocking and the tokio adapter over WebSocket and through a proxy.

#![allow(clippy::panic, reason = "what must not be heard stops the test where it is heard")]

use devicebound::Device;
use devicebound::device::{Action, Message};
use devicebound::packet::QoS;
use devicebound_blocking::{Client, Tls};
use devicebound_testkit::connect_proxy::Admission;
use devicebound_testkit::drive::{Drive, OnTokio, Waiting, no_transport};
use devicebound_testkit::socket_hub::{HOST, SocketHub};
use devicebound_testkit::walk::{self, Walk};
use devicebound_tokio::{Client as TokioClient, TlsSocket};
use devicebound_world::fixtures;

fn hub() -> SocketHub {
    SocketHub::start(fixtures::record("dev"))
}

fn tokio(device: Device, tls: Tls, waiting: Waiting) -> OnTokio<TlsSocket> {
    OnTokio::new(TokioClient::new(device, tls), waiting)
}

// --- WebSocket ---

#[test]
fn a_blocking_device_walks_through_the_dialect_over_websocket_and_connects_again_when_it_is_cut() {
    let hub = hub();
    let client = Client::new(walk::device(HOST), hub.websocket());
    Walk::of(client, hub).assert_complete();
}

#[test]
fn a_tokio_device_walks_through_the_dialect_over_websocket_and_connects_again_when_it_is_cut() {
    let hub = hub();
    let client = tokio(walk::device(HOST), hub.websocket(), Waiting::Patiently);
    Walk::of(client, hub).assert_complete();
}

#[test]
fn a_tokio_device_loses_no_byte_over_websocket_when_every_wait_is_cancelled_after_its_first_poll() {
    let hub = hub();
    let client = tokio(walk::device(HOST), hub.websocket(), Waiting::Cancelled);
    Walk::of(client, hub).assert_complete();
}

/// A device whose CONNECT is longer than what is held while WebSocket is being opened.
fn with_a_long_will() -> Device {
    let payload = vec![b'w'; usize::from(u16::MAX)];
    let config = fixtures::config_at(HOST, "dev").with_will(&Message::new(&payload), QoS::AtLeastOnce);
    Device::new(config.expect("it is a message")).expect("the config is good")
}

fn assert_connects(mut client: impl Drive) {
    client.drive(|_, next| match next {
        Ok(Action::Connected { .. }) => true,
        other => panic!("{other:?}"),
    });
    client.close();
}

#[test]
fn a_long_connect_that_is_held_while_the_handshakes_last_arrives_whole() {
    let hub = hub();
    for tls in [hub.tls(), hub.websocket()] {
        assert_connects(Client::new(with_a_long_will(), tls.clone()));
        for waiting in [Waiting::Patiently, Waiting::Cancelled] {
            assert_connects(tokio(with_a_long_will(), tls.clone(), waiting));
        }
    }
}

#[test]
fn what_is_left_is_written_before_websocket_is_closed() {
    let hub = hub();
    say_last_words(Client::new(walk::device(HOST), hub.websocket()), "blocking");
    say_last_words(tokio(walk::device(HOST), hub.websocket(), Waiting::Patiently), "tokio");
    // Nobody waited for the acknowledgements.
    hub.wait_until_stored(2);
    assert_eq!(hub.stored(), ["blocking", "tokio"]);
}

fn say_last_words(mut client: impl Drive, body: &str) {
    client.drive(|_, next| matches!(next, Ok(Action::Connected { .. })));
    client.device().telemetry(Message::new(body.as_bytes())).expect("there is room");
    client.close();
}

// --- through a proxy ---

#[test]
fn devices_walk_through_a_proxy_over_websocket_and_over_mqtt() {
    for over_websocket in [true, false] {
        for on_tokio in [true, false] {
            for (admission, credentials) in
                [(Admission::All, ""), (Admission::Only("me@home:s:cret"), "me%40home:s%3Acret@")]
            {
                let hub = hub();
                let proxy = hub.proxy(admission);
                let tls = if over_websocket { hub.websocket() } else { hub.tls() };
                let connect = format!("CONNECT localhost:{} HTTP/1.1", tls.port());
                let tls = tls.with_proxy(&proxy.url(credentials)).expect("it is a URL");
                if on_tokio {
                    let client = tokio(walk::device(HOST), tls, Waiting::Cancelled);
                    Walk::of(client, hub).assert_complete();
                } else {
                    Walk::of(Client::new(walk::device(HOST), tls), hub).assert_complete();
                }
                assert_eq!(proxy.asked(), [connect.clone(), connect], "once, and again after the cut");
            }
        }
    }
}

#[test]
fn a_proxy_that_refuses_is_named_with_what_to_do() {
    let hub = hub();
    let port = hub.websocket().port();
    for (admission, credentials, told) in [
        (
            Admission::Only("me:secret"),
            "",
            "the proxy wants a name and a password (407); write http://user:password@host:port".to_owned(),
        ),
        (
            Admission::Only("me:secret"),
            "me:guess@",
            "the proxy refuses name and password (407); check them, and that it takes Basic authentication"
                .to_owned(),
        ),
        (
            Admission::None(502),
            "",
            format!(
                "the proxy cannot reach localhost:{port} (502); check the hub's name, and that the proxy finds its way to it"
            ),
        ),
        (
            Admission::None(403),
            "",
            format!("the proxy does not connect to localhost:{port} (403); let it allow CONNECT to there"),
        ),
    ] {
        let proxy = hub.proxy(admission);
        let tls = hub.websocket().with_proxy(&proxy.url(credentials)).expect("it is a URL");
        let told = format!("no transport to localhost: {told}");
        assert_eq!(no_transport(Client::new(walk::device(HOST), tls.clone())), told);
        assert_eq!(no_transport(tokio(walk::device(HOST), tls, Waiting::Patiently)), told);
    }
}

#[test]
fn a_proxy_that_is_not_there_or_is_none_is_told_apart_from_the_hub() {
    let hub = hub();
    let gone = hub.port();
    let told_of = |url: String| {
        let tls = hub.websocket().with_proxy(&url).expect("it is a URL");
        [
            no_transport(Client::new(walk::device(HOST), tls.clone())),
            no_transport(tokio(walk::device(HOST), tls, Waiting::Patiently)),
        ]
    };
    // The hub itself, which speaks TLS and ends what does not.
    for told in told_of(format!("http://localhost:{gone}")) {
        assert!(told.ends_with("the answer is not that of an HTTP proxy; check its host and port"), "{told}");
    }
    for told in told_of("http://localhost:1".to_owned()) {
        assert!(told.contains("the proxy localhost:1 cannot be reached: "), "{told}");
    }
}
