//! The service API over HTTPS, in the shapes of Azure's own REST API.
//!
//! | request | right |
//! |---|---|
//! | `GET /devices`, `/devices/{id}`, `/devices/{id}/modules`, `…/modules/{id}` | RegistryRead |
//! | `PUT`, `DELETE /devices/{id}`, `…/modules/{id}` | RegistryWrite |
//! | `GET`, `PATCH`, `PUT /twins/{id}`, `…/modules/{id}` | ServiceConnect |
//! | `POST /twins/{id}/methods`, `…/modules/{id}/methods` | ServiceConnect |
//! | `POST /devices/{id}/messages/deviceBound`, `DELETE /devices/{id}/commands` | ServiceConnect |
//! | `GET /messages/events`, `/messages/operationsMonitoringEvents` | ServiceConnect |
//!
//! Every request shows a SAS token of a policy with that right. `api-version` is taken and not looked at: there is one
//! shape.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use devicebound::hub::{ClientCertificate, DeviceKey};
use devicebound::iothub::sas::{Demand, Policy, Rights, SasToken};
use devicebound::iothub::{IdError, Identity};
use serde_json::Value;

use crate::clock::unix_time;
use crate::connection;
use crate::engine::Engine;
use crate::store::TelemetryLog;
use crate::transport::websocket;
use crate::worker::Core;

mod error;
mod messages;
mod methods;
mod registry;
mod streams;
mod twins;

pub use error::{ApiError, Code};
pub use registry::new_identity;

/// No request has a larger body: a method's payload is at most 128 KB, and JSON may escape each byte of it.
const BODY_MAX: usize = 1024 * 1024;

/// What the requests need.
#[derive(Debug)]
pub struct Service {
    /// The hub.
    pub engine: Arc<Engine>,
    /// What devices sent.
    pub telemetry: Arc<TelemetryLog>,
    /// Who may ask.
    pub policies: Vec<Policy>,
    /// Names that a token may be made for; empty: any.
    pub host_names: Vec<String>,
}

/// The other end of an HTTPS connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// What certificate it showed.
    pub certificate: Option<ClientCertificate>,
}

type Shared = State<Arc<Service>>;

/// The service API and MQTT over WebSocket. Each request carries a [`Peer`] as extension.
pub fn router(service: Arc<Service>) -> Router {
    let api = Router::new()
        .route("/devices", get(registry::list))
        .route("/devices/", get(registry::list))
        .route("/devices/{id}", get(registry::show).put(registry::put).delete(registry::remove))
        .route("/devices/{id}/modules", get(registry::modules))
        .route(
            "/devices/{id}/modules/{module}",
            get(registry::show_module).put(registry::put_module).delete(registry::remove_module),
        )
        .route("/devices/{id}/messages/deviceBound", post(messages::send))
        .route("/devices/{id}/messages/devicebound", post(messages::send))
        .route("/devices/{id}/commands", delete(messages::purge))
        .route("/twins/{id}", get(twins::show).patch(twins::patch).put(twins::replace))
        .route(
            "/twins/{id}/modules/{module}",
            get(twins::show_module).patch(twins::patch_module).put(twins::replace_module),
        )
        .route("/twins/{id}/methods", post(methods::invoke))
        .route("/twins/{id}/modules/{module}/methods", post(methods::invoke_module))
        .route("/messages/events", get(streams::telemetry))
        .route("/messages/operationsMonitoringEvents", get(streams::operations))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(Arc::clone(&service), authorize));
    Router::new().route(websocket::PATH, get(upgrade)).merge(api).fallback(unknown).with_state(service)
}

async fn upgrade(
    State(service): Shared,
    Extension(peer): Extension<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let engine = Arc::clone(&service.engine);
    websocket::accept(upgrade, move |socket| async move {
        connection::adopt(&engine, socket, peer.address, peer.certificate);
    })
}

async fn unknown(request: Request) -> ApiError {
    let what = format!("{} {} is not part of this hub's service API", request.method(), request.uri().path());
    ApiError::new(Code::ResourceNotFound, what)
}

async fn authorize(State(service): Shared, request: Request, next: Next) -> Response {
    let right = needed_right(request.method(), request.uri().path());
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    match service.check_token(header, request.uri().path(), right) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn needed_right(method: &Method, path: &str) -> Rights {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.nth(1)) {
        (Some("devices"), None | Some("modules" | "")) if method == Method::GET => Rights::REGISTRY_READ,
        (Some("devices"), None | Some("modules")) => Rights::REGISTRY_WRITE,
        _ => Rights::SERVICE_CONNECT,
    }
}

impl Service {
    fn check_token(&self, header: Option<&str>, path: &str, right: Rights) -> Result<(), ApiError> {
        let refuse = |detail: String| ApiError::new(Code::Unauthorized, detail);
        let header = header.ok_or_else(|| {
            refuse(
                "the Authorization header is missing: send a token made from the service connection string"
                    .to_owned(),
            )
        })?;
        let broken = |rule: devicebound::Rule| refuse(format!("{rule}: {}; {}", rule.says(), rule.mend()));
        let token = SasToken::parse(header).map_err(|error| broken(error.rule()))?;
        let resource = token.resource();
        let host = resource.split('/').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if !self.host_names.is_empty()
            && !self.host_names.iter().any(|known| known.eq_ignore_ascii_case(name))
        {
            return Err(broken(devicebound::Rule::HostName));
        }
        let demand = Demand {
            target: &format!("{host}{path}"),
            keys: &[],
            right,
            now: unix_time(),
            skew: std::time::Duration::ZERO,
        };
        let policy = |name: &str| self.policies.iter().find(|policy| policy.name == name);
        token.verify(&demand, policy).map(|_| ()).map_err(|error| broken(error.rule()))
    }
}

/// The client id of a device, or of a module.
fn client_id(device_id: &str, module_id: Option<&str>) -> Result<String, ApiError> {
    let bad = |error: IdError| ApiError::new(Code::ArgumentInvalid, error.to_string());
    Ok(Identity::new(device_id, module_id).map_err(bad)?.to_string())
}

/// The record of an identity, or the error that says that there is none.
fn find(core: &Core, client_id: &str) -> Result<DeviceKey, ApiError> {
    core.hub.find(client_id).ok_or_else(|| {
        let code = if client_id.contains('/') { Code::ModuleNotFound } else { Code::DeviceNotFound };
        ApiError::new(
            code,
            format!("there is no `{client_id}`; register it first: devicebound device add {client_id}"),
        )
    })
}

/// A body that is JSON, whatever its Content-Type says.
fn json_body(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::new(Code::ArgumentInvalid, format!("the body is not JSON: {error}")))
}

/// The text of a header.
fn header<'h>(headers: &'h axum::http::HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

fn json_with_etag(value: Value) -> Response {
    let etag = value.get("etag").and_then(Value::as_str).map(|etag| format!("\"{etag}\""));
    let mut response = (StatusCode::OK, Json(value)).into_response();
    if let Some(etag) = etag.and_then(|etag| etag.parse().ok()) {
        response.headers_mut().insert("etag", etag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_needs_the_right_that_azure_asks_for() {
        for (method, path, right) in [
            (Method::GET, "/devices", Rights::REGISTRY_READ),
            (Method::GET, "/devices/", Rights::REGISTRY_READ),
            (Method::GET, "/devices/a", Rights::REGISTRY_READ),
            (Method::GET, "/devices/a/modules/b", Rights::REGISTRY_READ),
            (Method::PUT, "/devices/a", Rights::REGISTRY_WRITE),
            (Method::DELETE, "/devices/a/modules/b", Rights::REGISTRY_WRITE),
            (Method::POST, "/devices/a/messages/deviceBound", Rights::SERVICE_CONNECT),
            (Method::DELETE, "/devices/a/commands", Rights::SERVICE_CONNECT),
            (Method::GET, "/twins/a", Rights::SERVICE_CONNECT),
            (Method::GET, "/messages/events", Rights::SERVICE_CONNECT),
        ] {
            assert_eq!(needed_right(&method, path), right, "{method} {path}");
        }
    }
}
