//! Twins: requests find their answers, and desired properties do not drift.

use super::*;
use alloc::format;

const RESPONSES: &str = "$iothub/twin/res/#";
const PATCHES: &str = "$iothub/twin/PATCH/properties/desired/#";

fn answer(bench: &mut Bench, status: u16, rid: &str, body: &'static [u8]) -> Action<'static> {
    let topic = format!("$iothub/twin/res/{status}/?$rid={rid}");
    bench.hear(|out| publish(&topic, PublishQoS::AtMostOnce, body, out))
}

fn notify(bench: &mut Bench, version: u64) -> Action<'static> {
    let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
    bench.hear(|out| publish(&topic, PublishQoS::AtMostOnce, b"{\"a\":1}", out))
}

fn document(version: u64) -> &'static [u8] {
    format!(r#"{{"desired":{{"$version":{version}}},"reported":{{"$version":1}}}}"#).into_bytes().leak()
}

/// The `$rid` of the one GET that was written.
fn get_rid(sent: &[Sent]) -> String {
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent[0].topic.strip_prefix("$iothub/twin/GET/?$rid=").unwrap().to_string()
}

fn twin(version: u64) -> Action<'static> {
    Action::Twin(Twin { version, document: document(version) })
}

fn changed(version: u64, patch: &'static str) -> Action<'static> {
    Action::Desired { version, patch: patch.as_bytes().into() }
}

#[test]
fn the_first_request_subscribes_to_the_answers_and_waits_for_that() {
    let mut bench = Bench::online();
    let request = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    let sent = bench.sent();
    assert_eq!(sent.iter().map(|packet| packet.topic.as_str()).collect::<Vec<_>>(), [RESPONSES]);
    let granted = [SubAckCode::Granted(QoS::AtMostOnce)];
    bench.hear(|out| suback(sent[0].id, &granted, out));
    let sent = bench.sent();
    assert_eq!(sent[0].payload, b" ");
    let rid = get_rid(&sent);
    assert_eq!(rid, request.to_string());
    let action = answer(&mut bench, 200, &rid, b"{}");
    assert_eq!(action, Action::Answered(Answer { request, status: 200, version: None, body: b"{}" }));
}

#[test]
fn a_report_says_which_version_it_is_for_and_learns_the_new_one() {
    let mut bench = Bench::subscribed(&[Subscription::TwinResponses]);
    let request = bench.device.report(bench.now, b"{\"a\":1}", Some(4), &mut bench.tx).unwrap();
    let sent = bench.sent();
    assert_eq!(sent[0].topic, format!("$iothub/twin/PATCH/properties/reported/?$rid={request}&$version=4"));
    assert_eq!((sent[0].qos, &sent[0].payload[..]), (Some(QoS::AtMostOnce), &b"{\"a\":1}"[..]));
    let topic = format!("$iothub/twin/res/204/?$rid={request}&$version=5");
    let action = bench.hear(|out| publish(&topic, PublishQoS::AtMostOnce, b"", out));
    assert_eq!(action, Action::Answered(Answer { request, status: 204, version: Some(5), body: b"" }));
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let mut bench = Bench::subscribed(&[Subscription::TwinResponses]);
    let requests: Vec<_> = (0..4).map(|_| bench.device.get_twin(bench.now, &mut bench.tx).unwrap()).collect();
    for index in [2, 0, 3, 1] {
        let Action::Answered(answer) = answer(&mut bench, 200, &requests[index].to_string(), b"") else {
            panic!()
        };
        assert_eq!(answer.request, requests[index]);
    }
}

#[test]
fn a_request_that_cannot_be_made_changes_nothing() {
    let mut bench = Bench::new(config());
    bench.device.disconnect(bench.now, &mut bench.tx);
    assert_eq!(bench.device.get_twin(bench.now, &mut bench.tx), Err(RequestError::NotConnected));
    let mut bench = Bench::online();
    let large = alloc::vec![b' '; 262_145];
    assert_eq!(bench.device.report(bench.now, &large, None, &mut bench.tx), Err(RequestError::TooLarge));
    assert!(bench.sent().is_empty());
    for _ in 0..16 {
        bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    }
    bench.sent();
    assert_eq!(bench.device.get_twin(bench.now, &mut bench.tx), Err(RequestError::TooMany));
    assert!(bench.sent().is_empty());
}

#[test]
fn a_request_that_is_not_answered_in_time_fails_and_its_late_answer_is_told_apart() {
    let timing = Timing { request: Duration::from_secs(20), ..Timing::default() };
    let mut bench = Bench::online_with(config().with_timing(timing));
    bench.device.subscribe(bench.now, Subscription::TwinResponses, &mut bench.tx).unwrap();
    bench.grant_all();
    let first = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    let second = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    assert_eq!(bench.device.poll_timeout().unwrap().why, Timer::Request);
    assert_eq!(bench.wait_for_timer(), Ok(Action::Failed(first, RequestFailure::TimedOut)));
    let mut rx = packet_bytes(packet::pingresp);
    assert_eq!(bench.pull(&mut rx), Ok(Action::Failed(second, RequestFailure::TimedOut)));
    assert_eq!(rx.len(), 2, "failures are told before more is taken");
    assert_eq!(answer(&mut bench, 200, "1", b""), Action::Handled);
    assert_eq!(answer(&mut bench, 200, "99", b""), Action::Handled);
    let ignored = bench.device.status().ignored;
    assert_eq!((ignored.late_answers, ignored.unknown_answers, ignored.duplicate_answers), (1, 1, 0));
}

#[test]
fn requests_fail_with_their_connection() {
    let mut bench = Bench::subscribed(&[Subscription::TwinResponses]);
    let request = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    assert_eq!(bench.event(Event::Closed), Err(CloseReason::Lost));
    assert_eq!(bench.pull(&mut &[][..]), Ok(Action::Failed(request, RequestFailure::ConnectionLost)));
    assert!(matches!(bench.pull(&mut &[][..]), Ok(Action::Wait(Wait::Connect { .. }))));
}

#[test]
fn requests_fail_when_the_hub_refuses_the_subscription_to_answers() {
    let mut bench = Bench::online();
    let request = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    let sent = bench.sent();
    let action = bench.hear(|out| suback(sent[0].id, &[SubAckCode::Failure], out));
    assert_eq!(action, Action::SubscriptionRefused(Subscription::TwinResponses));
    assert_eq!(bench.pull(&mut &[][..]), Ok(Action::Failed(request, RequestFailure::Refused)));
    assert!(bench.sent().is_empty());
    let request = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    assert_eq!(get_rid(&bench.grant_all()), request.to_string(), "the old one is not sent any more");
}

/// Observing, the first document taken.
fn in_step(version: u64) -> Bench {
    let mut bench = Bench::online();
    bench.device.subscribe(bench.now, Subscription::DesiredPatches, &mut bench.tx).unwrap();
    let rid = get_rid(&bench.grant_all());
    assert_eq!(answer(&mut bench, 200, &rid, document(version)), twin(version));
    bench
}

#[test]
fn to_observe_is_to_subscribe_first_and_to_ask_for_the_document_then() {
    let mut bench = Bench::online();
    bench.device.subscribe(bench.now, Subscription::DesiredPatches, &mut bench.tx).unwrap();
    let sent = bench.sent();
    assert_eq!(sent.iter().map(|packet| packet.topic.as_str()).collect::<Vec<_>>(), [RESPONSES, PATCHES]);
    let granted = [SubAckCode::Granted(QoS::AtMostOnce)];
    bench.hear(|out| suback(sent[0].id, &granted, out));
    assert!(bench.sent().is_empty());
    bench.hear(|out| suback(sent[1].id, &granted, out));
    let rid = get_rid(&bench.sent());
    assert_eq!(answer(&mut bench, 200, &rid, document(3)), twin(3));
}

#[test]
fn each_change_is_seen_once_and_in_order() {
    let mut bench = in_step(3);
    assert_eq!(notify(&mut bench, 3), Action::Handled);
    assert_eq!(notify(&mut bench, 4), changed(4, r#"{"a":1}"#));
    assert_eq!(notify(&mut bench, 4), Action::Handled);
    assert_eq!(notify(&mut bench, 5), changed(5, r#"{"a":1}"#));
    assert!(bench.sent().is_empty());
    assert_eq!(bench.device.status().ignored.stale_changes, 2);
}

#[test]
fn a_gap_and_a_race_are_closed_by_asking_again() {
    let mut bench = in_step(3);
    assert_eq!(notify(&mut bench, 5), Action::Handled);
    let rid = get_rid(&bench.sent());
    assert_eq!(notify(&mut bench, 7), Action::Handled);
    assert_eq!(answer(&mut bench, 200, &rid, document(6)), twin(6));
    let rid = get_rid(&bench.sent());
    assert_eq!(answer(&mut bench, 200, &rid, document(7)), twin(7));
    assert_eq!(notify(&mut bench, 8), changed(8, r#"{"a":1}"#));
}

#[test]
fn every_connection_asks_for_the_document_with_and_without_session() {
    let mut bench = in_step(3);
    bench.reconnect(true);
    let rid = get_rid(&bench.sent());
    assert_eq!(notify(&mut bench, 4), Action::Handled, "not before the document");
    assert_eq!(answer(&mut bench, 200, &rid, document(4)), twin(4));
    bench.reconnect(false);
    get_rid(&bench.grant_all());
}

#[test]
fn a_throttled_or_lost_document_is_asked_for_later() {
    let mut bench = in_step(3);
    notify(&mut bench, 5);
    let rid = get_rid(&bench.sent());
    assert_eq!(answer(&mut bench, 429, &rid, b"{}"), Action::Handled);
    assert!(bench.sent().is_empty());
    assert_eq!(bench.device.poll_timeout().unwrap().why, Timer::Request);
    bench.wait_for_timer().unwrap();
    get_rid(&bench.sent());
    // This one is not answered.
    while bench.device.poll_timeout().unwrap().why != Timer::Request {
        bench.wait_for_timer().unwrap();
        bench.sent();
        bench.hear(packet::pingresp);
    }
    bench.wait_for_timer().unwrap();
    bench.sent();
    bench.hear(packet::pingresp);
    bench.wait_for_timer().unwrap();
    get_rid(&bench.sent());
}

#[test]
fn an_answer_that_is_no_document_is_not_handed_out_as_one() {
    let mut bench = in_step(3);
    notify(&mut bench, 5);
    let rid = get_rid(&bench.sent());
    assert_eq!(answer(&mut bench, 200, &rid, b"{\"desired\":"), Action::Handled);
    assert!(bench.sent().is_empty());
}

#[test]
fn after_observing_was_given_up_and_taken_up_again_the_document_comes_first() {
    let mut bench = in_step(3);
    bench.device.unsubscribe(bench.now, Subscription::DesiredPatches, &mut bench.tx).unwrap();
    assert_eq!(notify(&mut bench, 4), Action::Handled, "on the way when it was given up");
    bench.grant_all();
    bench.device.subscribe(bench.now, Subscription::DesiredPatches, &mut bench.tx).unwrap();
    let rid = get_rid(&bench.grant_all());
    assert_eq!(answer(&mut bench, 200, &rid, document(9)), twin(9));
}

#[test]
fn the_applications_own_request_does_not_disturb_observing() {
    let mut bench = in_step(3);
    let request = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    let rid = get_rid(&bench.sent());
    assert!(
        matches!(answer(&mut bench, 200, &rid, document(3)), Action::Answered(answer) if answer.request == request)
    );
    assert_eq!(notify(&mut bench, 4), changed(4, r#"{"a":1}"#));
}

/// Subscribed to the answers, with requests that outlive the connection.
fn resending() -> Bench {
    let mut bench = Bench::online_with(config().with_requests(RequestPolicy::Resend));
    bench.device.subscribe(bench.now, Subscription::TwinResponses, &mut bench.tx).unwrap();
    bench.grant_all();
    bench
}

#[test]
fn a_request_is_sent_again_and_answered_once_where_that_is_the_policy() {
    for session_present in [true, false] {
        let mut bench = resending();
        let request = bench.device.report(bench.now, b"{\"a\":1}", Some(4), &mut bench.tx).unwrap();
        let sent = bench.sent();
        assert_eq!(bench.event(Event::Closed), Err(CloseReason::Lost));
        bench.wait_for_timer().unwrap();
        bench.open();
        bench.accept(session_present);
        let again = bench.grant_all();
        assert_eq!(again, sent);
        let topic = format!("$iothub/twin/res/204/?$rid={request}&$version=5");
        let action = bench.hear(|out| publish(&topic, PublishQoS::AtMostOnce, b"", out));
        assert_eq!(action, Action::Answered(Answer { request, status: 204, version: Some(5), body: b"" }));
        assert_eq!(bench.device.status().requests, 0);
    }
}

#[test]
fn a_request_that_is_to_be_sent_again_fails_in_time_also_offline() {
    let mut bench = resending();
    let request = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    let due = bench.now.after(Timing::default().request);
    assert_eq!(bench.event(Event::Closed), Err(CloseReason::Lost));
    while bench.now < due {
        assert!(matches!(bench.pull(&mut &[][..]), Ok(Action::Wait(Wait::Connect { .. }))));
        // The transport cannot be opened.
        let next = bench.device.poll_timeout().unwrap();
        bench.now = next.at;
        match next.why {
            Timer::Reconnect => bench.event(Event::Closed).unwrap(),
            _ => break,
        };
    }
    assert_eq!(bench.now, due);
    assert_eq!(bench.event(Event::TimedOut), Ok(Action::Failed(request, RequestFailure::TimedOut)));
    bench.pull_all();
    bench.wait_for_timer().unwrap();
    bench.open();
    bench.accept(true);
    assert!(bench.sent().is_empty());
}

#[test]
fn nobody_waits_for_a_request_once_the_application_has_disconnected() {
    let mut bench = resending();
    let request = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    bench.device.disconnect(bench.now, &mut bench.tx);
    assert_eq!(bench.event(Event::Received(&mut &[][..])), Err(CloseReason::Disconnected));
    assert_eq!(bench.event(Event::Closed), Ok(Action::Failed(request, RequestFailure::ConnectionLost)));
}

#[test]
fn a_request_waits_for_a_connection_whatever_becomes_of_those_that_were_sent() {
    for policy in [RequestPolicy::Fail, RequestPolicy::Resend] {
        let mut bench = Bench::new(config().with_requests(policy));
        let get = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
        let report = bench.device.report(bench.now, b"{}", None, &mut bench.tx).unwrap();
        assert!(bench.tx.is_empty());
        bench.open();
        // An attempt that comes to nothing does not fail what it never sent.
        assert_eq!(bench.event(Event::Closed), Err(CloseReason::Lost));
        bench.pull_all();
        bench.wait_for_timer().unwrap();
        bench.open();
        bench.accept(false);
        let sent: Vec<_> = bench.grant_all().into_iter().map(|packet| packet.topic).collect();
        assert_eq!(
            sent,
            [
                format!("$iothub/twin/GET/?$rid={get}"),
                format!("$iothub/twin/PATCH/properties/reported/?$rid={report}")
            ]
        );
        assert!(matches!(answer(&mut bench, 200, "1", b"{}"), Action::Answered(_)));
        let told = (bench.event(Event::Closed), bench.pull(&mut &[][..]));
        assert_eq!(told.0, Err(CloseReason::Lost));
        match policy {
            RequestPolicy::Fail => {
                assert_eq!(told.1, Ok(Action::Failed(report, RequestFailure::ConnectionLost)));
            }
            RequestPolicy::Resend => assert!(matches!(told.1, Ok(Action::Wait(_)))),
        }
    }
}

#[test]
fn a_request_for_which_no_connection_comes_says_that_it_was_not_sent() {
    let mut bench = Bench::new(config());
    let late = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    let asked = bench.now;
    while bench.wait_for_timer() != Ok(Action::Failed(late, RequestFailure::NeverSent)) {
        assert!(bench.now < asked.after(Duration::from_secs(60)));
    }
    let given_up = bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    bench.device.disconnect(bench.now, &mut bench.tx);
    assert_eq!(bench.pull(&mut &[][..]), Ok(Action::Failed(given_up, RequestFailure::NeverSent)));
}
