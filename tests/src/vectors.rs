//! The known answers in `tests/vectors`, built in so that a test runs from any directory.

#![allow(clippy::panic, reason = "without its vectors a test must not go on")]

use serde_json::Value;

/// The cases of `tests/vectors/{name}.json`.
///
/// # Panics
/// Where there is no such file, or it is not laid out as its README says.
#[must_use]
pub fn load(name: &str) -> Vec<Value> {
    let text = match name {
        "connection_strings" => include_str!("../vectors/connection_strings.json"),
        "packets_invalid" => include_str!("../vectors/packets_invalid.json"),
        "packets_valid" => include_str!("../vectors/packets_valid.json"),
        "sas" => include_str!("../vectors/sas.json"),
        "sessions" => include_str!("../vectors/sessions.json"),
        "topics" => include_str!("../vectors/topics.json"),
        _ => panic!("there are no vectors named {name}"),
    };
    let mut file: Value = serde_json::from_str(text).expect("vectors are JSON");
    assert_eq!(file["schema"], "iothub-mqtt-vectors/1");
    match file["cases"].take() {
        Value::Array(cases) => cases,
        other => panic!("{name}: cases is not a list but {other}"),
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
