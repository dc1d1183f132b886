//! What is late, lost or refused does not stay so: deadlines, a way back, and the reasons of delays.

use super::*;
use crate::iothub::sas;
use crate::packet::ConnectReturnCode;
use alloc::vec;

const MINUTE: Duration = Duration::from_secs(60);

fn refused(bench: &mut Bench) {
    let close = bench.hear_and_close(|out| ConnAck::Refused(ConnectReturnCode::NotAuthorized).encode(out));
    assert!(matches!(close.reason(), CloseReason::Refused(..)));
}

fn token(expiry: u64) -> Credential {
    let key = sas::SymmetricKey::from_bytes(b"another");
    Credential::Token(sas::sign("hub.example.test/devices/dev1", &key, UnixTime::from_secs(expiry), None))
}

fn connect_after(bench: &mut Bench) -> Duration {
    match bench.pull(&mut &[][..]).unwrap() {
        Action::Wait(Wait::Connect { after }) => after,
        other => panic!("{other:?}"),
    }
}

/// A certificate: no renewal of a token comes to the help of a connection.
fn with_certificate() -> DeviceConfig {
    config().with_credential(Credential::Certificate)
}

/// Lets time go by up to `until`; the hub answers PINGREQs and nothing else. What ended the connection, and when.
fn answer_pings(bench: &mut Bench, until: Instant) -> Option<(Instant, CloseReason)> {
    while bench.device.poll_timeout().is_some_and(|deadline| deadline.at <= until) {
        if let Err(reason) = bench.wait_for_timer() {
            return Some((bench.now, reason));
        }
        for packet in bench.sent() {
            if packet.kind == PacketType::PingReq {
                bench.hear(packet::pingresp);
            }
        }
    }
    None
}

#[test]
fn a_puback_that_never_comes_costs_a_minute_and_not_the_telemetry() {
    let mut bench = Bench::online_with(with_certificate());
    let start = bench.now;
    bench.telemetry(b"swallowed");
    let others: Vec<_> = (0..15).map(|_| bench.telemetry(b"acknowledged")).collect();
    let sent = bench.sent();
    for (packet, &ticket) in sent[1..].iter().zip(&others) {
        assert_eq!(bench.hear(acknowledge(packet)), Action::Acknowledged(ticket));
    }
    let late = CloseReason::TimedOut(Rule::PubAckTime);
    assert_eq!(answer_pings(&mut bench, start.after(MINUTE * 10)), Some((start.after(MINUTE), late)));
    bench.event(Event::Closed).unwrap();
    bench.wait_for_timer().unwrap();
    bench.open();
    bench.accept(true);
    let again = bench.sent();
    assert_eq!(again.len(), 1, "{again:?}");
    assert!(again[0].dup && again[0].id == sent[0].id && again[0].payload == b"swallowed");
}

#[test]
fn each_message_has_its_own_minute_and_one_that_is_acknowledged_takes_nothing_from_the_next() {
    let mut bench = Bench::online_with(with_certificate());
    let start = bench.now;
    for minute in 0..10 {
        let ticket = bench.telemetry(b"x");
        let sent = bench.sent();
        assert_eq!(answer_pings(&mut bench, start.after(MINUTE * minute + MINUTE * 59 / 60)), None);
        bench.now = start.after(MINUTE * minute + MINUTE * 59 / 60);
        assert_eq!(bench.hear(acknowledge(&sent[0])), Action::Acknowledged(ticket));
        bench.now = start.after(MINUTE * (minute + 1));
    }
}

#[test]
fn a_packet_that_waits_to_be_written_is_not_late_and_the_time_can_be_set() {
    let timing = Timing { puback: Duration::from_secs(5), ..Timing::default() };
    let mut bench = Bench::online_with(with_certificate().with_timing(timing));
    let start = bench.now;
    bench.telemetry(&[7; 1000]);
    bench.telemetry(&[8; 1000]);
    let unwritten = bench.tx.len();
    // A slow link: the first has not left yet.
    bench.tx.drain(..500);
    assert!(bench.wait_for_timer().is_ok());
    assert_eq!(bench.now, start.after(Duration::from_secs(5)));
    // Now the first has left, and the second has not.
    bench.tx.drain(..unwritten / 2);
    assert_eq!(bench.wait_for_timer(), Err(CloseReason::TimedOut(Rule::PubAckTime)));
    assert_eq!(bench.now, start.after(Duration::from_secs(10)));
}

#[test]
fn a_puback_time_of_zero_is_no_time() {
    let timing = Timing { puback: Duration::ZERO, ..Timing::default() };
    assert_eq!(Device::new(config().with_timing(timing)).err(), Some(ConfigError::Bounds));
}

#[test]
fn a_refused_device_with_a_new_credential_connects_at_once() {
    let mut bench = Bench::opening(config());
    refused(&mut bench);
    bench.event(Event::Closed).unwrap();
    assert!(connect_after(&mut bench) >= MINUTE * 2);
    bench.device.replace_credential(bench.now, token(1_800_000_000)).unwrap();
    assert_eq!(connect_after(&mut bench), Duration::ZERO);
}

#[test]
fn a_credential_that_comes_while_the_old_one_is_on_its_way_is_used_next() {
    // Refused.
    let mut bench = Bench::opening(config());
    bench.device.replace_credential(bench.now, token(1_800_000_000)).unwrap();
    refused(&mut bench);
    bench.event(Event::Closed).unwrap();
    assert_eq!(connect_after(&mut bench), Duration::ZERO);
    bench.open();
    refused(&mut bench);
    bench.event(Event::Closed).unwrap();
    assert!(connect_after(&mut bench) >= MINUTE * 2, "that one was refused, too");
    // Taken all the same.
    let mut bench = Bench::opening(config());
    bench.device.replace_credential(bench.now, token(1_800_000_000)).unwrap();
    let mut rx = packet_bytes(|out| ConnAck::Accepted { session_present: false }.encode(out));
    assert_eq!(bench.pull(&mut rx), Ok(Action::Connected { session_present: false }));
    assert_eq!(bench.pull(&mut rx), Err(CloseReason::Ended(Rule::TokenRenewal)));
    assert_eq!(bench.sent().last().unwrap().kind, PacketType::Disconnect);
}

#[test]
fn an_application_that_knows_better_ends_any_delay() {
    // The network.
    let mut bench = Bench::new(config());
    for _ in 0..10 {
        bench.event(Event::Closed).unwrap();
        bench.wait_for_timer().unwrap();
    }
    bench.event(Event::Closed).unwrap();
    let grown = connect_after(&mut bench);
    assert!(grown > Duration::ZERO);
    bench.device.connect(bench.now, &mut bench.tx);
    assert_eq!(connect_after(&mut bench), Duration::ZERO);
    bench.event(Event::Closed).unwrap();
    assert!(connect_after(&mut bench) >= Duration::from_secs(1), "it fails again, and waits again");
    // A clock that was set, after a token from 1970 was refused.
    let mut bench = Bench::opening(config());
    refused(&mut bench);
    bench.device.connect(bench.now, &mut bench.tx);
    bench.event(Event::Closed).unwrap();
    assert_eq!(connect_after(&mut bench), Duration::ZERO);
}

#[test]
fn an_application_that_knows_better_ends_the_pause_before_the_twin_is_asked_for_again() {
    let mut bench = Bench::subscribed(&[Subscription::DesiredPatches]);
    bench.hear(say("$iothub/twin/res/429/?$rid=1", b""));
    assert!(bench.sent().is_empty());
    bench.device.connect(bench.now, &mut bench.tx);
    bench.pull_all();
    assert_eq!(bench.sent_topics(), ["$iothub/twin/GET/?$rid=2"]);
}

#[test]
fn a_device_that_was_disconnected_connects_again_and_sends_what_it_was_given_meanwhile() {
    let mut bench = Bench::online();
    bench.device.disconnect(bench.now, &mut bench.tx);
    assert_eq!(bench.pull(&mut &[][..]), Err(CloseReason::Disconnected));
    bench.event(Event::Closed).unwrap();
    bench.tx.clear();
    bench.telemetry(b"meanwhile");
    bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    assert_eq!(bench.pull(&mut &[][..]), Ok(Action::Wait(Wait::Nothing)));
    bench.device.connect(bench.now, &mut bench.tx);
    assert_eq!(connect_after(&mut bench), Duration::ZERO);
    bench.open();
    bench.accept(true);
    let sent = bench.sent();
    assert!(sent.iter().any(|packet| packet.payload == b"meanwhile"), "{sent:?}");
    assert!(sent.iter().any(|packet| packet.kind == PacketType::Subscribe), "{sent:?}");
}

#[test]
fn pubacks_that_were_on_their_way_count_after_a_disconnect() {
    let mut bench = Bench::online();
    let tickets = [bench.telemetry(b"1"), bench.telemetry(b"2"), bench.telemetry(b"3")];
    let sent = bench.sent();
    bench.device.disconnect(bench.now, &mut bench.tx);
    let bytes = packet_bytes(|out| {
        puback(sent[0].id.unwrap(), out);
        publish("devices/dev1/messages/devicebound/", PublishQoS::AtMostOnce, b"too late", out);
        puback(sent[2].id.unwrap(), out);
    });
    let mut rx = bytes;
    assert_eq!(bench.pull(&mut rx), Ok(Action::Acknowledged(tickets[0])));
    assert_eq!(bench.pull(&mut rx), Ok(Action::Handled));
    assert_eq!(bench.pull(&mut rx), Ok(Action::Acknowledged(tickets[2])));
    assert_eq!(bench.pull(&mut rx), Err(CloseReason::Disconnected));
    assert_eq!(rx, b"");
    bench.event(Event::Closed).unwrap();
    assert_eq!(bench.device.tickets().collect::<Vec<_>>(), [tickets[1]]);
    bench.device.connect(bench.now, &mut bench.tx);
    bench.open();
    bench.accept(true);
    let again = bench.sent();
    assert_eq!(again.len(), 1);
    assert!(again[0].dup && again[0].payload == b"2");
}

#[test]
fn a_message_that_is_given_up_takes_those_along_that_were_acknowledged_behind_it() {
    let limits = Limits { outbox_messages: 3, ..Limits::default() };
    let mut bench = Bench::online_with(config().with_limits(limits).with_outbox(OutboxPolicy::DropOldest));
    let tickets = [bench.telemetry(b"1"), bench.telemetry(b"2"), bench.telemetry(b"3")];
    let sent = bench.sent();
    for (packet, ticket) in sent.iter().zip(tickets).skip(1) {
        assert_eq!(bench.hear(acknowledge(packet)), Action::Acknowledged(ticket));
    }
    assert_eq!(bench.event(Event::Closed), Err(CloseReason::Lost));
    let last = bench.telemetry(b"4");
    assert_eq!(bench.device.tickets().collect::<Vec<_>>(), [last], "the first was given up");
    assert_eq!(bench.device.status().queued, 1);

    bench.pull_all();
    bench.wait_for_timer().unwrap();
    bench.open();
    bench.accept(true);
    let again = bench.sent();
    let packet = again.iter().find(|packet| packet.payload == b"4").unwrap();
    while bench.hear(acknowledge(packet)) != Action::Acknowledged(last) {}
    let due = bench.device.poll_timeout().map(|deadline| deadline.why);
    assert_ne!(due, Some(Timer::PubAck), "nothing waits for a PUBACK");
}

#[test]
fn noise_after_a_disconnect_changes_nothing() {
    let mut bench = Bench::online();
    bench.telemetry(b"1");
    bench.device.disconnect(bench.now, &mut bench.tx);
    for noise in [&[0x40, 2, 0, 0][..], &[0xF0, 0], &[0x30, 0xFF, 0xFF, 0xFF, 0x7F], &[0x40, 2, 0, 99]] {
        let mut rx = noise;
        while bench.pull(&mut rx) != Err(CloseReason::Disconnected) {}
    }
    assert_eq!(bench.device.status().queued, 1);
}

#[test]
fn an_application_is_told_before_its_own_token_expires_and_only_once() {
    let timing = Timing { token_warning: MINUTE * 10, ..Timing::default() };
    let own = config().with_credential(token(1_700_000_000 + 3600)).with_timing(timing);
    let mut bench = Bench::online_with(own);
    let start = bench.now;
    let mut told = Vec::new();
    while bench.now < start.after(MINUTE * 70) {
        if let Action::TokenExpires { after } = bench.wait_for_timer().unwrap() {
            told.push((bench.now.since(start), after));
        }
        bench.sent();
        bench.hear(packet::pingresp);
    }
    assert_eq!(told, [(MINUTE * 50, MINUTE * 10)]);
    // One that has expired, or nearly so, is told as soon as the device is online.
    let mut bench = Bench::online_with(config().with_credential(token(1_700_000_030)));
    assert_eq!(bench.wait_for_timer(), Ok(Action::TokenExpires { after: Duration::from_secs(30) }));
    assert_eq!(bench.now, start);
}

#[test]
fn restored_messages_have_the_tickets_that_were_stored() {
    let mut device = Device::new(config()).unwrap();
    let (now, mut tx, mut snapshot) = (Instant::from_secs(1), Vec::new(), Vec::new());
    let stored: Vec<u64> =
        (0..3).map(|_| device.telemetry(now, Message::new(b"x"), &mut tx).unwrap().number()).collect();
    device.snapshot(&mut snapshot);
    let config = config();
    let restored = Device::restore(&config, &snapshot).unwrap();
    assert_eq!(restored.tickets().map(Ticket::number).collect::<Vec<_>>(), stored);
    assert!(stored.iter().all(|&number| restored.waits(Ticket::from_number(number))));
    // The config is still there where that fails.
    assert!(Device::restore(&config, b"").is_err());
    assert!(Device::new(config).is_ok());
}

#[test]
fn an_owned_action_is_the_action_whatever_it_is() {
    let mut bench = Bench::subscribed(&[Subscription::CloudMessages, Subscription::Methods]);
    let qos = PublishQoS::AtLeastOnce { packet_id: id(1), dup: true };
    let topic = "devices/dev1/messages/devicebound/%24.mid=a%20b&k=";
    let mut actions = vec![
        bench.hear(|out| publish(topic, qos, b"body", out)),
        bench.hear(say("$iothub/methods/POST/re%20boot/?$rid=1", b"{}")),
        Action::Desired { version: 4, patch: b"{}".into() },
        Action::Twin(Twin { version: 3, document: b"{}" }),
        Action::Handled,
        Action::TokenExpires { after: MINUTE },
    ];
    let request = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    actions.push(Action::Answered(Answer { request, status: 200, version: None, body: b"{}" }));
    actions.push(Action::Failed(request, RequestFailure::TimedOut));
    for action in actions {
        assert_eq!(OwnedAction::from(&action).action(), action);
    }
}

#[test]
fn a_refusal_lists_its_usual_causes() {
    let told = |code| Close::new(CloseReason::Refused(code, Rule::ConnectRefused)).to_string();
    let refused = told(ConnectReturnCode::NotAuthorized);
    for cause in ["clock", "key or thumbprint", "registered", "enabled", "sr"] {
        assert!(refused.contains(cause), "{refused}");
    }
    assert!(told(ConnectReturnCode::ServerUnavailable).contains("throttles"));
}

#[test]
fn a_message_says_when_it_was_made() {
    let mut bench = Bench::online();
    let message = Message { creation_time: Some("2023-11-14T22:13:20.000Z"), ..Message::new(b"x") };
    bench.device.telemetry(bench.now, message, &mut bench.tx).unwrap();
    let topic = bench.sent_topics().swap_remove(0);
    assert_eq!(topic, "devices/dev1/messages/events/%24.ctime=2023-11-14T22%3A13%3A20.000Z");
}
