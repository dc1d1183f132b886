//! Consumer groups of the Event Hubs-compatible endpoint: `$Default`, which every hub has, and those that were added.
//!
//! Programs that read the same telemetry for different purposes have a group each, so that their readers do not take
//! partitions from each other. The hub keeps no place of a group in the stream: its readers do. A group is a document of the
//! store, and is told as Azure Resource Manager does (`Microsoft.Devices/IotHubs/eventHubEndpoints/ConsumerGroups`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devicebound::time::UnixTime;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Backend, Code, Error, detached};
use crate::Failure;
use crate::clock::unix_time;
use crate::store::Document;

/// The consumer group that every hub has.
pub const DEFAULT_GROUP: &str = "$Default";
/// Groups of a hub, the default one included (IoT Hub developer guide, built-in endpoint: "up to 20 consumer groups").
pub const GROUPS_MAX: usize = 20;
/// Longest name (Azure naming rules: `Microsoft.EventHub/namespaces/eventhubs/consumergroups`).
const NAME_MAX: usize = 50;

/// Names of documents begin so; the name of the group follows in lower case.
const PREFIX: &str = "consumer-group/";
const TYPE: &str = "Microsoft.Devices/IotHubs/EventHubEndpoints/ConsumerGroups";

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroup {
    name: String,
    created: UnixTime,
}

/// The groups of a hub. Their names are compared without case.
#[derive(Debug)]
pub struct ConsumerGroups {
    /// By their names in lower case.
    groups: Mutex<BTreeMap<String, ConsumerGroup>>,
    /// Held while a change goes to the store, so that memory and store see changes in one order.
    changing: tokio::sync::Mutex<()>,
    /// How many were removed.
    removed: watch::Sender<u64>,
}

impl Default for ConsumerGroups {
    fn default() -> Self {
        let default = ConsumerGroup { name: DEFAULT_GROUP.to_owned(), created: unix_time() };
        Self {
            groups: Mutex::new(BTreeMap::from([(DEFAULT_GROUP.to_ascii_lowercase(), default)])),
            changing: tokio::sync::Mutex::default(),
            removed: watch::Sender::new(0),
        }
    }
}

impl ConsumerGroup {
    /// As Azure Resource Manager writes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": format!("/eventHubEndpoints/events/ConsumerGroups/{}", self.name),
            "name": self.name,
            "type": TYPE,
            "etag": null,
            "properties": {"created": self.created.to_string()},
        })
    }

    fn to_document(&self) -> Document {
        let text = json!({"name": self.name, "created": self.created.as_millis()});
        Document { key: key(&self.name), text: Some(text.to_string()) }
    }

    fn of_document(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        let name = json.get("name")?.as_str().filter(|name| is_name(name))?;
        Some(Self { name: name.to_owned(), created: UnixTime::from_millis(json.get("created")?.as_u64()?) })
    }
}

impl ConsumerGroups {
    /// Those of the documents that a store has.
    ///
    /// # Errors
    /// When a document is not one that this hub wrote.
    pub fn load(documents: &[(String, String)]) -> Result<Self, Failure> {
        let groups = Self::default();
        for (name, text) in documents.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let group = ConsumerGroup::of_document(text).ok_or_else(|| {
                let cause = format!("the document {name} in the store is no consumer group");
                Failure::new(cause, "restore the store from a backup")
            })?;
            groups.all().insert(group.name.to_ascii_lowercase(), group);
        }
        Ok(groups)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, ConsumerGroup>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All groups by name, `$Default` first.
    #[must_use]
    pub fn list(&self) -> Vec<ConsumerGroup> {
        self.all().values().cloned().collect()
    }

    /// Whether there is a group of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.all().contains_key(&name.to_ascii_lowercase())
    }

    /// Hears of it when a group was removed.
    #[must_use]
    pub fn removals(&self) -> watch::Receiver<u64> {
        self.removed.subscribe()
    }

    fn find(&self, name: &str) -> Result<ConsumerGroup, Error> {
        self.all().get(&name.to_ascii_lowercase()).cloned().ok_or_else(|| {
            Error::new(Code::ResourceNotFound, format!("there is no consumer group `{name}`"))
                .with_fix("devicebound consumer-group list shows those that there are")
        })
    }
}

impl Backend {
    /// The group of this name.
    ///
    /// # Errors
    /// 404000 where there is none.
    pub fn consumer_group(&self, name: &str) -> Result<ConsumerGroup, Error> {
        self.consumer_groups.find(name)
    }

    /// Adds a group; one that is there stays as it is.
    ///
    /// # Errors
    /// 400004 for what is no name, 403002 where there are [`GROUPS_MAX`], 503001 where it could not be stored.
    pub async fn add_consumer_group(self: &Arc<Self>, name: &str) -> Result<ConsumerGroup, Error> {
        let (own, name) = (Arc::clone(self), name.to_owned());
        detached(async move {
            let groups = &own.consumer_groups;
            let _alone = groups.changing.lock().await;
            if let Ok(group) = groups.find(&name) {
                return Ok(group);
            }
            if !is_name(&name) {
                return Err(not_a_name(&name));
            }
            if groups.all().len() >= GROUPS_MAX {
                let what =
                    format!("a hub has at most {GROUPS_MAX} consumer groups, {DEFAULT_GROUP} among them");
                return Err(Error::new(Code::QuotaExceeded, what)
                    .with_fix("remove one that nobody reads with: devicebound consumer-group remove NAME"));
            }
            let group = ConsumerGroup { name, created: unix_time() };
            if !own.engine.keep_documents(vec![group.to_document()]).await {
                return Err(Error::store_failed());
            }
            groups.all().insert(group.name.to_ascii_lowercase(), group.clone());
            Ok(group)
        })
        .await?
    }

    /// Removes a group; its readers lose their links.
    ///
    /// # Errors
    /// 404000 where there is none, 400004 for `$Default`, 503001 where it could not be stored.
    pub async fn remove_consumer_group(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let (own, name) = (Arc::clone(self), name.to_owned());
        detached(async move {
            let groups = &own.consumer_groups;
            let _alone = groups.changing.lock().await;
            let group = groups.find(&name)?;
            if group.name == DEFAULT_GROUP {
                return Err(Error::invalid(format!("the consumer group {DEFAULT_GROUP} cannot be removed"))
                    .with_fix("leave it unread"));
            }
            let gone = Document { key: key(&group.name), text: None };
            if !own.engine.keep_documents(vec![gone]).await {
                return Err(Error::store_failed());
            }
            groups.all().remove(&group.name.to_ascii_lowercase());
            groups.removed.send_modify(|count| *count = count.saturating_add(1));
            Ok(())
        })
        .await?
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_lowercase())
}

/// Letters, digits, `.`, `-` and `_`, the first and the last a letter or digit.
fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let ends = [name.bytes().next(), name.bytes().next_back()];
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(is_inner)
        && ends.into_iter().flatten().all(|byte| byte.is_ascii_alphanumeric())
}

fn not_a_name(name: &str) -> Error {
    let what = format!(
        "`{}` is no name of a consumer group: it has 1 to {NAME_MAX} letters, digits, `.`, `-` and `_`, and begins and ends with a letter or digit",
        name.escape_default()
    );
    Error::invalid(what).with_fix("choose another name, for example dashboard")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_event_hubs_takes() {
        for name in ["a", "dash-board", "A.b_c-9", &"x".repeat(NAME_MAX)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", "a-", "_", "$Default", "a b", "a/b", "ä", &"x".repeat(NAME_MAX + 1)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_group_is_stored_and_read_back_and_damage_is_told() {
        let group = ConsumerGroup { name: "Dash".to_owned(), created: UnixTime::from_millis(7) };
        let Document { key, text } = group.to_document();
        let stored = [(key.clone(), text.unwrap()), ("dps/group/x".to_owned(), "no json".to_owned())];
        let groups = ConsumerGroups::load(&stored).unwrap();
        assert_eq!(groups.list()[1..], [group]);
        assert!(groups.contains("dASH") && groups.contains("$default") && !groups.contains("other"));
        for damaged in ["", "{}", r#"{"name":"-","created":1}"#] {
            let error = ConsumerGroups::load(&[(key.clone(), damaged.to_owned())]).unwrap_err();
            assert!(error.cause().contains("consumer-group/dash"), "{error}");
        }
    }
}
