//! `GET /metrics`: numbers for Prometheus.
//!
//! A scraper on the machine of the hub asks without a token. From elsewhere it shows one like any other service; Prometheus
//! does so with `authorization: {type: SharedAccessSignature, credentials: "sr=…&sig=…&se=…&skn=service"}`.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::{ApiError, Call, Shared};
use crate::observe::metrics;

pub(super) async fn metrics(backend: Shared, _call: Call) -> Result<Response, ApiError> {
    let mut gauges = backend.engine.gauges().await;
    if let Ok(files) = backend.files() {
        gauges.files = files.gauges();
    }
    gauges.endpoints = backend.endpoint_gauges();
    let text = backend.engine.metrics.text(gauges);
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
