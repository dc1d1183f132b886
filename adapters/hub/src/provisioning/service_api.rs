//! The service side: enrollments, groups and registrations, in the shapes of Azure's REST API.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use devicebound::iothub::sas::{Demand, Policy, Rights, SasToken};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::Provisioning;
use super::entry::{Entry, Kind};
use super::error::Refusal;
use super::records::{entry_document, entry_removal, registration_removal};
use super::service_query::{Page, Query, page_size};
use crate::clock::unix_time;

/// A bulk request has as many entries at most (DPS limits).
const BULK_MAX: usize = 10;
/// No request is larger: ten enrollments with two certificates each.
const BODY_MAX: usize = 1024 * 1024;

/// What the requests need: the service, and the policies of the hub, whose keys open it as well.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    service: Arc<Provisioning>,
    policies: Arc<[Policy]>,
}

type Shared = State<Api>;

/// The requests of back ends.
pub(crate) fn router(service: Arc<Provisioning>, policies: &[Policy]) -> Router {
    let api = Api { service, policies: policies.into() };
    Router::new()
        .route("/enrollments", post(bulk))
        .route("/enrollments/", post(bulk))
        .route("/enrollments/query", post(query))
        .route("/enrollments/{id}", get(show).put(write).delete(remove))
        .route("/enrollments/{id}/attestationmechanism", post(attestation))
        .route("/enrollmentGroups", post(bulk_groups))
        .route("/enrollmentGroups/", post(bulk_groups))
        .route("/enrollmentGroups/query", post(query_groups))
        .route("/enrollmentGroups/{id}", get(show_group).put(write_group).delete(remove_group))
        .route("/enrollmentGroups/{id}/attestationmechanism", post(attestation_of_group))
        // Azure's Node SDK writes it so.
        .route("/enrollmentgroups/{id}/attestationmechanism", post(attestation_of_group))
        .route("/registrations/{id}", get(show_registration).delete(remove_registration))
        .route("/registrations/{id}/query", post(query_registrations))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(api.clone(), authorize))
        .with_state(api)
}

async fn authorize(State(api): Shared, request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
    let (method, path) = (request.method(), request.uri().path());
    let checked = api.check(token, method, path).and_then(|()| {
        let names_one =
            |pair: &str| pair.strip_prefix("api-version=").is_some_and(|version| !version.is_empty());
        if request.uri().query().unwrap_or_default().split('&').any(names_one) {
            return Ok(());
        }
        Err(Refusal::new(400_001, "append ?api-version=2021-10-01 to the path"))
    });
    match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

impl Api {
    /// Whether the token is one of a policy with the right that the request needs. Keys are shown to who may change them.
    fn check(&self, token: Option<&str>, method: &Method, path: &str) -> Result<(), Refusal> {
        let refuse = |what: String| Refusal::new(401_002, what);
        let advice = "make a token from the connection string of the service: devicebound hub prints it";
        let token = token.ok_or_else(|| refuse(format!("the Authorization header is missing; {advice}")))?;
        let token = SasToken::parse(token).map_err(|error| refuse(format!("{error}; {advice}")))?;
        let reads = method == Method::GET || path.ends_with("/query");
        let right = if reads { Rights::REGISTRY_READ } else { Rights::REGISTRY_WRITE };
        let resource = token.resource();
        let host = resource.split('/').next().unwrap_or_default();
        let path = percent_decode_str(path).decode_utf8_lossy();
        let demand = Demand {
            target: &format!("{host}{path}"),
            keys: &[],
            right,
            now: unix_time(),
            skew: Duration::ZERO,
        };
        let own = &self.service.settings.policy;
        let policies = self.policies.iter().chain([own]);
        let policy = |name: &str| policies.clone().find(|policy| policy.name == name);
        token.verify(&demand, policy).map(drop).map_err(|error| refuse(format!("{error}; {advice}")))
    }
}

async fn show(State(api): Shared, Path(id): Path<String>) -> Result<Response, Refusal> {
    api.service.show(Kind::Individual, &id)
}

async fn show_group(State(api): Shared, Path(id): Path<String>) -> Result<Response, Refusal> {
    api.service.show(Kind::Group, &id)
}

async fn write(
    State(api): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    api.service.put(Kind::Individual, id, &headers, &body).await
}

async fn write_group(
    State(api): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    api.service.put(Kind::Group, id, &headers, &body).await
}

async fn remove(
    State(api): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    api.service.delete(Kind::Individual, id, &headers).await
}

async fn remove_group(
    State(api): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    api.service.delete(Kind::Group, id, &headers).await
}

async fn attestation(State(api): Shared, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    api.service.attestation(Kind::Individual, &id)
}

async fn attestation_of_group(State(api): Shared, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    api.service.attestation(Kind::Group, &id)
}

async fn bulk(State(api): Shared, body: Bytes) -> Result<Json<Value>, Refusal> {
    api.service.bulk(Kind::Individual, &body).await
}

async fn bulk_groups(State(api): Shared, body: Bytes) -> Result<Json<Value>, Refusal> {
    api.service.bulk(Kind::Group, &body).await
}

async fn query(State(api): Shared, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    api.service.query(Kind::Individual, &headers, &body)
}

async fn query_groups(State(api): Shared, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    api.service.query(Kind::Group, &headers, &body)
}

async fn show_registration(State(api): Shared, Path(id): Path<String>) -> Result<Response, Refusal> {
    let registration = api.service.records.registration(&id).ok_or_else(|| no_registration(&id))?;
    Ok(with_etag(registration.shown()))
}

async fn remove_registration(
    State(api): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let if_match = if_match(&headers);
    let service = Arc::clone(&api.service);
    finished(tokio::spawn(async move { service.forget(&id, if_match.as_deref()).await }).await)
}

async fn query_registrations(
    State(api): Shared,
    Path(group): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let query = Query::read(&body, &["deviceregistrations", "registrations"])?;
    let (after, most) = (Page::after(&headers)?, page_size(&headers)?);
    let (found, more) = api.service.records.registrations_after(&after, most, |registration| {
        let of_group = registration.group.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(&group));
        // An individual enrollment has one registration, of its own id.
        let own = registration.group.is_none() && registration.id.eq_ignore_ascii_case(&group);
        (of_group || own) && query.wants(&registration.shown())
    });
    let next = found.last().filter(|_| more).map(|last| last.key());
    let rows = found.iter().map(|registration| registration.shown()).collect();
    Ok(Page { rows, item_type: "deviceRegistration", next, most }.into_response())
}

/// A request that goes on when its sender hangs up.
fn finished<T>(result: Result<Result<T, Refusal>, tokio::task::JoinError>) -> Result<T, Refusal> {
    result.unwrap_or_else(|error| Err(Refusal::unavailable(error.to_string())))
}

/// The etag that a request is for, in whatever quotes; `None` where it is for any.
fn if_match(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(header::IF_MATCH)?.to_str().ok()?;
    Some(etag.to_owned()).filter(|etag| etag != "*" && etag != "\"*\"" && !etag.is_empty())
}

fn bare(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

fn check_etag(wanted: Option<&str>, actual: &str) -> Result<(), Refusal> {
    match wanted {
        Some(wanted) if bare(wanted) != bare(actual) => {
            Err(Refusal::new(412_001, "it was changed meanwhile: read it again and use its new etag"))
        }
        _ => Ok(()),
    }
}

fn with_etag(value: Value) -> Response {
    let etag = value.get("etag").and_then(Value::as_str).and_then(|etag| HeaderValue::from_str(etag).ok());
    let mut response = Json(value).into_response();
    if let Some(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn no_entry(kind: Kind, id: &str) -> Refusal {
    Refusal::new(404_201, format!("there is no {} `{id}`", kind.item_type()))
}

fn no_registration(id: &str) -> Refusal {
    Refusal::new(404_202, format!("`{id}` has not registered"))
}

fn json_object(body: &[u8]) -> Result<Value, Refusal> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is not JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(Refusal::bad_request("the body is a JSON object: {…}")) }
}

/// What a bulk request does with its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Create,
    Update,
    UpdateIfMatch,
    Delete,
}

impl Mode {
    fn read(body: &Value) -> Result<Self, Refusal> {
        let mode = body.get("mode").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        Ok(match mode.as_str() {
            "create" => Self::Create,
            "update" => Self::Update,
            "updateifmatchetag" => Self::UpdateIfMatch,
            "delete" => Self::Delete,
            _ => return Err(Refusal::bad_request("mode is create, update, updateIfMatchETag or delete")),
        })
    }
}

impl Provisioning {
    /// An entry as it is shown, with the registration of an individual enrollment.
    fn shown(&self, entry: &Entry, with_keys: bool) -> Value {
        let mut json = entry.shown(with_keys);
        if entry.kind == Kind::Individual
            && let Some(registration) = self.records.registration(&entry.id)
        {
            json.insert("registrationState".to_owned(), registration.shown());
        }
        Value::Object(json)
    }

    fn show(&self, kind: Kind, id: &str) -> Result<Response, Refusal> {
        let entry = self.records.entry(kind, id).ok_or_else(|| no_entry(kind, id))?;
        Ok(with_etag(self.shown(&entry, false)))
    }

    fn attestation(&self, kind: Kind, id: &str) -> Result<Json<Value>, Refusal> {
        let entry = self.records.entry(kind, id).ok_or_else(|| no_entry(kind, id))?;
        Ok(Json(entry.json.get("attestation").cloned().unwrap_or_default()))
    }

    async fn put(
        self: &Arc<Self>,
        kind: Kind,
        id: String,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Response, Refusal> {
        let (body, if_match) = (json_object(body)?, if_match(headers));
        let service = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _alone = service.records.changing.lock().await;
            let entry = service.put_one(kind, &id, &body, if_match.as_deref()).await?;
            Ok(with_etag(service.shown(&entry, true)))
        });
        finished(task.await)
    }

    async fn put_one(
        &self,
        kind: Kind,
        id: &str,
        body: &Value,
        if_match: Option<&str>,
    ) -> Result<Entry, Refusal> {
        let before = self.records.entry(kind, id);
        if let Some(if_match) = if_match {
            let before = before.as_ref().ok_or_else(|| no_entry(kind, id))?;
            check_etag(Some(if_match), before.etag())?;
        }
        let entry = Entry::read(kind, id, body, before.as_deref(), unix_time())?;
        self.records.check_room(&entry)?;
        if !self.engine.keep_documents(vec![entry_document(&entry)]).await {
            return Err(Refusal::not_stored());
        }
        self.records.put_entry(entry.clone());
        Ok(entry)
    }

    async fn delete(
        self: &Arc<Self>,
        kind: Kind,
        id: String,
        headers: &HeaderMap,
    ) -> Result<StatusCode, Refusal> {
        let if_match = if_match(headers);
        let service = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _alone = service.records.changing.lock().await;
            service.delete_one(kind, &id, if_match.as_deref()).await?;
            Ok(StatusCode::NO_CONTENT)
        });
        finished(task.await)
    }

    /// Registrations and devices of the hub stay.
    async fn delete_one(&self, kind: Kind, id: &str, if_match: Option<&str>) -> Result<(), Refusal> {
        let entry = self.records.entry(kind, id).ok_or_else(|| no_entry(kind, id))?;
        check_etag(if_match, entry.etag())?;
        if !self.engine.keep_documents(vec![entry_removal(kind, id)]).await {
            return Err(Refusal::not_stored());
        }
        self.records.remove_entry(kind, id);
        Ok(())
    }

    /// The next register of the device is a first one; its device in the hub stays.
    async fn forget(&self, id: &str, if_match: Option<&str>) -> Result<StatusCode, Refusal> {
        let registration = self.records.registration(id).ok_or_else(|| no_registration(id))?;
        check_etag(if_match, registration.text("etag").unwrap_or_default())?;
        if !self.engine.keep_documents(vec![registration_removal(id)]).await {
            return Err(Refusal::not_stored());
        }
        self.records.remove_registration(id);
        Ok(StatusCode::NO_CONTENT)
    }

    async fn bulk(self: &Arc<Self>, kind: Kind, body: &[u8]) -> Result<Json<Value>, Refusal> {
        let body = json_object(body)?;
        let mode = Mode::read(&body)?;
        let entries = body.get(kind.collection()).and_then(Value::as_array).cloned();
        let entries =
            entries.ok_or_else(|| Refusal::bad_request(format!("{} is a list", kind.collection())))?;
        if !(1..=BULK_MAX).contains(&entries.len()) {
            return Err(Refusal::bad_request(format!("{} has 1 to {BULK_MAX} entries", kind.collection())));
        }
        let service = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _alone = service.records.changing.lock().await;
            let mut errors = Vec::new();
            for entry in &entries {
                let id = entry.get(kind.id_member()).and_then(Value::as_str).unwrap_or_default();
                if let Err(refusal) = service.bulk_one(kind, mode, id, entry).await {
                    errors.push(bulk_error(kind, id, &refusal));
                }
            }
            Ok(Json(json!({"isSuccessful": errors.is_empty(), "errors": errors})))
        });
        finished(task.await)
    }

    async fn bulk_one(&self, kind: Kind, mode: Mode, id: &str, entry: &Value) -> Result<(), Refusal> {
        let etag = entry.get("etag").and_then(Value::as_str);
        let there = self.records.entry(kind, id);
        match (mode, there) {
            (Mode::Create, Some(_)) => {
                return Err(Refusal::new(
                    409_201,
                    format!("the {} `{id}` is there already", kind.item_type()),
                ));
            }
            (Mode::Update | Mode::UpdateIfMatch, None) => return Err(no_entry(kind, id)),
            (Mode::Delete, _) => return self.delete_one(kind, id, etag).await,
            (Mode::Create | Mode::Update | Mode::UpdateIfMatch, _) => {}
        }
        let if_match = etag.filter(|_| mode == Mode::UpdateIfMatch);
        self.put_one(kind, id, entry, if_match).await.map(drop)
    }

    fn query(&self, kind: Kind, headers: &HeaderMap, body: &[u8]) -> Result<Response, Refusal> {
        let query = Query::read(body, &[&kind.collection().to_ascii_lowercase()])?;
        let (after, most) = (Page::after(headers)?, page_size(headers)?);
        let (found, more) = self
            .records
            .entries_after(kind, &after, most, |entry| query.wants(&Value::Object(entry.shown(false))));
        let next = found.last().filter(|_| more).map(|last| last.key());
        let rows = found.iter().map(|entry| self.shown(entry, false)).collect();
        Ok(Page { rows, item_type: kind.item_type(), next, most }.into_response())
    }
}

fn bulk_error(kind: Kind, id: &str, refusal: &Refusal) -> Value {
    let mut error = Map::new();
    error.insert(kind.id_member().to_owned(), id.into());
    error.insert("errorCode".to_owned(), refusal.number().into());
    error.insert("errorStatus".to_owned(), refusal.message().into());
    Value::Object(error)
}
