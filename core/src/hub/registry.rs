//! The identities of a hub and their records.

use alloc::format;
use alloc::vec::Vec;
use core::ops::Bound;

use super::{
    Activity, Change, Commit, Credential, DeviceIdentity, DeviceKey, DeviceRecord, DeviceSlot, Hub, LinkId,
    Revision, State,
};
use crate::iothub::Subscriptions;
use crate::rule::Rule;
use crate::session::CloseReason;
use crate::time::{Instant, UnixTime};

/// Whether a device is connected, and when it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// It has a live connection (`connectionState`).
    pub is_connected: bool,
    /// When that changed last (`connectionStateUpdatedTime`).
    pub state_updated: Option<UnixTime>,
    /// When the last packet came (`lastActivityTime`).
    pub last_activity: Option<UnixTime>,
    /// The live connection.
    pub live: Option<LiveConnection>,
}

/// What a live connection agreed on in its CONNECT, and what it has subscribed to since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveConnection {
    /// Which one it is.
    pub link: LinkId,
    /// What it proved itself with.
    pub credential: Credential,
    /// When that expires; `None` where it never does.
    pub expires: Option<UnixTime>,
    /// The session outlives the connection (CleanSession 0) `[MQTT-3.1.2-4]`.
    pub is_persistent: bool,
    /// What it is subscribed to.
    pub subscriptions: Subscriptions,
}

impl Hub {
    /// Takes a record that is safe: one that was loaded from the store.
    ///
    /// # Errors
    /// The record comes back when there is one with its client id already.
    #[expect(clippy::result_large_err, reason = "the record was moved in, so it is moved out again")]
    pub fn insert(&mut self, mut record: DeviceRecord) -> Result<DeviceKey, DeviceRecord> {
        if self.ids.contains_key(record.identity.client_id()) {
            return Err(record);
        }
        record.queue.recover();
        let client_id = record.identity.client_id().into();
        let committed = record.revision;
        let slot = DeviceSlot { record, committed, link: None, calls: Vec::new(), queue_timer: None };
        let key = DeviceKey(self.devices.insert(slot).expect("2^32 records do not fit into memory"));
        self.ids.insert(client_id, key);
        self.schedule_queue(key);
        self.look_for_feedback(key);
        Ok(key)
    }

    /// Adds a record, which is to be made durable: nobody is let in before [`committed`](Self::committed) was said of it.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[expect(clippy::result_large_err, reason = "the record was moved in, so it is moved out again")]
    pub fn register(&mut self, record: DeviceRecord) -> Result<DeviceKey, DeviceRecord> {
        let key = self.insert(record)?;
        if let Some(slot) = self.devices.get_mut(key.0) {
            slot.committed = Revision::default();
        }
        Ok(key)
    }

    /// Whether what the real hub may refuse is refused here ([`HubConfig::strict`](super::HubConfig::strict)).
    #[must_use]
    pub const fn is_strict(&self) -> bool {
        self.config.strict
    }

    /// Whether the record is safe as it is, and nothing of it waits for the store.
    #[must_use]
    pub fn is_safe(&self, device: DeviceKey) -> bool {
        self.devices.get(device.0).is_some_and(|slot| slot.record.revision <= slot.committed)
    }

    /// The record of a client id: device id, for a module device id, slash, module id.
    #[must_use]
    pub fn find(&self, client_id: &str) -> Option<DeviceKey> {
        self.ids.get(client_id).copied()
    }

    /// What the hub remembers of a device.
    #[must_use]
    pub fn record(&self, device: DeviceKey) -> Option<&DeviceRecord> {
        self.devices.get(device.0).map(|slot| &slot.record)
    }

    /// All records, in the order of their client ids.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceKey, &DeviceRecord)> {
        self.ids.values().filter_map(|key| Some((*key, self.record(*key)?)))
    }

    /// How many records there are.
    #[must_use]
    pub fn device_count(&self) -> usize {
        self.ids.len()
    }

    /// The records whose client ids come after this one, in their order; from "" on, all of them.
    pub fn devices_after<'h>(
        &'h self,
        client_id: &str,
    ) -> impl Iterator<Item = (DeviceKey, &'h DeviceRecord)> + use<'h> {
        let after = (Bound::Excluded(client_id), Bound::Unbounded);
        let keys = self.ids.range::<str, _>(after).map(|(_, key)| *key);
        keys.filter_map(|key| Some((key, self.record(key)?)))
    }

    /// Whether the device has a live connection.
    #[must_use]
    pub fn is_connected(&self, device: DeviceKey) -> bool {
        let link = self.devices.get(device.0).and_then(|slot| slot.link);
        link.and_then(|link| self.links.get(link.0)).is_some_and(|slot| matches!(slot.state, State::Live(_)))
    }

    /// Whether the device is connected, and when it was last seen.
    #[must_use]
    pub fn connection(&self, now: Instant, device: DeviceKey) -> Option<Connection> {
        let slot = self.devices.get(device.0)?;
        let Activity { connection_state_updated, last } = slot.record.activity;
        let live = slot.link.and_then(|id| match &self.links.get(id.0)?.state {
            State::Live(live) => Some((id, live)),
            _ => None,
        });
        Some(Connection {
            is_connected: live.is_some(),
            state_updated: connection_state_updated,
            last_activity: live.map(|(_, live)| self.unix_time_of(now, live.last_heard)).or(last),
            live: live.map(|(link, live)| LiveConnection {
                link,
                credential: live.credential,
                expires: live.expires,
                is_persistent: live.persistent,
                subscriptions: live.subscriptions,
            }),
        })
    }

    /// Changes the registry entry. The connection of a device that is disabled by that ends, and so do those of its
    /// modules; and one that proved itself with a key or certificate which is there no more.
    #[must_use = "a change is safe only when its commit was made durable"]
    pub fn update_identity(
        &mut self,
        now: Instant,
        device: DeviceKey,
        change: impl FnOnce(&mut DeviceIdentity),
    ) -> Option<Commit> {
        let unix_time = self.unix_time(now);
        let slot = self.devices.get_mut(device.0)?;
        let identity = &mut slot.record.identity;
        let before = identity.clone();
        change(identity);
        identity.version = before.version.saturating_add(1);
        if identity.enabled != before.enabled {
            identity.status_updated = Some(unix_time);
        }
        let after = identity.clone();
        let revision = slot.record.change();
        if let Some(link) = slot.link {
            self.judge_again(link, &before, &after);
        }
        if after.identity().module_id().is_none() {
            for module in self.modules(after.client_id()) {
                if let Some(link) = self.devices.get(module.0).and_then(|slot| slot.link) {
                    self.judge_again(link, &before, &after);
                }
            }
        }
        Some(Commit { device, revision, change: Change::Identity })
    }

    /// Ends a connection that could not be made any more, now that the entry of its identity, or of its module's device,
    /// has changed.
    fn judge_again(&mut self, link: LinkId, before: &DeviceIdentity, after: &DeviceIdentity) {
        let Some(bound) = self.links.get(link.0).and_then(|slot| slot.state.link()) else { return };
        let of_module =
            self.record(bound.device).is_some_and(|record| record.identity.client_id() != after.client_id());
        let credential = match (of_module, bound.credential) {
            (false, credential) => credential,
            (true, credential @ Credential::DeviceKey(_)) => credential,
            (true, _) => Credential::Other,
        };
        if !after.enabled {
            self.end(link, CloseReason::Ended(Rule::DeviceDisabled));
        } else if !after.authentication.still_takes(&before.authentication, credential) {
            self.end(link, CloseReason::Ended(Rule::CredentialGone));
        }
    }

    /// The modules of a device.
    fn modules(&self, device_id: &str) -> Vec<DeviceKey> {
        let begin = format!("{device_id}/");
        let from = (Bound::Included(begin.as_str()), Bound::Unbounded);
        let from_there = self.ids.range::<str, _>(from);
        from_there.take_while(|(id, _)| id.starts_with(&begin)).map(|(_, key)| *key).collect()
    }

    /// Takes a record away and cuts its connection.
    pub fn remove(&mut self, device: DeviceKey) -> Option<DeviceRecord> {
        let slot = self.devices.remove(device.0)?;
        self.has_feedback.remove(&device);
        self.ids.remove(slot.record.identity.client_id());
        for call in &slot.calls {
            self.calls.abandon(*call);
        }
        if let Some(link) = slot.link {
            self.end(link, CloseReason::Ended(Rule::DeviceRemoved));
        }
        Some(slot.record)
    }
}
