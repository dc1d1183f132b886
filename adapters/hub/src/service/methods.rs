//! `POST /twins/{id}/methods`: direct methods.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use devicebound::hub::MethodRequest;
use devicebound::limits::METHOD_RESPONSE_TIME;
use serde_json::{Value, json};

use super::{ApiError, Code, Service, Shared, client_id, find, json_object};
use crate::engine::Engine;

pub(super) async fn invoke(
    State(service): Shared,
    Path(device_id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    service.invoke(&client_id(&device_id, None)?, &body).await.map_err(ApiError::nested)
}

pub(super) async fn invoke_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    service.invoke(&client_id(&device_id, Some(&module_id))?, &body).await.map_err(ApiError::nested)
}

impl Service {
    async fn invoke(&self, client_id: &str, body: &[u8]) -> Result<Json<Value>, ApiError> {
        let request = method_request(&json_object(body)?)?;
        let id = client_id.to_owned();
        let called = self.engine.at(client_id, move |core, now| {
            let key = find(core, &id)?;
            let call = core.hub.invoke(now, key, request)?;
            Ok::<_, ApiError>(Engine::expect_outcome(core, call))
        });
        let outcome = called.await?;
        // The machine ends every call; only a hub that stops forgets one.
        let outcome =
            outcome.await.map_err(|_| ApiError::new(Code::ServiceUnavailable, "the hub is stopping"))?;
        let (status, payload) = outcome?;
        Ok(Json(json!({"status": status, "payload": answer(&payload)})))
    }
}

fn method_request(body: &Value) -> Result<MethodRequest, ApiError> {
    let invalid = |message: &str| ApiError::new(Code::ArgumentInvalid, message);
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
