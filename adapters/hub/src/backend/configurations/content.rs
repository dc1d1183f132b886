//! What a configuration sets.

use std::collections::BTreeMap;

use devicebound::iothub::twin::validate;
use serde_json::{Map, Value};

use crate::backend::Error;

/// Where every path of a content begins.
const DESIRED: &str = "properties.desired";

/// Values by path below `properties.desired`.
pub(super) type Paths = BTreeMap<String, Value>;

/// What a configuration sets, and in which twins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// In the twins of devices.
    Device(Paths),
    /// In those modules that are its target.
    Module(Paths),
    /// In the modules of Edge devices, by module id.
    Modules(BTreeMap<String, Paths>),
}

impl Content {
    /// Reads exactly one of `deviceContent`, `moduleContent` and `modulesContent`.
    ///
    /// # Errors
    /// 400004 with what cannot be meant.
    pub(super) fn read(content: &Value) -> Result<Self, Error> {
        const KINDS: [&str; 3] = ["deviceContent", "moduleContent", "modulesContent"];
        let is_there =
            |value: &Value| !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty());
        let found: Vec<(&str, &Value)> = KINDS
            .into_iter()
            .filter_map(|name| Some((name, content.get(name).filter(|value| is_there(value))?)))
            .collect();
        match found.as_slice() {
            [("deviceContent", paths)] => Ok(Self::Device(read_paths("deviceContent", paths)?)),
            [("moduleContent", paths)] => Ok(Self::Module(read_paths("moduleContent", paths)?)),
            [(name, modules)] => Ok(Self::Modules(read_modules(name, modules)?)),
            _ => Err(Error::invalid(
                "content has exactly one of deviceContent, moduleContent and modulesContent",
            )
            .with_fix("use one configuration for each of them")),
        }
    }
}

/// The paths of each module.
pub(super) fn read_modules(name: &str, modules: &Value) -> Result<BTreeMap<String, Paths>, Error> {
    let modules = object(name, modules)?.iter();
    modules.map(|(id, paths)| Ok((id.clone(), read_paths(&format!("{name}.{id}"), paths)?))).collect()
}

/// Reads `{"properties.desired[.path]": value}`. All that is set at once, without a path, is set member by member, so that
/// configurations conflict member by member.
pub(super) fn read_paths(name: &str, paths: &Value) -> Result<Paths, Error> {
    let mut read = Paths::new();
    for (path, value) in object(name, paths)? {
        let below = path.strip_prefix(DESIRED).ok_or_else(|| {
            Error::invalid(format!("{name}: `{path}` is not below {DESIRED}"))
                .with_fix("configurations set desired properties only")
        })?;
        match below.strip_prefix('.') {
            Some(below) if !below.split('.').any(str::is_empty) => {
                read.insert(below.to_owned(), value.clone());
            }
            None if below.is_empty() => {
                let members = object(path, value)?.iter();
                read.extend(members.map(|(name, value)| (name.clone(), value.clone())));
            }
            _ => return Err(Error::invalid(format!("{name}: `{path}` is no path"))),
        }
    }
    validate(&patch_of(read.iter().map(|(path, value)| (path.as_str(), value.clone()))))
        .map_err(|error| Error::invalid(error.within(name).to_string()))?;
    Ok(read)
}

fn object<'v>(name: &str, value: &'v Value) -> Result<&'v Map<String, Value>, Error> {
    value.as_object().ok_or_else(|| Error::invalid(format!("{name} is an object")))
}

/// The patch of desired properties that sets these values at their paths.
pub(super) fn patch_of<'p>(values: impl IntoIterator<Item = (&'p str, Value)>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (path, value) in values {
        let mut names = path.split('.');
        let last = names.next_back().unwrap_or_default();
        let inner = names.try_fold(&mut patch, |map, name| {
            map.entry(name).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
        });
        if let Some(inner) = inner {
            inner.insert(last.to_owned(), value);
        }
    }
    patch
}

/// Whether one of two paths is the other, or leads to it.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_become_a_patch_and_what_is_no_path_is_refused() {
        let content =
            json!({"deviceContent": {"properties.desired": {"a": 1}, "properties.desired.b.c": null}});
        let Content::Device(paths) = Content::read(&content).unwrap() else { panic!("a device's") };
        let patch = patch_of(paths.iter().map(|(path, value)| (path.as_str(), value.clone())));
        assert_eq!(Value::Object(patch), json!({"a": 1, "b": {"c": null}}));
        for (content, said) in [
            (json!({}), "exactly one of"),
            (
                json!({"deviceContent": {"properties.desired.a": 1}, "moduleContent": {"properties.desired.a": 1}}),
                "exactly one of",
            ),
            (json!({"deviceContent": {"tags.a": 1}}), "`tags.a` is not below properties.desired"),
            (json!({"deviceContent": {"properties.desired..a": 1}}), "is no path"),
            (json!({"deviceContent": {"properties.desiredx": 1}}), "is no path"),
            (json!({"deviceContent": {"properties.desired": 1}}), "properties.desired is an object"),
            (json!({"modulesContent": {"m": 1}}), "modulesContent.m is an object"),
            (json!({"deviceContent": {"properties.desired.$a": 1}}), "deviceContent"),
        ] {
            let error = Content::read(&content).unwrap_err().to_string();
            assert!(error.contains(said), "{content}: {error}");
        }
    }

    #[test]
    fn paths_overlap_where_one_leads_to_the_other() {
        assert!(overlap("a.b", "a.b") && overlap("a", "a.b") && overlap("a.b.c", "a.b"));
        assert!(!overlap("a.b", "a.bc") && !overlap("a.b", "a.c"));
    }
}
