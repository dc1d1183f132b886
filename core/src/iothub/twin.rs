//! Twin documents: what may stand in them, how a patch is merged in, how large they are (IoT Hub device twins).
//!
//! A section (desired, reported, tags) is held without its `$version` and `$metadata`: names with `$` are the hub's.

use alloc::string::{String, ToString as _};

use serde_json::{Map, Value, json};

use crate::limits::{TWIN_DEPTH_MAX, TWIN_KEY_MAX, TWIN_STRING_MAX};
use crate::rule::Rule;
use crate::time::UnixTime;

/// Largest absolute value of an integer, one more where it is negative (IoT Hub device twins: format).
const INTEGER_MAX: i64 = 4_503_599_627_370_495;

/// Why a document is not a twin section, or not a patch of one. Its text is fit for an error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TwinError {
    /// It is not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// It is JSON, but not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// A name is empty or contains a control character, a dot, a dollar or a space.
    #[error("a property name is empty or contains a control character, '.', '$' or a space")]
    Name,
    /// A name is longer than [`TWIN_KEY_MAX`] bytes.
    #[error("a property name is longer than {TWIN_KEY_MAX} bytes")]
    NameLength,
    /// A text is longer than [`TWIN_STRING_MAX`] bytes.
    #[error("a property value is longer than {TWIN_STRING_MAX} bytes")]
    StringLength,
    /// An integer is not in −2⁵² … 2⁵²−1.
    #[error("an integer is not between -4503599627370496 and 4503599627370495")]
    Integer,
    /// An array contains null.
    #[error("an array contains null")]
    NullInArray,
    /// Objects and arrays are nested more than [`TWIN_DEPTH_MAX`] deep below the section.
    #[error("the document is nested more than {TWIN_DEPTH_MAX} levels deep")]
    Depth,
    /// The section would be larger than it may be.
    #[error("the section would be larger than {0} bytes")]
    Size(usize),
}

impl TwinError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::NotJson | Self::NotAnObject => Rule::TwinJson,
            Self::Name | Self::NameLength => Rule::TwinName,
            Self::StringLength | Self::Integer | Self::NullInArray => Rule::TwinValue,
            Self::Depth => Rule::TwinDepth,
            Self::Size(_) => Rule::TwinSize,
        }
    }
}

/// Reads the body of a twin message. Of a name that stands there twice, the last value counts.
///
/// # Errors
/// [`TwinError::NotJson`] or [`TwinError::NotAnObject`].
pub fn parse_object(body: &[u8]) -> Result<Map<String, Value>, TwinError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(TwinError::NotAnObject),
        Err(_) => Err(TwinError::NotJson),
    }
}

/// Checks a section, or a patch of one, where null means removal. Its size is judged by [`patched`], of the whole.
///
/// # Errors
/// [`TwinError`].
pub fn validate(section: &Map<String, Value>) -> Result<(), TwinError> {
    validate_object(section, 0, false)
}

fn validate_object(object: &Map<String, Value>, depth: usize, in_array: bool) -> Result<(), TwinError> {
    if depth > TWIN_DEPTH_MAX {
        return Err(TwinError::Depth);
    }
    object.iter().try_for_each(|(name, value)| {
        validate_name(name)?;
        validate_value(value, depth, in_array)
    })
}

fn validate_name(name: &str) -> Result<(), TwinError> {
    if name.len() > TWIN_KEY_MAX {
        return Err(TwinError::NameLength);
    }
    let reserved = |character: char| character.is_control() || matches!(character, '.' | '$' | ' ');
    if name.is_empty() || name.contains(reserved) { Err(TwinError::Name) } else { Ok(()) }
}

/// `depth` is that of the object or array that contains `value`.
fn validate_value(value: &Value, depth: usize, in_array: bool) -> Result<(), TwinError> {
    let below = depth.saturating_add(1);
    match value {
        Value::Null if in_array => Err(TwinError::NullInArray),
        Value::String(text) if text.len() > TWIN_STRING_MAX => Err(TwinError::StringLength),
        Value::Number(number) if !number.is_f64() && !number.as_i64().is_some_and(is_twin_integer) => {
            Err(TwinError::Integer)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        Value::Array(_) if below > TWIN_DEPTH_MAX => Err(TwinError::Depth),
        Value::Array(items) => items.iter().try_for_each(|item| validate_value(item, below, true)),
        Value::Object(object) => validate_object(object, below, in_array),
    }
}

const fn is_twin_integer(number: i64) -> bool {
    -INTEGER_MAX - 1 <= number && number <= INTEGER_MAX
}

/// Merges `patch` into `section` as RFC 7396 does: objects are merged, null removes, everything else replaces. An object
/// that becomes empty stays.
pub fn merge(section: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, change) in patch {
        match (section.get_mut(name), change) {
            (_, Value::Null) => {
                section.remove(name);
            }
            (Some(Value::Object(old)), Value::Object(change)) => merge(old, change),
            (_, Value::Object(change)) => {
                let mut new = Map::new();
                merge(&mut new, change);
                section.insert(name.clone(), Value::Object(new));
            }
            (Some(old), _) => *old = change.clone(),
            (None, _) => {
                section.insert(name.clone(), change.clone());
            }
        }
    }
}

/// The patch by which `old` becomes `new`: [`merge`] with it gives `new`. Neither contains a null outside of arrays.
#[must_use]
pub fn difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let removed = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let changed = new.iter().filter_map(|(name, new)| {
        let change = match (old.get(name), new) {
            (Some(old), new) if old == new => return None,
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(difference(old, new)),
            _ => new.clone(),
        };
        Some((name.clone(), change))
    });
    removed.chain(changed).collect()
}

/// What `section` becomes by `patch`, which is checked, as is the size that the whole then has: at most `size_max`.
///
/// # Errors
/// [`TwinError`], all but [`TwinError::NotJson`] and [`TwinError::NotAnObject`].
pub fn patched(
    section: &Map<String, Value>,
    patch: &Map<String, Value>,
    size_max: usize,
) -> Result<Map<String, Value>, TwinError> {
    validate(patch)?;
    let mut section = section.clone();
    merge(&mut section, patch);
    if size(&section) > size_max { Err(TwinError::Size(size_max)) } else { Ok(section) }
}

/// The size of a section as Azure computes it: names and texts in bytes of UTF-8 without control characters, 8 for a
/// number, 4 for a boolean, nothing for punctuation, `$version` and `$metadata`.
#[must_use]
pub fn size(section: &Map<String, Value>) -> usize {
    let own = section.iter().filter(|(name, _)| !matches!(name.as_str(), "$version" | "$metadata"));
    own.fold(0, |sum, (name, value)| sum.saturating_add(text_size(name)).saturating_add(value_size(value)))
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text_size(text),
        Value::Array(items) => items.iter().fold(0, |sum, item| sum.saturating_add(value_size(item))),
        Value::Object(object) => size(object),
    }
}

fn text_size(text: &str) -> usize {
    text.chars().filter(|character| !character.is_control()).map(char::len_utf8).sum()
}

/// The body of a refusing answer, with the members that the SDKs look for. `error_code` is Azure's six-digit number,
/// such as 400004 for an argument that is not valid.
#[must_use]
pub fn error_body(error_code: u32, message: &str, tracking_id: &str, time: UnixTime) -> String {
    json!({
        "errorCode": error_code,
        "trackingId": tracking_id,
        "message": message,
        "timestampUtc": time.to_string(),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        parse_object(text.as_bytes()).unwrap()
    }

    fn nested(levels: usize, innermost: &str) -> Map<String, Value> {
        object(&format!("{}{innermost}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels)))
    }

    #[test]
    fn a_patch_merges_removes_and_replaces() {
        for (section, patch, result) in [
            (r#"{"a":1,"b":{"c":2,"d":3}}"#, r#"{"b":{"c":null,"e":4}}"#, r#"{"a":1,"b":{"d":3,"e":4}}"#),
            (r#"{"a":1}"#, r#"{"a":{"b":null,"c":{"d":null,"e":1}}}"#, r#"{"a":{"c":{"e":1}}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"b":null}}"#, r#"{"a":{}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{}}"#, r#"{"a":{"b":1}}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[3]}"#, r#"{"a":[3]}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":2,"x":null}"#, r#"{"a":2}"#),
        ] {
            let mut merged = object(section);
            merge(&mut merged, &object(patch));
            assert_eq!(merged, object(result), "{section} {patch}");
        }
    }

    #[test]
    fn a_difference_is_the_patch_from_one_section_to_the_other() {
        for (old, new, patch) in [
            ("{}", "{}", "{}"),
            (r#"{"a":1,"b":[1]}"#, r#"{"a":1,"b":[1]}"#, "{}"),
            (r#"{"a":1,"b":2}"#, r#"{"b":3,"c":4}"#, r#"{"a":null,"b":3,"c":4}"#),
            (r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":1}}"#, r#"{"a":{"c":null}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{}}"#, r#"{"a":{"b":null}}"#),
            (r#"{"a":1}"#, r#"{"a":{}}"#, r#"{"a":{}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        ] {
            let (mut old, new) = (object(old), object(new));
            assert_eq!(difference(&old, &new), object(patch));
            merge(&mut old, &object(patch));
            assert_eq!(old, new);
        }
    }

    #[test]
    fn ten_levels_below_the_section_are_deep_enough() {
        assert_eq!(validate(&nested(11, "1")), Ok(()));
        assert_eq!(validate(&nested(11, "{}")), Err(TwinError::Depth));
        assert_eq!(validate(&nested(10, "[1]")), Ok(()));
        assert_eq!(validate(&nested(11, "[]")), Err(TwinError::Depth));
        assert_eq!(parse_object("[".repeat(100_000).as_bytes()), Err(TwinError::NotJson));
    }

    #[test]
    fn what_a_twin_cannot_hold_is_named() {
        let long = "x".repeat(4097);
        for (section, outcome) in [
            (r#"{"ok-_#:/é":[{"a":[]}]}"#, Ok(())),
            (r#"{"a":4503599627370495,"b":-4503599627370496,"c":1e300,"d":null}"#, Ok(())),
            (r#"{"a":4503599627370496}"#, Err(TwinError::Integer)),
            (r#"{"a":-4503599627370497}"#, Err(TwinError::Integer)),
            (r#"{"a":18446744073709551615}"#, Err(TwinError::Integer)),
            (r#"{"a":{"b.c":1}}"#, Err(TwinError::Name)),
            (r#"{"$version":1}"#, Err(TwinError::Name)),
            (r#"{"a b":1}"#, Err(TwinError::Name)),
            (r#"{"a\u0085":1}"#, Err(TwinError::Name)),
            (r#"{"":1}"#, Err(TwinError::Name)),
            (r#"{"a":[1,null]}"#, Err(TwinError::NullInArray)),
            (r#"{"a":[{"b":{"c":null}}]}"#, Err(TwinError::NullInArray)),
            (&format!(r#"{{"{}":1}}"#, &long[..1025]), Err(TwinError::NameLength)),
            (&format!(r#"{{"{}":"{}"}}"#, &long[..1024], &long[..4096]), Ok(())),
            (&format!(r#"{{"a":"{long}"}}"#), Err(TwinError::StringLength)),
        ] {
            assert_eq!(validate(&object(section)), outcome, "{section:.60}");
        }
        assert_eq!(parse_object(b"[]"), Err(TwinError::NotAnObject));
        assert_eq!(parse_object(b" "), Err(TwinError::NotJson));
    }

    #[test]
    fn size_counts_names_and_values_as_azure_does() {
        let section = r#"{"$version":1,"ab":"é\n","c":[1,true],"d":{"e":1.5}}"#;
        assert_eq!(size(&object(section)), (2 + 2) + (1 + 8 + 4) + (1 + 1 + 8));
    }

    #[test]
    fn the_whole_is_measured_not_the_patch() {
        let section = object(r#"{"a":"12345"}"#);
        assert_eq!(patched(&section, &object(r#"{"b":"1234"}"#), 10), Err(TwinError::Size(10)));
        assert_eq!(patched(&section, &object(r#"{"a":null,"b":"1234"}"#), 10), Ok(object(r#"{"b":"1234"}"#)));
    }

    #[test]
    fn an_error_body_is_json_whatever_the_message() {
        let body = error_body(400_004, "a \"name\"\n", "t-1", UnixTime::from_secs(1_700_000_000));
        let body = object(&body);
        assert_eq!((&body["errorCode"], &body["message"]), (&json!(400_004), &json!("a \"name\"\n")));
        assert_eq!(body["timestampUtc"], "2023-11-14T22:13:20.000Z");
    }
}
