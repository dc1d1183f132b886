//! The service API over HTTPS, in the shapes of Azure's own REST API. It translates HTTP to [`backend`](crate::backend) and
//! back.
//!
//! [`endpoints`] is the table of all requests. Every request shows a SAS token of a policy with the right that it needs, and
//! those of Azure's API name an `api-version`; which one does not matter: there is one shape. Errors have the names and
//! numbers of Azure.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use serde_json::Value;

use crate::backend::Backend;

mod blobs;
mod block_list;
mod bulk;
mod call;
mod certificates;
mod configurations;
mod connections;
mod consumer_groups;
mod device_http;
mod digital_twins;
pub mod endpoint;
pub mod endpoints;
mod error;
mod faults;
mod feedback;
mod files;
mod health;
pub(crate) mod host;
mod jobs;
mod messages;
mod methods;
mod metrics;
mod parameters;
mod query;
mod registry;
mod router;
mod routing;
mod rules;
mod settings;
mod statistics;
mod streams;
mod twins;

pub use call::{Call, Peer};
pub use error::ApiError;

/// What the handlers of this API work on.
type Shared = Arc<Backend>;

/// The service API, what other rooms [`mount`](endpoint::mount) beside it, and for paths that are in no table `others`. Each
/// request carries a [`Peer`] as extension.
pub fn router(backend: Arc<Backend>, more: Vec<endpoint::Route>, others: Router) -> Router {
    let mut routes = endpoint::mount(&backend, endpoints::ENDPOINTS);
    routes.extend(more);
    router::router(backend, routes, others)
}

/// The ETag of `If-Match` without its quotes; `*` is any. The Python service SDK quotes the star, too.
fn if_match(call: &Call) -> Option<String> {
    call.header("if-match").map(|etag| etag.trim_matches('"').to_owned())
}

fn json_with_etag(value: Value) -> Response {
    let etag = value.get("etag").and_then(Value::as_str).map(|etag| format!("\"{etag}\""));
    let mut response = (StatusCode::OK, Json(value)).into_response();
    if let Some(etag) = etag.and_then(|etag| etag.parse().ok()) {
        response.headers_mut().insert("etag", etag);
    }
    response
}
