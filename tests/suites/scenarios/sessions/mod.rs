//! `tests/vectors/sessions.json` against the hub machine, over the World's pipes, under virtual time.
//!
//! Each case runs with its bytes whole, read one at a time, and cut at random: the outcome must be the same.

#![allow(clippy::panic, reason = "the harness stops where a vector is not what the vectors' README says")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use devicebound::hub::{CallId, DeviceRecord, SequenceNumber};
use devicebound_world::fixtures::hub;
use devicebound_world::hub_host::{HubHost, StoreMode};
use devicebound_world::vectors::{self, Members, word};
use devicebound_world::{Entropy, Seeded};
use serde_json::{Value, json};

use connections::Connection;

mod connections;
mod service;

/// What the random cuts of a case follow from.
const SEEDS: Range<u64> = 0..4;

#[test]
fn every_session_vector_holds_against_the_hub_machine() {
    println!("cut at random from the seeds {SEEDS:?}");
    for case in vectors::load("sessions") {
        let name = vectors::name(&case).to_owned();
        let random = SEEDS.map(|seed| Split::Random(Seeded::new(seed)));
        let case = as_decided(case);
        for split in [Split::Every(usize::MAX), Split::Every(1)].into_iter().chain(random) {
            if let Err(why) = Harness::new(split.clone()).run(&case) {
                panic!("{name}, {split:?}: {why}");
            }
        }
    }
}

/// The case as it is expected here: a pair in a topic that the hub builds always has its `=`, because Azure's SDKs for
/// devices cannot read a bare name, whatever the document says.
fn as_decided(mut case: Value) -> Value {
    if vectors::name(&case) == "c2d-null-and-empty-properties" {
        let value =
            case.pointer_mut("/steps/2/packet/topic_has/prop1").expect("it has a property without a value");
        assert_eq!(value.take(), Value::Null);
        *value = json!("");
    }
    case
}

/// Where the bytes of a connection are cut.
#[derive(Clone, Debug)]
enum Split {
    Every(usize),
    Random(Seeded),
}

impl Split {
    /// How many bytes are read at most.
    fn next(&mut self) -> usize {
        match self {
            Self::Every(length) => *length,
            Self::Random(seeded) => seeded.between(1, 40) as usize,
        }
    }
}

struct Harness {
    host: HubHost,
    split: Split,
    connections: BTreeMap<String, Connection>,
    names: BTreeMap<String, String>,
    calls: BTreeMap<String, Result<CallId, String>>,
    messages: BTreeMap<String, (String, SequenceNumber)>,
    c2d_result: Option<&'static str>,
    /// What a full disk holds.
    written: Vec<DeviceRecord>,
}

type Outcome = Result<(), String>;

fn require(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(why()) }
}

impl Harness {
    fn new(split: Split) -> Self {
        let host = hub(&["dev1", "dev2", "dev1/modA"]);
        Self {
            host,
            split,
            connections: BTreeMap::new(),
            names: BTreeMap::new(),
            calls: BTreeMap::new(),
            messages: BTreeMap::new(),
            c2d_result: None,
            written: Vec::new(),
        }
    }

    fn run(&mut self, case: &Value) -> Outcome {
        for (number, step) in case["steps"].as_array().expect("steps is a list").iter().enumerate() {
            let members = Members::of(step);
            let outcome = self.step(&members).and_then(|()| {
                let unread = members.unread();
                require(unread.is_empty(), || format!("the harness does not know {unread:?}"))
            });
            outcome.map_err(|why| format!("step {number} {step}: {why}"))?;
            if self.host.store == StoreMode::Held {
                self.refuse_writes();
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Members<'_>) -> Outcome {
        let actor = word(&step["actor"]);
        match (actor, step["act"].as_str()) {
            ("service", Some(act)) => self.service_acts(act, step),
            ("clock", Some("advance")) => {
                self.host.advance(millis(&step["ms"]));
                Ok(())
            }
            ("clock", Some("wall_step")) => {
                self.host.step_wall(millis(&step["ms"]));
                Ok(())
            }
            // The store is done at once: who is killed has no less than who stops.
            ("hub", Some("restart")) => {
                let how = word(&step["how"]);
                require(["graceful", "kill"].contains(&how), || format!("unknown restart {how}"))?;
                self.host.restart();
                Ok(())
            }
            ("disk", Some("full")) => {
                self.written = self.host.hub.devices().map(|(_, record)| record.clone()).collect();
                self.host.store = StoreMode::Held;
                Ok(())
            }
            ("disk", Some("free")) => {
                self.refuse_writes();
                self.host.store = StoreMode::Immediate;
                Ok(())
            }
            ("service", None) => self.service_expects(step),
            ("harness", None) => match word(&step["expect"]) {
                "distinct" => self.expect_distinct(&step["vars"]),
                other => Err(format!("unknown expectation {other}")),
            },
            (_, Some(act)) => self.connection_acts(actor, act, step),
            (_, None) => self.connection_expects(actor, step),
        }
    }

    /// Nothing of what was to be written is safe.
    fn refuse_writes(&mut self) {
        let writes = self.host.take_writes();
        self.host.telemetry = writes.telemetry;
        for commit in writes.commits {
            let client_id = self.host.hub.record(commit.device).map(|record| record.identity.client_id());
            let written = self.written.iter().find(|record| Some(record.identity.client_id()) == client_id);
            if let Some(written) = written {
                self.host.hub.rejected(commit.device, written.clone());
            }
        }
        self.host.settle();
    }

    // --- names ---

    fn bound(&self, name: &str) -> String {
        self.names.get(name).cloned().unwrap_or_else(|| panic!("{name} was never bound"))
    }

    /// Binds the name, or compares with what it is bound to.
    fn bind(&mut self, name: &str, value: &str) -> bool {
        self.names.entry(name.to_owned()).or_insert_with(|| value.to_owned()) == value
    }

    fn expect_distinct(&self, vars: &Value) -> Outcome {
        let vars = vars.as_array().ok_or("vars is a list")?;
        require(vars.len() > 1, || "it takes two to be distinct".to_owned())?;
        let values: Vec<_> = vars.iter().map(|name| self.bound(word(name))).collect();
        let distinct = values.iter().collect::<BTreeSet<_>>().len() == values.len();
        require(distinct, || format!("not distinct: {values:?}"))
    }

    fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

fn millis(value: &Value) -> Duration {
    Duration::from_millis(value.as_u64().unwrap_or(0))
}

fn run(steps: &Value) -> Outcome {
    Harness::new(Split::Every(usize::MAX)).run(&json!({"steps": steps}))
}

/// A method call whose `$rid` is bound to `{a}`, and one to `{b}`; then a check of the harness.
fn two_calls(names: [&str; 2], check: &Value) -> Outcome {
    let mut steps = vec![json!({"actor": "c1", "act": "online", "device": "dev1", "subscribe": ["methods"]})];
    for name in names {
        let packet = json!({"type": "publish", "topic_kind": "method_request", "rid": name});
        steps.push(
            json!({"actor": "service", "act": "invoke", "call": name, "method": "ping", "payload": "{}"}),
        );
        steps.push(json!({"actor": "c1", "expect": "packet", "packet": packet}));
    }
    steps.push(check.clone());
    run(&json!(steps))
}

#[test]
fn values_that_are_to_be_distinct_are_compared() {
    let distinct = json!({"actor": "harness", "expect": "distinct", "vars": ["{a}", "{b}"]});
    assert_eq!(two_calls(["{a}", "{b}"], &distinct), Ok(()));
    let same = json!({"actor": "harness", "expect": "distinct", "vars": ["{a}", "{a}"]});
    let why = two_calls(["{a}", "{b}"], &same).expect_err("a value is not distinct from itself");
    assert!(why.contains("not distinct"), "{why}");
    let few = json!({"actor": "harness", "expect": "distinct", "vars": ["{a}"]});
    assert!(two_calls(["{a}", "{b}"], &few).is_err());
}

#[test]
fn a_member_that_the_harness_does_not_know_fails_the_case() {
    let online = json!({"actor": "c1", "act": "online", "device": "dev1"});
    for step in [
        json!({"actor": "harness", "expect": "distinct", "names": ["{a}", "{b}"]}),
        json!({"actor": "harness", "expect": "other", "vars": ["{a}", "{b}"]}),
        json!({"actor": "clock", "act": "advance", "ms": 1, "seconds": 1}),
        json!({"actor": "hub", "act": "restart", "how": "kindly"}),
        json!({"actor": "c1", "expect": "alive", "soon": true}),
        json!({"actor": "c1", "act": "connect", "device": "dev1", "keepalive": 1}),
        json!({"actor": "c1", "act": "online", "device": "dev1", "will": {"topic": "a", "payload": "", "qos": 0, "retain": false, "delay": 1}}),
        json!({"actor": "c1", "act": "send", "packet": {"type": "pingreq", "id": 1}}),
        json!({"actor": "c1", "act": "send", "packet": {"type": "subscribe", "packet_id": 1, "filters": [{"filter": "a", "qos": 0, "nl": 1}]}}),
        json!({"actor": "service", "act": "c2d", "message_id": "m", "time_to_live": 1}),
        json!({"actor": "service", "expect": "no_telemetry", "for_ms": 1, "from": "dev1"}),
        json!({"actor": "service", "expect": "connection_state", "state": "connected", "dev": "dev1"}),
    ] {
        let steps = json!([online, step]);
        let failed = std::panic::catch_unwind(|| run(&steps));
        assert!(!matches!(failed, Ok(Ok(()))), "{step} passed");
    }
}
