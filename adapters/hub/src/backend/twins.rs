//! Twins: desired properties and tags from the service's side.

use std::sync::Arc;

use devicebound::hub::{Authentication, Section, TwinUpdate};
use devicebound::iothub::twin::TwinError;
use serde_json::{Map, Value, json};

use super::applications::Applications;
use super::identity::{Moments, add_edge, kind_of, status};
use super::{Backend, ClientId, Error, find, look_up, safe};
use crate::engine::record_scan::Seen;

/// What becomes of the members that a section has already; a section that an update does not have stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// They stay, unless the update names them (PATCH).
    Merge,
    /// They go (PUT).
    Replace,
}

impl Backend {
    /// A twin as the service sees it.
    ///
    /// # Errors
    /// 404001, 404010; 503001 while the store cannot say what there is.
    pub async fn twin(&self, id: &ClientId) -> Result<Value, Error> {
        self.settled(id).await?;
        let applications = Arc::clone(&self.applications);
        self.at(id, move |core, now, id| Ok(to_json(look_up(core, now, id)?, &applications))).await
    }

    /// Changes desired properties and tags, and tells the device; shows what the twin has become.
    ///
    /// # Errors
    /// 404001, 404010, 400004, 412001 for another ETag; 503001 where it could not be stored.
    pub async fn update_twin(&self, id: &ClientId, update: TwinUpdate) -> Result<Value, Error> {
        self.settled(id).await?;
        let updated = self.at(id, move |core, now, id| {
            let key = find(core, id)?;
            let commit = core.hub.update_twin(now, key, update)?;
            Ok::<_, Error>(core.commit_durably([commit]))
        });
        safe(updated.await?).await?;
        self.twin(id).await
    }
}

/// What a body asks a twin to become, if it has this ETag.
///
/// # Errors
/// 400004 with what cannot be meant.
pub fn update_of(body: &Value, manner: Manner, if_match: Option<String>) -> Result<TwinUpdate, Error> {
    let desired = match body.get("properties") {
        None | Some(Value::Null) => None,
        Some(Value::Object(properties)) => properties.get("desired"),
        Some(other) => return Err(not_an_object(other, "properties")),
    };
    Ok(TwinUpdate {
        desired: section(desired, "properties.desired", manner)?,
        tags: section(body.get("tags"), "tags", manner)?,
        if_match,
    })
}

fn section(value: Option<&Value>, name: &str, manner: Manner) -> Result<Option<Section>, Error> {
    let members = match value {
        None => return Ok(None),
        // All of it is gone (Azure's end-to-end tests for Node): told to the device as a null for each property.
        Some(Value::Null) => return Ok(Some(Section::Replace(Map::new()))),
        Some(Value::Object(members)) => members,
        Some(other) => return Err(not_an_object(other, name)),
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

fn not_an_object(value: &Value, name: &str) -> Error {
    Error::invalid(TwinError::not_an_object(value).within(name).to_string())
}

/// The ETag without its quotes; none where any is good. The Python service SDK quotes the star, too.
#[must_use]
pub fn if_match(header: &str) -> Option<String> {
    Some(header.trim_matches('"')).filter(|etag| *etag != "*").map(str::to_owned)
}

/// The twin as the service sees it.
pub(super) fn to_json(seen: Seen<'_>, applications: &Applications) -> Value {
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
    });
    add_edge(identity, &mut value);
    if let Some(members) = value.as_object_mut() {
        let module_id = identity.identity().module_id().map(Value::from);
        members.extend(module_id.map(|id| ("moduleId".to_owned(), id)));
        let configurations = applications.to_json(identity.client_id());
        members.extend(configurations.map(|configurations| ("configurations".to_owned(), configurations)));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_of_null_is_emptied_and_one_that_is_no_object_is_named() {
        for manner in [Manner::Merge, Manner::Replace] {
            let body = json!({"properties": {"desired": null}, "tags": null});
            let update = update_of(&body, manner, None).unwrap();
            let empty = Some(Section::Replace(Map::new()));
            assert_eq!((update.desired, update.tags), (empty.clone(), empty));
            let error = update_of(&json!({"properties": {"desired": [1]}}), manner, None).unwrap_err();
            assert!(error.to_string().contains("properties.desired: an array"), "{error}");
        }
    }

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
