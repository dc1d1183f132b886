//! The service API over HTTPS, in the shapes of Azure's own REST API.
//!
//! | request | right |
//! |---|---|
//! | `GET /devices`, `/devices/{id}`, `/devices/{id}/modules`, `…/modules/{id}`, `/statistics/…` | RegistryRead |
//! | `PUT`, `DELETE /devices/{id}`, `…/modules/{id}`, `POST /devices` (bulk) | RegistryWrite |
//! | `POST /devices/query` | ServiceConnect |
//! | `GET`, `PATCH`, `PUT /twins/{id}`, `…/modules/{id}` | ServiceConnect |
//! | `POST /twins/{id}/methods`, `…/modules/{id}/methods` | ServiceConnect |
//! | `POST /devices/{id}/messages/deviceBound`, `DELETE /devices/{id}/commands` | ServiceConnect |
//! | `GET`, `DELETE`, `POST /messages/serviceBound/feedback…` | ServiceConnect |
//! | `POST /faults/{id}`, `…/modules/{id}` (not Azure's) | ServiceConnect |
//! | `GET /metrics`, for Prometheus (not Azure's) | ServiceConnect; none from this machine |
//! | `GET /messages/events`, `/operations` (Azure's name: `/messages/operationsMonitoringEvents`) | ServiceConnect |
//! | `POST /devices/{id}/messages/events`, `GET …/messages/deviceBound`, `DELETE …/{lock}`, `POST …/{lock}/abandon` | DeviceConnect, or the device itself |
//!
//! Every request shows a SAS token of a policy with that right, and those of Azure's API name an `api-version`; which one does
//! not matter: there is one shape. Errors have the names and numbers of Azure.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use devicebound::hub::{ClientCertificate, DeviceKey};
use devicebound::iothub::sas::Policy;
use devicebound::iothub::{IdError, Identity};
use devicebound::time::Instant;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::connection;
use crate::engine::Engine;
use crate::pages::Pages;
use crate::scan::Seen;
use crate::transport::websocket;
use crate::worker::Core;

mod access;
mod audit;
mod bulk;
mod device;
mod error;
mod faults;
mod feedback;
mod identity;
mod measures;
mod messages;
mod methods;
mod query;
mod registry;
mod statistics;
mod streams;
mod twins;

pub use error::{ApiError, Code};
pub use feedback::Readers;
pub use identity::new_identity;

/// No request has a larger body: a method's payload is at most 128 KB, and JSON may escape each byte of it.
const BODY_MAX: usize = 1024 * 1024;

/// So much of the text of a refusal is passed on; axum's are shorter.
const REFUSAL_MAX: usize = 4096;

/// What the requests need.
#[derive(Debug)]
pub struct Service {
    /// The hub.
    pub engine: Arc<Engine>,
    /// What devices sent.
    pub telemetry: Pages,
    /// Who may ask.
    pub policies: Vec<Policy>,
    /// Names that a token may be made for; empty: any.
    pub host_names: Vec<String>,
    /// Who reads feedback.
    pub feedback: Readers,
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
        .route("/devices", get(registry::list).post(bulk::update))
        .route("/devices/", get(registry::list).post(bulk::update))
        .route("/devices/query", post(query::query))
        .route("/devices/{id}", get(registry::show).put(registry::put).delete(registry::remove))
        .route("/devices/{id}/modules", get(registry::modules))
        .route(
            "/devices/{id}/modules/{module}",
            get(registry::show_module).put(registry::put_module).delete(registry::remove_module),
        )
        .route("/devices/{id}/messages/deviceBound", post(messages::send).get(device::receive))
        .route("/devices/{id}/messages/devicebound", post(messages::send).get(device::receive))
        .route("/devices/{id}/messages/deviceBound/{lock}", delete(device::complete))
        .route("/devices/{id}/messages/devicebound/{lock}", delete(device::complete))
        .route("/devices/{id}/messages/deviceBound/{lock}/abandon", post(device::abandon))
        .route("/devices/{id}/messages/devicebound/{lock}/abandon", post(device::abandon))
        .route("/devices/{id}/messages/events", post(device::send))
        .route("/devices/{id}/commands", delete(messages::purge))
        .route("/twins/{id}", get(twins::show).patch(twins::patch).put(twins::replace))
        .route(
            "/twins/{id}/modules/{module}",
            get(twins::show_module).patch(twins::patch_module).put(twins::replace_module),
        )
        .route("/twins/{id}/methods", post(methods::invoke))
        .route("/twins/{id}/modules/{module}/methods", post(methods::invoke_module))
        .route("/messages/serviceBound/feedback", get(feedback::receive))
        .route("/messages/servicebound/feedback", get(feedback::receive))
        .route("/messages/serviceBound/feedback/{token}", delete(feedback::complete))
        .route("/messages/servicebound/feedback/{token}", delete(feedback::complete))
        .route("/messages/serviceBound/feedback/{token}/abandon", post(feedback::abandon))
        .route("/messages/servicebound/feedback/{token}/abandon", post(feedback::abandon))
        .route("/statistics/devices", get(statistics::devices))
        .route("/statistics/service", get(statistics::service))
        .route("/messages/events", get(streams::telemetry))
        .route("/faults/{id}", post(faults::inject))
        .route("/faults/{id}/modules/{module}", post(faults::inject_module))
        .route("/operations", get(streams::operations))
        .route("/messages/operationsMonitoringEvents", get(streams::operations))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(Arc::clone(&service), access::authorize))
        .layer(from_fn(in_azures_shape))
        .layer(from_fn_with_state(Arc::clone(&service), audit::record));
    Router::new()
        .route(websocket::PATH, get(upgrade))
        .route(measures::PATH, get(measures::metrics))
        .merge(api)
        .fallback(unknown)
        .with_state(service)
}

async fn upgrade(
    State(service): Shared,
    Extension(peer): Extension<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let (engine, address) = (Arc::clone(&service.engine), peer.address);
    let response = websocket::accept(upgrade, move |socket| async move {
        connection::adopt(&engine, socket, peer.address, peer.certificate);
    });
    if response.status() == StatusCode::BAD_REQUEST {
        service.engine.view.web_socket_refused(address, websocket::REFUSAL);
    }
    response
}

async fn unknown(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    let what = match not_built(path) {
        Some(advice) => format!("{method} {path}: {advice}"),
        None => format!("{method} {path} is not part of this hub's service API"),
    };
    ApiError::new(Code::ResourceNotFound, what)
}

/// What to do instead of asking for a part of Azure's API that this hub does not have.
fn not_built(path: &str) -> Option<&'static str> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let advice = match segments.as_slice() {
        ["jobs", ..] => "this hub has no jobs; change each twin and call each method by itself",
        ["configurations", ..] => {
            "this hub has no automatic configurations; set desired properties with PATCH /twins/{id}"
        }
        ["digitaltwins", _, "commands" | "components", ..] => {
            "this hub has no digital twins; call the command as a method, component*command: POST /twins/{id}/methods"
        }
        ["digitaltwins", ..] => {
            "this hub has no digital twins; the same properties, and the modelId, are in GET /twins/{id}"
        }
        ["devices", _, "files", ..] | ["messages", "serviceBound", "filenotifications", ..] => {
            "this hub has no file upload; send the data as telemetry, or to a storage of your own"
        }
        ["devices", _, "applyConfigurationContent"] => {
            "this hub has no IoT Edge devices, nor their deployments"
        }
        ["devices", _, "modules", _, "messages" | "commands", ..] => {
            "modules have no cloud-to-device messages; call a method, or set desired properties"
        }
        ["devices", "keys", ..] => {
            "this hub has no such request; PUT /devices/{id} with If-Match and new keys"
        }
        _ => return None,
    };
    Some(advice)
}

/// Gives what axum itself refuses (a path that is not UTF-8, a body that is too large, another method) Azure's shape.
async fn in_azures_shape(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if method == Method::HEAD {
        // axum would have GET answer it, and a GET may lock a message; HEAD changes nothing (RFC 9110 §9.2.1).
        return ApiError::new(Code::MethodNotAllowed, format!("HEAD {path}: send GET")).into_response();
    }
    let response = next.run(request).await;
    let code = match response.status() {
        // Its own refusals are plain text; what this service says is JSON.
        _ if response.headers().get("content-type").is_some_and(|kind| kind == "application/json") => {
            return response;
        }
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::ArgumentInvalid,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::MessageTooLarge,
        _ => return response,
    };
    let why = axum::body::to_bytes(response.into_body(), REFUSAL_MAX).await.unwrap_or_default();
    let why = match code {
        Code::MethodNotAllowed => "the header Allow names the methods that this path takes".into(),
        _ => String::from_utf8_lossy(&why),
    };
    ApiError::new(code, format!("{method} {path}: {why}")).into_response()
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

impl Service {
    /// Waits until what there is of an identity is safe, so that no answer rests on what may be taken back.
    async fn settled(&self, client_id: &str) -> Result<(), ApiError> {
        if self.engine.settled(client_id).await { Ok(()) } else { Err(ApiError::in_doubt()) }
    }
}

/// Waits until a change has become safe.
async fn safe(change: oneshot::Receiver<bool>) -> Result<(), ApiError> {
    if change.await.unwrap_or(false) { Ok(()) } else { Err(ApiError::store_failed()) }
}

/// The record of an identity as answers show it.
fn look_up<'c>(core: &'c Core, now: Instant, client_id: &str) -> Result<Seen<'c>, ApiError> {
    let key = find(core, client_id)?;
    let record = core.hub.record(key).ok_or_else(ApiError::store_failed)?;
    Ok(Seen { hub: &core.hub, now, key, record })
}

/// A body that is JSON, whatever its Content-Type says.
fn json_body(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::new(Code::ArgumentInvalid, format!("the body is not JSON: {error}")))
}

/// The same for a body that has members.
fn json_object(body: &[u8]) -> Result<Value, ApiError> {
    let body = json_body(body)?;
    if body.is_object() {
        return Ok(body);
    }
    Err(ApiError::new(Code::ArgumentInvalid, "the body is a JSON object: {…}"))
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
