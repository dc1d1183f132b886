//! `/digitaltwins`: twins and methods in the words of Plug and Play.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use devicebound::hub::MethodRequest;
use serde_json::{Value, json};

use super::{ApiError, Call, Shared};
use crate::backend::digital_twins::method_of;
use crate::backend::methods::request_of;
use crate::backend::twins::if_match;
use crate::backend::{ClientId, Error};
use crate::clock::unix_time;

pub(super) async fn show(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let (twin, etag) = backend.digital_twin(&call.client_id()?).await?;
    Ok(with_headers(Json(twin).into_response(), &[("etag", &format!("\"{etag}\""))]))
}

pub(super) async fn update(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let id = call.client_id()?;
    let patch = call.json().await?;
    let etag = backend.update_digital_twin(&id, &patch, call.header("if-match").and_then(if_match)).await?;
    let location = call.parts.uri.path();
    let headers = [("etag", format!("\"{etag}\"")), ("location", location.to_owned())];
    let headers: Vec<(&'static str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Ok(with_headers(StatusCode::ACCEPTED.into_response(), &headers))
}

pub(super) async fn command(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let id = ClientId::new(call.parameter("id"), None)?;
    let payload = payload(&mut call).await?;
    let request = request(&call, payload)?;
    let result = tokio::select! {
        result = backend.invoke(&id, request) => result?,
        () = call.gone.wait() => return Err(Error::caller_gone().into()),
    };
    // As in errors, what tells one request from another is its time.
    let request_id = call.header("x-ms-client-request-id").map(str::to_owned);
    let request_id = request_id.unwrap_or_else(|| format!("{:032X}", unix_time().as_millis()));
    let headers = [("x-ms-command-statuscode", result.status.to_string()), ("x-ms-request-id", request_id)];
    let headers: Vec<(&'static str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Ok(with_headers(Json(result.to_json()).into_response(), &headers))
}

fn request(call: &Call, payload: Value) -> Result<MethodRequest, Error> {
    let seconds = |name: &str| match call.query(name).filter(|text| !text.is_empty()) {
        None => Ok(Value::Null),
        Some(text) => text
            .parse::<u64>()
            .map(Value::from)
            .map_err(|_| Error::invalid(format!("{name} is a number of seconds"))),
    };
    request_of(&json!({
        "methodName": method_of(call.parameters.get("component"), call.parameter("command")),
        "payload": payload,
        "connectTimeoutInSeconds": seconds("connectTimeoutInSeconds")?,
        "responseTimeoutInSeconds": seconds("responseTimeoutInSeconds")?,
    }))
}

/// The argument of a command; a command may have none.
async fn payload(call: &mut Call) -> Result<Value, Error> {
    let body = call.body().await?;
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|error| Error::invalid(format!("the body is not JSON: {error}")))
}

fn with_headers(mut response: Response, headers: &[(&'static str, &str)]) -> Response {
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}
