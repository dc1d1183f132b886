//! What the service remembers: enrollments, groups and registrations, in memory and as documents of the store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::entry::{Entry, Kind};
use super::error::Refusal;
use super::registration::Registration;
use crate::Failure;
use crate::store::Document;

/// Names of documents begin so.
const ENROLLMENT: &str = "dps/enrollment/";
const GROUP: &str = "dps/group/";
const REGISTRATION: &str = "dps/registration/";

/// Individual enrollments, and registrations (DPS limits).
const ENTRIES_MAX: usize = 1_000_000;
/// Groups of each kind of attestation (DPS limits).
const GROUPS_MAX: usize = 100;

#[derive(Debug, Default)]
struct Maps {
    enrollments: BTreeMap<String, Arc<Entry>>,
    groups: BTreeMap<String, Arc<Entry>>,
    registrations: BTreeMap<String, Arc<Registration>>,
}

/// The records by their ids in lower case. Nothing is held while the store works.
#[derive(Debug, Default)]
pub(super) struct Records {
    maps: Mutex<Maps>,
    /// Held by who changes enrollments, so that memory and store see changes in one order.
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl Maps {
    const fn entries(&self, kind: Kind) -> &BTreeMap<String, Arc<Entry>> {
        match kind {
            Kind::Individual => &self.enrollments,
            Kind::Group => &self.groups,
        }
    }

    const fn entries_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, Arc<Entry>> {
        match kind {
            Kind::Individual => &mut self.enrollments,
            Kind::Group => &mut self.groups,
        }
    }
}

impl Records {
    /// Those that the store has.
    pub(super) fn load(documents: &[(String, String)]) -> Result<Self, Failure> {
        let mut maps = Maps::default();
        for (name, text) in documents {
            let damaged = |error: String| {
                Failure::new(
                    format!("the document {name} in the store cannot be used: {error}"),
                    "restore the store from a backup",
                )
            };
            let kind = match name {
                name if name.starts_with(ENROLLMENT) => Some(Kind::Individual),
                name if name.starts_with(GROUP) => Some(Kind::Group),
                name if name.starts_with(REGISTRATION) => None,
                _ => continue,
            };
            let json: Value = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
            let Value::Object(json) = json else { return Err(damaged("it is no JSON object".to_owned())) };
            match kind {
                Some(kind) => {
                    let entry =
                        Entry::of_json(kind, json).map_err(|error| damaged(error.message().to_owned()))?;
                    maps.entries_mut(kind).insert(entry.key(), Arc::new(entry));
                }
                None => {
                    let registration = Registration::of_document(&json)
                        .ok_or_else(|| damaged("it is no registration".to_owned()))?;
                    maps.registrations.insert(registration.key(), Arc::new(registration));
                }
            }
        }
        Ok(Self { maps: Mutex::new(maps), changing: tokio::sync::Mutex::default() })
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn entry(&self, kind: Kind, id: &str) -> Option<Arc<Entry>> {
        self.maps().entries(kind).get(&id.to_ascii_lowercase()).cloned()
    }

    /// All groups; there are few.
    pub(super) fn groups(&self) -> Vec<Arc<Entry>> {
        self.maps().groups.values().cloned().collect()
    }

    /// So many entries whose ids come after this one, those alone that are `wanted`; and whether there are more.
    pub(super) fn entries_after(
        &self,
        kind: Kind,
        after: &str,
        most: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> (Vec<Arc<Entry>>, bool) {
        let maps = self.maps();
        page(maps.entries(kind), after, most, |entry| wanted(entry))
    }

    /// The same of registrations.
    pub(super) fn registrations_after(
        &self,
        after: &str,
        most: usize,
        wanted: impl Fn(&Registration) -> bool,
    ) -> (Vec<Arc<Registration>>, bool) {
        page(&self.maps().registrations, after, most, |registration| wanted(registration))
    }

    pub(super) fn registration(&self, id: &str) -> Option<Arc<Registration>> {
        self.maps().registrations.get(&id.to_ascii_lowercase()).cloned()
    }

    /// Whether there is room for one more of this kind of proof.
    pub(super) fn check_room(&self, entry: &Entry) -> Result<(), Refusal> {
        let maps = self.maps();
        let entries = maps.entries(entry.kind);
        let alike = |other: &&Arc<Entry>| {
            std::mem::discriminant(&other.attestation) == std::mem::discriminant(&entry.attestation)
        };
        let is_full = match entry.kind {
            _ if entries.contains_key(&entry.key()) => false,
            Kind::Individual => entries.len() >= ENTRIES_MAX,
            Kind::Group => entries.values().filter(alike).count() >= GROUPS_MAX,
        };
        if is_full {
            Err(Refusal::new(403_002, "there are as many as the service takes; delete some"))
        } else {
            Ok(())
        }
    }

    /// Whether there is room for one more registration.
    pub(super) fn has_room(&self) -> bool {
        self.maps().registrations.len() < ENTRIES_MAX
    }

    /// What was made safe is from now on.
    pub(super) fn put_entry(&self, entry: Entry) {
        self.maps().entries_mut(entry.kind).insert(entry.key(), Arc::new(entry));
    }

    pub(super) fn remove_entry(&self, kind: Kind, id: &str) {
        self.maps().entries_mut(kind).remove(&id.to_ascii_lowercase());
    }

    pub(super) fn put_registration(&self, registration: Registration) {
        self.maps().registrations.insert(registration.key(), Arc::new(registration));
    }

    pub(super) fn remove_registration(&self, id: &str) {
        self.maps().registrations.remove(&id.to_ascii_lowercase());
    }
}

fn page<T>(
    map: &BTreeMap<String, Arc<T>>,
    after: &str,
    most: usize,
    wanted: impl Fn(&T) -> bool,
) -> (Vec<Arc<T>>, bool) {
    let range = (Bound::Excluded(after), Bound::Unbounded);
    let mut found: Vec<Arc<T>> = map
        .range::<str, _>(range)
        .map(|(_, value)| value)
        .filter(|value| wanted(value))
        .take(most.saturating_add(1))
        .cloned()
        .collect();
    let more = found.len() > most;
    found.truncate(most);
    (found, more)
}

/// How an entry is stored.
pub(super) fn entry_document(entry: &Entry) -> Document {
    Document {
        key: entry_name(entry.kind, &entry.id),
        text: Some(Value::Object(entry.json.clone()).to_string()),
    }
}

/// How it is gone.
pub(super) fn entry_removal(kind: Kind, id: &str) -> Document {
    Document { key: entry_name(kind, id), text: None }
}

fn entry_name(kind: Kind, id: &str) -> String {
    let begin = if kind == Kind::Individual { ENROLLMENT } else { GROUP };
    format!("{begin}{}", id.to_ascii_lowercase())
}

/// How a registration is stored.
pub(super) fn registration_document(registration: &Registration) -> Document {
    let key = format!("{REGISTRATION}{}", registration.key());
    Document { key, text: Some(registration.to_document().to_string()) }
}

/// How it is gone.
pub(super) fn registration_removal(id: &str) -> Document {
    Document { key: format!("{REGISTRATION}{}", id.to_ascii_lowercase()), text: None }
}
