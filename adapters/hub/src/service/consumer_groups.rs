//! `/eventHubEndpoints/events/ConsumerGroups`: the paths and shapes that Azure Resource Manager has below an IoT hub.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::{ApiError, Call, Shared};
use crate::backend::Error;
use crate::backend::consumer_groups::ConsumerGroup;

pub(super) async fn list(backend: Shared, _: Call) -> Result<Response, ApiError> {
    let groups = backend.consumer_groups().list();
    let value: Vec<Value> = groups.iter().map(ConsumerGroup::to_json).collect();
    Ok(Json(json!({"value": value})).into_response())
}

pub(super) async fn show(backend: Shared, call: Call) -> Result<Response, ApiError> {
    Ok(Json(backend.consumer_group(call.parameter("name"))?.to_json()).into_response())
}

/// The body, which may be missing, repeats the name.
pub(super) async fn add(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let body = call.body().await?;
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| Error::invalid(format!("the body is not JSON: {error}")))?
    };
    let name = call.parameter("name");
    if body.pointer("/properties/name").is_some_and(|own| own != name) {
        return Err(Error::invalid("the name in the body is not the name in the path").into());
    }
    Ok(Json(backend.add_consumer_group(name).await?.to_json()).into_response())
}

pub(super) async fn remove(backend: Shared, call: Call) -> Result<Response, ApiError> {
    backend.remove_consumer_group(call.parameter("name")).await?;
    Ok(StatusCode::OK.into_response())
}
