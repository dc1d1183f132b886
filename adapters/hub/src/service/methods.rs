//! `POST /twins/{id}/methods`: direct methods.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::{ApiError, Call, Shared};
use crate::backend::methods::{MethodResult, request_of};
use crate::backend::{Backend, Error};

pub(super) async fn invoke(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let result = call_method(&backend, call).await.map_err(|error| ApiError::from(error).nested())?;
    Ok(Json(json!({"status": result.status, "payload": result.to_json()})).into_response())
}

async fn call_method(backend: &Backend, mut call: Call) -> Result<MethodResult, Error> {
    let id = call.client_id()?;
    let request = request_of(&call.json_object().await?)?;
    tokio::select! {
        result = backend.invoke(&id, request) => result,
        () = call.gone.wait() => Err(Error::caller_gone()),
    }
}
