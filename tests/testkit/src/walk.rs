//! A walk through the dialect, the same for every adapter: what the application does when it hears something.

use devicebound::device::{Action, Message, Timing};
use devicebound::iothub::Subscription;
use devicebound::{CloseReason, Device};
use devicebound_blocking::{Machine, Offline};
use serde_json::{Value, json};
use std::time::Duration;

use crate::drive::Drive;
use devicebound_world::fixtures;

/// The hub's service side, as the walk needs it. The device is `dev`.
pub trait Service {
    /// Queues a cloud message.
    fn send(&mut self, payload: &str);
    /// Patches the desired properties.
    fn patch_desired(&mut self, patch: Value);
    /// Calls a direct method.
    fn invoke(&mut self, name: &str, payload: Value);
    /// Cuts the connection without a word.
    fn cut(&mut self);
}

/// What an application hears that takes the whole [`Walk`], in order.
pub const WALK: [&str; 17] = [
    "connected, session present: false",
    "acknowledged 1",
    "subscribed CloudMessages",
    "delivered cloud",
    "acknowledged 2",
    "answered 200",
    "answered 204",
    "subscribed DesiredPatches",
    r#"twin, desired version 1, "reported":{"on":true"#,
    r#"desired version 2, "interval":60"#,
    "subscribed Methods",
    r#"invoked restart "now""#,
    "acknowledged 3",
    "connected, session present: true",
    r#"twin, desired version 2, "reported":{"on":true"#,
    "acknowledged 4",
    "disconnected",
];

/// The bodies of the telemetry of a walk, in order.
pub const TELEMETRY: [&str; 4] = ["first", "cloud", "before the cut", "after the cut"];

/// An application on its walk.
#[derive(Debug)]
pub struct Walk<S> {
    /// The hub's service side.
    pub service: S,
    /// What was heard, but for the words about the cut, which differ with the moment at which it is noticed.
    pub heard: Vec<String>,
}

/// The device `dev` of the hub at `host_name`, which connects again at once.
///
/// # Panics
/// When `host_name` is none.
#[must_use]
pub fn device(host_name: &str) -> Device {
    let [reconnect_min, reconnect_max] = [1, 10].map(Duration::from_millis);
    let timing = Timing { reconnect_min, reconnect_max, ..Timing::default() };
    let config = fixtures::config_at(host_name, "dev").with_timing(timing);
    Device::new(config).expect("the config is good")
}

impl<S: Service> Walk<S> {
    /// Walks through the whole of it.
    ///
    /// # Panics
    /// When the device refuses a step.
    #[must_use]
    pub fn of(mut client: impl Drive, service: S) -> Self {
        let mut walk = Self::begin(service, client.device());
        client.drive(|device, next| {
            walk.hear(device, next);
            false
        });
        walk
    }

    /// An application that has sent its first telemetry message, before there is a connection.
    fn begin(service: S, device: &mut Machine) -> Self {
        telemetry(device, TELEMETRY[0].as_bytes());
        Self { service, heard: Vec::new() }
    }

    /// Hears something, and takes the next step.
    ///
    /// # Panics
    /// When the device refuses a step.
    fn hear(&mut self, device: &mut Machine, next: Result<Action<'_>, Offline>) {
        let heard = match next {
            Ok(Action::Connected { session_present }) => {
                format!("connected, session present: {session_present}")
            }
            Ok(Action::Acknowledged(ticket)) => {
                let ticket = ticket.to_string();
                self.acknowledged(device, &ticket);
                format!("acknowledged {ticket}")
            }
            Ok(Action::Subscribed(subscription)) => {
                match subscription {
                    Subscription::CloudMessages => self.service.send(TELEMETRY[1]),
                    Subscription::Methods => self.service.invoke("restart", json!("now")),
                    Subscription::TwinResponses => return,
                    _ => {}
                }
                format!("subscribed {subscription:?}")
            }
            Ok(Action::Deliver(message, delivery)) => {
                // While the message lives: it borrows the received bytes, not the device.
                telemetry(device, message.payload);
                device.complete(delivery).expect("the delivery is open");
                format!("delivered {}", text(message.payload))
            }
            Ok(Action::Answered(answer)) => {
                match answer.status {
                    200 => drop(device.report(br#"{"on":true}"#, None).expect("the device is connected")),
                    _ => device.subscribe(Subscription::DesiredPatches).expect("there is room"),
                }
                format!("answered {}", answer.status)
            }
            Ok(Action::Twin(twin)) => {
                match twin.version {
                    1 => self.service.patch_desired(json!({"interval": 60})),
                    _ => telemetry(device, TELEMETRY[3].as_bytes()),
                }
                let reported = r#""reported":{"on":true"#;
                assert!(text(twin.document).contains(reported), "{}", text(twin.document));
                format!("twin, desired version {}, {reported}", twin.version)
            }
            Ok(Action::Desired { version, patch }) => {
                device.subscribe(Subscription::Methods).expect("there is room");
                let interval = r#""interval":60"#;
                assert!(text(&patch).contains(interval), "{}", text(&patch));
                format!("desired version {version}, {interval}")
            }
            Ok(Action::Invoke(call)) => {
                device.respond(call.id, 200, call.payload).expect("the call is open");
                telemetry(device, TELEMETRY[2].as_bytes());
                format!("invoked {} {}", call.name, text(call.payload))
            }
            Ok(other) => format!("{other:?}"),
            Err(Offline::Closed(close)) if close.reason() == CloseReason::Disconnected => {
                "disconnected".to_owned()
            }
            Err(Offline::Closed(close)) if close.reason() != CloseReason::Lost => close.to_string(),
            Err(_) => return,
        };
        self.heard.push(heard);
    }

    fn acknowledged(&mut self, device: &mut Machine, ticket: &str) {
        match ticket {
            "1" => device.subscribe(Subscription::CloudMessages).expect("there is room"),
            "2" => drop(device.get_twin().expect("the device is connected")),
            "3" => self.service.cut(),
            _ => device.disconnect(),
        }
    }
}

fn telemetry(device: &mut Machine, payload: &[u8]) {
    device.telemetry(Message::new(payload)).expect("there is room in the outbox");
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("all bodies of the walk are text")
}
