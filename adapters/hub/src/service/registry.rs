//! `/devices`: the identity registry.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::{ApiError, Call, Shared, if_match, json_with_etag};
use crate::backend::Error;
use crate::backend::identity::{Wish, text};
use crate::backend::keys::Regenerate;
use crate::backend::registry::LIST_MAX;

pub(super) async fn list(backend: Shared, call: Call) -> Result<Response, ApiError> {
    // Whatever is not a number of that range means as many as there may be.
    let top = call.query("top").and_then(|top| top.parse().ok());
    let top = top.filter(|top| (1..=LIST_MAX).contains(top)).unwrap_or(LIST_MAX);
    Ok(Json(backend.list_devices(top).await).into_response())
}

pub(super) async fn modules(backend: Shared, call: Call) -> Result<Response, ApiError> {
    Ok(Json(backend.list_modules(&call.client_id()?).await?).into_response())
}

pub(super) async fn show(backend: Shared, call: Call) -> Result<Response, ApiError> {
    Ok(json_with_etag(backend.identity(&call.client_id()?).await?))
}

/// Registers without If-Match, changes with it.
pub(super) async fn put(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let id = call.client_id()?;
    let body = call.json_object().await?;
    if text(&body, "deviceId")?.is_some_and(|device_id| device_id != id.device_id())
        || text(&body, "moduleId")?.is_some_and(|module_id| Some(module_id) != id.module_id())
    {
        return Err(Error::invalid("the ids in the body are not the ids in the path").into());
    }
    let wish = Wish::read(&body)?;
    Ok(json_with_etag(backend.put_identity(&id, if_match(&call), wish).await?))
}

pub(super) async fn remove(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let etag = if_match(&call).unwrap_or_else(|| "*".to_owned());
    backend.remove_identity(&call.client_id()?, etag).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// New keys for up to a hundred identities: 200 where all have them, 400 where none has, else 207.
pub(super) async fn regenerate(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let body = call.json_object().await?;
    let (which, ids) = Regenerate::read(&body)?;
    let (mut rotated, mut errors) = (Vec::new(), Vec::new());
    for (id, outcome) in backend.regenerate_keys(which, ids).await {
        let named = |more: Value| {
            let mut entry = json!({"id": id.device_id(), "moduleId": id.module_id()});
            if let (Some(entry), Value::Object(more)) = (entry.as_object_mut(), more) {
                entry.extend(more);
            }
            entry
        };
        match outcome {
            Ok([primary, secondary]) => rotated.push(named(json!({
                "primaryKey": primary.to_base64(), "secondaryKey": secondary.to_base64(),
            }))),
            Err(error) => errors.push(named(json!({
                "errorCode": error.code().number(), "errorStatus": error.to_string(),
            }))),
        }
    }
    let status = match (rotated.is_empty(), errors.is_empty()) {
        (_, true) => StatusCode::OK,
        (true, false) => StatusCode::BAD_REQUEST,
        (false, false) => StatusCode::MULTI_STATUS,
    };
    let body = json!({"policyKey": which.as_str(), "rotatedKeys": rotated, "errors": errors});
    Ok((status, Json(body)).into_response())
}
