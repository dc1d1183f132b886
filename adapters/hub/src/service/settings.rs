//! `GET /settings`: what the hub was started with.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::{ApiError, Call, Shared};
use crate::backend::settings::Setting;

pub(super) async fn list(backend: Shared, _call: Call) -> Result<Response, ApiError> {
    let body: Vec<Value> = backend.settings().iter().map(Setting::to_json).collect();
    Ok(Json(body).into_response())
}
