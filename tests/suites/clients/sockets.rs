//! The blocking and the tokio adapter: the same walk over TLS, over one byte at a time, and cancelled again and again.

#![allow(clippy::panic, reason = "what must not be heard stops the test where it is heard")]

use std::future::ready;
use std::time::Duration;

use devicebound::device::{Action, ConnectionState, Credential, DeviceConfig, Limits, Message, Timing};
use devicebound::hub::{Authentication, DeviceIdentity, DeviceRecord};
use devicebound::iothub::{Identity, Subscription};
use devicebound::{Close, CloseReason, Device, Rule};
use devicebound_blocking::{Client, Machine, Offline, Tls, TlsError};
use devicebound_testkit::drive::{Drive, OnTokio, Waiting, no_transport};
use devicebound_testkit::pipe::{Pipe, PipeHub};
use devicebound_testkit::socket_hub::{HOST, SocketHub};
use devicebound_testkit::walk::{self, Service, TELEMETRY, WALK, Walk};
use devicebound_tokio::Client as TokioClient;
use devicebound_world::fixtures;
use sha2::{Digest as _, Sha256};

fn assert_piped(walk: &Walk<PipeHub>) {
    assert_eq!(walk.heard, WALK);
    let host = walk.service.host();
    let bodies: Vec<_> = host.telemetry.iter().map(|stored| stored.payload.as_slice()).collect();
    assert_eq!(bodies, TELEMETRY.map(str::as_bytes));
    assert_eq!(host.record("dev").waiting().len(), 0, "the cloud message was completed");
    assert_eq!(host.closes.last().map(Close::reason), Some(CloseReason::Disconnected));
}

fn socket_hub() -> SocketHub {
    SocketHub::start(fixtures::record("dev"))
}

/// A blocking device on the pipes that `connect` makes.
fn piped(device: Device, mut connect: impl FnMut() -> Pipe + Send + 'static) -> Client<Pipe> {
    Client::over(device, move |_| Ok(connect()))
}

/// The same for tokio.
fn piped_tokio(
    device: Device,
    waiting: Waiting,
    mut connect: impl FnMut() -> Pipe + Send + 'static,
) -> OnTokio<Pipe> {
    OnTokio::new(TokioClient::over(device, move |_| Box::pin(ready(Ok(connect())))), waiting)
}

// --- the walk ---

#[test]
fn a_blocking_device_walks_through_the_dialect_over_tls_and_connects_again_when_it_is_cut() {
    let hub = socket_hub();
    let client = Client::new(walk::device(HOST), hub.tls());
    Walk::of(client, hub).assert_complete();
}

#[test]
fn a_tokio_device_walks_through_the_dialect_over_tls_and_connects_again_when_it_is_cut() {
    let hub = socket_hub();
    let client = TokioClient::new(walk::device(HOST), hub.tls());
    Walk::of(OnTokio::new(client, Waiting::Patiently), hub).assert_complete();
}

#[test]
fn a_tokio_device_walks_as_well_when_every_wait_is_cancelled_after_its_first_poll() {
    let hub = socket_hub();
    let client = TokioClient::new(walk::device(HOST), hub.tls());
    Walk::of(OnTokio::new(client, Waiting::Cancelled), hub).assert_complete();
}

#[test]
fn a_blocking_device_walks_as_well_on_a_socket_that_trickles() {
    let hub = PipeHub::start();
    let pipes = hub.clone();
    let client = piped(walk::device(fixtures::HOST), move || pipes.connect().that_trickles());
    assert_piped(&Walk::of(client, hub));
}

#[test]
fn a_tokio_device_loses_no_byte_on_a_socket_that_trickles_when_every_wait_is_cancelled() {
    for waiting in [Waiting::Patiently, Waiting::Cancelled] {
        let hub = PipeHub::start();
        let pipes = hub.clone();
        let client =
            piped_tokio(walk::device(fixtures::HOST), waiting, move || pipes.connect().that_trickles());
        assert_piped(&Walk::of(client, hub));
    }
}

fn is_whole(_: &mut Machine, next: Result<Action<'_>, Offline>) -> bool {
    match next {
        Ok(Action::Deliver(message, _)) => message.payload == b"whole",
        Err(Offline::Closed(close)) if close.reason() != CloseReason::Lost => panic!("{close}"),
        _ => false,
    }
}

/// Sends a message, and cuts the connection when the device has some bytes of it but not all.
fn assert_begins_anew_after_a_cut(mut client: impl Drive, mut hub: PipeHub) {
    client.device().subscribe(Subscription::CloudMessages).expect("there is room");
    client.drive(|_, next| matches!(next, Ok(Action::Subscribed(_))));
    hub.send("whole");
    for _ in 0..5 {
        // A wait on this socket brings a byte.
        assert!(client.turn(|_, next| panic!("{next:?}")));
    }
    hub.cut();
    client.drive(is_whole);
}

#[test]
fn what_a_lost_connection_left_of_a_packet_is_not_taken_for_the_start_of_the_next_one() {
    let hub = PipeHub::start();
    let pipes = hub.clone();
    let client = piped(walk::device(fixtures::HOST), move || pipes.connect().that_trickles());
    assert_begins_anew_after_a_cut(client, hub);

    let hub = PipeHub::start();
    let pipes = hub.clone();
    let client = piped_tokio(walk::device(fixtures::HOST), Waiting::Patiently, move || {
        pipes.connect().that_trickles()
    });
    assert_begins_anew_after_a_cut(client, hub);
}

// --- a hub that does not read, or says nothing ---

/// A hub that can turn a deaf ear.
trait Deaf: Service {
    fn stop_reading(&self);
}

impl Deaf for PipeHub {
    fn stop_reading(&self) {
        self.stop_reading();
    }
}

impl Deaf for SocketHub {
    fn stop_reading(&self) {
        self.stop_reading();
    }
}

/// A device that hands 16 MB to its socket at once: more than the system's buffers hold.
fn talkative(host_name: &str) -> Device {
    let limits = Limits {
        window: 64,
        outbox_bytes: 32 << 20,
        tx_high_water: 32 << 20,
        tx_max: 64 << 20,
        ..Limits::default()
    };
    let config = fixtures::config_at(host_name, "dev").with_limits(limits);
    Device::new(config).expect("the limits are sound")
}

/// Makes the hub deaf once the device is subscribed, talks at it, and waits for its word.
fn hear_the_deaf(hub: &mut impl Deaf, device: &mut Machine, next: Result<Action<'_>, Offline>) -> bool {
    match next {
        Ok(Action::Subscribed(_)) => {
            hub.stop_reading();
            let body = vec![0; 250_000];
            while device.status().queued < 64 {
                device.telemetry(Message::new(&body)).expect("there is room");
            }
            hub.send("heard");
            false
        }
        Ok(Action::Deliver(message, _)) => {
            assert_eq!(message.payload, b"heard");
            true
        }
        Ok(_) => false,
        Err(offline) => panic!("{offline}"),
    }
}

fn assert_heard(mut client: impl Drive, mut hub: impl Deaf) {
    client.device().subscribe(Subscription::CloudMessages).expect("it is a device");
    client.drive(|device, next| hear_the_deaf(&mut hub, device, next));
    assert_eq!(client.device().status().deliveries, 1);
}

#[test]
fn a_hub_that_does_not_read_is_heard_all_the_same() {
    let hub = PipeHub::start();
    let pipes = hub.clone();
    assert_heard(piped(talkative(fixtures::HOST), move || pipes.connect()), hub);
    let hub = PipeHub::start();
    let pipes = hub.clone();
    let device = talkative(fixtures::HOST);
    assert_heard(piped_tokio(device, Waiting::Patiently, move || pipes.connect()), hub);
}

#[test]
fn a_hub_that_does_not_read_is_heard_over_tls_and_websocket_when_the_socket_takes_no_more() {
    for way in [SocketHub::tls, SocketHub::websocket] {
        let hub = socket_hub();
        assert_heard(Client::new(talkative(HOST), way(&hub)), hub);
        let hub = socket_hub();
        let client = TokioClient::new(talkative(HOST), way(&hub));
        assert_heard(OnTokio::new(client, Waiting::Patiently), hub);
    }
}

#[test]
fn a_wait_with_a_time_limit_returns_though_nothing_came() {
    let hub = socket_hub();
    let mut client = Client::new(walk::device(HOST), hub.tls());
    client.drive(|_, next| matches!(next, Ok(Action::Connected { .. })));
    for _ in 0..3 {
        assert!(client.wait_timeout(Duration::from_millis(1)));
        let (device, mut incoming) = client.split();
        assert!(incoming.next(device).is_none());
    }
}

/// A device whose time for CONNACK is over as soon as it has begun.
fn impatient() -> Device {
    let timing = Timing { connack: Duration::from_nanos(1), ..Timing::default() };
    Device::new(fixtures::config("dev").with_timing(timing)).expect("the config is good")
}

/// The first thing that each adapter tells of an impatient device.
fn first_heard(hub: &PipeHub) -> [String; 2] {
    let heard = |next: Result<Action<'_>, Offline>| match next {
        Ok(Action::Connected { .. }) => "connected".to_owned(),
        Err(Offline::Closed(close)) => close.rule().to_string(),
        other => format!("{other:?}"),
    };
    let (mut blocking, mut tokio) = (String::new(), String::new());
    let pipes = hub.clone();
    piped(impatient(), move || pipes.connect()).drive(|_, next| {
        blocking = heard(next);
        true
    });
    let pipes = hub.clone();
    piped_tokio(impatient(), Waiting::Cancelled, move || pipes.connect()).drive(|_, next| {
        tokio = heard(next);
        true
    });
    [blocking, tokio]
}

#[test]
fn what_has_arrived_is_taken_before_a_time_out_is_reported() {
    assert_eq!(first_heard(&PipeHub::start()), ["connected", "connected"]);
}

#[test]
fn a_hub_that_says_nothing_is_given_up_when_its_time_is_over() {
    let hub = PipeHub::start();
    hub.stop_reading();
    let rule = Rule::ConnAckTime.to_string();
    assert_eq!(first_heard(&hub), [rule.clone(), rule]);
}

// --- the end ---

#[test]
fn closing_writes_what_is_left_and_disconnects_in_good_order() {
    let hub = PipeHub::start();
    let pipes = hub.clone();
    let client = piped(walk::device(fixtures::HOST), move || pipes.connect().that_trickles());
    assert_closes_in_good_order(client, &hub);

    let hub = PipeHub::start();
    let pipes = hub.clone();
    let client = piped_tokio(walk::device(fixtures::HOST), Waiting::Patiently, move || {
        pipes.connect().that_trickles()
    });
    assert_closes_in_good_order(client, &hub);
}

fn assert_closes_in_good_order(mut client: impl Drive, hub: &PipeHub) {
    client.drive(|_, next| matches!(next, Ok(Action::Connected { .. })));
    client.device().telemetry(Message::new(b"last words")).expect("there is room");
    client.close();
    let host = hub.host();
    assert_eq!(host.telemetry.last().map(|stored| stored.payload.as_slice()), Some(&b"last words"[..]));
    assert_eq!(host.closes.last().map(Close::reason), Some(CloseReason::Disconnected));
    drop(host);
    assert_eq!(client.device().status().connection, ConnectionState::Offline);
    client.drive(|_, next| match next {
        Ok(Action::Acknowledged(_)) => false, // of the last words
        other => panic!("nothing else is to be heard after the end: {other:?}"),
    });
}

// --- TLS ---

/// The first word about why there is no transport, by each adapter.
fn transport_error(tls: Tls) -> [String; 2] {
    [
        no_transport(Client::new(walk::device(HOST), tls.clone())),
        no_transport(OnTokio::new(TokioClient::new(walk::device(HOST), tls), Waiting::Patiently)),
    ]
}

#[test]
fn a_hub_whose_authority_is_not_trusted_is_not_talked_to_and_the_reason_is_told() {
    let hub = socket_hub();
    let stranger = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let tls = Tls::with_authorities(stranger.cert.pem().as_bytes()).unwrap().with_port(hub.port());
    for told in transport_error(tls) {
        assert!(told.contains("invalid peer certificate"), "{told}");
        assert!(told.contains(HOST) && told.contains("Tls::with_authorities_file"), "{told}");
    }
}

#[test]
fn a_port_that_nobody_listens_on_is_told() {
    let hub = socket_hub();
    let tls = hub.tls();
    drop(hub);
    for told in transport_error(tls) {
        assert!(told.starts_with("no transport to localhost: TCP to localhost:"), "{told}");
        assert!(told.ends_with("check host and port, and that the hub is running"), "{told}");
    }
}

#[test]
fn a_hub_that_is_reached_by_another_name_is_known_by_the_one_in_its_certificate() {
    let hub = socket_hub();
    let named = hub.tls().with_server_name("localhost").expect("it is a name");
    assert!(matches!(named.clone().with_server_name("no name:8883"), Err(TlsError::ServerName(_))));
    // The certificate is for localhost and its addresses, and the name that is asked for is none of them.
    let foreign = hub.tls().with_server_name("hub.example.test").expect("it is a name");
    for told in transport_error(foreign) {
        assert!(told.contains("Tls::with_server_name"), "{told}");
    }
    let connected = |next: Result<Action<'_>, Offline>| matches!(next, Ok(Action::Connected { .. }));
    Client::new(walk::device(HOST), named.clone()).drive(|_, next| connected(next));
    OnTokio::new(TokioClient::new(walk::device(HOST), named), Waiting::Patiently)
        .drive(|_, next| connected(next));
}

#[test]
fn a_device_shows_its_certificate_and_needs_no_password() {
    let own = rcgen::generate_simple_self_signed(["dev".to_owned()]).unwrap();
    let thumbprint = Sha256::digest(own.cert.der()).iter().map(|byte| format!("{byte:02X}")).collect();
    let authentication = Authentication::SelfSigned { primary: thumbprint, secondary: None };
    let identity = DeviceIdentity::new("dev", "1".to_owned(), authentication).unwrap();
    let hub = SocketHub::start(DeviceRecord::new(identity));
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let tls = hub.tls().with_certificate(certificate.as_bytes(), key.as_bytes()).unwrap();
    let device = || {
        let identity = Identity::new("dev", None).unwrap();
        Device::new(DeviceConfig::new(HOST, identity, Credential::Certificate)).unwrap()
    };
    let connected = |next: Result<Action<'_>, Offline>| match next {
        Ok(Action::Connected { .. }) => true,
        other => panic!("{other:?}"),
    };
    Client::new(device(), tls.clone()).drive(|_, next| connected(next));
    OnTokio::new(TokioClient::new(device(), tls), Waiting::Patiently).drive(|_, next| connected(next));
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_refused() {
    let [own, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(["dev".to_owned()]).unwrap());
    let (certificate, key) = (own.cert.pem(), other.signing_key.serialize_pem());
    let tls = Tls::with_authorities(certificate.as_bytes()).unwrap();
    let refused = tls.with_certificate(certificate.as_bytes(), key.as_bytes());
    assert!(matches!(refused, Err(TlsError::Unusable(_))), "{refused:?}");
}

#[test]
fn a_text_without_a_certificate_is_no_authority() {
    assert!(matches!(Tls::with_authorities(b""), Err(TlsError::Pem(_))));
}

// --- another token ---

/// Renews the token again and again with telemetry on its way, and says how long the device was offline for it.
fn assert_renews_its_token(mut client: impl Drive) {
    const RENEWALS: u32 = 20;
    client.drive(|_, next| matches!(next, Ok(Action::Connected { .. })));
    for renewal in 1..=RENEWALS {
        let device = client.device();
        let ticket = device.telemetry(Message::new(b"21.5")).expect("there is room");
        let credential = device.config().credential().clone();
        device.replace_credential(credential).expect("it was good before");
        let mut acknowledged = false;
        client.drive(|device, next| {
            acknowledged |= matches!(next, Ok(Action::Acknowledged(known)) if known == ticket);
            acknowledged && device.status().offline.renewals == renewal
        });
    }
    let offline = client.device().status().offline;
    assert_eq!(offline.total, offline.in_renewals);
    println!(
        "offline for {:?} in each of {} renewals",
        offline.in_renewals / offline.renewals,
        offline.renewals
    );
    client.close();
}

#[test]
fn a_device_is_offline_for_no_more_than_a_handshake_when_its_token_is_renewed() {
    let hub = socket_hub();
    assert_renews_its_token(Client::new(walk::device(HOST), hub.tls()));
    let client = TokioClient::new(walk::device(HOST), hub.tls());
    assert_renews_its_token(OnTokio::new(client, Waiting::Patiently));
}
