//! `/routing`: the member `routing` that an IoT hub has at Azure Resource Manager, with webhooks besides.

use axum::Json;
use axum::response::{IntoResponse as _, Response};

use super::{ApiError, Call, Shared};

pub(super) async fn show(backend: Shared, _: Call) -> Result<Response, ApiError> {
    Ok(Json(backend.routing()).into_response())
}

pub(super) async fn put(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let routing = call.json_object().await?;
    Ok(Json(backend.put_routing(routing).await?).into_response())
}

pub(super) async fn health(backend: Shared, _: Call) -> Result<Response, ApiError> {
    Ok(Json(backend.endpoints_health()).into_response())
}
