//! The device side over HTTPS: `/{idScope}/registrations/{registrationId}…`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use devicebound::Rule;
use devicebound::iothub::provisioning::RegisterBody;
use devicebound::iothub::provisioning::RegistrationId;
use devicebound::limits::MESSAGE_MAX;
use serde_json::Value;

use super::Provisioning;
use super::caller::{Caller, Proof};
use super::error::Refusal;
use super::identifiers::guid;
use super::register::Answer;
use crate::service::Peer;

type Shared = State<Arc<Provisioning>>;
type Parameters = Query<HashMap<String, String>>;

/// The requests of devices. Each carries a [`Peer`] as extension.
pub(crate) fn router(service: Arc<Provisioning>) -> Router {
    Router::new()
        .route("/{scope}/registrations/{id}/register", put(register))
        .route("/{scope}/registrations/{id}/operations/{operation}", get(operation))
        .route("/{scope}/registrations/{id}", post(look_up))
        // A body that is too large for a register is answered in the service's own shape.
        .layer(DefaultBodyLimit::max(MESSAGE_MAX))
        .with_state(service)
}

async fn register(
    State(service): Shared,
    Path((scope, id)): Path<(String, String)>,
    Query(query): Parameters,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let caller = service.caller(&scope, &id, &query, &peer, &headers)?;
    let location = format!("/{scope}/registrations/{id}/register");
    let answer = service.register(caller, body.to_vec()).await;
    Ok(response(answer, Some(&location)))
}

async fn operation(
    State(service): Shared,
    Path((scope, id, operation_id)): Path<(String, String, String)>,
    Query(query): Parameters,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&scope, &id, &query, &peer, &headers)?;
    Ok(response(service.poll(&caller, &operation_id), None))
}

async fn look_up(
    State(service): Shared,
    Path((scope, id)): Path<(String, String)>,
    Query(query): Parameters,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let caller = service.caller(&scope, &id, &query, &peer, &headers)?;
    let id = RegistrationId::new(&id).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let asked = RegisterBody::parse(&body, id)
        .map_err(|error| Refusal::of(400_004, error.rule(), format_args!("{} bytes came", body.len())))?;
    if asked.csr.is_some() {
        return Err(Refusal::bad_request("a csr is for register; this request only looks up"));
    }
    Ok(response(service.look_up(&caller), None))
}

impl Provisioning {
    fn caller(
        &self,
        scope: &str,
        id: &str,
        query: &HashMap<String, String>,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        if !scope.eq_ignore_ascii_case(&self.settings.id_scope) {
            let came = format!("`{scope}` came");
            return Err(Refusal::of(404_000, Rule::DpsIdScope, came));
        }
        let api_version = query.get("api-version").filter(|version| !version.is_empty());
        let api_version =
            api_version.ok_or_else(|| Refusal::new(400_001, "append ?api-version=2021-06-01 to the path"))?;
        let token = headers.get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
        let proof = match (token.filter(|token| !token.is_empty()), &peer.tls.certificate) {
            (Some(token), _) => Proof::Token(token.to_owned()),
            (None, Some(shown)) => Proof::Certificates(Arc::clone(&shown.chain)),
            (None, None) => Proof::Nothing,
        };
        Ok(Caller { registration_id: id.to_owned(), proof, api_version: api_version.clone() })
    }
}

fn response(answer: Answer, location: Option<&str>) -> Response {
    let Answer { status, retry_after, body } = answer;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json::<Value>(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(location) = location.and_then(|location| location.parse().ok()) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(id) = guid().ok().and_then(|id| id.parse().ok()) {
        headers.insert("x-ms-request-id", id);
    }
    response
}
