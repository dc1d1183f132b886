//! Known answers: frames that real clients sent.

use devicebound::time::Instant;
use devicebound_amqp::connection::Credentials;
use devicebound_amqp::frame;
use devicebound_amqp::message::Message;
use devicebound_amqp::performative::{Performative, SaslInit};
use devicebound_amqp::types::{Reader, Value, Writer as _};
use devicebound_amqp::{Action, Connection};
use serde_json::Value as Json;

use super::client::config;

fn cases() -> Vec<(String, Vec<u8>, Json)> {
    let all: Json = serde_json::from_str(include_str!("../vectors/amqp.json")).unwrap();
    known(&all, &["schema", "kind", "key_base64", "cases"]);
    let case = |case: &Json| {
        known(case, &["name", "tags", "basis", "client", "from", "hex", "decoded", "note"]);
        known(&case["decoded"], &["frame", "empty", "performative", "sections"]);
        known(&case["decoded"]["frame"], &["size", "doff", "channel", "type"]);
        let hex = case["hex"].as_str().unwrap();
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        (case["name"].as_str().unwrap().to_owned(), bytes.collect(), case["decoded"].clone())
    };
    let cases: Vec<_> = all["cases"].as_array().unwrap().iter().map(case).collect();
    assert_eq!(cases.len(), 25);
    cases
}

/// A member that no test knows is an error: what it says would be tested by nobody.
fn known(object: &Json, members: &[&str]) {
    for member in object.as_object().unwrap().keys() {
        assert!(members.contains(&member.as_str()), "no test knows the member `{member}` of {object}");
    }
}

/// The names of the fields of each composite, in the order of the specification.
fn fields_of(name: &str) -> &'static [&'static str] {
    match name {
        "sasl-init" => &["mechanism", "initial-response", "hostname"],
        "open" => &[
            "container-id",
            "hostname",
            "max-frame-size",
            "channel-max",
            "idle-time-out",
            "outgoing-locales",
            "incoming-locales",
            "offered-capabilities",
            "desired-capabilities",
            "properties",
        ],
        "begin" => &[
            "remote-channel",
            "next-outgoing-id",
            "incoming-window",
            "outgoing-window",
            "handle-max",
            "offered-capabilities",
            "desired-capabilities",
            "properties",
        ],
        "attach" => &[
            "name",
            "handle",
            "role",
            "snd-settle-mode",
            "rcv-settle-mode",
            "source",
            "target",
            "unsettled",
            "incomplete-unsettled",
            "initial-delivery-count",
            "max-message-size",
            "offered-capabilities",
            "desired-capabilities",
            "properties",
        ],
        "flow" => &[
            "next-incoming-id",
            "incoming-window",
            "next-outgoing-id",
            "outgoing-window",
            "handle",
            "delivery-count",
            "link-credit",
            "available",
            "drain",
            "echo",
            "properties",
        ],
        "transfer" => &[
            "handle",
            "delivery-id",
            "delivery-tag",
            "message-format",
            "settled",
            "more",
            "rcv-settle-mode",
            "state",
            "resume",
            "aborted",
            "batchable",
        ],
        "disposition" => &["role", "first", "last", "settled", "state", "batchable"],
        "detach" => &["handle", "closed", "error"],
        "source" => &[
            "address",
            "durable",
            "expiry-policy",
            "timeout",
            "dynamic",
            "dynamic-node-properties",
            "distribution-mode",
            "filter",
            "default-outcome",
            "outcomes",
            "capabilities",
        ],
        "target" => &[
            "address",
            "durable",
            "expiry-policy",
            "timeout",
            "dynamic",
            "dynamic-node-properties",
            "capabilities",
        ],
        "properties" => &[
            "message-id",
            "user-id",
            "to",
            "subject",
            "reply-to",
            "correlation-id",
            "content-type",
            "content-encoding",
            "absolute-expiry-time",
            "creation-time",
            "group-id",
            "group-sequence",
            "reply-to-group-id",
        ],
        _ => &["error"],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pairs(value: &Json) -> (&str, &Json) {
    let object = value.as_object().unwrap();
    assert_eq!(object.len(), 1, "{value} is one value by its type");
    let (name, inner) = object.iter().next().unwrap();
    (name, inner)
}

/// Whether a value is what the vector says.
fn check(value: Value<'_>, expected: &Json, at: &str) {
    let (kind, inner) = pairs(expected);
    match (kind, value) {
        ("map", Value::Map(map)) => {
            let entries = inner.as_array().unwrap();
            assert_eq!(map.len() as usize, entries.len(), "{at}");
            for ((key, value), entry) in map.iter().zip(entries) {
                check(key, &entry[0], at);
                check(value, &entry[1], at);
            }
        }
        ("array", Value::Array(array)) => {
            let items: Vec<_> = array.iter().collect();
            assert_eq!(items.len(), inner.as_array().unwrap().len(), "{at}");
            items
                .iter()
                .zip(inner.as_array().unwrap())
                .for_each(|(value, expected)| check(*value, expected, at));
        }
        ("described", Value::Described(described)) => {
            check(described.descriptor(), &inner["descriptor"], at);
            check(described.value(), &inner["value"], at);
        }
        ("boolean", Value::Boolean(value)) => assert_eq!(value, inner.as_bool().unwrap(), "{at}"),
        ("ulong", Value::Ulong(value)) => assert_eq!(value, inner.as_u64().unwrap(), "{at}"),
        ("ubyte" | "ushort" | "uint" | "int" | "long", value) => {
            let type_name = format!("{value:?}").to_lowercase();
            assert!(type_name.starts_with(kind), "{at}: {value:?}");
            assert_eq!(value.integer().unwrap(), inner.as_i64().unwrap(), "{at}");
        }
        ("timestamp", Value::Timestamp(value)) => assert_eq!(value, inner.as_i64().unwrap(), "{at}"),
        ("string", Value::String(value)) | ("symbol", Value::Symbol(value)) => {
            assert_eq!(value, inner.as_str().unwrap(), "{at}");
        }
        ("binary", Value::Binary(value)) => assert_eq!(hex(value), inner.as_str().unwrap(), "{at}"),
        ("uuid", Value::Uuid(value)) => {
            assert_eq!(hex(&value), inner.as_str().unwrap().replace('-', ""), "{at}")
        }
        (name, Value::Described(described)) => composite(described.value(), name, inner, at),
        (kind, value) => panic!("{at}: {value:?} is no {kind}"),
    }
}

fn composite(value: Value<'_>, name: &str, expected: &Json, at: &str) {
    let Value::List(list) = value else { panic!("{at}: {name} is no list") };
    known(expected, &["count", "fields"]);
    assert_eq!(u64::from(list.len()), expected["count"].as_u64().unwrap(), "{at}");
    let mut seen = 0;
    for (value, field) in list.iter().zip(fields_of(name)) {
        match expected["fields"].get(*field) {
            Some(expected) => {
                seen += 1;
                check(value, expected, &format!("{at}/{name}/{field}"));
            }
            None => assert_eq!(value, Value::Null, "{at}/{name}/{field}"),
        }
    }
    assert_eq!(seen, expected["fields"].as_object().unwrap().len(), "{at}/{name}");
}

#[test]
fn each_frame_reads_as_three_other_decoders_read_it() {
    for (name, bytes, decoded) in cases() {
        let frame = frame::decode(&bytes).unwrap().unwrap();
        assert_eq!(frame.size as u64, decoded["frame"]["size"].as_u64().unwrap(), "{name}");
        assert_eq!(u64::from(frame.channel), decoded["frame"]["channel"].as_u64().unwrap(), "{name}");
        assert_eq!(frame.is_sasl, decoded["frame"]["type"] == "sasl", "{name}");
        if decoded.get("empty").is_some() {
            assert!(frame.body.is_empty(), "{name}");
            continue;
        }
        let mut reader = Reader::new(frame.body);
        let value = reader.value().unwrap();
        let (kind, expected) = pairs(&decoded["performative"]);
        let Value::Described(described) = value else { panic!("{name}") };
        composite(described.value(), kind, expected, &name);
        for section in decoded["sections"].as_array().into_iter().flatten() {
            let Value::Described(described) = reader.value().unwrap() else { panic!("{name}") };
            match pairs(section) {
                ("header" | "properties", expected) => {
                    composite(described.value(), pairs(section).0, expected, &name);
                }
                ("message-annotations" | "application-properties", map) => {
                    check(described.value(), map, &name)
                }
                ("data" | "amqp-value", value) => check(described.value(), value, &name),
                (other, _) => panic!("{name}: {other}"),
            }
        }
        if decoded.get("sections").is_some() {
            assert!(reader.rest().is_empty(), "{name}");
        }
    }
}

#[test]
fn each_frame_is_a_performative_and_each_payload_a_message() {
    for (name, bytes, _) in cases() {
        let frame = frame::decode(&bytes).unwrap().unwrap();
        match frame.body {
            [] => {}
            body if frame.is_sasl => drop(SaslInit::decode(body).unwrap()),
            body => match Performative::decode(body).unwrap() {
                Performative::Transfer(_, payload) => drop(Message::decode(payload).expect(&name)),
                Performative::Attach(attach) => {
                    let address = attach.source.or(attach.target).and_then(|terminus| terminus.address);
                    assert!(address.is_some() || attach.target.unwrap().address.is_some(), "{name}");
                }
                _ => {}
            },
        }
    }
}

#[test]
fn what_was_read_is_written_with_the_same_meaning() {
    for (name, bytes, _) in cases() {
        let mut reader = Reader::new(frame::decode(&bytes).unwrap().unwrap().body);
        while !reader.rest().is_empty() {
            let value = reader.value().unwrap();
            let mut written = Vec::new();
            written.value(value);
            let mut again = Vec::new();
            again.value(Reader::new(&written).value().unwrap());
            assert_eq!(written, again, "{name}");
            assert_eq!(
                format!("{:?}", plain(value)),
                format!("{:?}", plain(Reader::new(&again).value().unwrap())),
                "{name}"
            );
        }
    }
}

/// A value without what depends on its encoding.
fn plain(value: Value<'_>) -> String {
    match value {
        Value::List(list) => format!("{:?}", list.iter().map(plain).collect::<Vec<_>>()),
        Value::Map(map) => format!("{:?}", map.iter().map(|(k, v)| (plain(k), plain(v))).collect::<Vec<_>>()),
        Value::Array(array) => format!("{:?}", array.iter().map(plain).collect::<Vec<_>>()),
        Value::Described(described) => {
            format!("{}:{}", plain(described.descriptor()), plain(described.value()))
        }
        value => format!("{value:?}"),
    }
}

#[test]
fn the_plain_credentials_of_az_are_taken_apart() {
    let (_, bytes, _) = cases().into_iter().find(|(name, ..)| name == "sasl-init-plain").unwrap();
    let (mut connection, mut tx) = (Connection::new(Instant::from_secs(0), config()), Vec::new());
    let bytes = [&b"AMQP\x03\x01\x00\x00"[..], &bytes].concat();
    let action = connection.receive(Instant::from_secs(0), &mut &bytes[..], &mut tx);
    let Action::Authenticate(Credentials::Plain { user, password }) = action else { panic!("{action:?}") };
    assert_eq!(user, "iothubowner@sas.root.localhost");
    assert!(password.starts_with("SharedAccessSignature sr=localhost"), "{password}");
}
