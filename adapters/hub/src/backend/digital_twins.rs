//! Digital twins: a twin and its methods in the words of Plug and Play, where properties and commands belong to components.
//!
//! | digital twin | twin |
//! |---|---|
//! | property `a` | reported property `a`, without the acknowledgement around it; the desired one until it is reported |
//! | property `a` of component `c` | the same of member `a` of property `c`, which is marked `"__t": "c"` |
//! | `$metadata` | `modelId`, the moments of `$metadata`, and what was acknowledged |
//! | patch of a property | patch of the desired property |
//! | command `c`, of component `p` | method `c`, or `p*c` |

use devicebound::hub::{Section, TwinUpdate};
use serde_json::{Map, Value, json};

use super::{Backend, ClientId, Error};

/// The member that marks a component (Plug and Play convention).
const MARK: &str = "__t";

impl Backend {
    /// The digital twin of a device, and the ETag of its twin.
    ///
    /// # Errors
    /// 404001; 503001 while the store cannot say what there is.
    pub async fn digital_twin(&self, id: &ClientId) -> Result<(Value, String), Error> {
        let twin = self.twin(id).await?;
        Ok((of_twin(&twin), etag_of(&twin)))
    }

    /// Changes properties, as a JSON Patch (RFC 6902) says, if the twin has this ETag; gives the new one.
    ///
    /// # Errors
    /// 400004 for what is no such patch, 404001, 412001; 503001 where it could not be stored.
    pub async fn update_digital_twin(
        &self,
        id: &ClientId,
        patch: &Value,
        if_match: Option<String>,
    ) -> Result<String, Error> {
        let desired = Some(Section::Patch(desired_patch(patch)?));
        let twin = self.update_twin(id, TwinUpdate { desired, tags: None, if_match }).await?;
        Ok(etag_of(&twin))
    }
}

/// The method that stands for a command.
#[must_use]
pub fn method_of(component: Option<&str>, command: &str) -> String {
    component.map_or_else(|| command.to_owned(), |component| format!("{component}*{command}"))
}

fn etag_of(twin: &Value) -> String {
    twin.get("etag").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The view of a whole twin.
fn of_twin(twin: &Value) -> Value {
    let empty = Map::new();
    let section = |name: &str| twin.pointer(name).and_then(Value::as_object).unwrap_or(&empty);
    let (desired, reported) = (section("/properties/desired"), section("/properties/reported"));
    let mut shown = Map::from_iter([("$dtId".to_owned(), twin.get("deviceId").cloned().unwrap_or_default())]);
    let mut metadata =
        Map::from_iter([("$model".to_owned(), twin.get("modelId").cloned().unwrap_or_default())]);
    let metadata_of = |section: &Map<String, Value>| section.get("$metadata").cloned().unwrap_or_default();
    let (desired_metadata, reported_metadata) = (metadata_of(desired), metadata_of(reported));
    for name in names(desired, reported) {
        let (desired, reported) = (desired.get(name), reported.get(name));
        let stamps = (desired_metadata.get(name), reported_metadata.get(name));
        if is_component(desired) || is_component(reported) {
            shown.insert(name.clone(), component(desired, reported, stamps));
        } else {
            let (value, about) = property(desired, reported, stamps);
            shown.insert(name.clone(), value);
            metadata.insert(name.clone(), about);
        }
    }
    shown.insert("$metadata".to_owned(), Value::Object(metadata));
    Value::Object(shown)
}

/// Desired and reported metadata of the same member.
type Stamps<'v> = (Option<&'v Value>, Option<&'v Value>);

fn component(desired: Option<&Value>, reported: Option<&Value>, stamps: Stamps<'_>) -> Value {
    let empty = Map::new();
    let members = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let (desired, reported) = (members(desired), members(reported));
    let (mut shown, mut metadata) = (Map::new(), empty);
    for name in names(&desired, &reported).into_iter().filter(|name| *name != MARK) {
        let of = |stamp: Option<&'_ Value>| stamp.and_then(|stamp| stamp.get(name)).cloned();
        let (desired_stamp, reported_stamp) = (of(stamps.0), of(stamps.1));
        let stamps = (desired_stamp.as_ref(), reported_stamp.as_ref());
        let (value, about) = property(desired.get(name), reported.get(name), stamps);
        shown.insert(name.clone(), value);
        metadata.insert(name.clone(), about);
    }
    shown.insert("$metadata".to_owned(), Value::Object(metadata));
    Value::Object(shown)
}

/// A property's value, and what is known of it.
fn property(desired: Option<&Value>, reported: Option<&Value>, stamps: Stamps<'_>) -> (Value, Value) {
    let mut about = Map::new();
    let mut tell = |name: &str, value: Option<&Value>| {
        about.extend(value.map(|value| (name.to_owned(), value.clone())));
    };
    let stamp = |stamp: Option<&'_ Value>, name: &str| stamp.and_then(|stamp| stamp.get(name)).cloned();
    if desired.is_some() {
        tell("desiredValue", desired);
        tell("desiredVersion", stamp(stamps.0, "$lastUpdatedVersion").as_ref());
    }
    let acknowledged = reported.and_then(Value::as_object).filter(|reported| {
        reported.contains_key("value") && reported.contains_key("ac") && reported.contains_key("av")
    });
    if let Some(acknowledged) = acknowledged {
        tell("ackVersion", acknowledged.get("av"));
        tell("ackCode", acknowledged.get("ac"));
        tell("ackDescription", acknowledged.get("ad"));
    }
    let updated = stamp(stamps.1, "$lastUpdated").or_else(|| stamp(stamps.0, "$lastUpdated"));
    tell("lastUpdateTime", updated.as_ref());
    let value = acknowledged.and_then(|acknowledged| acknowledged.get("value")).or(reported).or(desired);
    (value.cloned().unwrap_or_default(), Value::Object(about))
}

fn is_component(value: Option<&Value>) -> bool {
    value.and_then(|value| value.get(MARK)).is_some_and(|mark| mark == "c")
}

/// The names of properties in either section, once each.
fn names<'v>(desired: &'v Map<String, Value>, reported: &'v Map<String, Value>) -> Vec<&'v String> {
    let more = reported.keys().filter(|name| !desired.contains_key(*name));
    desired.keys().chain(more).filter(|name| !name.starts_with('$')).collect()
}

/// The patch of desired properties that a JSON Patch means.
fn desired_patch(patch: &Value) -> Result<Map<String, Value>, Error> {
    let operations = patch.as_array().ok_or_else(|| {
        Error::invalid("the body is a JSON Patch")
            .with_fix(r#"send [{"op": "add", "path": "/property", "value": …}]"#)
    })?;
    let mut desired = Map::new();
    for operation in operations {
        let text = |name: &str| operation.get(name).and_then(Value::as_str).unwrap_or_default();
        let path = text("path");
        let value = match text("op") {
            "add" | "replace" => operation
                .get("value")
                .cloned()
                .ok_or_else(|| Error::invalid(format!("the operation at {path} has no value")))?,
            "remove" => Value::Null,
            other => {
                return Err(Error::invalid(format!("op is add, replace or remove, not `{other}`")));
            }
        };
        let names: Option<Vec<String>> =
            path.strip_prefix('/').map(|path| path.split('/').map(unescape).collect());
        match names.as_deref() {
            Some([name]) if !name.is_empty() => {
                desired.insert(name.clone(), with_mark(value));
            }
            Some([component, name]) if !component.is_empty() && !name.is_empty() => {
                let member = desired.entry(component.clone()).or_insert_with(|| json!({}));
                if !member.is_object() {
                    *member = json!({});
                }
                if let Some(members) = member.as_object_mut() {
                    members.insert(MARK.to_owned(), "c".into());
                    members.insert(name.clone(), value);
                }
            }
            _ => {
                let what = format!("`{path}` is no path of a digital twin");
                return Err(Error::invalid(what).with_fix("name /property, or /component/property"));
            }
        }
    }
    Ok(desired)
}

/// A component that is added as a whole is known by its `$metadata`, which is not stored.
fn with_mark(mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut()
        && members.remove("$metadata").is_some()
    {
        members.insert(MARK.to_owned(), "c".into());
    }
    value
}

/// A name of a JSON Pointer (RFC 6901 §4).
fn unescape(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_is_unwrapped_and_told_beside() {
        let moment = "2030-01-01T00:00:00Z";
        let stamp = json!({"$lastUpdated": moment, "$lastUpdatedVersion": 4});
        let twin = json!({
            "deviceId": "dev", "modelId": "dtmi:com:example:Thermostat;1",
            "properties": {
                "desired": {
                    "target": 20.4, "only": 1, "$version": 4, "thermostat": {"__t": "c", "speed": 2},
                    "$metadata": {"target": stamp, "thermostat": {"speed": stamp}},
                },
                "reported": {
                    "target": {"value": 20, "ac": 200, "av": 4, "ad": "done"}, "serial": "x", "$version": 2,
                    "thermostat": {"__t": "c", "most": 25}, "$metadata": {"serial": {"$lastUpdated": moment}},
                },
            },
        });
        assert_eq!(
            of_twin(&twin),
            json!({
                "$dtId": "dev", "target": 20, "only": 1, "serial": "x",
                "thermostat": {
                    "speed": 2, "most": 25,
                    "$metadata": {"speed": {"desiredValue": 2, "desiredVersion": 4, "lastUpdateTime": moment}, "most": {}},
                },
                "$metadata": {
                    "$model": "dtmi:com:example:Thermostat;1", "only": {"desiredValue": 1},
                    "target": {
                        "desiredValue": 20.4, "desiredVersion": 4, "ackVersion": 4, "ackCode": 200, "ackDescription": "done",
                        "lastUpdateTime": moment,
                    },
                    "serial": {"lastUpdateTime": moment},
                },
            })
        );
    }

    #[test]
    fn a_json_patch_becomes_one_of_desired_properties() {
        let patch = json!([
            {"op": "add", "path": "/a", "value": 1},
            {"op": "replace", "path": "/c/b~1x", "value": {"y": 2}},
            {"op": "remove", "path": "/c/z"},
            {"op": "add", "path": "/whole", "value": {"n": 1, "$metadata": {}}},
        ]);
        assert_eq!(
            Value::Object(desired_patch(&patch).unwrap()),
            json!({"a": 1, "c": {"__t": "c", "b/x": {"y": 2}, "z": null}, "whole": {"__t": "c", "n": 1}})
        );
        for (patch, said) in [
            (json!({}), "JSON Patch"),
            (json!([{"op": "move", "path": "/a"}]), "not `move`"),
            (json!([{"op": "add", "path": "/a"}]), "has no value"),
            (json!([{"op": "remove", "path": "a"}]), "no path"),
            (json!([{"op": "remove", "path": "/a/b/c"}]), "/component/property"),
            (json!([7]), "not ``"),
        ] {
            let error = desired_patch(&patch).unwrap_err().to_string();
            assert!(error.contains(said), "{patch}: {error}");
        }
        assert_eq!(
            (method_of(None, "reboot"), method_of(Some("c"), "reboot")),
            ("reboot".into(), "c*reboot".into())
        );
    }
}
