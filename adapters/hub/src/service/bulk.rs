//! `POST /devices`: up to a hundred changes of the registry in one request.

use std::collections::HashSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use devicebound::hub::{DeviceKey, Section, TwinUpdate};
use devicebound::time::Instant;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::identity::{Wish, text};
use super::registry::{change, register, unregister};
use super::twins::{Manner, if_match, update_of};
use super::{ApiError, Code, Service, Shared, client_id, find, json_body, safe};
use crate::backlog::Change;
use crate::worker::Core;

/// Entries of one request (IoT Hub quotas).
const ENTRIES_MAX: usize = 100;

/// One change, as an entry of the request asks for it.
struct Entry {
    device_id: String,
    module_id: Option<String>,
    client_id: String,
    act: Act,
}

/// What is to be done with the identity; the text is the ETag that it must have.
enum Act {
    Create(Wish, TwinUpdate),
    Update(Wish, String),
    CreateOrUpdate(Wish, TwinUpdate, String),
    UpdateTwin(TwinUpdate),
    Delete(String),
}

pub(super) async fn update(
    State(service): Shared,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let body = json_body(&body)?;
    let entries = body.as_array().ok_or_else(|| invalid("the body is an array of identities"))?;
    if entries.len() > ENTRIES_MAX {
        return Err(invalid("a bulk request has at most 100 entries"));
    }
    let entries = entries.iter().map(Entry::read).collect::<Result<Vec<_>, _>>()?;
    let mut ids = HashSet::new();
    if let Some(twice) = entries.iter().find(|entry| !ids.insert(entry.client_id.clone())) {
        return Err(invalid(&format!("`{}` stands there twice", twice.client_id)));
    }
    let done = join_all(entries.into_iter().map(|entry| service.carry_out(entry))).await;
    let errors: Vec<Value> = done.into_iter().filter_map(Result::err).collect();
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Ok((status, Json(json!({"isSuccessful": errors.is_empty(), "errors": errors, "warnings": []}))))
}

impl Service {
    /// Makes one change; what went wrong comes as an entry of the answer.
    async fn carry_out(&self, entry: Entry) -> Result<(), Value> {
        let Entry { device_id, module_id, client_id, act } = entry;
        let failed = |error: &ApiError| {
            json!({
                "deviceId": device_id, "moduleId": module_id,
                "errorCode": error.name(), "errorStatus": error.to_string(),
            })
        };
        let id = client_id.clone();
        self.settled(&client_id).await.map_err(|error| failed(&error))?;
        let acted = self.engine.at(&client_id, move |core, now| {
            let changes = act.on(core, now, &id)?;
            Ok(core.change_durably(changes))
        });
        safe(acted.await.map_err(|error: ApiError| failed(&error))?).await.map_err(|error| failed(&error))
    }
}

impl Entry {
    fn read(entry: &Value) -> Result<Self, ApiError> {
        let text = |name| text(entry, name).map(|text| text.filter(|text| !text.is_empty()));
        let device_id = text("id")?.ok_or_else(|| invalid("each entry has an id"))?;
        let module_id = text("moduleId")?;
        let etag = || {
            let etag = text("eTag")?.or(text("etag")?);
            etag.map(str::to_owned).ok_or_else(|| invalid("an IfMatchETag mode needs the eTag"))
        };
        let any = || "*".to_owned();
        let wish = || Wish::read(entry);
        let twin = |if_match| update_of(entry, Manner::Replace, if_match);
        // In any case of letters, because the SDKs do not agree: Node writes `Update`, Python `update`.
        let mode = text("importMode")?.unwrap_or("createOrUpdate").to_ascii_lowercase();
        let act = match mode.as_str() {
            "create" => Act::Create(wish()?, twin(None)?),
            "update" => Act::Update(wish()?, any()),
            "updateifmatchetag" => Act::Update(wish()?, etag()?),
            "createorupdate" => Act::CreateOrUpdate(wish()?, twin(None)?, any()),
            "createorupdateifmatchetag" => Act::CreateOrUpdate(wish()?, twin(None)?, etag()?),
            "delete" => Act::Delete(any()),
            "deleteifmatchetag" => Act::Delete(etag()?),
            "updatetwin" => Act::UpdateTwin(twin(None)?),
            "updatetwinifmatchetag" => {
                let etag = text("twinETag")?;
                let etag = etag.ok_or_else(|| invalid("updateTwinIfMatchETag needs the twinETag"))?;
                Act::UpdateTwin(twin(if_match(etag))?)
            }
            _ => {
                return Err(invalid(
                    "importMode is create, update, createOrUpdate, delete or updateTwin, perhaps with IfMatchETag",
                ));
            }
        };
        Ok(Self {
            device_id: device_id.to_owned(),
            module_id: module_id.map(str::to_owned),
            client_id: client_id(device_id, module_id)?,
            act,
        })
    }
}

impl Act {
    /// Acts on the record; gives what is to be made durable.
    fn on(self, core: &mut Core, now: Instant, client_id: &str) -> Result<Vec<Change>, ApiError> {
        let key = match self {
            Self::Create(wish, twin) => create(core, now, client_id, wish, twin)?,
            Self::CreateOrUpdate(wish, twin, etag) => match core.hub.find(client_id) {
                None => create(core, now, client_id, wish, twin)?,
                Some(_) => change(core, now, client_id, &etag, wish)?,
            },
            Self::Update(wish, etag) => change(core, now, client_id, &etag, wish)?,
            Self::UpdateTwin(twin) => {
                let key = find(core, client_id)?;
                core.hub.update_twin(now, key, twin)?.device
            }
            Self::Delete(etag) => {
                return Ok(unregister(core, client_id, &etag)?.into_iter().map(Change::Removal).collect());
            }
        };
        Ok(vec![Change::Record(key)])
    }
}

/// Registers an identity that has this twin from the start; neither is there if the twin cannot be.
fn create(
    core: &mut Core,
    now: Instant,
    client_id: &str,
    wish: Wish,
    twin: TwinUpdate,
) -> Result<DeviceKey, ApiError> {
    let key = register(core, client_id, wish)?;
    let is_empty = |section: &Option<Section>| match section {
        None => true,
        Some(Section::Patch(members) | Section::Replace(members)) => members.is_empty(),
    };
    if is_empty(&twin.desired) && is_empty(&twin.tags) {
        return Ok(key);
    }
    core.hub.update_twin(now, key, twin).map(|commit| commit.device).map_err(|error| {
        core.hub.remove(key);
        error.into()
    })
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(Code::ArgumentInvalid, message)
}
