//! Direct methods: answered at any time, several at once, never twice.

use super::*;
use crate::limits::METHOD_RESPONSE_TIME;
use alloc::format;
use alloc::vec;

fn invoke(rid: &str) -> impl FnOnce(&mut Vec<u8>) + use<> {
    let topic = format!("$iothub/methods/POST/re%20boot/?$rid={rid}");
    move |out| publish(&topic, PublishQoS::AtMostOnce, b"{\"in\":1}", out)
}

fn call(action: Action<'_>) -> CallId {
    match action {
        Action::Invoke(call) => call.id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_comes_with_name_and_payload_and_its_answer_repeats_the_rid() {
    let mut bench = Bench::online();
    let Action::Invoke(call) = bench.hear(invoke("1a-%2F")) else { panic!() };
    assert_eq!((call.name.as_ref(), call.payload), ("re boot", &b"{\"in\":1}"[..]));
    assert_eq!(call.due, bench.now.after(METHOD_RESPONSE_TIME.2));
    bench.device.respond(bench.now, call.id, -7, b"{}", &mut bench.tx).unwrap();
    let sent = bench.sent();
    assert_eq!(sent[0].topic, "$iothub/methods/res/-7/?$rid=1a-%2F");
    assert_eq!((sent[0].qos, &sent[0].payload[..]), (Some(QoS::AtMostOnce), &b"{}"[..]));
}

#[test]
fn calls_are_answered_in_any_order_and_once() {
    let mut bench = Bench::online();
    let calls = ["a", "b", "c"].map(|rid| call(bench.hear(invoke(rid))));
    assert_eq!(bench.device.status().calls, 3);
    for index in [2, 0, 1] {
        bench.device.respond(bench.now, calls[index], 200, b"", &mut bench.tx).unwrap();
        assert_eq!(
            bench.device.respond(bench.now, calls[index], 200, b"", &mut bench.tx),
            Err(RespondError::Gone)
        );
    }
    let topics = bench.sent_topics();
    assert_eq!(topics, ["c", "a", "b"].map(|rid| format!("$iothub/methods/res/200/?$rid={rid}")));
}

#[test]
fn an_answer_that_nobody_waits_for_says_so() {
    let mut bench = Bench::online();
    let late = call(bench.hear(invoke("1")));
    bench.now = bench.now.after(METHOD_RESPONSE_TIME.2);
    let _ = bench.event(Event::TimedOut);
    assert_eq!(bench.device.respond(bench.now, late, 200, b"", &mut bench.tx), Err(RespondError::Gone));

    let mut bench = Bench::online();
    let cut = call(bench.hear(invoke("1")));
    bench.reconnect(true);
    assert_eq!(bench.device.respond(bench.now, cut, 200, b"", &mut bench.tx), Err(RespondError::Gone));
    assert!(bench.sent().is_empty());
}

#[test]
fn an_answer_that_is_too_large_can_be_given_once_more() {
    let mut bench = Bench::online();
    let call = call(bench.hear(invoke("1")));
    let refused = bench.device.respond(bench.now, call, 200, &vec![b' '; 131_073], &mut bench.tx);
    assert_eq!(refused, Err(RespondError::TooLarge));
    bench.device.respond(bench.now, call, 200, &vec![b' '; 131_072], &mut bench.tx).unwrap();
}

#[test]
fn a_call_too_many_is_answered_by_the_machine() {
    let limits = Limits { calls: 1, ..Limits::default() };
    let mut bench = Bench::online_with(config().with_limits(limits));
    let first = call(bench.hear(invoke("1")));
    assert_eq!(bench.hear(invoke("2")), Action::Handled);
    let sent = bench.sent();
    assert_eq!(
        (sent[0].topic.as_str(), &sent[0].payload[..]),
        ("$iothub/methods/res/429/?$rid=2", &b"null"[..])
    );
    assert_eq!(bench.device.status().ignored.refused_calls, 1);
    bench.device.respond(bench.now, first, 200, b"", &mut bench.tx).unwrap();
    call(bench.hear(invoke("3")));
}
