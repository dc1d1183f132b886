//! How requests are found, refused and told.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use devicebound::iothub::sas;
use devicebound_hub::clock::unix_time;
use devicebound_hub::observe::view::{Format, View};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::client::{Client, message};
use crate::common::Hub;

#[tokio::test(flavor = "local")]
async fn a_path_is_decoded_once_and_then_found() {
    let client = Client::start();
    client.ask("PUT", "/devices/demo/modules/m", &[], json!({})).await;
    let query = json!({"query": "SELECT * FROM devices"});
    let call = json!({"methodName": "reboot"});
    for (method, path, body, expected) in [
        ("POST", "/devices%2Fquery", query.clone(), StatusCode::OK),
        ("POST", "/%2Fdevices%2fquery", query.clone(), StatusCode::OK),
        ("POST", "/%64evices/query/", query, StatusCode::OK),
        ("GET", "/devices%2Fdemo", json!(null), StatusCode::OK),
        ("GET", "/devices%2Fdemo%2Fmodules%2Fm", json!(null), StatusCode::OK),
        ("GET", "/twins%2Fdemo", json!(null), StatusCode::OK),
        ("PATCH", "/twins%2Fdemo%2Fmodules%2Fm", json!({"tags": {}}), StatusCode::OK),
        ("POST", "/devices%2Fdemo%2Fmessages%2FdeviceBound", json!("x"), StatusCode::NO_CONTENT),
        ("DELETE", "/devices%2Fdemo%2Fcommands", json!(null), StatusCode::OK),
        ("GET", "/messages%2FserviceBound%2Ffeedback", json!(null), StatusCode::NO_CONTENT),
        ("GET", "/statistics%2Fdevices", json!(null), StatusCode::OK),
        ("GET", "/messages%2Fevents?follow=false", json!(null), StatusCode::OK),
        ("GET", "/Devices/demo", json!(null), StatusCode::OK),
        // Decoded once: this is a device with a percent sign in its id.
        ("GET", "/devices/demo%252Fmodules", json!(null), StatusCode::NOT_FOUND),
        ("GET", "/devices/DEMO", json!(null), StatusCode::NOT_FOUND),
    ] {
        let (status, answer) = client.ask(method, path, &[], body).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
    }
    let (_, answer) = client.ask("POST", "/twins%2Fdemo%2Fmethods", &[], call).await;
    assert!(answer.to_string().contains("404103"), "{answer}");
}

#[tokio::test(flavor = "local")]
async fn a_device_may_be_named_as_a_word_of_the_paths() {
    let client = Client::start();
    for id in ["query", "Query", "keys", "modules", "messages", "devices", "methods", "files", ".", ".."] {
        let (status, made) = client.ask("POST", "/devices", &[], json!([{"id": id}])).await;
        assert_eq!(status, StatusCode::OK, "{made}");
        let device = format!("/devices/{id}");
        let (status, shown) = client.ask("GET", &device, &[], Value::Null).await;
        assert_eq!((status, &shown["deviceId"]), (StatusCode::OK, &json!(id)), "{shown}");
        let (status, shown) = client.ask("GET", &format!("/twins/{id}"), &[], Value::Null).await;
        assert_eq!((status, &shown["deviceId"]), (StatusCode::OK, &json!(id)), "{shown}");
        let disabled = json!({"status": "disabled"});
        let (status, _) = client.ask("PUT", &device, &[("if-match", "*")], disabled).await;
        assert_eq!(status, StatusCode::OK, "{id}");
        for module in ["methods", "modules", "messages", "query"] {
            let path = format!("{device}/modules/{module}");
            let (status, made) = client.ask("PUT", &path, &[], json!({})).await;
            assert_eq!((status, &made["moduleId"]), (StatusCode::OK, &json!(module)), "{made}");
            let (status, shown) = client.ask("GET", &path, &[], Value::Null).await;
            assert_eq!((status, &shown["moduleId"]), (StatusCode::OK, &json!(module)), "{shown}");
        }
        let message = format!("{device}/messages/deviceBound");
        assert_eq!(client.ask("POST", &message, &[], json!("x")).await.0, StatusCode::NO_CONTENT, "{id}");
        assert_eq!(client.ask("DELETE", &device, &[], Value::Null).await.0, StatusCode::NO_CONTENT, "{id}");
    }
    let query = json!({"query": "SELECT * FROM devices"});
    assert_eq!(client.ask("POST", "/devices/query", &[], query).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "local")]
async fn a_method_that_a_path_does_not_take_is_answered_with_those_that_it_takes() {
    let client = Client::start();
    let (status, headers, _) = client.exchange("iothubowner", "DELETE", "/devices", &[], Value::Null).await;
    assert_eq!((status, headers["allow"].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "GET, POST"));
    let (status, headers, _) = client.exchange("iothubowner", "POST", "/twins/demo", &[], Value::Null).await;
    assert_eq!(
        (status, headers["allow"].to_str().unwrap()),
        (StatusCode::METHOD_NOT_ALLOWED, "GET, PATCH, PUT")
    );
}

#[tokio::test(flavor = "local")]
async fn a_continuation_token_goes_on_with_its_own_query_alone() {
    let client = Client::start();
    for id in ["a", "b", "c"] {
        client.ask("PUT", &format!("/devices/{id}"), &[], json!({})).await;
    }
    let ask = async |text: &str, token: &str| {
        let headers = [("x-ms-max-item-count", "1"), ("x-ms-continuation", token)];
        client.exchange("service", "POST", "/devices/query", &headers, json!({"query": text})).await
    };
    let (first, other) = ("SELECT deviceId FROM devices", "SELECT * FROM devices WHERE deviceId != 'z'");
    let (_, headers, _) = ask(first, "").await;
    let token = headers["x-ms-continuation"].to_str().unwrap().to_owned();
    for (query, expected) in [
        (first, StatusCode::OK),
        (other, StatusCode::BAD_REQUEST),
        ("SELECT COUNT() AS n FROM devices", StatusCode::BAD_REQUEST),
        ("SELECT deviceId FROM devices.modules", StatusCode::BAD_REQUEST),
    ] {
        let (status, _, body) = ask(query, &token).await;
        assert_eq!(status, expected, "{query}: {body}");
        assert!(status == StatusCode::OK || message(&body).contains("another query"), "{body}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_query_that_ends_in_a_semicolon_is_told_to_end_without() {
    let client = Client::start();
    for query in ["SELECT * FROM devices;", "SELECT * FROM devices WHERE tags.a = 1 ;"] {
        let (status, body) = client.ask("POST", "/devices/query", &[], json!({"query": query})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(message(&body).contains("semicolon"), "{body}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_request_that_is_refused_leaves_a_line_in_the_view_whatever_it_holds() {
    let (view, lines) = View::lines(Format::Text);
    let client = Client::of(Hub::start_with(view));
    client.ask("GET", "/no/such", &[], Value::Null).await;
    client.ask("GET", "/devices/%C2%9B31m%E2%80%AE", &[], Value::Null).await;
    client.ask("DELETE", "/twins/demo", &[], Value::Null).await;
    client.ask_as("device", "GET", "/devices", &[], Value::Null).await;
    client.ask("GET", &format!("/{}", "x".repeat(5000)), &[], Value::Null).await;
    let told: Vec<String> = lines.try_iter().collect();
    for (line, parts) in told.iter().zip([
        ["GET /no/such", "404000 ResourceNotFound"],
        ["GET /devices/", "400004 ArgumentInvalid"],
        ["DELETE /twins/demo", "405000 MethodNotAllowed"],
        ["GET /devices", "401002 IotHubUnauthorizedAccess"],
        ["GET /xxxx", "404000 ResourceNotFound"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        assert!(!line.contains(['\u{9b}', '\u{202e}']), "{line:?}");
    }
    assert_eq!(told.len(), 5, "{told:?}");
}

#[tokio::test(flavor = "local")]
async fn a_web_socket_elsewhere_is_told_where_it_is() {
    let client = Client::start();
    for path in ["/", "/mqtt", "/ws", "/$iothub", "/$iothub/websocket/mqtt"] {
        let request = Request::get(path).header("connection", "Upgrade").header("upgrade", "websocket");
        let request = request.body(Body::empty()).unwrap();
        let response = client.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(message(&body).contains("/$iothub/websocket"), "{body}");
    }
}

#[tokio::test(flavor = "local")]
async fn what_was_sent_over_http_says_where_it_was_sent_to() {
    let client = Client::start();
    for place in ["deviceBound", "devicebound", "DEVICEBOUND"] {
        let path = format!("/devices/demo/messages/{place}");
        client.ask("POST", &path, &[], json!("x")).await;
        let (_, headers, _) =
            client.exchange("device", "GET", "/devices/demo/messages/deviceBound", &[], Value::Null).await;
        assert_eq!(headers["iothub-to"], path);
    }
    client.ask("POST", "/devices%2Fdemo%2Fmessages%2FdeviceBound", &[], json!("x")).await;
    let (_, headers, _) =
        client.exchange("device", "GET", "/devices/demo/messages/deviceBound", &[], Value::Null).await;
    assert_eq!(headers["iothub-to"], "/devices/demo/messages/deviceBound");
}

#[tokio::test(flavor = "local")]
async fn an_event_repeats_little_of_a_stranger_and_names_no_policy_that_did_not_sign() {
    let client = Client::start();
    let expiry = unix_time().after(std::time::Duration::from_secs(60));
    let forged =
        sas::sign("localhost", &sas::SymmetricKey::from_bytes(&[1; 32]), expiry, Some("iothubowner"));
    let request = Request::get(format!("/devices/{}?api-version=1", "x".repeat(4000)))
        .header("authorization", forged)
        .header("user-agent", "u".repeat(10_000))
        .body(Body::empty())
        .unwrap();
    assert_eq!(client.router.clone().oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let event = client.hub.operation(1).await;
    assert_eq!((event.get("sharedAccessPolicy"), &event["statusType"]), (None, &json!("401002")), "{event}");
    assert_eq!(event["userAgent"].as_str().unwrap().len(), 256);
    assert!(event.to_string().len() < 2048, "{event}");
}

#[tokio::test(flavor = "local")]
async fn strangers_do_not_push_the_events_of_others_out() {
    let client = Client::start();
    client.ask("DELETE", "/devices/demo", &[], Value::Null).await;
    let many = 2 * 100_000 / 10;
    for number in 0..many {
        let request = Request::get("/devices/demo?api-version=1").header("user-agent", number.to_string());
        client.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    }
    let first = client.hub.engine.operations.log.after(0).unwrap();
    assert!(first.line.contains(r#""operationName":"delete""#), "{first:?}");
    assert!(client.hub.engine.operations.log.after(1).unwrap().cursor > 2, "strangers push out their own");
}

#[tokio::test(flavor = "local")]
async fn what_other_rooms_serve_takes_no_path_from_the_service_api() {
    let others = axum::Router::new().route(
        "/{scope}/registrations/{id}",
        axum::routing::post(async |axum::extract::Path(path): axum::extract::Path<(String, String)>| {
            format!("{}|{}", path.0, path.1)
        }),
    );
    let client = Client::with_others(Hub::start(), others);
    for path in ["/0ne1/registrations/a%25b", "/0ne1%2Fregistrations%2fa%25b", "//0ne1/registrations/a%25b"] {
        let request = Request::post(path).body(Body::empty()).unwrap();
        let response = client.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body, "0ne1|a%b");
    }
    client.ask("PUT", "/devices/registrations", &[], json!({})).await;
    let (status, _) = client.ask("GET", "/devices/registrations/modules", &[], Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let call = json!({"methodName": "m"});
    let (_, body) = client.ask("POST", "/twins/registrations/methods", &[], call).await;
    assert!(body.to_string().contains("404103"), "{body}");
    let (status, body) = client.ask("GET", "/no/such", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(message(&body).contains("not part of"), "{body}");
}
