//! `GET /health/live` and `GET /health/ready`, for who starts, restarts and balances hubs; without a token, and with nothing
//! in the answer that a stranger should not know.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::{ApiError, Call, Shared};

/// The process answers. A full disk or a busy worker is no reason to restart it, so neither is asked.
pub(super) async fn live(_backend: Shared, _call: Call) -> Result<Response, ApiError> {
    Ok(Json(json!({"status": "live"})).into_response())
}

/// Devices should be sent here.
pub(super) async fn ready(backend: Shared, _call: Call) -> Result<Response, ApiError> {
    backend.check_ready().await?;
    Ok(Json(json!({"status": "ready"})).into_response())
}
