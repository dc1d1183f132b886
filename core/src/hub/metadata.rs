//! When each property of a twin section was last changed: the `$metadata` of the service's view.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use crate::time::UnixTime;

/// What Azure writes for a moment that has not come yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// When a property was last changed, and each below it. An array is changed as a whole.
///
/// A section without properties has none, so that a twin that nobody uses takes no room for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    at: UnixTime,
    /// The version of the section that the change made.
    version: u64,
    /// Sorted by name.
    below: Box<[(Box<str>, Self)]>,
}

impl Metadata {
    pub(super) fn new(at: UnixTime, version: u64) -> Self {
        Self { at, version, below: Box::default() }
    }

    /// The section is what `content` is, and all of it is new.
    pub(super) fn of(content: &Map<String, Value>, at: UnixTime, version: u64) -> Self {
        let mut stamp = Self::new(at, version);
        stamp.patch(content, at, version);
        stamp
    }

    /// A patch was merged into the section, as [`merge`](crate::iothub::twin::merge) does it. Takes time in proportion to
    /// both.
    pub(super) fn patch(&mut self, patch: &Map<String, Value>, at: UnixTime, version: u64) {
        (self.at, self.version) = (at, version);
        let mut changes: Vec<_> = patch.iter().map(|(name, change)| (name.as_str(), change)).collect();
        changes.sort_unstable_by_key(|(name, _)| *name);
        let mut changes = changes.into_iter().peekable();
        let old = core::mem::take(&mut self.below);
        let mut below = Vec::with_capacity(old.len().saturating_add(changes.len()));
        for (name, stamp) in old {
            while let Some((new, change)) = changes.next_if(|(new, _)| *new < &*name) {
                below.extend(Self::changed(None, change, at, version).map(|stamp| (new.into(), stamp)));
            }
            match changes.next_if(|(new, _)| *new == &*name) {
                None => below.push((name, stamp)),
                Some((_, change)) => {
                    below.extend(Self::changed(Some(stamp), change, at, version).map(|stamp| (name, stamp)));
                }
            }
        }
        for (new, change) in changes {
            below.extend(Self::changed(None, change, at, version).map(|stamp| (new.into(), stamp)));
        }
        self.below = below.into();
    }

    /// One property after a change; `None` where it is gone.
    fn changed(old: Option<Self>, change: &Value, at: UnixTime, version: u64) -> Option<Self> {
        match change {
            Value::Null => None,
            Value::Object(change) => {
                let mut stamp = old.unwrap_or_else(|| Self::new(at, version));
                stamp.patch(change, at, version);
                Some(stamp)
            }
            _ => Some(Self::new(at, version)),
        }
    }

    fn metadata(&self, with_version: bool) -> Value {
        let mut metadata = Map::new();
        metadata.insert("$lastUpdated".to_string(), self.at.to_string().into());
        if with_version {
            metadata.insert("$lastUpdatedVersion".to_string(), self.version.into());
        }
        for (name, stamp) in &self.below {
            metadata.insert(name.to_string(), stamp.metadata(with_version));
        }
        Value::Object(metadata)
    }

    /// As it is stored: time in milliseconds, version, and what is below, if there is something.
    pub(super) fn to_json(&self) -> Value {
        let (at, version) = (self.at.as_millis(), self.version);
        if self.below.is_empty() {
            return json!([at, version]);
        }
        let below: Map<String, Value> =
            self.below.iter().map(|(name, stamp)| (name.to_string(), stamp.to_json())).collect();
        json!([at, version, below])
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let (at, version, below) = match value.as_array()?.as_slice() {
            [at, version] => (at, version, None),
            [at, version, below] => (at, version, Some(below.as_object()?)),
            _ => return None,
        };
        let mut below: Vec<(Box<str>, Self)> = below
            .into_iter()
            .flatten()
            .map(|(name, stamp)| Some((name.as_str().into(), Self::from_json(stamp)?)))
            .collect::<Option<_>>()?;
        below.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Some(Self {
            at: UnixTime::from_millis(at.as_u64()?),
            version: version.as_u64()?,
            below: below.into(),
        })
    }
}

/// The `$metadata` of a section. That of desired properties has versions, too (IoT Hub device twins: metadata).
pub(super) fn metadata(stamp: Option<&Metadata>, with_version: bool) -> Value {
    stamp.map_or_else(|| json!({"$lastUpdated": NEVER}), |stamp| stamp.metadata(with_version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iothub::twin::{merge, parse_object};

    fn object(text: &str) -> Map<String, Value> {
        parse_object(text.as_bytes()).expect("it is an object")
    }

    fn stamped(patches: &[&str]) -> (Map<String, Value>, Metadata) {
        let (mut section, mut stamp) = (Map::new(), Metadata::new(UnixTime::from_secs(0), 0));
        for (version, patch) in (1..).zip(patches) {
            merge(&mut section, &object(patch));
            stamp.patch(&object(patch), UnixTime::from_secs(version), version);
        }
        (section, stamp)
    }

    /// The version of each property, in place of the property.
    fn versions(stamp: &Metadata) -> Value {
        let mut versions: Map<String, Value> =
            stamp.below.iter().map(|(name, stamp)| (name.to_string(), versions(stamp))).collect();
        versions.insert("$".to_string(), stamp.version.into());
        Value::Object(versions)
    }

    #[test]
    fn a_patch_stamps_what_it_touches_and_all_above_it() {
        let (_, stamp) = stamped(&[r#"{"b":{"x":1,"y":2},"a":1}"#, r#"{"b":{"y":3},"c":[1]}"#]);
        let expected =
            json!({"$": 2, "a": {"$": 1}, "b": {"$": 2, "x": {"$": 1}, "y": {"$": 2}}, "c": {"$": 2}});
        assert_eq!(versions(&stamp), expected);
    }

    #[test]
    fn what_is_gone_leaves_no_stamp() {
        let patches =
            [r#"{"a":{"x":1},"b":1,"c":{"y":1}}"#, r#"{"a":2,"b":null,"c":{"y":null,"z":{"n":null}}}"#];
        let (_, stamp) = stamped(&patches);
        let expected = json!({"$": 2, "a": {"$": 2}, "c": {"$": 2, "z": {"$": 2}}});
        assert_eq!(versions(&stamp), expected);
    }

    #[test]
    fn the_metadata_has_the_names_of_the_section_whatever_the_patches() {
        fn names(section: &Map<String, Value>) -> Value {
            let names = section
                .iter()
                .map(|(name, value)| (name.clone(), names(value.as_object().unwrap_or(&Map::new()))));
            Value::Object(names.collect())
        }
        fn stamps(stamp: &Metadata) -> Value {
            Value::Object(stamp.below.iter().map(|(name, stamp)| (name.to_string(), stamps(stamp))).collect())
        }
        for patches in [
            &[r#"{"m":1,"z":{"q":1}}"#, r#"{"a":1,"n":{},"z":{"a":{},"q":[1]}}"#, r#"{"z":null,"zz":0}"#][..],
            &[r#"{"a":{"b":{"c":1}}}"#, r#"{"a":{"b":1}}"#, r#"{"a":{"b":{"d":null}}}"#],
            &["{}", r#"{"a":null}"#],
        ] {
            let (section, stamp) = stamped(patches);
            assert_eq!(stamps(&stamp), names(&section), "{patches:?}");
        }
    }

    #[test]
    fn what_is_stored_is_read_back_and_what_is_damaged_is_not() {
        let (_, stamp) = stamped(&[r#"{"b":{"x":1},"a":1}"#, r#"{"c":2}"#]);
        assert_eq!(Metadata::from_json(&stamp.to_json()), Some(stamp));
        for damaged in [json!(null), json!([1]), json!([1, -1]), json!([1, 1, 1]), json!([1, 1, {"a": 1}])] {
            assert_eq!(Metadata::from_json(&damaged), None, "{damaged}");
        }
    }

    #[test]
    fn time_and_version_are_told_as_azure_does() {
        let (_, stamp) = stamped(&[r#"{"a":1}"#]);
        let leaf = json!({"$lastUpdated": "1970-01-01T00:00:01.000Z", "$lastUpdatedVersion": 1});
        assert_eq!(metadata(Some(&stamp), true).get("a"), Some(&leaf));
        assert_eq!(
            metadata(Some(&stamp), false),
            json!({"$lastUpdated": "1970-01-01T00:00:01.000Z", "a": {"$lastUpdated": "1970-01-01T00:00:01.000Z"}})
        );
        assert_eq!(metadata(None, true), json!({"$lastUpdated": "0001-01-01T00:00:00Z"}));
    }
}
