//! `POST /devices`: up to a hundred changes of the registry in one request.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::{ApiError, Call, Shared};
use crate::backend::bulk;

pub(super) async fn update(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let entries = bulk::read(&call.json().await?)?;
    let failed = backend.change_many(entries).await;
    let errors: Vec<Value> = failed
        .iter()
        .map(|(id, error)| {
            json!({
                "deviceId": id.device_id(), "moduleId": id.module_id(),
                "errorCode": error.code().name(), "errorStatus": error.to_string(),
            })
        })
        .collect();
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let body = json!({"isSuccessful": errors.is_empty(), "errors": errors, "warnings": []});
    Ok((status, Json(body)).into_response())
}
