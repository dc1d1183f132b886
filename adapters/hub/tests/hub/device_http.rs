//! Devices that speak HTTP.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use devicebound::hub::ClientCertificate;
use devicebound::iothub::sas;
use devicebound_hub::clock::unix_time;
use devicebound_hub::service::Peer;
use devicebound_hub::transport::tls::TlsPeer;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::client::Client;
use crate::common::key;

/// An answer: its status, a header, its body.
struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Vec<u8>,
}

impl Client {
    /// Asks as the device `demo` does, with a token of its own for `resource`.
    async fn as_device(&self, resource: &str, request: axum::http::request::Builder, path: &str) -> Answer {
        let expiry = unix_time().after(std::time::Duration::from_secs(60));
        let token = sas::sign(&format!("localhost/{resource}"), &key(), expiry, None);
        self.run(request.header("authorization", token), path, None).await
    }

    async fn run(
        &self,
        request: axum::http::request::Builder,
        path: &str,
        certificate: Option<ClientCertificate>,
    ) -> Answer {
        let peer = Peer {
            address: ([127, 0, 0, 1], 1).into(),
            tls: TlsPeer { certificate: certificate.map(Into::into), server_name: None },
        };
        let uri = format!(
            "/devices/demo/messages/{path}{}api-version=2021-04-12",
            if path.contains('?') { '&' } else { '?' }
        );
        let request = request.uri(uri).extension(peer).body(Body::from("hello")).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn own(&self, method: Method, path: &str) -> Answer {
        self.as_device("devices/demo", Request::builder().method(method), path).await
    }

    async fn queue(&self, message_id: &str) {
        let headers =
            [("iothub-messageid", message_id), ("iothub-ack", "full"), ("iothub-app-alert", "high")];
        let (status, _) =
            self.ask("POST", "/devices/demo/messages/deviceBound", &headers, json!(message_id)).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn lock(&self) -> &str {
        self.header("etag").trim_matches('"')
    }
}

#[tokio::test(flavor = "local")]
async fn telemetry_is_stored_with_its_properties_before_it_is_answered_for() {
    let client = Client::start();
    let request = Request::builder()
        .method("POST")
        .header("iothub-app-alert", "high/&=")
        .header("iothub-messageid", "m1")
        .header("iothub-contenttype", "text/plain");
    let answer = client.as_device("devices/demo", request, "events").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let messages = client.hub.store.messages();
    let message = &messages[0];
    assert_eq!((&message["deviceId"], &message["body"]), (&json!("demo"), &json!("aGVsbG8=")));
    assert_eq!(message["properties"], json!({"alert": "high/&="}));
    assert_eq!(message["systemProperties"]["message-id"], "m1");
    assert_eq!(message["systemProperties"]["content-type"], "text/plain");

    client.hub.store.fail();
    let answer = client.own(Method::POST, "events").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "local")]
async fn a_message_is_received_under_a_lock_and_completed() {
    let client = Client::start();
    assert_eq!(client.own(Method::GET, "deviceBound").await.status, StatusCode::NO_CONTENT);
    client.queue("m1").await;
    let message = client.own(Method::GET, "deviceBound").await;
    assert_eq!((message.status, message.body.as_slice()), (StatusCode::OK, br#""m1""#.as_slice()));
    for (name, value) in [
        ("iothub-messageid", "m1"),
        ("iothub-to", "/devices/demo/messages/deviceBound"),
        ("iothub-ack", "full"),
        ("iothub-app-alert", "high"),
        ("iothub-sequencenumber", "1"),
        ("iothub-deliverycount", "0"),
    ] {
        assert_eq!(message.header(name), value, "{name}");
    }
    assert_eq!(client.own(Method::GET, "devicebound").await.status, StatusCode::NO_CONTENT, "it is locked");
    let path = format!("deviceBound/{}", message.lock());
    assert_eq!(client.own(Method::DELETE, &path).await.status, StatusCode::NO_CONTENT);
    let again = client.own(Method::DELETE, &path).await;
    assert_eq!(
        (again.status, again.header("iothub-errorcode")),
        (StatusCode::PRECONDITION_FAILED, "MessageLockLost")
    );
    assert_eq!(
        client.own(Method::DELETE, "deviceBound/nonsense").await.status,
        StatusCode::PRECONDITION_FAILED
    );
}

#[tokio::test(flavor = "local")]
async fn whoever_asks_for_headers_alone_takes_no_message() {
    let client = Client::start();
    client.queue("m1").await;
    let asked = client.own(Method::HEAD, "deviceBound").await;
    assert_eq!(asked.status, StatusCode::METHOD_NOT_ALLOWED);
    let message = client.own(Method::GET, "deviceBound").await;
    assert_eq!(message.header("iothub-messageid"), "m1");
}

#[tokio::test(flavor = "local")]
async fn a_message_can_be_abandoned_and_rejected() {
    let client = Client::start();
    client.queue("m1").await;
    let first = client.own(Method::GET, "deviceBound").await;
    let abandon = format!("deviceBound/{}/abandon", first.lock());
    assert_eq!(client.own(Method::POST, &abandon).await.status, StatusCode::NO_CONTENT);
    let second = client.own(Method::GET, "deviceBound").await;
    assert_eq!((second.header("iothub-messageid"), second.header("iothub-deliverycount")), ("m1", "1"));
    let reject = format!("deviceBound/{}?reject", second.lock());
    assert_eq!(client.own(Method::DELETE, &reject).await.status, StatusCode::NO_CONTENT);
    let (_, reports) = client.ask("GET", "/messages/serviceBound/feedback", &[], Value::Null).await;
    assert_eq!(reports[0]["statusCode"], "Rejected", "{reports}");
}

#[tokio::test(flavor = "local")]
async fn a_device_speaks_for_itself_alone() {
    let client = Client::start();
    let get = || Request::builder().method("GET");
    for resource in ["devices/other", "devices", ""] {
        let answer = client.as_device(resource, get(), "deviceBound").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{resource}");
    }
    let by_policy = async |policy: &str| {
        client.exchange(policy, "GET", "/devices/demo/messages/deviceBound", &[], Value::Null).await.0
    };
    assert_eq!(by_policy("device").await, StatusCode::NO_CONTENT);
    assert_eq!(by_policy("service").await, StatusCode::UNAUTHORIZED);
    let (status, body) = client.ask("GET", "/devices/none/messages/deviceBound", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    client.ask("PUT", "/devices/demo", &[("if-match", "*")], json!({"status": "disabled"})).await;
    let answer = client.own(Method::GET, "deviceBound").await;
    assert_eq!((answer.status, answer.header("iothub-errorcode")), (StatusCode::FORBIDDEN, "DeviceDisabled"));
}

#[tokio::test(flavor = "local")]
async fn a_certificate_is_as_good_as_a_token() {
    let client = Client::start();
    let get = || Request::builder().method("GET");
    let shown = |sha1: &str, common_name: &str, is_trusted| ClientCertificate {
        sha1: sha1.to_owned(),
        common_name: Some(common_name.to_owned()),
        is_trusted,
        ..ClientCertificate::default()
    };
    let print = "ab".repeat(20);
    let with = async |certificate| client.run(get(), "deviceBound", Some(certificate)).await.status;
    assert_eq!(with(shown(&print, "demo", true)).await, StatusCode::UNAUTHORIZED);
    let known = json!({"authentication": {"x509Thumbprint": {"primaryThumbprint": print}}});
    client.ask("PUT", "/devices/demo", &[("if-match", "*")], known).await;
    assert_eq!(with(shown(&print, "", false)).await, StatusCode::NO_CONTENT);
    assert_eq!(with(shown(&"cd".repeat(20), "demo", true)).await, StatusCode::UNAUTHORIZED);
    let signed = json!({"authentication": {"type": "certificateAuthority"}});
    client.ask("PUT", "/devices/demo", &[("if-match", "*")], signed).await;
    assert_eq!(with(shown(&print, "demo", true)).await, StatusCode::NO_CONTENT);
    assert_eq!(with(shown(&print, "demo", false)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(with(shown(&print, "other", true)).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "local")]
async fn a_message_is_as_large_over_http_as_over_mqtt() {
    let client = Client::start();
    for (id, length, status) in [
        ("abcd", 262_140, StatusCode::NO_CONTENT),
        ("abcd", 262_141, StatusCode::PAYLOAD_TOO_LARGE),
        // What counts is the value as it is meant, not as it is written in a topic.
        ("&&&&", 262_140, StatusCode::NO_CONTENT),
    ] {
        let headers = [("iothub-messageid", id)];
        let path = "/devices/demo/messages/events";
        let body = json!("x".repeat(length - 2));
        let (found, _, answer) = client.exchange("device", "POST", path, &headers, body).await;
        assert_eq!(found, status, "{length}: {answer}");
    }
}
