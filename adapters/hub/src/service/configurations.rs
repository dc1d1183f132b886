//! `/configurations`: automatic device management.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::{ApiError, Call, Shared, if_match, json_with_etag};
use crate::backend::Error;

/// Configurations on a list, unless the caller wants fewer: all that a hub may have.
const LIST_MAX: usize = 100;

pub(super) async fn put(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let (body, etag) = (call.json_object().await?, if_match(&call));
    let shown = backend.put_configuration(call.parameter("configuration"), etag.as_deref(), &body).await?;
    Ok(json_with_etag(shown))
}

pub(super) async fn show(backend: Shared, call: Call) -> Result<Response, ApiError> {
    Ok(json_with_etag(backend.configuration(call.parameter("configuration")).await?))
}

pub(super) async fn remove(backend: Shared, call: Call) -> Result<Response, ApiError> {
    backend.remove_configuration(call.parameter("configuration"), if_match(&call).as_deref()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn list(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let top = match call.query("top").filter(|text| !text.is_empty()) {
        None => LIST_MAX,
        Some(text) => text.parse().map_err(|_| Error::invalid("top is a number"))?,
    };
    Ok(Json(backend.list_configurations(top.min(LIST_MAX)).await?).into_response())
}

pub(super) async fn test_queries(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    Ok(Json(backend.test_queries(&call.json_object().await?)?).into_response())
}

pub(super) async fn apply_content(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let content = call.json_object().await?;
    backend.apply_configuration_content(&call.client_id()?, &content).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
