//! `tests/vectors/sessions.json` against the hub machine, over the World's pipes, under virtual time.
//!
//! Each case runs with its bytes whole, read one at a time, and cut at random: the outcome must be the same.

#![allow(clippy::panic, reason = "the harness stops where a vector is not what the vectors' README says")]

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use devicebound::hub::{
    CallId, CloudMessage, FeedbackRequest, MethodRequest, Section, SequenceNumber, TwinUpdate,
};
use devicebound::iothub::Identity;
use devicebound::iothub::sas::{SymmetricKey, sign};
use devicebound::iothub::topic::FromHub;
use devicebound::packet::{Connect, Credentials, Decoded, Text, TopicName, Will, decode};
use devicebound::time::UnixTime;
use devicebound_tests::fixtures::{HOST, KEYS, hub};
use devicebound_tests::hub_host::{CallResult, HubHost};
use devicebound_tests::packet_json::{self, Seen, payload, qos, seen as write};
use devicebound_tests::vectors::{self, word};
use devicebound_tests::world::{Cable, Entropy, Seeded};
use serde_json::{Map, Value, json};

/// Cases that need what the durable hub brings: feedback, and a store that can be killed or filled. The guard below
/// fails when one of them is not in the vectors any more, or passes already.
const LATER: [&str; 3] = ["c2d-feedback-success", "kill-after-completed-c2d", "disk-full-twin"];

/// What the random cuts of a case follow from.
const SEEDS: Range<u64> = 0..4;

#[test]
fn every_session_vector_holds_against_the_hub_machine() {
    println!("cut at random from the seeds {SEEDS:?}");
    for case in vectors::load("sessions") {
        let name = vectors::name(&case).to_owned();
        if LATER.contains(&name.as_str()) {
            continue;
        }
        let random = SEEDS.map(|seed| Split::Random(Seeded::new(seed)));
        for split in [Split::Every(usize::MAX), Split::Every(1)].into_iter().chain(random) {
            if let Err(why) = Harness::new(split.clone()).run(&case) {
                panic!("{name}, {split:?}: {why}");
            }
        }
    }
}

#[test]
fn the_cases_that_wait_for_the_durable_hub_are_there_and_do_not_pass_yet() {
    let cases = vectors::load("sessions");
    for name in LATER {
        let case = cases.iter().find(|case| vectors::name(case) == name);
        let case = case.unwrap_or_else(|| panic!("{name} is no session vector; take it off the list"));
        assert!(
            Harness::new(Split::Every(usize::MAX)).run(case).is_err(),
            "{name} passes; take it off the list"
        );
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

struct Connection {
    cable: Cable,
    device: String,
    unread: Vec<u8>,
    seen: VecDeque<Seen>,
}

struct Harness {
    host: HubHost,
    split: Split,
    connections: BTreeMap<String, Connection>,
    names: BTreeMap<String, String>,
    calls: BTreeMap<String, Result<CallId, String>>,
    messages: BTreeMap<String, (String, SequenceNumber)>,
    c2d_result: Option<&'static str>,
    telemetry_read: usize,
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
            telemetry_read: 0,
        }
    }

    fn run(&mut self, case: &Value) -> Outcome {
        let case = &as_decided(case.clone());
        for (number, step) in case["steps"].as_array().expect("steps is a list").iter().enumerate() {
            self.step(step).map_err(|why| format!("step {number} {step}: {why}"))?;
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
            ("hub", Some("restart")) if step["how"] == "graceful" => {
                self.host.restart();
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

    // --- a connection acts ---

    fn connection_acts(&mut self, actor: &str, act: &str, step: &Value) -> Outcome {
        match act {
            "open" => self.open(actor),
            "drop" => {
                let connection = self.connections.get_mut(actor).expect("it is open");
                connection.cable.close(&mut self.host);
            }
            "connect" => self.connect(actor, step),
            "online" => return self.online(actor, step),
            "send" => {
                let bytes = self.encode(&step["packet"]);
                self.send(actor, &bytes);
            }
            "send_many" => {
                let packets = step["packets"].as_array().expect("packets is a list");
                let bytes: Vec<u8> = packets.iter().flat_map(|packet| self.encode(packet)).collect();
                self.send(actor, &bytes);
            }
            "send_hex" => self.send(actor, &vectors::hex(&step["hex"])),
            _ => return Err(format!("unknown act {act}")),
        }
        Ok(())
    }

    fn open(&mut self, actor: &str) {
        let cable = Cable::new(&mut self.host);
        let connection =
            Connection { cable, device: String::new(), unread: Vec::new(), seen: VecDeque::new() };
        self.connections.insert(actor.to_owned(), connection);
    }

    fn send(&mut self, actor: &str, bytes: &[u8]) {
        let connection = self.connections.get_mut(actor).expect("it is open");
        connection.cable.send(&mut self.host, bytes, || self.split.next());
    }

    fn connect(&mut self, actor: &str, step: &Value) {
        let device = word(&step["device"]).to_owned();
        let client_id = step["client_id"].as_str().unwrap_or(&device);
        let username = format!("{HOST}/{device}/?api-version=2021-04-12");
        let username = Text::new(&username).expect("the vectors' user names are text");
        let password = self.password(&device, step);
        let will_message = step["will"]["payload"].as_str().unwrap_or_default().as_bytes();
        let will = step["will"].as_object().map(|will| Will {
            topic: TopicName::new(word(&will["topic"])).expect("the vectors' will topics are topics"),
            message: will_message,
            qos: qos(&will["qos"]),
            retain: will["retain"].as_bool().expect("retain is a boolean"),
        });
        let connect = Connect {
            clean_session: step["clean"].as_bool().unwrap_or(true),
            keep_alive: u16::try_from(step["keep_alive"].as_u64().unwrap_or(60))
                .expect("keep alive is 16 bits"),
            client_id: Text::new(client_id).expect("the vectors' client ids are text"),
            will,
            credentials: Some(Credentials { username, password: password.as_deref() }),
        };
        let mut bytes = Vec::new();
        connect.encode(&mut bytes).expect("the harness builds short packets");
        if let Some(level) = step["protocol_level"].as_u64() {
            let at = bytes.windows(4).position(|window| window == b"MQTT").expect("it is a CONNECT") + 4;
            bytes[at] = u8::try_from(level).expect("a level is a byte");
        }
        self.connections.get_mut(actor).expect("it is open").device.clone_from(&device);
        for packet in step["pipeline"].as_array().into_iter().flatten() {
            bytes.extend(self.encode(packet));
        }
        match step["split_every"].as_u64() {
            Some(length) => {
                let connection = self.connections.get_mut(actor).expect("it is open");
                let length = usize::try_from(length).unwrap_or(1);
                connection.cable.send(&mut self.host, &bytes, || length);
            }
            None => self.send(actor, &bytes),
        }
    }

    fn password(&self, device: &str, step: &Value) -> Option<Vec<u8>> {
        let lifetime = Duration::from_secs(step["auth_ttl_s"].as_u64().unwrap_or(3600));
        let token = |device: &str, key: &str, expiry: UnixTime| {
            let path = device.replacen('/', "/modules/", 1);
            let key = SymmetricKey::from_base64(key).expect("the keys above are base64");
            sign(&format!("{HOST}/devices/{path}"), &key, expiry, None).into_bytes()
        };
        let now = self.host.unix_time();
        Some(match step["auth"].as_str().unwrap_or("ok") {
            "ok" => token(device, KEYS[0], now.after(lifetime)),
            "bad_signature" => token(device, "////", now.after(lifetime)),
            "expired" => token(device, KEYS[0], UnixTime::from_secs(now.as_secs() - 10)),
            "token_of_dev2" => token("dev2", KEYS[0], now.after(lifetime)),
            "empty" => Vec::new(),
            "garbage" => b"not a token".to_vec(),
            "none" => return None,
            other => panic!("unknown auth {other}"),
        })
    }

    fn online(&mut self, actor: &str, step: &Value) -> Outcome {
        self.open(actor);
        self.connect(actor, step);
        let session_present = step["session_present"].as_bool().unwrap_or(false);
        let wanted = json!({"type": "connack", "return_code": 0, "session_present": session_present});
        self.expect_packet(actor, &wanted)?;
        let device = self.connections[actor].device.clone();
        let (device_id, module_id) = device.split_once('/').unwrap_or((&device, ""));
        let filters: Vec<_> = step["subscribe"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|what| match word(what) {
                "c2d" => format!("devices/{device_id}/messages/devicebound/#"),
                "twin_responses" => "$iothub/twin/res/#".to_owned(),
                "desired" => "$iothub/twin/PATCH/properties/desired/#".to_owned(),
                "methods" => "$iothub/methods/POST/#".to_owned(),
                "module" => format!("devices/{device_id}/modules/{module_id}/#"),
                other => panic!("unknown subscription {other}"),
            })
            .collect();
        if filters.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = filters.iter().map(|filter| json!({"filter": filter, "qos": 1})).collect();
        let bytes = self.encode(&json!({"type": "subscribe", "packet_id": 1, "filters": wanted}));
        self.send(actor, &bytes);
        let codes = vec![1; filters.len()];
        self.expect_packet(actor, &json!({"type": "suback", "packet_id": 1, "return_codes": codes}))
    }

    /// Encodes a packet as the vectors write it, names filled in.
    fn encode(&self, packet: &Value) -> Vec<u8> {
        let mut packet = packet.clone();
        if let Value::String(name) = &packet["packet_id"] {
            packet["packet_id"] =
                json!(self.bound(name).parse::<u16>().expect("a bound packet id is a number"));
        }
        if let Value::String(topic) = &packet["topic"] {
            packet["topic"] = json!(self.fill(topic));
        }
        packet_json::encode(&packet)
    }

    // --- a connection expects ---

    fn connection_expects(&mut self, actor: &str, step: &Value) -> Outcome {
        let link = self.connections[actor].cable.link();
        match word(&step["expect"]) {
            "packet" => self.expect_packet(actor, &step["packet"]),
            "packets_any_order" => {
                self.expect_any_order(actor, step["packets"].as_array().expect("packets is a list"))
            }
            "nothing" => {
                self.host.advance(millis(&step["for_ms"]));
                self.read(actor);
                let seen = &self.connections[actor].seen;
                require(seen.is_empty(), || format!("there is {seen:?}"))
            }
            "no_packet_of_type" => {
                self.host.advance(millis(&step["for_ms"]));
                self.read(actor);
                let prefix = step["topic_prefix"].as_str().unwrap_or_default();
                let found = self.connections[actor].seen.iter().find(|(packet, _)| {
                    packet["type"] == step["packet_type"]
                        && packet["topic"].as_str().unwrap_or_default().starts_with(prefix)
                });
                require(found.is_none(), || format!("there is {found:?}"))
            }
            "at_most" => {
                self.read(actor);
                let count = self.connections[actor]
                    .seen
                    .iter()
                    .filter(|(packet, _)| packet["type"] == step["packet_type"])
                    .count();
                require(count as u64 <= step["count"].as_u64().unwrap_or(0), || format!("there are {count}"))
            }
            "closed" => {
                self.read(actor);
                let seen = &self.connections[actor].seen;
                if step["before_any_packet"] == true && !seen.is_empty() {
                    return Err(format!("packets came first: {seen:?}"));
                }
                require(self.host.closed(link).is_some(), || "it is open".to_owned())
            }
            "not_closed" => {
                require(self.host.closed(link).is_none(), || format!("it is {:?}", self.host.closed(link)))
            }
            "alive" => {
                self.send(actor, &[0xC0, 0]);
                self.expect_packet(actor, &json!({"type": "pingresp"}))
            }
            other => Err(format!("unknown expectation {other}")),
        }
    }

    /// Decodes what the hub has sent.
    fn read(&mut self, actor: &str) {
        let connection = self.connections.get_mut(actor).expect("it is open");
        connection.unread.extend(connection.cable.receive(&mut self.host, || self.split.next()));
        let mut rest = connection.unread.as_slice();
        while let Decoded::Packet(packet) = decode(&mut rest, usize::MAX).expect("a hub sends MQTT") {
            connection.seen.push_back(write(&packet));
        }
        connection.unread = rest.to_vec();
    }

    fn expect_packet(&mut self, actor: &str, wanted: &Value) -> Outcome {
        self.read(actor);
        let connection = self.connections.get_mut(actor).expect("it is open");
        let Some(seen) = connection.seen.pop_front() else {
            return Err(format!(
                "no packet; the connection is {:?}",
                self.host.closed(connection.cable.link())
            ));
        };
        self.compare(actor, wanted, &seen)
    }

    fn expect_any_order(&mut self, actor: &str, wanted: &[Value]) -> Outcome {
        self.read(actor);
        for wanted in wanted {
            let seen = self.connections[actor].seen.clone();
            let at = (0..seen.len()).find(|at| self.compare(actor, wanted, &seen[*at]).is_ok());
            let at = at.ok_or_else(|| format!("no {wanted} in {seen:?}"))?;
            self.connections.get_mut(actor).expect("it is open").seen.remove(at);
        }
        Ok(())
    }

    fn compare(&mut self, actor: &str, wanted: &Value, (packet, body): &Seen) -> Outcome {
        let device = self.connections[actor].device.clone();
        let topic = packet["topic"].as_str().unwrap_or_default();
        let meaning = Identity::from_client_id(&device)
            .ok()
            .and_then(|identity| FromHub::parse(TopicName::new(topic).ok()?, identity).ok());
        for (member, value) in wanted.as_object().expect("a packet is an object") {
            let holds = match (member.as_str(), &meaning) {
                ("return_code_in", _) => {
                    value.as_array().is_some_and(|codes| codes.contains(&packet["return_code"]))
                }
                ("topic_kind", meaning) => matches!(
                    (word(value), meaning),
                    ("c2d", Some(FromHub::CloudMessage(_)))
                        | ("method_request", Some(FromHub::MethodRequest { .. }))
                        | ("desired_patch" | "desired", Some(FromHub::DesiredPatch { .. }))
                        | ("twin_response", Some(FromHub::TwinResponse { .. }))
                ),
                ("topic_has", Some(FromHub::CloudMessage(bag))) => value.as_object().is_some_and(|wanted| {
                    wanted.iter().all(|(name, wanted)| {
                        bag.iter().any(|(found, value)| found == *name && value.as_deref() == wanted.as_str())
                    })
                }),
                ("topic_prefix", _) => topic.starts_with(word(value)),
                ("topic_prefix_in", _) => {
                    value.as_array().is_some_and(|list| list.iter().any(|one| topic.starts_with(word(one))))
                }
                ("method", Some(FromHub::MethodRequest { method, .. })) => method == word(value),
                ("rid", Some(FromHub::MethodRequest { rid, .. })) => {
                    let rid = rid.as_str().to_owned();
                    self.bind(word(value), &rid)
                }
                ("packet_id", _) if value.is_string() => {
                    self.bind(word(value), &packet["packet_id"].to_string())
                }
                ("payload", _) => *body == payload(value),
                ("payload_json", _) => {
                    serde_json::from_slice::<Value>(body).is_ok_and(|found| found == *value)
                }
                (member, _) => packet[member] == *value,
            };
            require(holds, || {
                format!("{member} is not {value} in {packet} with body {:?}", String::from_utf8_lossy(body))
            })?;
        }
        Ok(())
    }

    // --- the service ---

    fn service_acts(&mut self, act: &str, step: &Value) -> Outcome {
        let device = step["device"].as_str().unwrap_or("dev1");
        let key = self.host.device(device);
        let now = self.host.now;
        match act {
            "c2d" => self.enqueue(device, word(&step["message_id"]), step),
            "c2d_many" => {
                let count = step["count"].as_u64().expect("count is a number");
                let prefix = step["prefix"].as_str().or(step["message_id_prefix"].as_str()).unwrap_or("m");
                for number in 1..=count {
                    self.enqueue(device, &format!("{prefix}{number}"), step);
                }
            }
            "invoke" => {
                let request = MethodRequest {
                    name: word(&step["method"]).to_owned(),
                    payload: step["payload"].as_str().map(str::to_owned),
                    response_timeout: Duration::from_secs(step["timeout_s"].as_u64().unwrap_or(30)),
                    connect_timeout: Duration::from_secs(step["connect_timeout_s"].as_u64().unwrap_or(0)),
                };
                let call = self.host.hub.invoke(now, key, request).map_err(|error| error.to_string());
                self.calls.insert(word(&step["call"]).to_owned(), call);
                self.host.settle();
            }
            "desired" => {
                let patch = step["patch"].as_object().cloned().expect("patch is an object");
                let update = TwinUpdate { desired: Some(Section::Patch(patch)), ..TwinUpdate::default() };
                let commit = self
                    .host
                    .hub
                    .update_twin(self.host.now, key, update)
                    .map_err(|error| error.to_string())?;
                self.host.commit(commit);
            }
            "disable_device" => {
                let commit =
                    self.host.hub.update_identity(self.host.now, key, |identity| identity.enabled = false);
                self.host.commit(commit.expect("the device is there"));
            }
            "delete_device" => {
                self.host.hub.remove(key).expect("the device is there");
                self.host.settle();
            }
            other => return Err(format!("unknown act {other}")),
        }
        Ok(())
    }

    fn enqueue(&mut self, device: &str, message_id: &str, step: &Value) {
        let properties = step["properties"].as_object().into_iter().flatten();
        let ttl = step["ttl_s"].as_u64().map(|ttl| self.host.unix_time().after(Duration::from_secs(ttl)));
        let message = CloudMessage {
            message_id: Some(message_id.to_owned()),
            expiry: ttl,
            ack: step["ack"].as_str().and_then(FeedbackRequest::parse),
            properties: properties
                .map(|(name, value)| (name.clone(), value.as_str().map(str::to_owned)))
                .collect(),
            payload: payload(&step["payload"]),
            ..CloudMessage::default()
        };
        let key = self.host.device(device);
        self.c2d_result = Some(match self.host.hub.enqueue(self.host.now, key, message) {
            Ok((sequence, commit)) => {
                self.messages.insert(message_id.to_owned(), (device.to_owned(), sequence));
                self.host.commit(commit);
                "enqueued"
            }
            Err(devicebound::hub::EnqueueError::QueueFull) => "queue_full",
            Err(_) => "refused",
        });
    }

    fn service_expects(&mut self, step: &Value) -> Outcome {
        match word(&step["expect"]) {
            "telemetry" => self.expect_telemetry(step),
            "no_telemetry" => {
                self.host.advance(millis(&step["for_ms"]));
                let found =
                    self.host.telemetry.iter().find(|message| {
                        step["device"].as_str().is_none_or(|device| message.client_id == device)
                    });
                require(found.is_none(), || format!("there is {found:?}"))
            }
            "c2d_result" => {
                require(self.c2d_result == step["result"].as_str(), || format!("it is {:?}", self.c2d_result))
            }
            "c2d_state" => {
                let (device, sequence) = &self.messages[word(&step["message_id"])];
                let waits = self.host.record(device).waiting().any(|waiting| waiting == *sequence);
                let waiting = matches!(word(&step["state"]), "enqueued" | "invisible");
                require(waits == waiting, || format!("waiting: {waits}"))
            }
            "twin" => {
                let twin = self.host.record(step["device"].as_str().unwrap_or("dev1")).twin();
                let same = |wanted: &Value, found: &Map<String, Value>| {
                    wanted.as_object().is_none_or(|wanted| wanted == found)
                };
                let version = step["reported_version"]
                    .as_u64()
                    .is_none_or(|version| version == twin.reported_version());
                let holds = same(&step["reported"], twin.reported())
                    && same(&step["desired"], twin.desired())
                    && version;
                require(holds, || format!("it is {twin:?}"))
            }
            "call_result" => self.expect_call(step),
            "connection_state" => {
                let device = self.host.device(step["device"].as_str().unwrap_or("dev1"));
                let connected = self.host.hub.is_connected(device);
                require(connected == (step["state"] == "connected"), || format!("connected: {connected}"))
            }
            other => Err(format!("unknown expectation {other}")),
        }
    }

    fn expect_telemetry(&mut self, step: &Value) -> Outcome {
        let wanted = payload(&step["payload"]);
        let client_id = match (step["device"].as_str(), step["module"].as_str()) {
            (Some(device), Some(module)) => Some(format!("{device}/{module}")),
            (device, _) => device.map(str::to_owned),
        };
        let matches = |message: &&devicebound_tests::hub_host::Stored| {
            let properties =
                step["properties"].as_object().into_iter().chain(step["system"].as_object()).flatten();
            (step["payload"].is_null() || message.payload == wanted)
                && client_id.as_ref().is_none_or(|client_id| message.client_id == *client_id)
                && properties.into_iter().all(|(name, value)| {
                    message
                        .properties
                        .iter()
                        .any(|(found, text)| found == name && text.as_deref() == value.as_str())
                })
        };
        let found = self.host.telemetry.iter().filter(matches).count();
        self.telemetry_read += found;
        let holds = step["count_in"].as_array().map_or(found > 0, |counts| counts.contains(&json!(found)));
        require(holds, || format!("found {found} times in {:?}", self.host.telemetry))
    }

    fn expect_call(&mut self, step: &Value) -> Outcome {
        let errors: Vec<&str> = match (&step["error"], &step["error_in"]) {
            (Value::String(error), _) => vec![error],
            (_, Value::Array(errors)) => errors.iter().map(word).collect(),
            _ => Vec::new(),
        };
        let error_of = |result: &CallResult| match result {
            CallResult::Answered { .. } => None,
            CallResult::Failed(devicebound::hub::CallFailure::NoAnswer) => Some("timeout"),
            CallResult::Failed(devicebound::hub::CallFailure::NotOnline) => Some("not_online"),
        };
        let call = &self.calls[word(&step["call"])];
        if !errors.is_empty() {
            let error = match call {
                Ok(call) => self.host.calls.get(call).and_then(error_of),
                Err(error) if error.contains("404103") => Some("not_online"),
                Err(error) => return Err(error.clone()),
            };
            return require(error.is_some_and(|error| errors.contains(&error)), || {
                format!("it is {error:?}")
            });
        }
        let call = call.clone()?;
        let Some(CallResult::Answered { status, payload }) = self.host.calls.get(&call) else {
            return Err(format!("it is {:?}", self.host.calls.get(&call)));
        };
        let body = serde_json::from_slice::<Value>(payload).unwrap_or(Value::Null);
        let holds = step["status"].as_i64().is_none_or(|wanted| wanted == i64::from(*status))
            && (step["payload_json"].is_null() || step["payload_json"] == body);
        require(holds, || format!("status {status}, body {body}"))
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
