//! What happens, row by row.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use devicebound::Rule;
use devicebound::device::{Credential, DeviceConfig, Message, RequestId};
use devicebound::iothub::Subscription;
use devicebound::iothub::sas::{self, SymmetricKey};
use devicebound::packet::{
    Connect, Credentials, PacketId, Publish, PublishQoS, QoS, Subscribe, Text, TopicFilter, TopicName, Will,
};
use devicebound::session::CloseReason;
use devicebound_blocking::{Socket as _, TlsSocket};
use serde_json::{Value, json};

use super::REPORT;
use super::actor::{Actor, Heard};
use super::backend::text;
use super::stage::{PATIENCE, Stage};
use crate::Failure;
use crate::clock::unix_time;

/// Long enough for a few bytes to go out.
const MOMENT: Duration = Duration::from_millis(20);

type NewActor<'a> = &'a dyn Fn(DeviceConfig) -> Result<Actor, Failure>;

/// Walks a device through every row.
pub(super) fn tell(
    stage: &mut Stage,
    id: &str,
    config: &DeviceConfig,
    new: NewActor<'_>,
) -> Result<(), Failure> {
    let mut actor = connect(stage, config, new)?;
    keep_alive(stage, &mut actor)?;
    telemetry(stage, id, &mut actor)?;
    cloud_messages_and_session(stage, id, config, new, &mut actor)?;
    twin(stage, id, &mut actor)?;
    methods(stage, id, &mut actor)?;
    let mut second = takeover(stage, config, new, &mut actor)?;
    second.disconnect();
    will_and_breaches(stage, id, config)?;
    operations(stage, id)
}

fn connect(stage: &mut Stage, config: &DeviceConfig, new: NewActor<'_>) -> Result<Actor, Failure> {
    stage.row("connect: client id, user name, SAS token");
    stage.say("a stranger has the device's name and a key of its own");
    let stranger = SymmetricKey::from_bytes(b"not the device's key");
    let wrong = DeviceConfig::new(config.host_name(), config.identity(), Credential::Key(stranger));
    let mut actor = new(wrong)?;
    let close = actor.hear("CONNACK 5", |heard| match heard {
        Heard::Closed(close) => Some(close),
        _ => None,
    })?;
    let refused = matches!(close.reason(), CloseReason::Refused(code, _) if code as u8 == 5);
    stage.prove(refused, "the stranger is refused with 5")?;

    stage.say("the device makes a token from its key, for an hour");
    let mut actor = new(config.clone())?;
    let session_present = connected(&mut actor)?;
    stage.prove(!session_present, "the device is connected; the hub had no session of it")?;
    Ok(actor)
}

fn connected(actor: &mut Actor) -> Result<bool, Failure> {
    actor.hear("CONNACK 0", |heard| match heard {
        Heard::Connected { session_present } => Some(session_present),
        _ => None,
    })
}

fn keep_alive(stage: &mut Stage, actor: &mut Actor) -> Result<(), Failure> {
    stage.row("keep alive: within 1.5 times of it, at most 1767 s, something must come");
    stage.say("the device asked for 1 s and has nothing to say");
    actor.pass(Duration::from_millis(1500));
    stage.see("──▶ PINGREQ")?;
    stage.proved("it pinged, so it is still connected");
    Ok(())
}

fn telemetry(stage: &mut Stage, id: &str, actor: &mut Actor) -> Result<(), Failure> {
    stage.row("telemetry: devices/{id}/messages/events/{properties}");
    let message = Message {
        content_type: Some("application/json"),
        content_encoding: Some("utf-8"),
        properties: &[("place", Some("Küche/links & oben"))],
        ..Message::new(br#"{"temperature":21.5}"#)
    };
    let ticket = actor.device().telemetry(message).map_err(defect)?;
    actor.hear("PUBACK", |heard| match heard {
        Heard::Acknowledged(acknowledged) => (acknowledged == ticket).then_some(()),
        _ => None,
    })?;
    stage.proved("the hub acknowledged it, which it does only once it is stored");
    let stored = stage.backend.telemetry(id)?;
    let arrived = stored.first().is_some_and(|line| text(line, "/properties/place") == "Küche/links & oben");
    stage.prove(arrived, "the back end reads it, property and all")
}

fn cloud_messages_and_session(
    stage: &mut Stage,
    id: &str,
    config: &DeviceConfig,
    new: NewActor<'_>,
    actor: &mut Actor,
) -> Result<(), Failure> {
    stage.row("cloud-to-device: a queue of 50, completed by PUBACK");
    subscribe(actor, Subscription::CloudMessages)?;
    stage.backend.send(id, "m1", "hello, device")?;
    let delivery = delivered(actor, "m1")?;
    let waiting = stage.backend.waiting(id)?;
    stage.prove(waiting == 1, "delivered, and still in the queue: the device has not completed it")?;
    actor.device().complete(delivery).map_err(defect)?;
    actor.pass(MOMENT);
    stage.look("the queue is empty", |backend| Ok((backend.waiting(id)? == 0).then_some(())))?;
    stage.proved("completed, and gone from the queue");

    stage.row("CleanSession 0: subscriptions and queue outlive the connection");
    actor.disconnect();
    stage.backend.send(id, "m2", "while you were away")?;
    stage.say("the device is away; a message waits for it");
    *actor = new(config.clone())?;
    let session_present = connected(actor)?;
    stage.prove(session_present, "the device is back: session present 1")?;
    let delivery = delivered(actor, "m2")?;
    stage.proved("the message came right behind CONNACK, without a new SUBSCRIBE");
    actor.device().complete(delivery).map_err(defect)?;
    actor.pass(MOMENT);
    Ok(())
}

fn subscribe(actor: &mut Actor, subscription: Subscription) -> Result<(), Failure> {
    actor.device().subscribe(subscription).map_err(defect)?;
    actor.hear("SUBACK", |heard| match heard {
        Heard::Subscribed(subscribed) => (subscribed == subscription).then_some(()),
        _ => None,
    })
}

fn delivered(actor: &mut Actor, wanted: &str) -> Result<devicebound::device::Delivery, Failure> {
    actor.hear(&format!("the cloud message {wanted}"), |heard| match heard {
        Heard::Delivered { message_id, body, delivery } => {
            (message_id == wanted && !body.is_empty()).then_some(delivery)
        }
        _ => None,
    })
}

fn twin(stage: &mut Stage, id: &str, actor: &mut Actor) -> Result<(), Failure> {
    stage.row("twin: GET, reported, desired, $version");
    let request = actor.device().report(br#"{"firmware":"1.1","old":1}"#, None).map_err(defect)?;
    let (status, version, _) = answer(actor, request)?;
    stage.prove(status == 204 && version == Some(2), "reported: 204, version 2")?;
    let request = actor.device().report(br#"{"old":null}"#, None).map_err(defect)?;
    answer(actor, request)?;
    let twin = stage.backend.twin(id)?;
    let reported = twin.pointer("/properties/reported");
    let merged = reported
        .is_some_and(|reported| text(reported, "/firmware") == "1.1" && reported.get("old").is_none());
    stage.prove(merged, "merged: null removed a property")?;
    let request = actor.device().report(br#"{"no.dots":1}"#, None).map_err(defect)?;
    let (status, _, body) = answer(actor, request)?;
    stage.prove(status == 400 && body.contains("errorCode"), "a name with a dot: 400, and why")?;

    stage.backend.patch_desired(id, &json!({"interval": 5}))?;
    actor.device().subscribe(Subscription::DesiredPatches).map_err(defect)?;
    actor.hear("the twin", |heard| match heard {
        Heard::Twin { document } => document.contains(r#""interval":5"#).then_some(()),
        _ => None,
    })?;
    stage.proved("following desired properties, the device reads the twin first");
    stage.backend.patch_desired(id, &json!({"interval": 10}))?;
    let (version, patch) = actor.hear("the change", |heard| match heard {
        Heard::Desired { version, patch } => Some((version, patch)),
        _ => None,
    })?;
    let patch: Value = serde_json::from_str(&patch).unwrap_or_default();
    let told = version == 3 && patch == json!({"interval": 10, "$version": 3});
    stage.prove(told, "then it hears of each change, with its version")
}

fn answer(actor: &mut Actor, wanted: RequestId) -> Result<(u16, Option<u64>, String), Failure> {
    actor.hear("the answer", |heard| match heard {
        Heard::Answered { request, status, version, body } => {
            (request == wanted).then_some((status, version, body))
        }
        _ => None,
    })
}

fn methods(stage: &mut Stage, id: &str, actor: &mut Actor) -> Result<(), Failure> {
    stage.row("direct methods: $rid brings call and answer together");
    let Err(refused) = stage.backend.invoke(id, "reboot", &Value::Null) else {
        return Err(Failure::new("a call succeeded that nobody subscribed to", REPORT));
    };
    stage.prove(refused.cause().contains("DeviceNotOnline"), "not subscribed: 404103 DeviceNotOnline")?;
    subscribe(actor, Subscription::Methods)?;
    let backend = &stage.backend;
    let outcome = std::thread::scope(|scope| {
        let call = scope.spawn(|| backend.invoke(id, "reboot", &json!({"delay": 1})));
        let (call_id, name, payload) = actor.hear("the call", |heard| match heard {
            Heard::Invoked { id, name, payload } => Some((id, name, payload)),
            _ => None,
        })?;
        let body = if name == "reboot" && payload == r#"{"delay":1}"# { r#"{"ok":true}"# } else { "null" };
        actor.device().respond(call_id, 200, body.as_bytes()).map_err(defect)?;
        while !call.is_finished() {
            actor.pass(MOMENT);
        }
        call.join().unwrap_or_else(|_| Err(Failure::new("the call panicked", REPORT)))
    })?;
    stage.prove(outcome == (200, json!({"ok": true})), "called with a payload, answered 200 with another")
}

fn takeover(
    stage: &mut Stage,
    config: &DeviceConfig,
    new: NewActor<'_>,
    first: &mut Actor,
) -> Result<Actor, Failure> {
    stage.row("takeover: one connection per identity, the new one wins");
    let mut second = new(config.clone())?;
    connected(&mut second)?;
    first.hear("the end of the first connection", |heard| match heard {
        Heard::Closed(_) => Some(()),
        _ => None,
    })?;
    first.device().disconnect(); // or it would come back and take over in its turn
    stage.proved("the second is connected, the first was closed");
    Ok(second)
}

/// What a client without rules does, written by hand, because the device machine would not do it.
fn will_and_breaches(stage: &mut Stage, id: &str, config: &DeviceConfig) -> Result<(), Failure> {
    stage.row("will: sent as telemetry when the connection ends without DISCONNECT");
    let own = format!("devices/{id}/messages/events/");
    let foreign = "devices/somebody-else/messages/events/";
    let mut lost = Client::connect(stage, id, config, Some(&own))?;
    lost.hang_up();
    let will = stage.look("the will arrived", |backend| {
        Ok(backend
            .telemetry(id)?
            .into_iter()
            .find(|line| text(line, "/properties/iothub-MessageType") == "Will"))
    })?;
    stage.prove(text(&will, "/deviceId") == id, "the will arrived, with iothub-MessageType = Will")?;

    stage.row("breaches: the hub closes, and says why");
    let id1 = PacketId::MIN;
    let qos1 = PublishQoS::AtLeastOnce { packet_id: id1, dup: false };
    let qos2 = PublishQoS::ExactlyOnce { packet_id: id1, dup: false };
    for (what, qos, topic, size, rule) in [
        ("QoS 2", qos2, own.as_str(), 1, Rule::PublishQos2),
        ("another device's topic", qos1, foreign, 1, Rule::ForeignIdentity),
        ("a topic that is not documented", qos1, "my/topic", 1, Rule::UnknownTopic),
        ("a message of more than 256 KB", qos1, &own, 262_145, Rule::MessageSize),
    ] {
        let mut client = Client::connect(stage, id, config, None)?;
        let topic = TopicName::new(topic).map_err(|rule| defect(rule.says()))?;
        let mut bytes = Vec::new();
        Publish { qos, retain: false, topic, payload: &vec![b'x'; size] }
            .encode(&mut bytes)
            .map_err(defect)?;
        client.send(&bytes)?;
        client.wait_for_end()?;
        stage.see(rule.id())?;
        stage.proved(what);
    }
    let mut client = Client::connect(stage, id, config, None)?;
    let mut bytes = Vec::new();
    let filter = TopicFilter::new("my/+/filter").map_err(|rule| defect(rule.says()))?;
    Subscribe::encode(id1, &[(filter, QoS::AtMostOnce)], &mut bytes).map_err(defect)?;
    client.send(&bytes)?;
    client.wait_for_end()?;
    stage.see(Rule::UnknownFilter.id())?;
    stage.proved("a filter that is not documented");
    Ok(())
}

fn operations(stage: &mut Stage, id: &str) -> Result<(), Failure> {
    stage.row("operations: each connection's begin and end, with the rule");
    let events = stage.backend.operations(id)?;
    let named = |operation: &str| events.iter().any(|event| text(event, "/operationName") == operation);
    stage.prove(named("deviceConnect") && named("deviceDisconnect"), "deviceConnect and deviceDisconnect")?;
    let ruled = events.iter().any(|event| text(event, "/rule") == Rule::ForeignIdentity.id());
    stage.prove(ruled, "a disconnect names its rule")
}

fn defect(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the device refuses: {error}"), REPORT)
}

/// A client that sends whatever it is told to.
struct Client {
    socket: TlsSocket,
}

impl Client {
    /// Connects as the device, with a token that is good for a minute.
    fn connect(
        stage: &Stage,
        id: &str,
        config: &DeviceConfig,
        will_topic: Option<&str>,
    ) -> Result<Self, Failure> {
        let Credential::Key(key) = config.credential() else {
            return Err(Failure::new("the device has no key", REPORT));
        };
        let host = config.host_name();
        let expiry = unix_time().after(Duration::from_secs(60));
        let token = sas::sign(&format!("{host}/devices/{id}"), key, expiry, None);
        let username = format!("{host}/{id}/?api-version=2021-04-12");
        let will = will_topic.map(TopicName::new).transpose().map_err(|rule| defect(rule.says()))?;
        let connect = Connect {
            clean_session: true,
            keep_alive: 60,
            client_id: Text::new(id).map_err(|rule| defect(rule.says()))?,
            will: will.map(|topic| Will { topic, message: b"gone", qos: QoS::AtLeastOnce, retain: false }),
            credentials: Some(Credentials {
                username: Text::new(&username).map_err(|rule| defect(rule.says()))?,
                password: Some(token.as_bytes()),
            }),
        };
        let mut bytes = Vec::new();
        connect.encode(&mut bytes).map_err(defect)?;
        let socket = TlsSocket::connect(host, &stage.tls()?).map_err(defect)?;
        let mut client = Self { socket };
        client.send(&bytes)?;
        match client.read()?.as_slice() {
            [0x20, 2, 0, 0] => Ok(client),
            other => Err(Failure::new(format!("this is no CONNACK 0: {other:02x?}"), REPORT)),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        let mut rest = bytes;
        while !rest.is_empty() && Instant::now() < end {
            match self.socket.write(rest) {
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(error) if is_idle(&error) => {}
                // The hub may close before it has read all of a message that is too large.
                Err(_) => return Ok(()),
            }
        }
        while Instant::now() < end {
            match self.socket.flush() {
                Err(error) if is_idle(&error) => {}
                Ok(()) | Err(_) => return Ok(()),
            }
        }
        Err(Failure::new("the hub does not read", REPORT))
    }

    /// What the hub sends next; nothing at its end.
    fn read(&mut self) -> Result<Vec<u8>, Failure> {
        let end = Instant::now() + PATIENCE;
        let mut room = [0; 64];
        while Instant::now() < end {
            // The TLS handshake goes on by reads and writes; what it has to say goes first.
            match self.socket.flush() {
                Err(error) if !is_idle(&error) => return Ok(Vec::new()),
                _ => {}
            }
            self.socket.set_read_timeout(Duration::from_millis(100)).map_err(defect)?;
            match self.socket.read(&mut room) {
                Ok(length) => return Ok(room.get(..length).unwrap_or_default().to_vec()),
                Err(error) if is_idle(&error) => {}
                Err(_) => return Ok(Vec::new()),
            }
        }
        Err(Failure::new("the hub does not answer", REPORT))
    }

    fn wait_for_end(&mut self) -> Result<(), Failure> {
        while !self.read()?.is_empty() {}
        Ok(())
    }

    fn hang_up(&mut self) {
        // It ends one way or the other.
        let _ = self.socket.shut_down();
    }
}

fn is_idle(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
