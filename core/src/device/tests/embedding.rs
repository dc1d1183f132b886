//! The rules that every machine keeps, and a hub that keeps none.

use super::*;
use crate::packet::{disconnect, pingreq, pingresp, pubcomp, pubrec, pubrel};
use alloc::format;
use alloc::vec;

/// A conversation in which the hub says one of everything.
fn conversation() -> Vec<u8> {
    let mut bytes = Vec::new();
    let out = &mut bytes;
    ConnAck::Accepted { session_present: false }.encode(out);
    let qos = |packet_id, dup| PublishQoS::AtLeastOnce { packet_id: id(packet_id), dup };
    publish("devices/dev1/messages/devicebound/a=1", qos(1, false), b"one", out);
    publish("devices/dev1/messages/devicebound/", qos(2, true), &[7; 300], out);
    publish("$iothub/methods/POST/m/?$rid=1", PublishQoS::AtMostOnce, b"{}", out);
    publish("$iothub/twin/res/200/?$rid=1", PublishQoS::AtMostOnce, b"{}", out);
    publish("somewhere/else", qos(3, false), b"", out);
    pingresp(out);
    bytes
}

/// All actions and all that is written, for `bytes` that come `step` at a time.
fn transcript(bytes: &[u8], step: usize) -> (Vec<String>, Vec<u8>) {
    let mut bench = Bench::opening(config());
    let mut actions = Vec::new();
    let mut start = 0;
    for end in (step..bytes.len()).step_by(step).chain([bytes.len()]) {
        loop {
            let mut rx = &bytes[start..end];
            let action = bench.device.handle(bench.now, Event::Received(&mut rx), &mut bench.tx);
            start = end - rx.len();
            match action {
                Ok(Action::Wait(_)) => break,
                Ok(action) => actions.push(format!("{action:?}")),
                Err(close) => {
                    actions.push(format!("{:?}", close.reason()));
                    return (actions, bench.tx);
                }
            }
        }
    }
    (actions, bench.tx)
}

#[test]
fn the_outcome_does_not_depend_on_how_the_bytes_come() {
    let mut bytes = conversation();
    let whole = transcript(&bytes, bytes.len());
    assert_eq!(whole.0.len(), 7, "{:?}", whole.0);
    for step in [1, 2, 3, 7, 100] {
        assert_eq!(transcript(&bytes, step), whole);
    }
    bytes.extend_from_slice(&[0x30, 0]);
    let whole = transcript(&bytes, bytes.len());
    assert!(whole.0.last().unwrap().contains("Malformed"), "{:?}", whole.0);
    for step in [1, 2, 3, 7, 100] {
        assert_eq!(transcript(&bytes, step), whole);
    }
}

#[test]
fn what_a_hub_must_not_send_ends_the_connection() {
    type Case = (fn(&mut Vec<u8>), Rule);
    let cases: [Case; 9] = [
        (|out| ConnAck::Accepted { session_present: false }.encode(out), Rule::Direction),
        (pingreq, Rule::Direction),
        (disconnect, Rule::Direction),
        (|out| pubrec(id(1), out), Rule::Qos2Flow),
        (|out| pubrel(id(1), out), Rule::Qos2Flow),
        (|out| pubcomp(id(1), out), Rule::Qos2Flow),
        (|out| puback(id(1), out), Rule::UnsolicitedAck),
        (|out| unsuback(id(1), out), Rule::UnsolicitedAck),
        (|out| suback(Some(id(1)), &[SubAckCode::Failure], out), Rule::UnsolicitedAck),
    ];
    for (write, rule) in cases {
        let close = Bench::online().hear_and_close(write);
        assert_eq!(close.reason(), CloseReason::Violation(rule));
    }
    let qos = PublishQoS::ExactlyOnce { packet_id: id(1), dup: false };
    let close =
        Bench::online().hear_and_close(|out| publish("devices/dev1/messages/devicebound/", qos, b"", out));
    assert_eq!(close.reason(), CloseReason::Violation(Rule::Qos2Flow));
    let close = Bench::opening(config()).hear_and_close(pingresp);
    assert_eq!(close.reason(), CloseReason::Violation(Rule::ConnAckFirst));
}

#[test]
fn a_suback_has_one_code_for_one_filter_and_answers_a_subscribe() {
    let mut bench = Bench::online();
    bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    let id = bench.sent()[0].id;
    let close = bench.hear_and_close(|out| unsuback(id.unwrap(), out));
    assert_eq!(close.reason(), CloseReason::Violation(Rule::UnsolicitedAck));

    let mut bench = Bench::online();
    bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    let id = bench.sent()[0].id;
    let close = bench.hear_and_close(|out| suback(id, &[SubAckCode::Failure; 2], out));
    assert_eq!(close.reason(), CloseReason::Violation(Rule::SubAckCount));
}

#[test]
fn a_packet_over_the_limit_is_refused_from_its_fixed_header() {
    let mut bench = Bench::online();
    let mut rx = &[0x30, 0xFF, 0xFF, 0xFF, 0x7F][..];
    assert_eq!(bench.pull(&mut rx), Err(CloseReason::Malformed(Rule::PacketSize)));
}

#[test]
fn a_hub_that_sends_and_never_reads_cannot_fill_the_memory() {
    let limits = Limits { tx_high_water: 100, tx_max: 1000, ..Limits::default() };
    let mut bench = Bench::online_with(config().with_limits(limits));
    let qos = PublishQoS::AtLeastOnce { packet_id: id(1), dup: false };
    let packet = packet_bytes(|out| publish("somewhere/else", qos, b"", out));
    let close = loop {
        match bench.pull(&mut &packet[..]) {
            Ok(action) => assert_eq!(action, Action::Handled),
            Err(close) => break close,
        }
        assert!(bench.tx.len() < 2000);
    };
    assert_eq!(close, CloseReason::Ended(Rule::DeviceBacklog));
}

#[test]
fn time_outs_that_come_early_or_twice_do_nothing() {
    let mut bench = Bench::subscribed(&[Subscription::TwinResponses]);
    bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    bench.telemetry(b"x");
    bench.sent();
    let before = format!("{:?}", bench.device);
    for _ in 0..3 {
        assert_eq!(bench.event(Event::TimedOut), Ok(Action::Wait(Wait::Read { at_least: 1 })));
    }
    assert_eq!(format!("{:?}", bench.device), before);
    assert!(bench.tx.is_empty());
}

#[test]
fn after_a_time_out_the_next_deadline_lies_ahead() {
    let mut bench = in_all_things_busy();
    for _ in 0..200 {
        let Some(deadline) = bench.device.poll_timeout() else { break };
        bench.now = bench.now.max(deadline.at);
        let _ = bench.event(Event::TimedOut);
        while !matches!(bench.pull(&mut &[][..]), Ok(Action::Wait(_)) | Err(_)) {}
        if let Some(next) = bench.device.poll_timeout() {
            assert!(next.at > bench.now, "{next:?} at {:?}", bench.now);
        }
        if bench.device.status().connection == ConnectionState::Ended {
            bench.event(Event::Closed).unwrap();
        }
        bench.tx.clear();
    }
}

fn in_all_things_busy() -> Bench {
    let timing = Timing { token_lifetime: Duration::from_secs(200), ..Timing::default() };
    let mut bench = Bench::online_with(config().with_timing(timing).with_keep_alive(10));
    bench.device.subscribe(bench.now, Subscription::DesiredPatches, &mut bench.tx).unwrap();
    bench.grant_all();
    bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    bench.telemetry(b"x");
    bench
}

#[test]
fn a_clock_that_steps_back_is_clamped() {
    let mut bench = Bench::subscribed(&[Subscription::TwinResponses]);
    let before = bench.now;
    bench.now = Instant::from_secs(1);
    bench.event(Event::TimedOut).unwrap();
    bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    bench.now = before;
    assert_eq!(bench.event(Event::TimedOut), Ok(Action::Wait(Wait::Read { at_least: 1 })));
    assert!(bench.device.poll_timeout().unwrap().at >= before.after(Duration::from_secs(60)));
}

#[test]
fn random_events_never_make_it_panic_or_grow() {
    let mut state = 1_u64;
    let mut random = move |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut bench = Bench::new(config());
    let good = conversation();
    let (mut calls, mut deliveries) = (Vec::new(), Vec::new());
    for _ in 0..50_000 {
        bench.now = bench.now.after(Duration::from_millis(random(20_000)));
        let mut noise = good.clone();
        let start = random(good.len() as u64) as usize;
        let at = random(good.len() as u64) as usize;
        noise[at] ^= 1 << random(8);
        let mut rx = if random(2) == 0 { &good[..] } else { &noise[start..] };
        let event = match random(8) {
            0 => Event::Opened { jitter: random(u32::MAX.into()) as u32, unix_time: WALL_CLOCK },
            1 => Event::Closed,
            2 | 3 => Event::TimedOut,
            _ => Event::Received(&mut rx),
        };
        match bench.device.handle(bench.now, event, &mut bench.tx) {
            Ok(Action::Deliver(_, delivery)) => deliveries.push(delivery),
            Ok(Action::Invoke(call)) => calls.push(call.id),
            _ => {}
        }
        let subscription = Subscription::ALL[random(5) as usize];
        let (device, now, tx) = (&mut bench.device, bench.now, &mut bench.tx);
        match random(12) {
            0 => drop(device.telemetry(now, Message::new(&vec![0; random(2000) as usize]), tx)),
            1 => drop(device.get_twin(now, tx)),
            2 => drop(device.report(now, b"{}", None, tx)),
            3 => drop(device.subscribe(now, subscription, tx)),
            4 => drop(device.unsubscribe(now, subscription, tx)),
            5 => drop(deliveries.pop().map(|delivery| device.complete(delivery, tx))),
            6 => drop(calls.pop().map(|call| device.respond(now, call, 200, b"", tx))),
            7 if random(50) == 0 => device.disconnect(now, tx),
            _ => tx.clear(),
        }
        let status = bench.device.status();
        let limits = Limits::default();
        assert!(status.queued <= limits.outbox_messages && status.queued_bytes <= limits.outbox_bytes);
        assert!(status.in_flight <= limits.window && status.deliveries <= limits.deliveries);
        assert!(status.requests <= limits.requests && status.calls <= limits.calls);
    }
}

#[test]
fn every_action_says_in_words_what_it_is() {
    let mut bench = Bench::subscribed(&[Subscription::CloudMessages, Subscription::Methods]);
    let ticket = bench.telemetry(b"21.5");
    let id = bench.sent()[0].id.unwrap();
    let acknowledged = bench.hear(|out| puback(id, out));
    assert_eq!(acknowledged.to_string(), format!("telemetry message {ticket} acknowledged"));
    let call = "$iothub/methods/POST/re%20boot/?$rid=1";
    let call = bench.hear(|out| publish(call, PublishQoS::AtMostOnce, b"{}", out));
    assert_eq!(call.to_string(), "direct method re boot called with 2 bytes");
    let message = "devices/dev1/messages/devicebound/";
    let message = bench.hear(|out| publish(message, PublishQoS::AtMostOnce, b"hello", out));
    assert_eq!(message.to_string(), "cloud-to-device message of 5 bytes");
    let after = Duration::from_millis(1500);
    for (action, words) in [
        (Action::Wait(Wait::Connect { after }), "waits for a transport, to be opened in 1500 ms"),
        (Action::Connected { session_present: true }, "connected, session present"),
        (Action::Subscribed(Subscription::Methods), "subscribed to methods"),
        (
            Action::Desired { version: 4, patch: b"{}".into() },
            "desired properties changed to version 4 by 2 bytes",
        ),
    ] {
        assert_eq!(action.to_string(), words);
    }
}
