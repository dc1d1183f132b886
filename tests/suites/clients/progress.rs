//! A client makes progress whatever its application and its hub do: orders of calls, floods, days without a network.

#![allow(clippy::panic, reason = "what must not be heard stops the test where it is heard")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use devicebound::Device;
use devicebound::device::{Action, ConnectionState, Limits, Message, SendError};
use devicebound_blocking::{Client, Offline};
use devicebound_testkit::drive::{Drive, OnTokio, Waiting};
use devicebound_testkit::pipe::{Pipe, PipeHub};
use devicebound_testkit::socket_hub::{HOST, SocketHub};
use devicebound_testkit::walk;
use devicebound_tokio::Client as TokioClient;
use devicebound_world::fixtures;

fn device() -> Device {
    Device::new(fixtures::config("dev")).expect("the config is good")
}

/// Both clients on pipes to one hub, one after the other.
fn with_both(
    hub: &PipeHub,
    device: impl Fn() -> Device,
    pipe: impl Fn(Pipe) -> Pipe + Clone + Send + 'static,
    test: impl Tests,
) {
    let (pipes, make) = (hub.clone(), pipe.clone());
    test.with(Client::over(device(), move |_| Ok(make(pipes.connect()))), hub);
    let pipes = hub.clone();
    let client =
        TokioClient::over(device(), move |_| Box::pin(std::future::ready(Ok(pipe(pipes.connect())))));
    test.with(OnTokio::new(client, Waiting::Patiently), hub);
}

/// A test of any client.
trait Tests {
    fn with(&self, client: impl Drive, hub: &PipeHub);
}

/// An application that asks for something before each wait.
struct Busy;

impl Tests for Busy {
    fn with(&self, mut client: impl Drive, _: &PipeHub) {
        let mut connected = false;
        for _ in 0..100 {
            let _ = client.device().telemetry(Message::new(b"21.5"));
            client.turn(|_, next| {
                connected |= matches!(next, Ok(Action::Connected { .. }));
                false
            });
        }
        assert!(connected, "{:?}", client.device().status());
        client.close();
    }
}

#[test]
fn a_wait_after_a_command_goes_on_with_the_connection() {
    with_both(&PipeHub::start(), device, |pipe| pipe, Busy);
    with_both(&PipeHub::start(), device, Pipe::that_trickles, Busy);
}

#[test]
fn a_wait_makes_progress_though_nobody_takes_anything() {
    let hub = PipeHub::start();
    let pipes = hub.clone();
    let mut client = Client::over(device(), move |_| Ok(pipes.connect()));
    for _ in 0..3 {
        assert!(client.wait(), "it has the CONNACK, which is to be taken");
        assert_eq!(client.device().status().connection, ConnectionState::Opening);
    }
    let (machine, mut incoming) = client.split();
    assert!(matches!(incoming.next(machine), Some(Ok(Action::Connected { .. }))));
}

/// A hub that always has something to say.
struct Flooded;

impl Tests for Flooded {
    fn with(&self, mut client: impl Drive, hub: &PipeHub) {
        let start = Instant::now();
        while !hub.was_pinged() {
            // Forty times as long as it may take on a machine with nothing else to do: so a fault is no hang.
            assert!(start.elapsed() < Duration::from_secs(50), "no PINGREQ");
            assert!(client.turn(|_, next| next.is_err_and(|offline| panic!("{offline}"))));
        }
    }
}

#[test]
fn a_hub_that_never_pauses_does_not_hold_up_the_ping() {
    for _ in 0..2 {
        let device = || Device::new(fixtures::config("dev").with_keep_alive(1)).expect("the config is good");
        with_both(&PipeHub::start(), device, Pipe::that_never_pauses, Flooded);
    }
}

/// What the examples do with a message a minute, in a day without a network.
struct OfflineForADay;

impl Tests for OfflineForADay {
    fn with(&self, mut client: impl Drive, _: &PipeHub) {
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..24 * 60 {
            match client.device().telemetry(Message::new(b"21.5")) {
                Ok(_) => taken += 1,
                Err(SendError::OutboxFull) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(taken, Limits::default().outbox_messages);
        assert_eq!(taken + refused, 24 * 60);
        assert!(client.flush(Duration::from_secs(60), |_, _| {}), "{:?}", client.device().status());
        client.device().telemetry(Message::new(b"and on it goes")).expect("there is room again");
        client.close();
    }
}

#[test]
fn a_full_outbox_is_no_end() {
    with_both(&PipeHub::start(), device, |pipe| pipe, OfflineForADay);
}

// --- another thread ---

#[test]
fn another_thread_ends_a_wait_on_a_quiet_connection() {
    let hub = SocketHub::start(fixtures::record("dev"));
    let mut client = Client::new(walk::device(HOST), hub.tls());
    client.drive(|_, next| matches!(next, Ok(Action::Connected { .. })));
    let (orders, ordered) = mpsc::channel();
    let waker = client.waker();
    let other = thread::spawn(move || {
        for order in ["one", "two", "three"] {
            orders.send(order).expect("the client is there");
            waker.wake_by_ref();
        }
    });
    let mut taken = Vec::new();
    while taken.len() < 3 {
        assert!(client.wait()); // without a wake-up: until the keep alive, a minute
        taken.extend(ordered.try_iter());
        let (machine, mut incoming) = client.split();
        while incoming.next(machine).is_some() {}
    }
    assert_eq!(taken, ["one", "two", "three"]);
    other.join().expect("it has sent");
}

#[test]
fn another_thread_ends_a_wait_for_the_next_attempt_and_one_that_has_not_begun() {
    let mut client = Client::<Pipe>::over(device(), |_| Err(io::ErrorKind::ConnectionRefused.into()));
    client.drive(|_, next| matches!(next, Err(Offline::Transport(_))));
    let waker = client.waker();
    waker.wake_by_ref();
    assert!(client.wait());
    let other = thread::spawn(move || waker.wake());
    assert!(client.wait());
    other.join().expect("it has woken it");
}

#[test]
fn an_application_that_knows_that_the_network_is_back_need_not_wait() {
    let hub = PipeHub::start();
    let is_back = Arc::new(AtomicBool::new(false));
    let (pipes, back) = (hub.clone(), Arc::clone(&is_back));
    let timing = devicebound::device::Timing {
        reconnect_min: Duration::from_secs(3600),
        reconnect_max: Duration::from_secs(3600),
        ..Default::default()
    };
    let config = fixtures::config("dev").with_timing(timing);
    let mut client = Client::over(Device::new(config).expect("the config is good"), move |_| {
        if back.load(Ordering::Relaxed) {
            Ok(pipes.connect())
        } else {
            Err(io::ErrorKind::NetworkUnreachable.into())
        }
    });
    client.drive(|_, next| matches!(next, Err(Offline::Transport(_))));
    is_back.store(true, Ordering::Relaxed);
    client.device().connect();
    client.drive(|_, next| matches!(next, Ok(Action::Connected { .. })));
}
