//! The service API, asked without sockets.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use devicebound::iothub::sas::{self, Policy, Rights};
use devicebound_hub::backend::Backend;
use devicebound_hub::clock::unix_time;
use devicebound_hub::service::router;
use devicebound_hub::store::Store as _;
use devicebound_hub::store::reader::TelemetryReader;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::common::{Hub, key};

/// A service that shows the token of one policy.
pub(crate) struct Client {
    pub(crate) hub: Hub,
    pub(crate) router: Router,
}

impl Client {
    pub(crate) fn start() -> Self {
        Self::of(Hub::start())
    }

    pub(crate) fn of(hub: Hub) -> Self {
        Self::with_others(hub, Router::new())
    }

    /// The same beside what other rooms serve.
    pub(crate) fn with_others(hub: Hub, others: Router) -> Self {
        Self::with(hub, others, |backend| backend)
    }

    /// The same with a backend that has more.
    pub(crate) fn with(hub: Hub, others: Router, more: impl FnOnce(Backend) -> Backend) -> Self {
        let policies = Rights::DEFAULT_POLICIES
            .map(|(name, rights)| Policy { name: name.to_owned(), keys: vec![key()], rights })
            .to_vec();
        let telemetry = TelemetryReader::of(hub.store.telemetry()).unwrap();
        let backend = Backend::new(Arc::clone(&hub.engine), telemetry, policies, Vec::new());
        let backend = Arc::new(more(backend));
        backend.resume();
        Self { router: router(backend, Vec::new(), others), hub }
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (StatusCode, Value) {
        self.ask_as("iothubowner", method, path, headers, body).await
    }

    pub(crate) async fn ask_as(
        &self,
        policy: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (StatusCode, Value) {
        let (status, _, body) = self.exchange(policy, method, path, headers, body).await;
        (status, body)
    }

    /// The same with the headers of the answer.
    pub(crate) async fn exchange(
        &self,
        policy: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (StatusCode, HeaderMap, Value) {
        let separator = if path.contains('?') { '&' } else { '?' };
        let expiry = unix_time().after(std::time::Duration::from_secs(60));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}{separator}api-version=2021-04-12"))
            .header("authorization", sas::sign("localhost", &key(), expiry, Some(policy)));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = || String::from_utf8_lossy(&body).into_owned().into();
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).unwrap_or_else(|_| text())
        };
        (parts.status, parts.headers, body)
    }
}

/// The message of an error.
pub(crate) fn message(body: &Value) -> &str {
    body["Message"].as_str().unwrap()
}
