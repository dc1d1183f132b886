//! Callers that hang up before they are answered.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::task::yield_now;

use crate::client::Client;

/// Polls a request so many times, others getting their turn in between, and hangs up; true if it was answered before.
async fn hang_up_after(polls: usize, request: impl Future) -> bool {
    let mut request = pin!(request);
    for _ in 0..polls {
        if request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        yield_now().await;
    }
    false
}

#[tokio::test(flavor = "local")]
async fn who_deletes_and_hangs_up_has_deleted_and_leaves_an_event() {
    let client = Client::start();
    client.hub.store.close();
    let delete = client.ask("DELETE", "/devices/demo", &[], Value::Null);
    assert!(!hang_up_after(20, delete).await, "the store is closed");
    client.hub.store.open();
    let event = client.hub.operation(1).await;
    assert_eq!((&event["operationName"], &event["statusCode"]), (&json!("delete"), &json!(204)), "{event}");
    assert_eq!(event["sharedAccessPolicy"], "iothubowner");
    let (status, _) = client.ask("GET", "/devices/demo", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "local")]
async fn whatever_was_begun_leaves_an_event_wherever_its_caller_hung_up() {
    for (method, path, body, operation) in [
        ("PUT", "/devices/new", json!({}), "create"),
        ("DELETE", "/devices/demo", json!(null), "delete"),
        ("PATCH", "/twins/demo", json!({"tags": {"a": 1}}), "update"),
        ("POST", "/devices/demo/messages/deviceBound", json!("x"), "ingress"),
        ("DELETE", "/devices/demo/commands", json!(null), "purge"),
        ("POST", "/devices", json!([{"id": "many"}]), "bulk"),
    ] {
        for polls in 1..8 {
            let client = Client::start();
            hang_up_after(polls, client.ask(method, path, &[], body.clone())).await;
            let event = client.hub.operation(1).await;
            assert_eq!(event["operationName"], operation, "{method} {path} after {polls}: {event}");
            assert_eq!(event["level"], "Information", "{method} {path} after {polls}: {event}");
        }
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_call_ends_with_its_caller_and_frees_its_place() {
    let client = Client::start();
    let waits = json!({"methodName": "m", "connectTimeoutInSeconds": 300, "responseTimeoutInSeconds": 300});
    for _ in 0..70 {
        let call = client.ask("POST", "/twins/demo/methods", &[], waits.clone());
        assert!(!hang_up_after(20, call).await);
    }
    for _ in 0..100 {
        yield_now().await;
    }
    let call = json!({"methodName": "m"});
    let (status, body) = client.ask("POST", "/twins/demo/methods", &[], call).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    assert!(body.to_string().contains("404103"), "not 403800: {body}");
    let event = client.hub.operation(1).await;
    assert_eq!(
        (&event["operationName"], &event["statusType"]),
        (&json!("send"), &json!("408000")),
        "{event}"
    );
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn feedback_that_a_reader_did_not_get_comes_again() {
    const FEEDBACK: &str = "/messages/serviceBound/feedback";
    let client = Client::start();
    let mut sent = Vec::new();
    for polls in 0..30 {
        let id = format!("m{polls}");
        let headers = [("iothub-ack", "full"), ("iothub-messageid", id.as_str())];
        client.ask("POST", "/devices/demo/messages/deviceBound", &headers, json!("x")).await;
        client.ask("DELETE", "/devices/demo/commands", &[], Value::Null).await;
        sent.push(id.clone());
        hang_up_after(polls, client.ask("GET", FEEDBACK, &[], Value::Null)).await;
    }
    // What was on its way to somebody is locked for a minute.
    let mut found = Vec::new();
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(61)).await;
        let (status, headers, reports) = client.exchange("service", "GET", FEEDBACK, &[], Value::Null).await;
        if status == StatusCode::NO_CONTENT {
            break;
        }
        let ids = reports.as_array().unwrap().iter();
        found.extend(ids.map(|report| report["originalMessageId"].as_str().unwrap().to_owned()));
        let lock = headers["etag"].to_str().unwrap().trim_matches('"').to_owned();
        let (status, _) = client.ask("DELETE", &format!("{FEEDBACK}/{lock}"), &[], Value::Null).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    assert_eq!(found, sent);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_completed_batch_does_not_come_again_though_its_reader_hung_up() {
    const FEEDBACK: &str = "/messages/serviceBound/feedback";
    for polls in 1..10 {
        let client = Client::start();
        let headers = [("iothub-ack", "full"), ("iothub-messageid", "m")];
        client.ask("POST", "/devices/demo/messages/deviceBound", &headers, json!("x")).await;
        client.ask("DELETE", "/devices/demo/commands", &[], Value::Null).await;
        let (_, headers, _) = client.exchange("service", "GET", FEEDBACK, &[], Value::Null).await;
        let lock = headers["etag"].to_str().unwrap().trim_matches('"').to_owned();
        hang_up_after(polls, client.ask("DELETE", &format!("{FEEDBACK}/{lock}"), &[], Value::Null)).await;
        // Send, purge, read, complete.
        client.hub.operation(4).await;
        tokio::time::advance(Duration::from_secs(61)).await;
        let (status, _) = client.ask("GET", FEEDBACK, &[], Value::Null).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "after {polls}");
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_message_that_a_device_did_not_get_is_delivered_again() {
    for polls in 1..10 {
        let client = Client::start();
        let path = "/devices/demo/messages/deviceBound";
        client.ask("POST", path, &[("iothub-messageid", "m")], json!("x")).await;
        hang_up_after(polls, client.ask("GET", path, &[], Value::Null)).await;
        // The lock of a cloud-to-device message holds for a minute.
        let (mut status, mut left) = (StatusCode::NO_CONTENT, 5);
        while status == StatusCode::NO_CONTENT && left > 0 {
            tokio::time::advance(Duration::from_secs(31)).await;
            yield_now().await;
            (status, _) = client.ask("GET", path, &[], Value::Null).await;
            left -= 1;
        }
        assert_eq!(status, StatusCode::OK, "after {polls}");
    }
}
