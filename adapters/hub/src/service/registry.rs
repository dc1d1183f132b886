//! `/devices`: the identity registry.

use std::collections::HashMap;
use std::ops::ControlFlow;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use devicebound::hub::{DeviceKey, DeviceRecord};
use devicebound::time::Instant;
use serde_json::Value;

use super::identity::{Wish, check_etag, text, to_json};
use super::{
    ApiError, Code, Service, Shared, client_id, find, header, json_object, json_with_etag, look_up, safe,
};
use crate::backlog::Change;
use crate::scan::Seen;
use crate::worker::Core;

/// How many devices one answer lists at most, as in Azure.
const LIST_MAX: usize = 1000;

pub(super) async fn list(State(service): Shared, Query(query): Query<HashMap<String, String>>) -> Response {
    // Whatever is not a number of that range means as many as there may be.
    let top = query.get("top").and_then(|top| top.parse().ok());
    let top = top.filter(|top| (1..=LIST_MAX).contains(top)).unwrap_or(LIST_MAX);
    let listed = service.engine.look_through("", Vec::new(), move |listed, seen| {
        if seen.record.identity.identity().module_id().is_none() {
            listed.push((seen.record.identity.client_id().to_owned(), to_json(seen)));
        }
        if listed.len() < top { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let mut devices: Vec<(String, Value)> = listed.await.into_iter().flatten().collect();
    devices.sort_by(|(one, _), (other, _)| one.cmp(other));
    let devices: Vec<Value> = devices.into_iter().take(top).map(|(_, device)| device).collect();
    Json(devices).into_response()
}

pub(super) async fn modules(
    State(service): Shared,
    Path(device_id): Path<String>,
) -> Result<Response, ApiError> {
    let client_id = client_id(&device_id, None)?;
    let listed = service.engine.at(&client_id, move |core, now| {
        find(core, &device_id)?;
        let modules = modules_of(core, &device_id);
        let shown = modules.map(|(key, record)| to_json(Seen { hub: &core.hub, now, key, record }));
        Ok::<Vec<Value>, ApiError>(shown.collect())
    });
    Ok(Json(listed.await?).into_response())
}

pub(super) async fn show(
    State(service): Shared,
    Path(device_id): Path<String>,
) -> Result<Response, ApiError> {
    service.identity(client_id(&device_id, None)?).await
}

pub(super) async fn show_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    service.identity(client_id(&device_id, Some(&module_id))?).await
}

pub(super) async fn put(
    State(service): Shared,
    Path(device_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    service.put_identity(&device_id, None, &headers, &body).await
}

pub(super) async fn put_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    service.put_identity(&device_id, Some(&module_id), &headers, &body).await
}

pub(super) async fn remove(
    State(service): Shared,
    Path(device_id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    service.remove_identity(client_id(&device_id, None)?, &headers).await
}

pub(super) async fn remove_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    service.remove_identity(client_id(&device_id, Some(&module_id))?, &headers).await
}

impl Service {
    async fn identity(&self, client_id: String) -> Result<Response, ApiError> {
        let id = client_id.clone();
        self.settled(&client_id).await?;
        let shown = self
            .engine
            .at(&client_id, move |core, now| Ok(json_with_etag(to_json(look_up(core, now, &id)?))));
        shown.await
    }

    /// Registers without If-Match, changes with it.
    async fn put_identity(
        &self,
        device_id: &str,
        module_id: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Response, ApiError> {
        let client_id = client_id(device_id, module_id)?;
        let body = json_object(body)?;
        if text(&body, "deviceId")?.is_some_and(|id| id != device_id)
            || text(&body, "moduleId")?.is_some_and(|id| Some(id) != module_id)
        {
            return Err(ApiError::new(
                Code::ArgumentInvalid,
                "the ids in the body are not the ids in the path",
            ));
        }
        let wish = Wish::read(&body)?;
        let if_match = header(headers, "if-match").map(str::to_owned);
        let id = client_id.clone();
        self.settled(&client_id).await?;
        let put = self.engine.at(&client_id, move |core, now| {
            let key = match if_match {
                None => register(core, &id, wish)?,
                Some(etag) => change(core, now, &id, &etag, wish)?,
            };
            Ok::<_, ApiError>(core.change_durably([Change::Record(key)]))
        });
        safe(put.await?).await?;
        self.identity(client_id).await
    }

    async fn remove_identity(&self, client_id: String, headers: &HeaderMap) -> Result<StatusCode, ApiError> {
        let etag = header(headers, "if-match").unwrap_or("*").to_owned();
        let id = client_id.clone();
        self.settled(&client_id).await?;
        let removal = self.engine.at(&client_id, move |core, _| {
            let gone = unregister(core, &id, &etag)?;
            Ok::<_, ApiError>(core.change_durably(gone.into_iter().map(Change::Removal)))
        });
        safe(removal.await?).await?;
        Ok(StatusCode::NO_CONTENT)
    }
}

/// Adds an identity; a module needs its device. The record is to be made durable.
pub(super) fn register(core: &mut Core, client_id: &str, wish: Wish) -> Result<DeviceKey, ApiError> {
    let is_module = client_id.split_once('/');
    if let Some((device_id, _)) = is_module {
        find(core, device_id)?;
    }
    let identity = wish.make(client_id)?;
    core.hub.register(DeviceRecord::new(identity)).map_err(|_| {
        let code = if is_module.is_some() { Code::ModuleAlreadyExists } else { Code::DeviceAlreadyExists };
        ApiError::new(code, format!("`{client_id}` is registered; send If-Match to change it"))
    })
}

/// Changes an identity that has this ETag. The record is to be made durable.
pub(super) fn change(
    core: &mut Core,
    now: Instant,
    client_id: &str,
    etag: &str,
    wish: Wish,
) -> Result<DeviceKey, ApiError> {
    let key = find(core, client_id)?;
    check_etag(core, key, etag)?;
    let record = core.hub.record(key).ok_or_else(ApiError::store_failed)?;
    let wish = wish.prepare(&record.identity)?;
    // Whoever asked makes the change durable, with or without the machine's own commit.
    let _ = core.hub.update_identity(now, key, |identity| wish.apply(identity));
    Ok(key)
}

/// Takes an identity of this ETag away, and the modules of a device; gives the client ids that are to be gone for good.
pub(super) fn unregister(core: &mut Core, client_id: &str, etag: &str) -> Result<Vec<String>, ApiError> {
    let key = find(core, client_id)?;
    check_etag(core, key, etag)?;
    let modules: Vec<DeviceKey> = modules_of(core, client_id).map(|(key, _)| key).collect();
    let gone = modules.into_iter().chain([key]).filter_map(|key| core.hub.remove(key));
    Ok(gone.map(|record| record.identity.client_id().to_owned()).collect())
}

fn modules_of<'c>(
    core: &'c Core,
    device_id: &str,
) -> impl Iterator<Item = (DeviceKey, &'c DeviceRecord)> + use<'c> {
    let begin = format!("{device_id}/");
    let behind = core.hub.devices_after(&begin);
    behind.take_while(move |(_, record)| record.identity.client_id().starts_with(&begin))
}
