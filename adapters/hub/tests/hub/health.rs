//! `/health/live` and `/health/ready`, without a token.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::client::Client;
use crate::common::{connect, puback, publish};

async fn health(client: &Client, of: &str) -> (StatusCode, Value) {
    let request = Request::get(format!("/health/{of}")).body(Body::empty()).unwrap();
    let response = client.router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test(flavor = "local")]
async fn a_hub_whose_store_fails_is_live_but_not_ready_until_something_is_stored_again() {
    let client = Client::start();
    assert_eq!(health(&client, "ready").await.0, StatusCode::OK);

    client.hub.store.fail();
    let mut device = client.hub.connected(&connect()).await;
    device.send(&publish(1, b"hello")).await;
    assert_eq!(device.receive().await, None);
    let (status, body) = health(&client, "ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["Message"].as_str().unwrap().contains("disk of the state folder"), "{body}");
    assert_eq!(health(&client, "live").await.0, StatusCode::OK);

    client.hub.store.recover();
    let mut device = client.hub.connected(&connect()).await;
    device.send(&publish(1, b"hello")).await;
    assert_eq!(device.receive().await, Some(puback(1)));
    assert_eq!(health(&client, "ready").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "local")]
async fn a_hub_that_stops_is_not_ready() {
    let client = Client::start();
    client.hub.engine.stop();
    let (status, body) = health(&client, "ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["Message"].as_str().unwrap().contains("stopping"), "{body}");
}
