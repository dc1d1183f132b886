//! `GET /connections/{id}` and `GET /queues/{id}`: what is known of a live connection, and which cloud-to-device messages
//! wait. Azure has neither; the page and people who look for a fault do.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::time::UnixTime;
use serde_json::{Value, json};

use super::{ApiError, Call, Shared};
use crate::backend::cloud_messages::Queued;
use crate::backend::connections::Connected;

/// Whether a device or module is connected and since when, and of a live connection all that is known.
pub(super) async fn show(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let connection = backend.connection(&call.client_id()?).await?;
    let mut body = connection.live.as_ref().map(live_to_json).unwrap_or_default();
    body["connectionState"] = if connection.live.is_some() { "Connected" } else { "Disconnected" }.into();
    body["since"] = connection.since.map(text).into();
    body["lastActivityTime"] = connection.last_activity.map(text).into();
    Ok(Json(body).into_response())
}

fn live_to_json(connected: &Connected) -> Value {
    json!({
        "address": connected.peer.to_string(),
        "protocol": connected.protocol,
        "sdk": connected.sdk_version,
        "apiVersion": connected.api_version,
        "credential": connected.credential,
        "credentialExpires": connected.expires.map(text),
        "cleanSession": !connected.is_persistent,
        "subscriptions": connected.subscriptions,
    })
}

/// The messages that wait, oldest first, in an array.
pub(super) async fn queue(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let queued = backend.queue(&call.client_id()?).await?;
    let body: Vec<Value> = queued.iter().map(queued_to_json).collect();
    Ok(Json(body).into_response())
}

fn queued_to_json(queued: &Queued) -> Value {
    json!({
        "sequenceNumber": queued.sequence.0,
        "messageId": queued.message_id,
        "enqueuedTime": text(queued.enqueued),
        "expiryTime": text(queued.expiry),
        "ack": queued.ack.as_str(),
        "deliveryCount": queued.delivery_count,
        "locked": queued.is_locked,
        "properties": queued.properties,
        "body": STANDARD.encode(&queued.body),
    })
}

fn text(time: UnixTime) -> String {
    time.to_string()
}
