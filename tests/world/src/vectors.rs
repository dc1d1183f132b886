//! The known answers in `tests/vectors`, built in so that a test runs from any directory.
//!
//! A member that no reader knows is an error, because what it says would be tested by nobody: [`load`] checks the members of
//! each case, and [`Members`] those of what is inside.

#![allow(clippy::panic, reason = "without its vectors a test must not go on")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Index;

use serde_json::Value;

/// Members that a case of any file may have: its name, and what is for people.
const COMMON: [&str; 9] =
    ["name", "title", "tags", "basis", "statement", "note", "may_reject", "may_accept", "may_differ"];

/// The cases of `tests/vectors/{name}.json`.
///
/// # Panics
/// Where there is no such file, or it is not laid out as its README says.
#[must_use]
pub fn load(name: &str) -> Vec<Value> {
    let text = match name {
        "connection_strings" => include_str!("../vectors/connection_strings.json"),
        "dps" => include_str!("../vectors/dps.json"),
        "packets_invalid" => include_str!("../vectors/packets_invalid.json"),
        "packets_valid" => include_str!("../vectors/packets_valid.json"),
        "sas" => include_str!("../vectors/sas.json"),
        "sessions" => include_str!("../vectors/sessions.json"),
        "topics" => include_str!("../vectors/topics.json"),
        _ => panic!("there are no vectors named {name}"),
    };
    cases(name, text)
}

fn cases(kind: &str, text: &str) -> Vec<Value> {
    let mut file: Value = serde_json::from_str(text).expect("vectors are JSON");
    known(&file, &["schema", "kind", "cases"], kind);
    assert_eq!((&file["schema"], &file["kind"]), (&"iothub-mqtt-vectors/1".into(), &kind.into()));
    let Value::Array(cases) = file["cases"].take() else { panic!("{kind}: cases is no list") };
    let members = [&COMMON[..], members_of(kind)].concat();
    for case in &cases {
        known(case, &members, &format!("{kind}#{}", name(case)));
        for part in case["parts"].as_array().into_iter().flatten() {
            known(part, &["hex", "repeat", "count"], &format!("{kind}#{}", name(case)));
        }
    }
    cases
}

/// What a case of this file may have besides what any case may have.
fn members_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "connection_strings" => &["op", "input", "expect"],
        "dps" => &[
            "op",
            "kind",
            "input",
            "expect",
            "topic",
            "filter",
            "username",
            "client_id",
            "service",
            "group_key",
            "registration_id",
            "id_scope",
            "key",
            "keys",
            "expiry",
            "now",
            "token",
            "may_be",
            "body",
            "status",
            "retry_after",
        ],
        "packets_invalid" => &["from", "expect", "hex", "parts", "wire_length", "heavy", "reply_hex"],
        "packets_valid" => &[
            "from",
            "hex",
            "parts",
            "wire_length",
            "heavy",
            "decoded",
            "decoded_stream",
            "rest_hex",
            "canonical",
        ],
        "sas" => &[
            "op",
            "expect",
            "key",
            "message",
            "resource_uri",
            "expiry",
            "policy",
            "token",
            "now",
            "device_keys",
            "policies",
            "target",
            "may_be",
        ],
        "sessions" => &["steps"],
        "topics" => {
            &["op", "kind", "input", "expect", "identity", "topic", "filter", "username", "client_id"]
        }
        _ => &[],
    }
}

fn known(object: &Value, members: &[&str], place: &str) {
    let found = object.as_object().unwrap_or_else(|| panic!("{place}: {object} is no object"));
    for member in found.keys() {
        assert!(members.contains(&member.as_str()), "{place}: no test knows the member `{member}`");
    }
}

/// An object of a vector that remembers which of its members were read, so that its reader can show that none was left out.
///
/// ```
/// use devicebound_world::vectors::Members;
///
/// let step = serde_json::json!({"act": "open", "speed": 1});
/// let step = Members::of(&step);
/// assert_eq!(step["act"], "open");
/// assert_eq!(step.unread(), ["speed"]);
/// ```
pub struct Members<'a> {
    object: &'a Value,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Members<'a> {
    /// An object of which nothing was read yet.
    #[must_use]
    pub fn of(object: &'a Value) -> Self {
        Self { object, read: RefCell::default() }
    }

    /// A member, or `null` where it has none of that name.
    pub fn get(&self, name: &str) -> &'a Value {
        self.read.borrow_mut().insert(name.to_owned());
        &self.object[name]
    }

    /// The object with all that is in it, for a reader that looks at each of its members.
    pub fn whole(&self) -> &'a Value {
        self.read.borrow_mut().extend(self.names().map(str::to_owned));
        self.object
    }

    /// The members that nobody asked for, without those that are for people.
    #[must_use]
    pub fn unread(&self) -> Vec<&'a str> {
        let read = self.read.borrow();
        self.names().filter(|name| !read.contains(*name) && !COMMON.contains(name)).collect()
    }

    /// Checks that everything was read.
    ///
    /// # Panics
    /// Where a member was not: the vector says what no test looks at.
    pub fn all_read(&self) {
        let unread = self.unread();
        assert!(unread.is_empty(), "nothing reads the members {unread:?} of {self}");
    }

    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.object.as_object().into_iter().flat_map(|members| members.keys().map(String::as_str))
    }
}

impl Index<&str> for Members<'_> {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        self.get(name)
    }
}

impl fmt::Display for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.fmt(f)
    }
}

impl fmt::Debug for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("unread", &self.unread()).finish_non_exhaustive()
    }
}

/// The name of a case, for messages.
#[must_use]
pub fn name(case: &Value) -> &str {
    case["name"].as_str().expect("every case has a name")
}

/// The bytes of a case: `hex`, or `parts` joined.
#[must_use]
pub fn bytes(case: &Value) -> Vec<u8> {
    match &case["parts"] {
        Value::Null => hex(&case["hex"]),
        parts => parts.as_array().expect("parts is a list").iter().flat_map(part).collect(),
    }
}

fn part(part: &Value) -> Vec<u8> {
    if part["hex"].is_null() { hex(part) } else { hex(&part["hex"]) }
}

/// Bytes in hexadecimal digits, or `{"repeat": digits, "count": n}`.
#[must_use]
pub fn hex(value: &Value) -> Vec<u8> {
    text(value)
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let digits = str::from_utf8(pair).expect("hexadecimal digits are ASCII");
            u8::from_str_radix(digits, 16).expect("bytes are pairs of hexadecimal digits")
        })
        .collect()
}

/// A member that is plain text.
///
/// # Panics
/// Where it is something else.
#[must_use]
pub fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text"))
}

/// Text, or `{"repeat": text, "count": n}`.
#[must_use]
pub fn text(value: &Value) -> String {
    match (value, &value["repeat"], value["count"].as_u64()) {
        (Value::String(text), _, _) => text.clone(),
        (_, Value::String(text), Some(count)) => text.repeat(count as usize),
        _ => panic!("neither text nor repeated text: {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "sas#one: no test knows the member `keyz`")]
    fn a_case_with_a_member_that_no_test_knows_is_an_error() {
        let file =
            r#"{"schema": "iothub-mqtt-vectors/1", "kind": "sas", "cases": [{"name": "one", "keyz": 1}]}"#;
        cases("sas", file);
    }

    #[test]
    #[should_panic(expected = "no test knows the member `notes`")]
    fn a_file_with_a_member_that_no_test_knows_is_an_error() {
        cases("sas", r#"{"schema": "iothub-mqtt-vectors/1", "kind": "sas", "cases": [], "notes": 1}"#);
    }

    #[test]
    #[should_panic(expected = "nothing reads the members [\"vars\"]")]
    fn a_member_under_another_name_than_its_reader_asks_for_is_an_error() {
        let step = serde_json::json!({"expect": "distinct", "vars": ["{a}", "{b}"]});
        let step = Members::of(&step);
        assert_eq!((&step["expect"], &step["names"]), (&"distinct".into(), &Value::Null));
        step.all_read();
    }

    #[test]
    fn every_file_is_read() {
        for kind in
            ["connection_strings", "dps", "packets_invalid", "packets_valid", "sas", "sessions", "topics"]
        {
            assert!(!load(kind).is_empty(), "{kind}");
        }
    }
}
