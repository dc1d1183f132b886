//! `POST /twins/{id}/methods`: direct methods.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use devicebound::hub::MethodRequest;
use devicebound::limits::METHOD_RESPONSE_TIME;
use serde_json::{Value, json};

use super::{ApiError, Call, Shared};
use crate::backend::methods::MethodResult;
use crate::backend::{Backend, Error};

pub(super) async fn invoke(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let MethodResult { status, payload } =
        call_method(&backend, call).await.map_err(|error| ApiError::from(error).nested())?;
    Ok(Json(json!({"status": status, "payload": answer(&payload)})).into_response())
}

async fn call_method(backend: &Backend, mut call: Call) -> Result<MethodResult, Error> {
    let id = call.client_id()?;
    let request = method_request(&call.json_object().await?)?;
    tokio::select! {
        result = backend.invoke(&id, request) => result,
        () = call.gone.wait() => Err(Error::caller_gone()),
    }
}

fn method_request(body: &Value) -> Result<MethodRequest, Error> {
    let invalid = |message: &str| Error::invalid(message.to_owned());
    let seconds = |name: &str, default: Duration| match body.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .map(Duration::from_secs)
            .ok_or_else(|| invalid(&format!("{name} is a number of seconds"))),
    };
    let name =
        body.get("methodName").and_then(Value::as_str).ok_or_else(|| invalid("methodName is missing"))?;
    Ok(MethodRequest {
        name: name.to_owned(),
        payload: body.get("payload").filter(|payload| !payload.is_null()).map(Value::to_string),
        response_timeout: seconds("responseTimeoutInSeconds", METHOD_RESPONSE_TIME.1)?,
        connect_timeout: seconds("connectTimeoutInSeconds", Duration::ZERO)?,
    })
}

/// The device's answer: JSON, or nothing, or what a careless device sent, as text.
fn answer(payload: &[u8]) -> Value {
    if payload.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(payload).unwrap_or_else(|_| String::from_utf8_lossy(payload).into_owned().into())
}
