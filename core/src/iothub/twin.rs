//! Twin documents: what may stand in them, how a patch is merged in, how large they are (IoT Hub device twins).
//!
//! A section (desired, reported, tags) is held without its `$version` and `$metadata`: names with `$` are the hub's.

use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt;

use serde_json::{Map, Value, json};

use crate::limits::{TWIN_DEPTH_MAX, TWIN_KEY_MAX, TWIN_STRING_MAX};
use crate::rule::Rule;
use crate::time::UnixTime;

/// Largest absolute value of an integer, one more where it is negative (IoT Hub device twins: format).
const INTEGER_MAX: i64 = 4_503_599_627_370_495;

/// Why a document is not a twin section, or not a patch of one: what is wrong, and with which property. Its text is fit
/// for an error body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwinError {
    flaw: TwinFlaw,
    path: String,
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TwinFlaw {
    /// It is not JSON.
    #[error("not JSON at line {line}, column {column}: {reason}")]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 at the start of a line.
        column: usize,
        /// What the parser says.
        reason: String,
    },
    /// It is JSON, but not an object.
    #[error("{0} stands where a JSON object is expected")]
    NotAnObject(&'static str),
    /// A name is empty or contains a control character, a dot, a dollar, a number sign or a space.
    #[error("a name is not empty and contains no control characters, '.', '$', '#' or ' '")]
    Name,
    /// A name is longer than [`TWIN_KEY_MAX`] bytes.
    #[error("the name has {0} bytes, at most {TWIN_KEY_MAX} are allowed")]
    NameLength(usize),
    /// A text is longer than [`TWIN_STRING_MAX`] bytes.
    #[error("the text has {0} bytes, at most {TWIN_STRING_MAX} are allowed")]
    StringLength(usize),
    /// An integer is not in −2⁵² … 2⁵²−1.
    #[error("the integer is not between -4503599627370496 and 4503599627370495")]
    Integer,
    /// An array contains null.
    #[error("an array contains no null")]
    NullInArray,
    /// Null, in a document that replaces a section: there is nothing that it could remove.
    #[error("a value is not null in a document that replaces the section")]
    NullInDocument,
    /// Objects and arrays are nested more than [`TWIN_DEPTH_MAX`] deep below the section.
    #[error("the document is nested more than {TWIN_DEPTH_MAX} levels deep")]
    Depth,
    /// The section would be larger than it may be.
    #[error("the section would have {size} bytes, at most {most} are allowed")]
    Size {
        /// Its size, in bytes.
        size: usize,
        /// What it may have at most.
        most: usize,
    },
}

impl TwinError {
    const fn new(flaw: TwinFlaw) -> Self {
        Self { flaw, path: String::new() }
    }

    /// The value that stands where an object is expected.
    #[must_use]
    pub const fn not_an_object(value: &Value) -> Self {
        Self::new(TwinFlaw::NotAnObject(kind_of(value)))
    }

    /// What is wrong.
    #[must_use]
    pub const fn flaw(&self) -> &TwinFlaw {
        &self.flaw
    }

    /// Where: names joined by dots, array items in brackets, such as `a.list[3]`; long names are cut. Empty where the
    /// document is wrong as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same, told of a document that is the member `name` of a larger one. A body that is no JSON has no members.
    #[must_use]
    pub fn within(self, name: &str) -> Self {
        if matches!(self.flaw, TwinFlaw::NotJson { .. }) {
            return self;
        }
        let (name, cut) = match name.char_indices().nth(SHOWN_NAME_MAX) {
            Some((end, _)) => (name.get(..end).unwrap_or_default(), "…"),
            None if name.is_empty() => ("\"\"", ""),
            None => (name, ""),
        };
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("{name}{cut}{dot}{}", self.path), ..self }
    }

    fn within_item(self, index: usize) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("[{index}]{dot}{}", self.path), ..self }
    }

    /// The rule that was broken.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        match self.flaw {
            TwinFlaw::NotJson { .. } | TwinFlaw::NotAnObject(_) => Rule::TwinJson,
            TwinFlaw::Name | TwinFlaw::NameLength(_) => Rule::TwinName,
            TwinFlaw::StringLength(_)
            | TwinFlaw::Integer
            | TwinFlaw::NullInArray
            | TwinFlaw::NullInDocument => Rule::TwinValue,
            TwinFlaw::Depth => Rule::TwinDepth,
            TwinFlaw::Size { .. } => Rule::TwinSize,
        }
    }
}

impl core::error::Error for TwinError {}

/// `{path}: {what is wrong}`, and how to fix it where one sentence can say so.
impl fmt::Display for TwinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.is_empty(), &self.flaw) {
            (true, TwinFlaw::NotJson { .. }) => write!(f, "the body is {}", self.flaw),
            (true, _) => write!(f, "the body: {}", self.flaw),
            (false, TwinFlaw::NullInDocument) => {
                write!(f, "property {}: {}, leave it out or send PATCH", self.path, self.flaw)
            }
            (false, _) => write!(f, "property {}: {}", self.path, self.flaw),
        }
    }
}

/// So many characters of a name are shown in a path.
const SHOWN_NAME_MAX: usize = 128;

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Reads the body of a twin message. Of a name that stands there twice, the last value counts.
///
/// # Errors
/// [`TwinFlaw::NotJson`] or [`TwinFlaw::NotAnObject`].
pub fn parse_object(body: &[u8]) -> Result<Map<String, Value>, TwinError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(value) => Err(TwinError::not_an_object(&value)),
        Err(error) => Err(TwinError::new(not_json(&error))),
    }
}

fn not_json(error: &serde_json::Error) -> TwinFlaw {
    let told = error.to_string();
    let reason = told.split_once(" at line ").map_or(told.as_str(), |(reason, _)| reason);
    TwinFlaw::NotJson { line: error.line(), column: error.column(), reason: reason.to_string() }
}

/// Checks a patch of a section, where null means removal. Its size is judged by [`patched`], of the whole.
///
/// # Errors
/// [`TwinError`].
pub fn validate(patch: &Map<String, Value>) -> Result<(), TwinError> {
    validate_object(patch, 0, Nulls::Remove)
}

/// What a null means.
#[derive(Clone, Copy)]
enum Nulls {
    /// The property is removed.
    Remove,
    /// There is none in a document that replaces a section.
    InDocument,
    /// There is none in an array.
    InArray,
}

fn validate_object(object: &Map<String, Value>, depth: usize, nulls: Nulls) -> Result<(), TwinError> {
    if depth > TWIN_DEPTH_MAX {
        return Err(TwinError::new(TwinFlaw::Depth));
    }
    object.iter().try_for_each(|(name, value)| {
        validate_name(name)
            .map_err(TwinError::new)
            .and_then(|()| validate_value(value, depth, nulls))
            .map_err(|error| error.within(name))
    })
}

fn validate_name(name: &str) -> Result<(), TwinFlaw> {
    if name.len() > TWIN_KEY_MAX {
        return Err(TwinFlaw::NameLength(name.len()));
    }
    let reserved = |character: char| character.is_control() || matches!(character, '.' | '$' | '#' | ' ');
    if name.is_empty() || name.contains(reserved) { Err(TwinFlaw::Name) } else { Ok(()) }
}

/// `depth` is that of the object or array that contains `value`.
fn validate_value(value: &Value, depth: usize, nulls: Nulls) -> Result<(), TwinError> {
    let below = depth.saturating_add(1);
    let flaw = match (value, nulls) {
        (Value::Object(object), _) => return validate_object(object, below, nulls),
        (Value::Array(items), _) if below <= TWIN_DEPTH_MAX => {
            return items.iter().enumerate().try_for_each(|(index, item)| {
                validate_value(item, below, Nulls::InArray).map_err(|error| error.within_item(index))
            });
        }
        (Value::Array(_), _) => TwinFlaw::Depth,
        (Value::Null, Nulls::InArray) => TwinFlaw::NullInArray,
        (Value::Null, Nulls::InDocument) => TwinFlaw::NullInDocument,
        (Value::String(text), _) if text.len() > TWIN_STRING_MAX => TwinFlaw::StringLength(text.len()),
        (Value::Number(number), _) if !number.is_f64() && !number.as_i64().is_some_and(is_twin_integer) => {
            TwinFlaw::Integer
        }
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => return Ok(()),
    };
    Err(TwinError::new(flaw))
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
/// [`TwinError`], for neither [`TwinFlaw::NotJson`] nor [`TwinFlaw::NotAnObject`].
pub fn patched(
    section: &Map<String, Value>,
    patch: &Map<String, Value>,
    size_max: usize,
) -> Result<Map<String, Value>, TwinError> {
    validate(patch)?;
    let mut section = section.clone();
    merge(&mut section, patch);
    within_size(section, size_max)
}

/// `document` as the whole of a section: it is checked, contains no null, and its size is at most `size_max`.
///
/// # Errors
/// As for [`patched`], and [`TwinFlaw::NullInDocument`].
pub fn replaced(document: &Map<String, Value>, size_max: usize) -> Result<Map<String, Value>, TwinError> {
    validate_object(document, 0, Nulls::InDocument)?;
    within_size(document.clone(), size_max)
}

fn within_size(section: Map<String, Value>, most: usize) -> Result<Map<String, Value>, TwinError> {
    let size = size(&section);
    if size > most { Err(TwinError::new(TwinFlaw::Size { size, most })) } else { Ok(section) }
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

    /// The flaw and its path, as text.
    fn flaw(outcome: Result<(), TwinError>) -> Option<(TwinFlaw, String)> {
        outcome.err().map(|error| (error.flaw().clone(), error.path().to_string()))
    }

    #[test]
    fn ten_levels_below_the_section_are_deep_enough() {
        let depth = |levels: usize| Some((TwinFlaw::Depth, ["a"; 20][..levels].join(".")));
        assert_eq!(flaw(validate(&nested(11, "1"))), None);
        assert_eq!(flaw(validate(&nested(11, "{}"))), depth(11));
        assert_eq!(flaw(validate(&nested(10, "[1]"))), None);
        assert_eq!(flaw(validate(&nested(11, "[]"))), depth(11));
        let deep = parse_object("[".repeat(100_000).as_bytes()).unwrap_err();
        assert!(matches!(deep.flaw(), TwinFlaw::NotJson { line: 1, .. }), "{deep}");
    }

    #[test]
    fn what_a_twin_cannot_hold_is_named_with_its_path() {
        use TwinFlaw::{Integer, Name, NameLength, NullInArray, StringLength};
        let long = "x".repeat(4097);
        for (section, outcome) in [
            (r#"{"ok-_@:/é\u00a0":[{"a":[]}]}"#, None),
            (r#"{"a":4503599627370495,"b":-4503599627370496,"c":1e300,"d":null}"#, None),
            (r#"{"a":4503599627370496}"#, Some((Integer, "a"))),
            (r#"{"a":[0,{"b":-4503599627370497}]}"#, Some((Integer, "a[1].b"))),
            (r#"{"a":18446744073709551615}"#, Some((Integer, "a"))),
            (r#"{"a":{"b.c":1}}"#, Some((Name, "a.b.c"))),
            (r#"{"$version":1}"#, Some((Name, "$version"))),
            (r#"{"a b":1}"#, Some((Name, "a b"))),
            (r#"{"x":{"a#b":1}}"#, Some((Name, "x.a#b"))),
            (r#"{"x":[[{"m2(<#a":1}]]}"#, Some((Name, "x[0][0].m2(<#a"))),
            (r#"{"a\u0085":1}"#, Some((Name, "a\u{85}"))),
            (r#"{"x":{"":1}}"#, Some((Name, "x.\"\""))),
            (r#"{"a":[1,null]}"#, Some((NullInArray, "a[1]"))),
            (r#"{"a":[{"b":{"c":null}}]}"#, Some((NullInArray, "a[0].b.c"))),
            (
                &format!(r#"{{"{}":1}}"#, &long[..1025]),
                Some((NameLength(1025), &*format!("{}…", &long[..128]))),
            ),
            (&format!(r#"{{"{}":"{}"}}"#, &long[..1024], &long[..4096]), None),
            (&format!(r#"{{"a":"{long}"}}"#), Some((StringLength(4097), "a"))),
        ] {
            let outcome = outcome.map(|(flaw, path)| (flaw, path.to_string()));
            assert_eq!(flaw(validate(&object(section))), outcome, "{section:.60}");
        }
    }

    #[test]
    fn a_document_that_replaces_a_section_has_no_null() {
        let outcome = |text: &str| flaw(replaced(&object(text), 1000).map(drop));
        assert_eq!(outcome(r#"{"a":{"b":1},"c":[]}"#), None);
        assert_eq!(outcome(r#"{"my-tag":null}"#), Some((TwinFlaw::NullInDocument, "my-tag".to_string())));
        assert_eq!(outcome(r#"{"a":{"b":null}}"#), Some((TwinFlaw::NullInDocument, "a.b".to_string())));
        assert_eq!(outcome(r#"{"a":[null]}"#), Some((TwinFlaw::NullInArray, "a[0]".to_string())));
        assert_eq!(outcome(r#"{"a#":1}"#), Some((TwinFlaw::Name, "a#".to_string())));
    }

    #[test]
    fn a_body_that_is_no_object_is_told_with_line_and_column() {
        for (body, told) in [
            ("[]", "the body: an array stands where a JSON object is expected"),
            ("null", "the body: null stands where a JSON object is expected"),
            ("", "the body is not JSON at line 1, column 0: EOF while parsing a value"),
            ("{\n  \"a\": tru }", "the body is not JSON at line 2, column 11: expected ident"),
            (r#"{"a":1} x"#, "the body is not JSON at line 1, column 9: trailing characters"),
        ] {
            assert_eq!(parse_object(body.as_bytes()).unwrap_err().to_string(), told, "{body}");
        }
        assert!(matches!(parse_object(b"\xff").unwrap_err().flaw(), TwinFlaw::NotJson { line: 1, .. }));
    }

    #[test]
    fn an_error_is_told_of_the_member_of_a_larger_document() {
        let error = validate(&object(r#"{"a":{"b#":1}}"#)).unwrap_err().within("properties.reported");
        assert_eq!(
            error.to_string(),
            "property properties.reported.a.b#: a name is not empty and contains no control characters, '.', '$', '#' or ' '"
        );
        let error = parse_object(b"{").unwrap_err().within("tags");
        assert_eq!(error.path(), "");
    }

    #[test]
    fn size_counts_names_and_values_as_azure_does() {
        let section = r#"{"$version":1,"ab":"é\n","c":[1,true],"d":{"e":1.5}}"#;
        assert_eq!(size(&object(section)), (2 + 2) + (1 + 8 + 4) + (1 + 1 + 8));
    }

    #[test]
    fn the_whole_is_measured_not_the_patch() {
        let section = object(r#"{"a":"12345"}"#);
        let too_large = patched(&section, &object(r#"{"b":"1234"}"#), 10).unwrap_err();
        assert_eq!(too_large.flaw(), &TwinFlaw::Size { size: 11, most: 10 });
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
