//! The thermostat of the examples: all that is the same however it is connected. Like the device machine it does no I/O: it
//! hears what came, and says what it wants done.

mod options;

use std::time::{Duration, Instant};

use devicebound::Device;
use devicebound::device::{Action, CallId, DeviceConfig, Message};
use devicebound::iothub::Subscription;
use serde_json::{Value, json};

pub(crate) use options::Options;

/// The model that it implements, in DTDL (IoT Plug and Play).
const MODEL_ID: &str = "dtmi:com:example:Thermostat;1";
/// What it listens to.
pub(crate) const SUBSCRIPTIONS: [Subscription; 2] = [Subscription::DesiredPatches, Subscription::Methods];

/// A room with a heater.
#[derive(Debug)]
pub(crate) struct Thermostat {
    id: String,
    says_it: bool,
    interval: Duration,
    next_reading: Instant,
    /// Readings that are still to be made; `None` for no end.
    left: Option<u32>,
    /// Readings that the hub does not have yet.
    unacknowledged: u32,
    temperature: f64,
    target: f64,
    since_reboot: Readings,
}

#[derive(Debug, Default)]
struct Readings {
    count: u32,
    min: f64,
    max: f64,
    sum: f64,
}

/// What a thermostat wants of its device.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Report these properties.
    Report(String),
    /// Answer this call with this status and payload.
    Respond(CallId, i32, String),
    /// Disconnect: it was the last.
    Disconnect,
}

/// The device of a connection string, and its thermostat.
pub(crate) fn install(
    connection_string: &str,
    options: &Options,
) -> Result<(Device, Thermostat), Box<dyn std::error::Error>> {
    let config = DeviceConfig::from_connection_string(connection_string)?.with_model_id(MODEL_ID);
    let thermostat = Thermostat {
        id: config.identity().to_string(),
        says_it: !options.quiet,
        interval: Duration::from_secs_f64(options.interval),
        next_reading: Instant::now(),
        left: options.count,
        unacknowledged: 0,
        temperature: 20.0,
        target: 21.0,
        since_reboot: Readings::default(),
    };
    Ok((Device::new(config)?, thermostat))
}

impl Thermostat {
    /// When the next reading is due; `None` when there will be none.
    pub(crate) fn next_reading(&self) -> Option<Instant> {
        (self.left != Some(0)).then_some(self.next_reading)
    }

    /// The next reading, if it is due: the body of a telemetry message.
    pub(crate) fn read(&mut self) -> Option<String> {
        let now = Instant::now();
        if self.next_reading()? > now {
            return None;
        }
        self.next_reading = now + self.interval;
        self.left = self.left.map(|left| left - 1);
        self.unacknowledged += 1;
        self.temperature += (self.target - self.temperature) / 10.0;
        self.since_reboot.add(self.temperature);
        self.say(&format!("it is {:.1} °C", self.temperature));
        Some(json!({"temperature": self.temperature}).to_string())
    }

    /// Hears what came.
    pub(crate) fn hear(&mut self, action: &Action<'_>) -> Vec<Wish> {
        match action {
            Action::Connected { session_present } => {
                self.say(if *session_present { "online again" } else { "online" });
            }
            Action::Twin(twin) => {
                let document: Value = serde_json::from_slice(twin.document).unwrap_or_default();
                return self.follow(&document["desired"], twin.version);
            }
            Action::Desired { version, patch } => {
                let patch: Value = serde_json::from_slice(patch).unwrap_or_default();
                return self.follow(&patch, *version);
            }
            Action::Invoke(call) => {
                self.say(&format!("{} was called", call.name));
                return match &*call.name {
                    "getMaxMinReport" => {
                        vec![Wish::Respond(call.id, 200, self.since_reboot.report().to_string())]
                    }
                    // Whoever watches over the program starts it again.
                    "reboot" => vec![Wish::Respond(call.id, 200, "{}".to_owned()), Wish::Disconnect],
                    _ => vec![Wish::Respond(call.id, 404, json!({"error": "no such method"}).to_string())],
                };
            }
            Action::Answered(answer) if answer.is_success() => self.say("reported"),
            Action::Answered(answer) => self.say(&format!("not reported: status {}", answer.status)),
            Action::Failed(_, failure) => self.say(&format!("not reported: {failure}")),
            Action::Acknowledged(_) => {
                self.unacknowledged -= 1;
                if self.left == Some(0) && self.unacknowledged == 0 {
                    self.say("all readings have arrived");
                    return vec![Wish::Disconnect];
                }
            }
            _ => {}
        }
        Vec::new()
    }

    /// Hears that there is no connection, and why.
    pub(crate) fn hear_offline(&self, why: &dyn std::fmt::Display) {
        self.say(&format!("offline: {why}"));
    }

    /// Hears that a wish cannot be granted.
    pub(crate) fn hear_refused(&self, why: &dyn std::fmt::Display) {
        self.say(&format!("refused: {why}"));
    }

    /// Hears that a reading is not taken, such as when the hub is away for so long that nothing more can be kept for it.
    pub(crate) fn hear_reading_refused(&mut self, why: &dyn std::fmt::Display) {
        self.unacknowledged -= 1;
        self.hear_refused(why);
    }

    /// Heats to the desired temperature, and reports it in the form of IoT Plug and Play.
    fn follow(&mut self, desired: &Value, version: u64) -> Vec<Wish> {
        let Some(target) = desired["targetTemperature"].as_f64() else { return Vec::new() };
        self.target = target;
        self.say(&format!("heats to {target:.1} °C"));
        let report = json!({"targetTemperature": {"value": target, "ac": 200, "av": version}});
        vec![Wish::Report(report.to_string())]
    }

    fn say(&self, text: &str) {
        if self.says_it {
            println!("{}: {text}", self.id);
        }
    }
}

impl Readings {
    fn add(&mut self, temperature: f64) {
        (self.min, self.max) = match self.count {
            0 => (temperature, temperature),
            _ => (self.min.min(temperature), self.max.max(temperature)),
        };
        self.count += 1;
        self.sum += temperature;
    }

    fn report(&self) -> Value {
        let average = self.sum / f64::from(self.count.max(1));
        json!({"maxTemp": self.max, "minTemp": self.min, "avgTemp": average})
    }
}

/// A reading as a telemetry message.
pub(crate) fn message(reading: &str) -> Message<'_> {
    Message {
        content_type: Some("application/json"),
        content_encoding: Some("utf-8"),
        ..Message::new(reading.as_bytes())
    }
}
