//! Errors of the back end in the two shapes that Azure's REST API has.

use axum::Json;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::backend::{Code, Error};
use crate::clock::unix_time;

/// An error as an answer.
#[derive(Clone, Debug)]
pub struct ApiError {
    error: Error,
    is_nested: bool,
    /// The methods that the path takes.
    allow: Option<Box<str>>,
}

impl ApiError {
    /// The shape of direct methods: JSON text inside the JSON, which the SDKs read `errorCode` from.
    #[must_use]
    pub fn nested(self) -> Self {
        Self { is_nested: true, ..self }
    }

    /// The same with the methods that the path takes (RFC 9110 §15.5.6).
    #[must_use]
    pub(super) fn allowing(self, methods: String) -> Self {
        Self { allow: Some(methods.into()), ..self }
    }

    /// Which error it is.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.error.code()
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self { error, is_nested: false, allow: None }
    }
}

impl AsRef<Error> for ApiError {
    fn as_ref(&self) -> &Error {
        &self.error
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, text) = (self.error.code(), self.error.to_string());
        let time = unix_time();
        let tracking_id = format!("{:032X}-TimeStamp:{time}", time.as_millis());
        let message = if self.is_nested {
            let inner = json!({
                "errorCode": code.number(), "trackingId": tracking_id, "message": text,
                "info": {}, "timestampUtc": time.to_string(),
            });
            inner.to_string()
        } else {
            // SDKs split it at the semicolon, some at each one.
            format!("ErrorCode:{};{}", code.name(), text.replace(';', ","))
        };
        let body =
            Json(json!({"Message": message, "ExceptionMessage": format!("Tracking ID:{tracking_id}")}));
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert("iothub-errorcode", HeaderValue::from_static(code.name()));
        if let Some(methods) = self.allow.and_then(|methods| methods.parse().ok()) {
            headers.insert(ALLOW, methods);
        }
        response
    }
}
