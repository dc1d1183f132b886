//! A newer certificate: asked for once, over lost connections, in time.

use alloc::format;
use core::time::Duration;

use super::*;
use crate::iothub::{CertificateChain, CertificateRequest};

/// Both of the same key of P-256, CN=dev1; the certificate is good for 30 days.
const REQUEST: &str = "MIHJMHECAQAwDzENMAsGA1UEAwwEZGV2MTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHE47ICld8IZbKYpzWFu3hdbp5kTtERCNrUsTQJap80whYyUWTz9J60X56K9iSxZZWobAGggKGGiDQtOxhQjsESgADAKBggqhkjOPQQDAgNIADBFAiEAxe4PlKT7qIzgS8UQFvU19UqFY391CLkog1TZq8Rc3yYCICLbfk2Siru54CEpa4fs9lH2n+SXm9E6FRenFrIyErlU";
const CERTIFICATE: &str = "MIIBczCCARmgAwIBAgIUUPTWNKwsKq7rCkV5/mRV9BeH2TowCgYIKoZIzj0EAwIwDzENMAsGA1UEAwwEZGV2MTAeFw0yNjEyMDEwMTM4NDFaFw0yNjEyMzEwMTM4NDFaMA8xDTALBgNVBAMMBGRldjEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARxOOyApXfCGWymKc1hbt4XW6eZE7REQja1LE0CWqfNMIWMlFk8/SetF+eivYksWWVqGwBoIChhog0LTsYUI7BEo1MwUTAdBgNVHQ4EFgQUVvVQ4xgg/I2pw3G3rceYaJ1kcpIwHwYDVR0jBBgwFoAUVvVQ4xgg/I2pw3G3rceYaJ1kcpIwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiByTmBq0/ArBLgiiDF2eqllsAQF7dm7haAHAq4Q80FjkAIhALYwo6Yshxe6B5S25W6Hj0F+hGrEJbGPoYz93Nhigong";

const DAY: Duration = Duration::from_secs(24 * 3600);

fn request() -> CertificateRequest {
    CertificateRequest::from_base64(REQUEST).unwrap()
}

fn answer(status: u16, rid: &str, body: String) -> impl FnOnce(&mut Vec<u8>) + use<> {
    let topic = format!("$iothub/credentials/res/{status}/?$rid={rid}");
    move |out| publish(&topic, PublishQoS::AtMostOnce, body.as_bytes(), out)
}

fn issued() -> String {
    format!("{{\"correlationId\":\"c\",\"certificates\":[\"{CERTIFICATE}\"]}}")
}

/// A device whose request was sent, and the request's id.
fn asked() -> (Bench, String) {
    let mut bench = Bench::online();
    bench.device.request_certificate(bench.now, request(), &mut bench.tx).unwrap();
    assert!(!String::from_utf8_lossy(&bench.tx).contains("issueCertificate"), "SUBACK comes first");
    let topic = bench.grant_all().pop().unwrap().topic;
    let rid = topic.strip_prefix("$iothub/credentials/POST/issueCertificate/?$rid=").unwrap();
    (bench, rid.to_string())
}

#[test]
fn a_certificate_is_asked_for_after_suback_and_comes_after_the_acceptance() {
    let (mut bench, rid) = asked();
    let again = bench.device.request_certificate(bench.now, request(), &mut bench.tx);
    assert_eq!(again, Err(RequestError::TooMany), "one at a time");
    assert_eq!(bench.hear(answer(202, &rid, "{}".into())), Action::Handled, "it is not the last");
    let Action::CertificateIssued(chain) = bench.hear(answer(200, &rid, issued())) else { panic!() };
    assert_eq!((chain.common_name(), chain.certificates().len()), ("dev1", 1));
    assert_eq!(bench.hear(answer(200, &rid, issued())), Action::Handled, "nobody waits for it any more");
    assert!(bench.device.request_certificate(bench.now, request(), &mut bench.tx).is_ok());
}

#[test]
fn a_request_outlives_its_connection_and_any_of_its_answers_counts() {
    let (mut bench, first) = asked();
    bench.reconnect(false);
    let sent = bench.grant_all();
    let again = sent.iter().find(|packet| packet.topic.contains("issueCertificate")).unwrap();
    assert!(!again.topic.ends_with(&first), "an id is used once");
    assert!(String::from_utf8_lossy(&again.payload).ends_with("\"replace\":\"*\"}"));
    assert!(matches!(bench.hear(answer(200, &first, issued())), Action::CertificateIssued(_)));
}

#[test]
fn what_the_hub_refuses_or_leaves_unanswered_is_told() {
    let (mut bench, rid) = asked();
    let body = r#"{"errorCode":409005,"message":"another"}"#.to_string();
    let Action::CertificateFailed(failure) = bench.hear(answer(409, &rid, body)) else { panic!() };
    assert!(failure.to_string().contains("409005: another"), "{failure}");

    for body in ["{}".to_string(), "[\"QQ==\"]".to_string(), String::new()] {
        let (mut bench, rid) = asked();
        let told = bench.hear(answer(200, &rid, body));
        assert_eq!(told, Action::CertificateFailed(CertificateFailure::Malformed));
    }

    let (mut bench, rid) = asked();
    bench.hear(answer(202, &rid, "{}".into()));
    bench.now = bench.now.after(Duration::from_secs(120));
    let told = bench.event(Event::TimedOut);
    assert_eq!(told, Ok(Action::CertificateFailed(CertificateFailure::TimedOut)));
}

#[test]
fn a_renewal_is_planned_between_two_thirds_and_five_sixths_of_a_certificates_life() {
    let chain = CertificateChain::from_base64(&[CERTIFICATE]).unwrap();
    assert_eq!(chain.not_after().since(chain.not_before()), 30 * DAY);
    let mut bench = Bench::new(config());
    let start = bench.now;
    bench.device.plan_certificate_renewal(bench.now, chain.not_before(), &chain);
    let told_at = |bench: &mut Bench, at| {
        bench.now = at;
        bench.event(Event::TimedOut) == Ok(Action::CertificateDue)
    };
    assert!(!told_at(&mut bench, start.after(20 * DAY - Duration::from_secs(1))));
    assert!(told_at(&mut bench, start.after(25 * DAY)));
    assert!(!told_at(&mut bench, start.after(26 * DAY)), "it is told once");
    // One that is late already is renewed at once.
    bench.device.plan_certificate_renewal(bench.now, chain.not_after(), &chain);
    let now = bench.now;
    assert!(told_at(&mut bench, now));
}
