//! The end of a connection that the application wants, and what comes after it.

#![allow(clippy::panic, reason = "what must not be heard stops the test where it is heard")]

use std::future::ready;
use std::time::Duration;

use devicebound::Device;
use devicebound::device::{Action, ConnectionState, Message, RequestError};
use devicebound_blocking::Client;
use devicebound_testkit::drive::{Drive, OnTokio, Waiting};
use devicebound_testkit::pipe::{Pipe, PipeHub};
use devicebound_tokio::Client as TokioClient;
use devicebound_world::fixtures;

fn device() -> Device {
    Device::new(fixtures::config("dev")).expect("the config is good")
}

fn blocking(hub: &PipeHub, device: Device) -> Client<Pipe> {
    let pipes = hub.clone();
    Client::over(device, move |_| Ok(pipes.connect()))
}

fn tokio(hub: &PipeHub, device: Device) -> OnTokio<Pipe> {
    let pipes = hub.clone();
    let client = TokioClient::over(device, move |_| Box::pin(ready(Ok(pipes.connect()))));
    OnTokio::new(client, Waiting::Patiently)
}

fn connect(client: &mut impl Drive) {
    client.drive(|_, next| matches!(next, Ok(Action::Connected { .. })));
}

/// What the hub has, by its payloads.
fn stored(hub: &PipeHub) -> Vec<Vec<u8>> {
    hub.host().telemetry.iter().map(|stored| stored.payload.clone()).collect()
}

fn assert_starts_again(mut client: impl Drive, hub: &PipeHub) {
    for round in 0..3 {
        connect(&mut client);
        client.close();
        client.drive(|_, next| panic!("nothing happens after the end: {next:?}"));
        assert_eq!(client.device().status().connection, ConnectionState::Offline);
        let offline = client.device().get_twin();
        assert_eq!(offline, Err(RequestError::NotConnected), "it would wait for ever");
        client.device().telemetry(Message::new(&[round])).expect("it waits for the next start");
        client.device().connect();
    }
    assert!(client.flush(Duration::from_secs(60), |_, _| {}));
    assert_eq!(stored(hub), [[0], [1], [2]]);
}

#[test]
fn a_client_that_was_closed_starts_again_and_sends_what_it_was_given_meanwhile() {
    let hub = PipeHub::start();
    assert_starts_again(blocking(&hub, device()), &hub);
    let hub = PipeHub::start();
    assert_starts_again(tokio(&hub, device()), &hub);
}

fn assert_counts_last_pubacks(mut client: impl Drive, hub: &PipeHub) {
    connect(&mut client);
    hub.answer_at_the_end();
    let ticket = client.device().telemetry(Message::new(b"once")).expect("there is room");
    client.close();
    assert!(!client.device().waits(ticket), "the PUBACK was on its way");
    let mut told = Vec::new();
    client.drive(|_, next| {
        told.push(format!("{next:?}"));
        false
    });
    assert_eq!(told, [format!("Ok(Acknowledged({ticket:?}))")]);
    assert_eq!(stored(hub), [b"once"]);
}

#[test]
fn closing_takes_the_pubacks_that_are_on_their_way() {
    let hub = PipeHub::start();
    assert_counts_last_pubacks(blocking(&hub, device()), &hub);
    let hub = PipeHub::start();
    assert_counts_last_pubacks(tokio(&hub, device()), &hub);
}

fn assert_flushes(mut client: impl Drive, hub: &PipeHub) {
    let tickets: Vec<_> = (0..100_u8)
        .map(|number| client.device().telemetry(Message::new(&[number])).expect("there is room"))
        .collect();
    client.device().report(b"{}", None).expect("it waits for the connection");
    assert!(!client.flush(Duration::ZERO, |_, _| {}), "there was no time");
    let (mut acknowledged, mut answered) = (Vec::new(), 0);
    let flushed = client.flush(Duration::from_secs(60), |_, next| match next {
        Ok(Action::Acknowledged(ticket)) => acknowledged.push(ticket),
        Ok(Action::Answered(_)) => answered += 1,
        _ => {}
    });
    assert!(flushed);
    assert_eq!((acknowledged, answered), (tickets, 1));
    assert_eq!(stored(hub).len(), 100);
    client.close();
    client.device().telemetry(Message::new(b"x")).expect("there is room");
    assert!(!client.flush(Duration::from_secs(60), |_, _| {}), "there is no connection to come");
}

#[test]
fn flushing_waits_for_the_hub_but_not_for_ever() {
    let hub = PipeHub::start();
    assert_flushes(blocking(&hub, device()), &hub);
    let hub = PipeHub::start();
    assert_flushes(tokio(&hub, device()), &hub);
}

fn assert_moves(mut client: impl Drive, hub: &PipeHub) {
    connect(&mut client);
    client.close();
    let ticket = client.device().telemetry(Message::new(b"moved")).expect("there is room");
    let mut other = tokio(hub, client.into_device());
    other.device().connect();
    assert_eq!(other.device().tickets().collect::<Vec<_>>(), [ticket]);
    other.drive(|_, next| matches!(next, Ok(Action::Acknowledged(known)) if known == ticket));
    assert_eq!(stored(hub), [b"moved"]);
}

#[test]
fn a_device_moves_from_one_client_to_another_with_what_it_holds() {
    let hub = PipeHub::start();
    assert_moves(blocking(&hub, device()), &hub);
    let hub = PipeHub::start();
    assert_moves(tokio(&hub, device()), &hub);
}

#[test]
fn a_device_that_is_taken_out_of_a_live_client_connects_again() {
    let hub = PipeHub::start();
    let mut client = blocking(&hub, device());
    connect(&mut client);
    let device = client.into_device();
    assert_eq!(device.status().connection, ConnectionState::Offline);
    connect(&mut blocking(&hub, device));
}
