//! `/statistics`: how many devices there are, and how many are connected.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::{ApiError, Call, Shared};

pub(super) async fn devices(backend: Shared, _call: Call) -> Result<Response, ApiError> {
    let counts = backend.count_devices().await;
    let body = json!({
        "totalDeviceCount": counts.total,
        "enabledDeviceCount": counts.enabled,
        "disabledDeviceCount": counts.total.saturating_sub(counts.enabled),
    });
    Ok(Json(body).into_response())
}

pub(super) async fn service(backend: Shared, _call: Call) -> Result<Response, ApiError> {
    Ok(Json(json!({"connectedDeviceCount": backend.count_connected().await})).into_response())
}
