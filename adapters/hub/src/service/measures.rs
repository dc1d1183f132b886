//! `GET /metrics`: numbers for Prometheus.
//!
//! A scraper on the machine of the hub asks without a token. From elsewhere it shows one like any other service; Prometheus
//! does so with `authorization: {type: SharedAccessSignature, credentials: "sr=…&sig=…&se=…&skn=service"}`.

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use devicebound::iothub::sas::Rights;

use super::{ApiError, Peer, Shared, header};
use crate::metrics;

pub(super) const PATH: &str = "/metrics";

pub(super) async fn metrics(
    State(service): Shared,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // An address of IPv4 may come in the form of IPv6.
    let is_local = peer.is_some_and(|Extension(peer)| peer.address.ip().to_canonical().is_loopback());
    if !is_local {
        service.check_token(header(&headers, "authorization"), PATH, Rights::SERVICE_CONNECT, &[])?;
    }
    let gauges = service.engine.gauges().await;
    let text = service.engine.metrics.text(gauges);
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
