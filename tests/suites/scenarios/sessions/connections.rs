//! What a connection does and what it is to see.

use std::collections::VecDeque;
use std::time::Duration;

use devicebound::iothub::Identity;
use devicebound::iothub::sas::{SymmetricKey, sign};
use devicebound::iothub::topic::FromHub;
use devicebound::packet::{Connect, Credentials, Decoded, Text, TopicName, Will, decode};
use devicebound::time::UnixTime;
use devicebound_testkit::packet_json::{self, Seen, payload, qos, seen as write};
use devicebound_world::Cable;
use devicebound_world::fixtures::{HOST, KEYS};
use devicebound_world::vectors::{self, Members, word};
use serde_json::{Value, json};

use super::{Harness, Outcome, millis, require};

/// A connection, and what it has seen that was not asked for yet.
pub(super) struct Connection {
    cable: Cable,
    device: String,
    unread: Vec<u8>,
    seen: VecDeque<Seen>,
}

impl Harness {
    pub(super) fn connection_acts(&mut self, actor: &str, act: &str, step: &Members<'_>) -> Outcome {
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

    fn connect(&mut self, actor: &str, step: &Members<'_>) {
        let device = word(&step["device"]).to_owned();
        let client_id = step["client_id"].as_str().unwrap_or(&device);
        let username = format!("{HOST}/{device}/?api-version=2021-04-12");
        let username = Text::new(&username).expect("the vectors' user names are text");
        let password = self.password(&device, step);
        let will = step["will"].is_object().then(|| {
            let members = Members::of(&step["will"]);
            let will = Will {
                topic: TopicName::new(word(members.get("topic")))
                    .expect("the vectors' will topics are topics"),
                message: members.get("payload").as_str().unwrap_or_default().as_bytes(),
                qos: qos(&members["qos"]),
                retain: members["retain"].as_bool().expect("retain is a boolean"),
            };
            members.all_read();
            will
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

    fn password(&self, device: &str, step: &Members<'_>) -> Option<Vec<u8>> {
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

    fn online(&mut self, actor: &str, step: &Members<'_>) -> Outcome {
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

    pub(super) fn connection_expects(&mut self, actor: &str, step: &Members<'_>) -> Outcome {
        let link = self.connections[actor].cable.link();
        step.get("within_ms"); // what is due happens at once under virtual time
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
                let packet_type = &step["packet_type"];
                let found = self.connections[actor].seen.iter().find(|(packet, _)| {
                    packet["type"] == *packet_type
                        && packet["topic"].as_str().unwrap_or_default().starts_with(prefix)
                });
                require(found.is_none(), || format!("there is {found:?}"))
            }
            "at_most" => {
                self.read(actor);
                let packet_type = &step["packet_type"];
                let count = self.connections[actor]
                    .seen
                    .iter()
                    .filter(|(packet, _)| packet["type"] == *packet_type)
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
}
