//! `/twins`: desired properties and tags from the service's side.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use devicebound::hub::{Authentication, Section, TwinUpdate};
use serde_json::{Map, Value, json};

use super::identity::{Moments, kind_of, status};
use super::{
    ApiError, Code, Service, Shared, client_id, find, header, json_object, json_with_etag, look_up, safe,
};
use crate::backlog::Change;
use crate::scan::Seen;

/// PATCH merges, PUT puts in place of what was there; a section that the body does not have stays.
#[derive(Clone, Copy)]
pub(super) enum Manner {
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
        self.settled(&client_id).await?;
        let shown = self
            .engine
            .at(&client_id, move |core, now| Ok(json_with_etag(to_json(look_up(core, now, &id)?))));
        shown.await
    }

    async fn update_twin(
        &self,
        client_id: String,
        manner: Manner,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Response, ApiError> {
        let body = json_object(body)?;
        let update = update_of(&body, manner, header(headers, "if-match").and_then(if_match))?;
        let id = client_id.clone();
        self.settled(&client_id).await?;
        let updated = self.engine.at(&client_id, move |core, now| {
            let key = find(core, &id)?;
            let commit = core.hub.update_twin(now, key, update)?;
            Ok::<_, ApiError>(core.change_durably([Change::Record(commit.device)]))
        });
        safe(updated.await?).await?;
        self.twin(client_id).await
    }
}

/// What a body asks a twin to become, if it has this ETag.
pub(super) fn update_of(
    body: &Value,
    manner: Manner,
    if_match: Option<String>,
) -> Result<TwinUpdate, ApiError> {
    let desired = match body.get("properties") {
        None => None,
        Some(Value::Object(properties)) => properties.get("desired"),
        Some(_) => return Err(ApiError::new(Code::ArgumentInvalid, "properties is a JSON object")),
    };
    Ok(TwinUpdate {
        desired: section(desired, "properties.desired", manner)?,
        tags: section(body.get("tags"), "tags", manner)?,
        if_match,
    })
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

/// The ETag without its quotes; none where any is good. The Python service SDK quotes the star, too.
pub(super) fn if_match(header: &str) -> Option<String> {
    Some(header.trim_matches('"')).filter(|etag| *etag != "*").map(str::to_owned)
}

/// The twin as the service sees it.
pub(super) fn to_json(seen: Seen<'_>) -> Value {
    let record = seen.record;
    let (identity, twin) = (&record.identity, record.twin());
    let moments = Moments::of(seen);
    let thumbprints = match &identity.authentication {
        Authentication::SelfSigned { primary, secondary } => (Some(primary), secondary.as_ref()),
        Authentication::Sas { .. } | Authentication::CertificateAuthority => (None, None),
    };
    let mut value = json!({
        "deviceId": identity.identity().device_id(),
        "etag": twin.etag(),
        "deviceEtag": identity.etag(),
        "status": status(identity),
        "statusReason": identity.status_reason,
        "statusUpdateTime": moments.status_updated,
        "connectionState": moments.connection_state,
        "lastActivityTime": moments.last_activity,
        "cloudToDeviceMessageCount": record.waiting().len(),
        "authenticationType": kind_of(&identity.authentication),
        "x509Thumbprint": {"primaryThumbprint": thumbprints.0, "secondaryThumbprint": thumbprints.1},
        "modelId": record.model_id().unwrap_or_default(),
        "version": twin.version(),
        "tags": twin.tags(),
        "properties": {
            "desired": twin.desired_view(),
            "reported": twin.reported_view(),
        },
        "capabilities": {"iotEdge": false},
    });
    if let (Some(module_id), Some(members)) = (identity.identity().module_id(), value.as_object_mut()) {
        members.insert("moduleId".to_owned(), module_id.into());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_etag_with_and_without_quotes() {
        assert_eq!(if_match("\"AAAAAAAAAAE=\"").as_deref(), Some("AAAAAAAAAAE="));
        assert_eq!((if_match("*"), if_match("\"*\"")), (None, None));
    }

    #[test]
    fn a_twin_that_was_read_can_be_sent_back() {
        let desired = json!({"a": 1, "$version": 4, "$metadata": {"$lastUpdated": "x"}});
        let section = section(Some(&desired), "desired", Manner::Merge).unwrap();
        let Some(Section::Patch(members)) = section else { panic!("a patch") };
        assert_eq!(Value::Object(members), json!({"a": 1}));
    }
}
