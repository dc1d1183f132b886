//! New keys for identities, so that nobody has to send one over the network.

use devicebound::hub::Authentication;
use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::Instant;
use serde_json::Value;

use super::identity::{new_key, text};
use super::{Backend, ClientId, Error, find, safe};
use crate::engine::core::Core;
use crate::engine::durability::Change;

/// Identities of one request, as in a bulk request.
const IDENTITIES_MAX: usize = 100;

/// Which keys are made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regenerate {
    /// The primary one.
    Primary,
    /// The secondary one.
    Secondary,
    /// Both.
    Both,
}

impl Regenerate {
    const ALL: [Self; 3] = [Self::Primary, Self::Secondary, Self::Both];

    /// The value of `policyKey`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primaryKey",
            Self::Secondary => "secondaryKey",
            Self::Both => "both",
        }
    }

    /// Reads `{"policyKey": …, "devices": [{"id": …, "moduleId": …}]}`.
    ///
    /// # Errors
    /// 400004 with what cannot be meant.
    pub fn read(body: &Value) -> Result<(Self, Vec<ClientId>), Error> {
        let named = text(body, "policyKey")?.unwrap_or_default();
        let which = Self::ALL.into_iter().find(|which| which.as_str() == named).ok_or_else(|| {
            Error::invalid(format!("policyKey is primaryKey, secondaryKey or both, not `{named}`"))
        })?;
        let devices = body.get("devices").and_then(Value::as_array);
        let devices = devices.filter(|devices| (1..=IDENTITIES_MAX).contains(&devices.len()));
        let devices =
            devices.ok_or_else(|| Error::invalid("devices is an array of 1 to 100 of {\"id\": …}"))?;
        let id = |entry: &Value| {
            let device_id = text(entry, "id")?.ok_or_else(|| Error::invalid("each of devices has an id"))?;
            ClientId::new(device_id, text(entry, "moduleId")?.filter(|id| !id.is_empty()))
        };
        Ok((which, devices.iter().map(id).collect::<Result<_, _>>()?))
    }
}

impl Backend {
    /// Makes new keys for each identity that has keys; gives both of its keys as they are now, or why not.
    pub async fn regenerate_keys(
        &self,
        which: Regenerate,
        ids: Vec<ClientId>,
    ) -> Vec<(ClientId, Result<[SymmetricKey; 2], Error>)> {
        let mut outcomes = Vec::with_capacity(ids.len());
        for id in ids {
            let outcome = self.regenerate(which, &id).await;
            outcomes.push((id, outcome));
        }
        outcomes
    }

    async fn regenerate(&self, which: Regenerate, id: &ClientId) -> Result<[SymmetricKey; 2], Error> {
        self.settled(id).await?;
        let changed = self.at(id, move |core, now, id| {
            let keys = change_keys(core, now, id, which)?;
            let key = find(core, id)?;
            Ok::<_, Error>((core.commit_durably([Change::Record(key)]), keys))
        });
        let (change, keys) = changed.await?;
        safe(change).await?;
        Ok(keys)
    }
}

fn change_keys(
    core: &mut Core,
    now: Instant,
    id: &ClientId,
    which: Regenerate,
) -> Result<[SymmetricKey; 2], Error> {
    let key = find(core, id)?;
    let record = core.hub.record(key).ok_or_else(Error::store_failed)?;
    let Authentication::Sas { primary, secondary } = &record.identity.authentication else {
        return Err(Error::invalid(format!("`{}` has no keys", id.as_str()))
            .with_fix("it proves itself by a certificate: set authentication.type to sas first"));
    };
    let new = |stays: bool, old: &SymmetricKey| if stays { Ok(old.clone()) } else { new_key() };
    let keys = [new(which == Regenerate::Secondary, primary)?, new(which == Regenerate::Primary, secondary)?];
    let [primary, secondary] = keys.clone();
    // The record is made durable by the caller.
    let _ = core.hub.update_identity(now, key, |identity| {
        identity.authentication = Authentication::Sas { primary, secondary };
    });
    Ok(keys)
}
