//! The identity registry.

use std::ops::ControlFlow;

use devicebound::hub::{DeviceKey, DeviceRecord, Warning};
use devicebound::time::Instant;
use serde_json::Value;

use super::identity::{Wish, check_etag, to_json};
use super::{Backend, ClientId, Code, Error, find, look_up, not_found, safe};
use crate::engine::core::Core;
use crate::engine::durability::Change;
use crate::engine::record_scan::Seen;

/// How many devices one answer lists at most, as in Azure.
pub const LIST_MAX: usize = 1000;

impl Backend {
    /// The first devices in the order of their ids, at most [`LIST_MAX`].
    pub async fn list_devices(&self, top: usize) -> Vec<Value> {
        let top = top.min(LIST_MAX);
        let listed = self.engine.look_through("", Vec::new(), move |listed, seen| {
            if seen.record.identity.identity().module_id().is_none() {
                listed.push((seen.record.identity.client_id().to_owned(), to_json(seen)));
            }
            if listed.len() < top { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let mut devices: Vec<(String, Value)> = listed.await.into_iter().flatten().collect();
        devices.sort_by(|(one, _), (other, _)| one.cmp(other));
        devices.into_iter().take(top).map(|(_, device)| device).collect()
    }

    /// The modules of a device.
    ///
    /// # Errors
    /// 404001.
    pub async fn list_modules(&self, device: &ClientId) -> Result<Vec<Value>, Error> {
        let listed = self.at(device, |core, now, id| {
            find(core, id)?;
            let modules = modules_of(core, id.as_str());
            let shown = modules.map(|(key, record)| to_json(Seen { hub: &core.hub, now, key, record }));
            Ok(shown.collect())
        });
        listed.await
    }

    /// An identity as the registry shows it.
    ///
    /// # Errors
    /// 404001, 404010; 503001 while the store cannot say what there is.
    pub async fn identity(&self, id: &ClientId) -> Result<Value, Error> {
        self.settled(id).await?;
        self.at(id, |core, now, id| Ok(to_json(look_up(core, now, id)?))).await
    }

    /// Registers an identity, or with the ETag that it must have (`*`: any) changes it; shows what it has become.
    ///
    /// # Errors
    /// 400004 for a scope that no Edge device has, 409001, 409301 where it is registered, 404001, 404010 where it or the device of a module is not, 412001 for another
    /// ETag, 503001 where it could not be stored.
    pub async fn put_identity(
        &self,
        id: &ClientId,
        if_match: Option<String>,
        wish: Wish,
    ) -> Result<Value, Error> {
        self.settled(id).await?;
        self.check_scopes(id, &wish).await?;
        let warning = wish.warning();
        let refused = warning.clone();
        let put = self.at(id, move |core, now, id| {
            if let Some(warning) = refused.filter(|_| core.hub.is_strict()) {
                return Err(refusal_of(&warning));
            }
            let changed = match if_match {
                None => register(core, id, wish)?.1,
                Some(etag) => change(core, now, id, &etag, wish)?,
            };
            Ok::<_, Error>(core.commit_durably([changed]))
        });
        safe(put.await?).await?;
        if let Some(warning) = warning {
            self.engine.operations.registration_warned(id.device_id(), id.module_id(), &warning);
            self.engine.view.registration_warned(id.as_str(), &warning);
        }
        self.identity(id).await
    }

    /// Removes an identity that has this ETag (`*`: any), and the modules of a device.
    ///
    /// # Errors
    /// 404001, 404010, 412001; 503001 where that could not be stored.
    pub async fn remove_identity(&self, id: &ClientId, if_match: String) -> Result<(), Error> {
        self.settled(id).await?;
        let removal = self.at(id, move |core, _, id| {
            let gone = unregister(core, id, &if_match)?;
            Ok::<_, Error>(core.commit_durably(gone))
        });
        safe(removal.await?).await
    }
}

fn refusal_of(warning: &Warning) -> Error {
    let received = warning.comparison.as_ref().map_or("", |comparison| comparison.received.as_str());
    Error::invalid(format!("{received}: {}", warning.rule.says())).with_fix(warning.rule.fix())
}

/// Adds an identity; a module needs its device.
pub(super) fn register(core: &mut Core, id: &ClientId, wish: Wish) -> Result<(DeviceKey, Change), Error> {
    let is_module = id.module_id().is_some();
    if is_module && core.hub.find(id.device_id()).is_none() {
        return Err(not_found(id.device_id()));
    }
    let identity = wish.make(id)?;
    core.register(DeviceRecord::new(identity)).map_err(|_| {
        let code = if is_module { Code::ModuleAlreadyExists } else { Code::DeviceAlreadyExists };
        Error::new(code, format!("`{}` is registered", id.as_str())).with_fix("send If-Match to change it")
    })
}

/// Changes an identity that has this ETag.
pub(super) fn change(
    core: &mut Core,
    now: Instant,
    id: &ClientId,
    etag: &str,
    wish: Wish,
) -> Result<Change, Error> {
    let key = find(core, id)?;
    check_etag(core, key, etag)?;
    let record = core.hub.record(key).ok_or_else(Error::store_failed)?;
    let wish = wish.prepare(&record.identity)?;
    // It is made durable also where nothing was changed, and so the machine has no commit: it may be on its way.
    let _ = core.hub.update_identity(now, key, |identity| wish.apply(identity));
    Ok(Change::Record(key))
}

/// Takes an identity of this ETag away, and the modules of a device.
pub(super) fn unregister(core: &mut Core, id: &ClientId, etag: &str) -> Result<Vec<Change>, Error> {
    let key = find(core, id)?;
    check_etag(core, key, etag)?;
    let modules: Vec<DeviceKey> = modules_of(core, id.as_str()).map(|(key, _)| key).collect();
    Ok(modules.into_iter().chain([key]).filter_map(|key| core.remove(key)).collect())
}

fn modules_of<'c>(
    core: &'c Core,
    device_id: &str,
) -> impl Iterator<Item = (DeviceKey, &'c DeviceRecord)> + use<'c> {
    let begin = format!("{device_id}/");
    let after = core.hub.devices_after(&begin);
    after.take_while(move |(_, record)| record.identity.client_id().starts_with(&begin))
}
