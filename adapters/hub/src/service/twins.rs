//! `/twins`: desired properties and tags from the service's side.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::hub::{Authentication, DeviceKey, DeviceRecord, Section, TwinUpdate};
use serde_json::{Map, Value, json};

use super::registry::{NEVER, connection_state, etag, status};
use super::{ApiError, Code, Service, Shared, client_id, find, header, json_body, json_with_etag};
use crate::backlog::Change;
use crate::engine::Core;

/// PATCH merges, PUT puts in place of what was there; a section that the body does not have stays.
#[derive(Clone, Copy)]
enum Manner {
    Merge,
    Replace,
}

pub(super) async fn show(
    State(service): Shared,
    Path(device_id): Path<String>,
) -> Result<Response, ApiError> {
    service.twin(client_id(&device_id, None)?).await
}

pub(super) async fn show_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    service.twin(client_id(&device_id, Some(&module_id))?).await
}

pub(super) async fn patch(
    State(service): Shared,
    Path(device_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    service.update_twin(client_id(&device_id, None)?, Manner::Merge, &headers, &body).await
}

pub(super) async fn patch_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    service.update_twin(client_id(&device_id, Some(&module_id))?, Manner::Merge, &headers, &body).await
}

pub(super) async fn replace(
    State(service): Shared,
    Path(device_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    service.update_twin(client_id(&device_id, None)?, Manner::Replace, &headers, &body).await
}

pub(super) async fn replace_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    service.update_twin(client_id(&device_id, Some(&module_id))?, Manner::Replace, &headers, &body).await
}

impl Service {
    async fn twin(&self, client_id: String) -> Result<Response, ApiError> {
        let id = client_id.clone();
        let shown = self.engine.at(&client_id, move |core, _| {
            let key = find(core, &id)?;
            let record = core.hub.record(key).ok_or_else(ApiError::store_failed)?;
            Ok(json_with_etag(to_json(core, key, record)))
        });
        shown.await
    }

    async fn update_twin(
        &self,
        client_id: String,
        manner: Manner,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Response, ApiError> {
        let body = json_body(body)?;
        let update = TwinUpdate {
            desired: section(body.pointer("/properties/desired"), "properties.desired", manner)?,
            tags: section(body.get("tags"), "tags", manner)?,
            if_version: header(headers, "if-match").map_or(Ok(None), version)?,
        };
        let id = client_id.clone();
        let updated = self.engine.at(&client_id, move |core, _| {
            let key = find(core, &id)?;
            let commit = core.hub.update_twin(key, update)?;
            Ok::<_, ApiError>(commit.device)
        });
        let key = updated.await?;
        if !self.engine.durable(&client_id, Change::Record(key)).await {
            return Err(ApiError::store_failed());
        }
        self.twin(client_id).await
    }
}

fn section(value: Option<&Value>, name: &str, manner: Manner) -> Result<Option<Section>, ApiError> {
    let members = match value {
        None => return Ok(None),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(ApiError::new(Code::ArgumentInvalid, format!("{name} is a JSON object"))),
    };
    // Who read a twin and sends it back sends these along.
    let sent_back = |name: &str| matches!(name, "$version" | "$metadata");
    let members: Map<_, _> = members
        .iter()
        .filter(|(name, _)| !sent_back(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Ok(Some(match manner {
        Manner::Merge => Section::Patch(members),
        Manner::Replace => Section::Replace(members),
    }))
}

/// The ETag is the version: eight bytes, big-endian, in base64.
fn twin_etag(version: u64) -> String {
    STANDARD.encode(version.to_be_bytes())
}

fn version(if_match: &str) -> Result<Option<u64>, ApiError> {
    let if_match = if_match.trim_matches('"');
    // The Python service SDK quotes the star, too.
    if if_match == "*" {
        return Ok(None);
    }
    let bytes = STANDARD.decode(if_match).ok().and_then(|bytes| bytes.try_into().ok());
    match bytes {
        Some(bytes) => Ok(Some(u64::from_be_bytes(bytes))),
        // No twin ever has an ETag that is none.
        None => Err(ApiError::new(
            Code::PreconditionFailed,
            "the twin has another ETag; read it again, or send If-Match: *",
        )),
    }
}

fn to_json(core: &Core, key: DeviceKey, record: &DeviceRecord) -> Value {
    let (identity, twin) = (&record.identity, record.twin());
    let (kind, primary, secondary) = match &identity.authentication {
        Authentication::Sas { .. } => ("sas", None, None),
        Authentication::SelfSigned { primary, secondary } => {
            ("selfSigned", Some(primary), secondary.as_ref())
        }
        Authentication::CertificateAuthority => ("certificateAuthority", None, None),
    };
    let mut value = json!({
        "deviceId": identity.identity().device_id(),
        "etag": twin_etag(twin.version()),
        "deviceEtag": etag(identity),
        "status": status(identity),
        "statusUpdateTime": NEVER,
        "connectionState": connection_state(core, key),
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": record.waiting().len(),
        "authenticationType": kind,
        "x509Thumbprint": {"primaryThumbprint": primary, "secondaryThumbprint": secondary},
        "modelId": record.model_id().unwrap_or_default(),
        "version": twin.version(),
        "tags": twin.tags(),
        "properties": {
            "desired": with_version(twin.desired(), twin.desired_version()),
            "reported": with_version(twin.reported(), twin.reported_version()),
        },
        "capabilities": {"iotEdge": false},
    });
    if let (Some(module_id), Some(members)) = (identity.identity().module_id(), value.as_object_mut()) {
        members.insert("moduleId".to_owned(), module_id.into());
    }
    value
}

fn with_version(section: &Map<String, Value>, version: u64) -> Value {
    let mut section = section.clone();
    section.insert("$version".to_owned(), version.into());
    Value::Object(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_read_back_as_the_version_it_was_made_of() {
        assert_eq!(twin_etag(1), "AAAAAAAAAAE=");
        assert_eq!(version("\"AAAAAAAAAAE=\"").unwrap(), Some(1));
        assert_eq!(version("*").unwrap(), None);
        assert_eq!(version("\"*\"").unwrap(), None);
        assert!(version("W/\"x\"").is_err());
    }

    #[test]
    fn a_twin_that_was_read_can_be_sent_back() {
        let desired = json!({"a": 1, "$version": 4, "$metadata": {"$lastUpdated": "x"}});
        let section = section(Some(&desired), "desired", Manner::Merge).unwrap();
        let Some(Section::Patch(members)) = section else { panic!("a patch") };
        assert_eq!(Value::Object(members), json!({"a": 1}));
    }
}
