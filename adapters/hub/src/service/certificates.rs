//! `GET /certificates`: what the hub shows and trusts, with dates.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::{ApiError, Call, Shared};
use crate::backend::certificates::{Certificate, Usage};

pub(super) async fn list(backend: Shared, _call: Call) -> Result<Response, ApiError> {
    let body: Vec<Value> = backend.certificates().iter().map(to_json).collect();
    Ok(Json(body).into_response())
}

fn to_json(certificate: &Certificate) -> Value {
    json!({
        "use": match certificate.usage {
            Usage::Server => "server",
            Usage::DeviceAuthority => "deviceAuthority",
        },
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "thumbprint": certificate.thumbprint,
        "notBefore": certificate.begins.to_string(),
        "notAfter": certificate.ends.to_string(),
    })
}
