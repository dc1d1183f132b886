//! The first inputs of each fuzz target, made from `tests/vectors` and `tests/captures`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use devicebound::packet::TopicName;
use serde_json::Value;

use super::machines::{BUSY, ONLINE};
use crate::live::publish;
use devicebound_world::vectors::{bytes, load, name, word};
use devicebound_world::{Entropy, Seeded};

/// Longer vectors show a fuzzer little more, and make it slow.
const LENGTH_MAX: usize = 256;
/// More than any seed is long: it comes in one piece.
const WHOLE: u8 = u8::MAX;

/// The seeds of a target, by the names of the vectors that they are made from: of each group of vectors, the first that
/// is short.
#[must_use]
pub fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    if target == "amqp_connection" {
        return super::amqp::seeds();
    }
    if target == "world" {
        return worlds();
    }
    if target == "capture" {
        return captures();
    }
    let seeds = match target {
        "packet_decode" => packets(&["packets_valid", "packets_invalid"], &[]),
        "packet_round_trip" => packets(&["packets_valid"], &[]),
        "chunked_stream" => packets(&["packets_valid", "packets_invalid"], &[0x2A]),
        "topic_and_bag" => texts("topics", |case| {
            [&case["expect"]["topic"], &case["topic"], &case["filter"]]
                .map(Value::as_str)
                .into_iter()
                .find_map(owned)
        }),
        "user_name" => texts("topics", |case| {
            Some(format!("{}\n{}", case["client_id"].as_str()?, case["username"].as_str()?))
        }),
        "sas_token" => texts("sas", |case| {
            [&case["token"], &case["expect"]["token"]].map(Value::as_str).into_iter().find_map(owned)
        }),
        "connection_string" => texts("connection_strings", |case| owned(case["input"].as_str())),
        "hub_link" => link("client", "parse_publish"),
        "device_link" => link("server", "parse_delivery"),
        _ => Vec::new(),
    };
    let mut groups = BTreeSet::new();
    let firsts = seeds.into_iter().filter(|seed| seed.bytes.len() <= LENGTH_MAX);
    firsts.filter(|seed| groups.insert(seed.group.clone())).map(|seed| (seed.name, seed.bytes)).collect()
}

/// Captures of `tests/captures`, one of each way through the reader.
fn captures() -> BTreeMap<String, Vec<u8>> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "captures"].iter().collect();
    let files = [
        "ip-v6-three-extensions.pcap",
        "link-sll2.pcap",
        "pcapng-two-sections.pcapng",
        "tcp-begins-inside-a-packet.pcap",
        "tcp-fast-open.pcap",
        "tcp-lost-and-acknowledged.pcap",
        "tls-that-began-before.pcap",
        "tunnel-vxlan-vlan.pcap",
        "websocket-fragments.pcap",
    ];
    let seed =
        |file: &str| Some((file.split('.').next()?.to_owned(), std::fs::read(folder.join(file)).ok()?));
    files.into_iter().filter_map(seed).collect()
}

/// Bytes that are as good as any others.
fn worlds() -> BTreeMap<String, Vec<u8>> {
    let bytes = |seed| {
        let mut seeded = Seeded::new(seed);
        (0..LENGTH_MAX).map(|_| seeded.below(256).to_le_bytes()[0]).collect()
    };
    (0..8).map(|seed| (format!("seed-{seed}"), bytes(seed))).collect()
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

struct Seed {
    /// What vectors it stands for.
    group: String,
    name: String,
    bytes: Vec<u8>,
}

impl Seed {
    fn new(group: &[&Value], case: &Value, bytes: Vec<u8>) -> Self {
        Self { group: format!("{group:?}"), name: name(case).to_owned(), bytes }
    }
}

/// The packets of these files behind `head`, by their tags.
fn packets(files: &[&str], head: &[u8]) -> Vec<Seed> {
    let cases = files.iter().flat_map(|file| load(file));
    cases.map(|case| Seed::new(&[&case["tags"]], &case, [head, &bytes(&case)].concat())).collect()
}

/// What `text` finds in the cases of a file, by operation, kind, tags and expected outcome.
fn texts(file: &str, text: impl Fn(&Value) -> Option<String>) -> Vec<Seed> {
    let seed = |case: &Value| {
        let expect = &case["expect"];
        let outcome = ["kind", "error", "result", "api_version", "params"].map(|member| &expect[member]);
        let group = [&[&case["op"], &case["kind"], &case["tags"]], &outcome[..]].concat();
        Some(Seed::new(&group, case, text(case)?.into_bytes()))
    };
    load(file).iter().filter_map(seed).collect()
}

/// What one side sends: its packets, at once and once the connection stands, and a PUBLISH to each kind of topic.
fn link(from: &str, op: &str) -> Vec<Seed> {
    let cases = ["packets_valid", "packets_invalid"].map(load).concat();
    let sent = cases.iter().filter(|case| [from, "either"].contains(&word(&case["from"])));
    let packets = sent.map(|case| {
        let flags = if word(&case["tags"][0]).starts_with("conn") { 0 } else { ONLINE };
        Seed::new(&[&case["tags"]], case, [&[flags, WHOLE], &bytes(case)[..]].concat())
    });
    let topics = load("topics");
    let parsed =
        topics.iter().filter(|case| case["op"] == op && TopicName::new(word(&case["topic"])).is_ok());
    let publishes = parsed.map(|case| {
        let packet = publish(word(&case["topic"]), 1, b"{}");
        let expect = &case["expect"];
        Seed::new(&[&expect["kind"], &expect["error"]], case, [&[ONLINE | BUSY, WHOLE], &packet[..]].concat())
    });
    packets.chain(publishes).collect()
}
