//! The identities of a hub and their records.

use core::ops::Bound;

use super::{Change, Commit, DeviceIdentity, DeviceKey, DeviceRecord, DeviceSlot, Hub, State};
use crate::rule::Rule;
use crate::session::CloseReason;

impl Hub {
    /// Takes a record: one that was loaded from the store, or a new one, which is then to be made durable.
    ///
    /// # Errors
    /// The record comes back when there is one with its client id already.
    #[expect(clippy::result_large_err, reason = "the record was moved in, so it is moved out again")]
    pub fn insert(&mut self, record: DeviceRecord) -> Result<DeviceKey, DeviceRecord> {
        if self.ids.contains_key(record.identity.client_id()) {
            return Err(record);
        }
        let client_id = record.identity.client_id().into();
        let committed = record.revision;
        let slot =
            DeviceSlot { record, committed, link: None, calls: alloc::vec::Vec::new(), mailbox_timer: None };
        let key = DeviceKey(self.devices.insert(slot).expect("2^32 records do not fit into memory"));
        self.ids.insert(client_id, key);
        self.schedule_mailbox(key);
        Ok(key)
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

    /// Changes the registry entry. The connection of a device that is disabled by that, or whose way to prove itself
    /// changed, is cut.
    pub fn update_identity(
        &mut self,
        device: DeviceKey,
        change: impl FnOnce(&mut DeviceIdentity),
    ) -> Option<Commit> {
        let slot = self.devices.get_mut(device.0)?;
        let before = slot.record.identity.clone();
        change(&mut slot.record.identity);
        let identity = &slot.record.identity;
        let cut = if !identity.enabled {
            Some(Rule::DeviceDisabled)
        } else if identity.authentication != before.authentication {
            Some(Rule::SasSignature)
        } else {
            None
        };
        let revision = slot.record.change();
        if let (Some(rule), Some(link)) = (cut, slot.link) {
            self.end(link, CloseReason::Ended(rule));
        }
        Some(Commit { device, revision, change: Change::Identity })
    }

    /// Takes a record away and cuts its connection.
    pub fn remove(&mut self, device: DeviceKey) -> Option<DeviceRecord> {
        let slot = self.devices.remove(device.0)?;
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
