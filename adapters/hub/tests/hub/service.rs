//! The service API, request by request.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::client::{Client, message};
use crate::common::{connect, puback};

#[tokio::test(flavor = "local")]
async fn a_device_is_registered_changed_and_removed() {
    let client = Client::start();
    let body = json!({"deviceId": "new", "status": "enabled"});
    let (status, made) = client.ask("PUT", "/devices/new", &[], body.clone()).await;
    assert_eq!((status, &made["status"]), (StatusCode::OK, &json!("enabled")), "{made}");
    assert_eq!(made["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().len(), 44);

    let (status, body) = client.ask("PUT", "/devices/new", &[], body).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(message(&body).starts_with("ErrorCode:DeviceAlreadyExists;"), "{body}");

    let disabled = json!({"deviceId": "new", "status": "disabled", "statusReason": "stolen"});
    let (status, _) = client.ask("PUT", "/devices/new", &[("if-match", "\"other\"")], disabled.clone()).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let etag = format!("\"{}\"", made["etag"].as_str().unwrap());
    let (status, changed) = client.ask("PUT", "/devices/new", &[("if-match", &etag)], disabled).await;
    assert_eq!((status, &changed["statusReason"]), (StatusCode::OK, &json!("stolen")));
    assert_eq!(changed["authentication"], made["authentication"], "what was not asked for stays");
    assert_ne!(changed["etag"], made["etag"]);

    let (_, all) = client.ask("GET", "/devices/", &[], Value::Null).await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let (status, _) = client.ask("DELETE", "/devices/new", &[("if-match", "*")], Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, body) = client.ask("GET", "/devices/new", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(message(&body).starts_with("ErrorCode:DeviceNotFound;"), "{body}");
}

#[tokio::test(flavor = "local")]
async fn modules_belong_to_a_device_and_go_with_it() {
    let client = Client::start();
    let (status, _) = client.ask("PUT", "/devices/none/modules/m", &[], json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, module) = client.ask("PUT", "/devices/demo/modules/m", &[], json!({"moduleId": "m"})).await;
    assert_eq!(
        (status, &module["moduleId"], &module["deviceId"]),
        (StatusCode::OK, &json!("m"), &json!("demo"))
    );
    let (_, devices) = client.ask("GET", "/devices", &[], Value::Null).await;
    assert_eq!(devices.as_array().unwrap().len(), 1, "modules are not listed among devices");
    client.ask("DELETE", "/devices/demo", &[], Value::Null).await;
    let (status, _) = client.ask("GET", "/devices/demo/modules/m", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "local")]
async fn what_a_registration_cannot_mean_is_refused_with_the_reason() {
    let client = Client::start();
    for (body, reason) in [
        (json!({"deviceId": "other"}), "ids in the body"),
        (json!({"status": "maybe"}), "enabled or disabled"),
        (json!({"capabilities": {"iotEdge": 1}}), "iotEdge"),
        (json!({"authentication": {"type": "none"}}), "certificateAuthority"),
        (json!({"authentication": {"type": "sas", "symmetricKey": {"primaryKey": "c2hvcnQ="}}}), "16 to 64"),
        (
            json!({"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "xyz"}}}),
            "hex",
        ),
        (json!([]), "JSON object"),
        (json!("new"), "JSON object"),
        (json!({"deviceId": 5}), "deviceId is a text"),
        (json!({"status": true}), "status is a text"),
        (json!({"statusReason": ["stolen"]}), "statusReason is a text"),
        (json!({"statusReason": "x".repeat(129)}), "128 characters"),
        (json!({"authentication": "sas"}), "authentication is an object"),
        (
            json!({"authentication": {"type": "sas", "symmetricKey": {"primaryKey": 1}}}),
            "primaryKey is a text",
        ),
    ] {
        let (status, answer) = client.ask("PUT", "/devices/new", &[], body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(message(&answer).contains(reason), "{body}: {answer}");
    }
    let (status, _) = client.ask("PUT", "/devices/a%2Fb", &[], json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "a slash is a slash, however it is written");
}

#[tokio::test(flavor = "local")]
async fn every_request_needs_a_token_with_the_right() {
    let client = Client::start();
    for (policy, method, path, expected) in [
        ("registryRead", "GET", "/devices", StatusCode::OK),
        ("registryRead", "PUT", "/devices/new", StatusCode::UNAUTHORIZED),
        ("registryRead", "GET", "/twins/demo", StatusCode::UNAUTHORIZED),
        ("service", "GET", "/twins/demo", StatusCode::OK),
        ("service", "GET", "/devices", StatusCode::UNAUTHORIZED),
        ("device", "GET", "/messages/events?follow=false", StatusCode::UNAUTHORIZED),
        ("nobody", "GET", "/devices", StatusCode::UNAUTHORIZED),
    ] {
        let (status, _) = client.ask_as(policy, method, path, &[], json!({})).await;
        assert_eq!(status, expected, "{policy} {method} {path}");
    }
    let bare = Request::builder().uri("/devices").body(Body::empty()).unwrap();
    let response = client.router.clone().oneshot(bare).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["iothub-errorcode"], "IotHubUnauthorizedAccess");
}

#[tokio::test(flavor = "local")]
async fn a_twin_is_changed_by_those_who_have_read_it() {
    let client = Client::start();
    let (_, twin) = client.ask("GET", "/twins/demo", &[], Value::Null).await;
    let etag = format!("\"{}\"", twin["etag"].as_str().unwrap());
    let patch = json!({"properties": {"desired": {"interval": 5}}, "tags": {"site": "north"}});
    let (status, changed) = client.ask("PATCH", "/twins/demo", &[("if-match", &etag)], patch.clone()).await;
    assert_eq!(status, StatusCode::OK);
    let desired = &changed["properties"]["desired"];
    assert_eq!((&desired["interval"], &desired["$version"]), (&json!(5), &json!(2)));
    assert_eq!(desired["$metadata"]["interval"]["$lastUpdatedVersion"], 2);
    assert_eq!(changed["tags"], json!({"site": "north"}));
    let (status, _) = client.ask("PATCH", "/twins/demo", &[("if-match", &etag)], patch).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let replacement = json!({"properties": {"desired": {"mode": "eco"}}});
    let (_, replaced) = client.ask("PUT", "/twins/demo", &[], replacement).await;
    let desired = &replaced["properties"]["desired"];
    assert_eq!((&desired["mode"], &desired["$version"]), (&json!("eco"), &json!(3)));
    assert_eq!(desired.get("interval"), None);
    assert_eq!(replaced["tags"], json!({"site": "north"}));
    for body in [json!({"properties": {"desired": 1}}), json!({"properties": 1}), json!([])] {
        let (status, answer) = client.ask("PATCH", "/twins/demo", &[], body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
    }
}

#[tokio::test(flavor = "local")]
async fn fifty_messages_wait_for_a_device_and_no_more() {
    let client = Client::start();
    let path = "/devices/demo/messages/deviceBound";
    for _ in 0..50 {
        assert_eq!(
            client.ask("POST", path, &[("iothub-app-a", "b")], json!("x")).await.0,
            StatusCode::NO_CONTENT
        );
    }
    let (status, body) = client.ask("POST", path, &[], json!("x")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message(&body).contains("DeviceMaximumQueueDepthExceeded"), "{body}");
    let (_, purged) = client.ask("DELETE", "/devices/demo/commands", &[], Value::Null).await;
    assert_eq!(purged["totalMessagesPurged"], 50);
}

#[tokio::test(flavor = "local")]
async fn a_method_reaches_the_device_and_its_answer_comes_back() {
    let client = Client::start();
    let call = json!({"methodName": "reboot", "payload": {"delay": 3}});
    let (status, body) = client.ask("POST", "/twins/demo/methods", &[], call.clone()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let inner: Value = serde_json::from_str(message(&body)).unwrap();
    assert_eq!(inner["errorCode"], 404_103);

    let mut device = client.hub.connected(&connect()).await;
    device.send(b"\x82\x1b\x00\x01\x00\x16$iothub/methods/POST/#\x01").await;
    device.receive().await.expect("SUBACK");
    let answer = async {
        let request = device.receive().await.unwrap();
        let text = String::from_utf8_lossy(&request);
        assert!(text.contains("$iothub/methods/POST/reboot/?$rid=1"), "{text}");
        assert!(text.ends_with(r#"{"delay":3}"#), "{text}");
        let topic = b"$iothub/methods/res/201/?$rid=1";
        let body = br#"{"ok":true}"#;
        let mut packet = vec![0x32, (2 + topic.len() + 2 + body.len()) as u8, 0, topic.len() as u8];
        packet.extend_from_slice(topic);
        packet.extend_from_slice(&[0, 9]);
        packet.extend_from_slice(body);
        device.send(&packet).await;
        assert_eq!(device.receive().await, Some(puback(9)));
    };
    let ((status, outcome), ()) = tokio::join!(client.ask("POST", "/twins/demo/methods", &[], call), answer);
    assert_eq!((status, outcome), (StatusCode::OK, json!({"status": 201, "payload": {"ok": true}})));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_method_that_is_not_answered_times_out() {
    let client = Client::start();
    let mut device = client.hub.connected(&connect()).await;
    device.send(b"\x82\x1b\x00\x01\x00\x16$iothub/methods/POST/#\x01").await;
    device.receive().await.expect("SUBACK");
    let call = json!({"methodName": "sleep", "responseTimeoutInSeconds": 5});
    let (status, body) = client.ask("POST", "/twins/demo/methods", &[], call).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(message(&body).contains("504101"), "{body}");
}

#[tokio::test(flavor = "local")]
async fn nothing_is_answered_for_that_could_not_be_stored() {
    let client = Client::start();
    client.hub.store.fail();
    let (status, _) = client.ask("PUT", "/devices/new", &[], json!({})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let (status, _) = client.ask("GET", "/devices/new", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "the device is not there either");
}

#[tokio::test(flavor = "local")]
async fn an_unknown_path_is_said_to_be_one() {
    let client = Client::start();
    for (method, path, said) in [
        ("GET", "/no/such", "GET /no/such is not part"),
        ("POST", "/jobs/create", "import and export"),
        ("POST", "/devices/demo/modules/m/messages/deviceBound", "modules have no cloud-to-device messages"),
    ] {
        let (status, headers, body) = client.exchange("iothubowner", method, path, &[], Value::Null).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(headers["iothub-errorcode"], "ResourceNotFound");
        assert!(message(&body).contains(said), "{path}: {body}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_path_of_a_device_may_hold_every_character_of_an_id() {
    let client = Client::start();
    let id = "a-:.+%_#*?!(),=@;$'Z";
    let path = "a-:.+%25_%23*%3F!(),=@;$'Z";
    let (status, made) = client.ask("PUT", &format!("/devices/{path}"), &[], json!({"deviceId": id})).await;
    assert_eq!((status, &made["deviceId"]), (StatusCode::OK, &json!(id)), "{made}");
    let module = format!("/devices/{path}/modules/{path}");
    let (_, made) = client.ask("PUT", &module, &[], json!({})).await;
    assert_eq!((&made["deviceId"], &made["moduleId"]), (&json!(id), &json!(id)));
    let (_, twin) = client.ask("GET", &format!("/twins/{path}/modules/{path}"), &[], Value::Null).await;
    assert_eq!((&twin["deviceId"], &twin["moduleId"]), (&json!(id), &json!(id)));
    let (status, _) = client.ask("GET", &format!("/devices/{}", path.to_lowercase()), &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "ids are case-sensitive");
    let (status, _) = client.ask("DELETE", &format!("/devices/{path}"), &[], Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}
