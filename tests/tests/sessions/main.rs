//! `tests/vectors/sessions.json` against the hub machine, over the World's pipes, under virtual time.
//!
//! Each case runs with its bytes whole, read one at a time, and cut at random: the outcome must be the same.

#![allow(clippy::panic, reason = "the harness stops where a vector is not what the vectors' README says")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use devicebound::hub::{CallId, DeviceRecord, SequenceNumber};
use devicebound_tests::fixtures::hub;
use devicebound_tests::hub_host::{HubHost, StoreMode};
use devicebound_tests::vectors::{self, word};
use devicebound_tests::world::{Entropy, Seeded};
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
            self.step(step).map_err(|why| format!("step {number} {step}: {why}"))?;
            if self.host.store == StoreMode::Held {
                self.refuse_writes();
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Value) -> Outcome {
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
            ("harness", None) => {
                let values: Vec<_> = step["names"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|name| self.bound(word(name)))
                    .collect();
                let distinct = values.iter().collect::<std::collections::BTreeSet<_>>().len() == values.len();
                require(distinct, || format!("not distinct: {values:?}"))
            }
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

    fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

fn millis(value: &Value) -> Duration {
    Duration::from_millis(value.as_u64().unwrap_or(0))
}
