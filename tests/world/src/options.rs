//! What a run is like.

use devicebound::iothub::API_VERSION;
use std::fmt;
use std::time::Duration;

use devicebound::device::{OutboxPolicy, RequestPolicy, Timing};
use devicebound::hub::Tier;

use super::{Entropy, REST};

/// What happens in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Step {
    Nothing,
    Telemetry,
    TelemetryAtMostOnce,
    CloudMessage,
    Report,
    GetTwin,
    Desired,
    Call,
    Disconnect,
    Cut,
    HalfOpen,
    Stall,
    DeviceCrash,
    DevicePause,
    HubCrash,
    HubRestart,
    HubPause,
    RejectCommit,
    WallStep,
    Rival,
    /// The back end empties a device's queue.
    Purge,
    /// The registry disables a device, or enables it again.
    Disable,
    /// The hub's owner lets something go wrong for a device.
    Inject,
    /// A peer that is no device comes.
    Guest,
    /// The hub sends what no hub sends.
    WrongHub,
    /// The next PUBACK for a device is lost between the hub and the device, and nothing else is.
    SwallowPubAck,
    /// A device's credential is wrong for a while; then its application brings the right one.
    LateCredential,
    /// The address of the hub does not answer for a while: attempts to connect come to nothing, slowly.
    Unanswered,
}

impl Step {
    /// What an application, or a back end, does.
    pub const WORK: [Self; 8] = [
        Self::Telemetry,
        Self::TelemetryAtMostOnce,
        Self::CloudMessage,
        Self::Report,
        Self::GetTwin,
        Self::Desired,
        Self::Call,
        Self::Disconnect,
    ];
    /// What goes wrong.
    pub const FAULTS: [Self; 19] = [
        Self::Cut,
        Self::HalfOpen,
        Self::Stall,
        Self::DeviceCrash,
        Self::DevicePause,
        Self::HubCrash,
        Self::HubRestart,
        Self::HubPause,
        Self::RejectCommit,
        Self::WallStep,
        Self::Rival,
        Self::Purge,
        Self::Disable,
        Self::Inject,
        Self::Guest,
        Self::WrongHub,
        Self::SwallowPubAck,
        Self::LateCredential,
        Self::Unanswered,
    ];
}

/// Times that let a run come to rest soon. The longest way back: the keep alive and the time for a PINGRESP or a
/// CONNACK, then a delay, then a CONNACK.
const QUICK: Timing = Timing {
    connack: Duration::from_secs(15),
    ping_response: Duration::from_secs(10),
    request: Duration::from_secs(20),
    puback: Duration::from_secs(30),
    token_lifetime: Duration::from_secs(3600),
    token_warning: Duration::from_secs(600),
    renewal_patience: Duration::from_secs(5),
    reconnect_min: Duration::from_secs(1),
    reconnect_max: Duration::from_secs(20),
    refused_min: Duration::from_secs(5),
    refused_max: Duration::from_secs(20),
};

/// What a run is like. [`calm`](Self::calm) is a world in which nothing takes time and nothing goes wrong;
/// [`draw`](Self::draw) takes a random one, in which only some of the faults occur: so rare ones are not drowned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Identities.
    pub devices: usize,
    /// Longest time between two steps.
    pub pace: Duration,
    /// Longest time that bytes are on their way.
    pub delay: Duration,
    /// A read is cut short once in so many times; 0: never.
    pub split: u32,
    /// Bytes that a reader takes before it has read any.
    pub window: usize,
    /// Bytes of output that nobody takes, from which on hub and devices send nothing more.
    pub high_water: usize,
    /// Longest time that the hub's store takes.
    pub store: Duration,
    /// Longest time that applications take to complete a message, or to answer a call.
    pub application: Duration,
    /// Keep alive, in seconds.
    pub keep_alive: u16,
    /// Life of a SAS token; counts in place of the one in `timing`.
    pub token: Duration,
    /// How long things take the devices.
    pub timing: Timing,
    /// Whether sessions start clean.
    pub clean: bool,
    /// Telemetry messages that a device holds.
    pub outbox: usize,
    /// What a device does with telemetry beyond that.
    pub outbox_policy: OutboxPolicy,
    /// What becomes of requests that wait for their answer when the connection ends.
    pub requests: RequestPolicy,
    /// Whether devices keep the desired properties merged.
    pub follow: bool,
    /// The tier whose rates hold.
    pub tier: Option<Tier>,
    /// Whether every delivery of a cloud message that comes to nothing counts, and [so many](Self::DELIVERIES) are too many.
    pub every_delivery_counts: bool,
    /// Whether all identities are modules, which have no cloud messages.
    pub modules: bool,
    /// The api-version that devices ask for.
    pub api_version: &'static str,
    /// One step in so many is a fault; 0: none.
    pub fault: u32,
    /// Which faults there are.
    pub faults: Vec<Step>,
}

impl Options {
    /// Deliveries of a cloud message, where every one counts: few enough that most runs get there.
    pub const DELIVERIES: u32 = 3;

    /// How often a cloud message is delivered over connections that end, where that is bounded.
    pub(super) fn deliveries(&self) -> Option<u32> {
        self.every_delivery_counts.then_some(Self::DELIVERIES)
    }

    /// The client id of an identity, the module included.
    pub(super) fn client_id(&self, identity: usize) -> String {
        let device_id = client_id(identity);
        if self.modules { device_id + "/mod" } else { device_id }
    }

    /// Nothing takes time, nothing goes wrong.
    #[must_use]
    pub const fn calm(devices: usize) -> Self {
        Self {
            devices,
            pace: Duration::ZERO,
            delay: Duration::ZERO,
            split: 0,
            window: 1 << 20,
            high_water: 1 << 16,
            store: Duration::ZERO,
            application: Duration::ZERO,
            keep_alive: 60,
            token: Duration::from_secs(3600),
            timing: QUICK,
            clean: false,
            outbox: 1024,
            outbox_policy: OutboxPolicy::Reject,
            requests: RequestPolicy::Fail,
            follow: false,
            tier: None,
            every_delivery_counts: false,
            modules: false,
            api_version: API_VERSION,
            fault: 0,
            faults: Vec::new(),
        }
    }

    /// The longest time to rest: [`REST`], and before it the time that it takes a device to find out that a connection
    /// is dead. The fault list allows 60 s in all, which no device with a keep alive of 60 s can promise: it may have
    /// pinged just before the hub went.
    #[must_use]
    pub fn rest(&self) -> Duration {
        REST + Duration::from_secs(self.keep_alive.into()) + self.timing.ping_response
    }

    /// A random world; of `devices` identities, or of 1 to 5.
    pub fn draw(entropy: &mut dyn Entropy, devices: Option<usize>) -> Self {
        let mut pick = |values: &[u64]| {
            let index = entropy.below(u32::try_from(values.len()).unwrap_or(1));
            values[usize::try_from(index).unwrap_or(0)]
        };
        let millis = Duration::from_millis;
        let drawn = usize::try_from(pick(&[1, 2, 3, 4, 5])).unwrap_or(1);
        let mut options = Self {
            devices: devices.unwrap_or(drawn),
            pace: millis(pick(&[20, 300, 3000, 12_000])),
            delay: millis(pick(&[0, 10, 200, 3000, 30_000])),
            split: u32::try_from(pick(&[0, 1, 2, 5])).unwrap_or(0),
            window: usize::try_from(pick(&[1 << 20, 4096, 512, 64, 7])).unwrap_or(1),
            high_water: usize::try_from(pick(&[1 << 16, 1024, 256])).unwrap_or(1),
            store: millis(pick(&[0, 5, 300, 10_000])),
            application: millis(pick(&[0, 100, 5000, 60_000])),
            keep_alive: u16::try_from(pick(&[60, 5, 20])).unwrap_or(60),
            token: millis(pick(&[3_600_000, 60_000])),
            timing: QUICK,
            clean: pick(&[0, 0, 1]) == 1,
            outbox: usize::try_from(pick(&[1024, 40, 3])).unwrap_or(1),
            outbox_policy: [OutboxPolicy::Reject, OutboxPolicy::DropOldest][usize::from(pick(&[0, 1]) == 1)],
            requests: [RequestPolicy::Fail, RequestPolicy::Resend][usize::from(pick(&[0, 1]) == 1)],
            follow: pick(&[0, 1]) == 1,
            tier: [None, Some(Tier::S1)][usize::from(pick(&[0, 0, 1]) == 1)],
            every_delivery_counts: false,
            modules: false,
            api_version: API_VERSION,
            fault: u32::try_from(pick(&[4, 2, 10, 30])).unwrap_or(4),
            faults: Vec::new(),
        };
        options.faults = Step::FAULTS.into_iter().filter(|_| entropy.one_in(2)).collect();
        options.every_delivery_counts = entropy.one_in(3);
        options
    }
}

/// The device id of an identity.
pub(super) fn client_id(identity: usize) -> String {
    format!("dev{identity}")
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, pace, delay, split, window, high_water, store, application, keep_alive, .. } =
            self;
        write!(f, "{devices} devices, a step every {pace:?} at most, delay to {delay:?}, split 1/{split}, ")?;
        write!(
            f,
            "window {window}, high water {high_water}, store to {store:?}, application to {application:?}, "
        )?;
        write!(f, "keep alive {keep_alive} s, token {:?}, clean {}, ", self.token, self.clean)?;
        write!(f, "outbox {} {:?}, requests {:?}, ", self.outbox, self.outbox_policy, self.requests)?;
        write!(f, "follow {}, tier {:?}, ", self.follow, self.tier)?;
        write!(f, "every delivery counts {}, ", self.every_delivery_counts)?;
        write!(f, "fault 1/{}: {:?}", self.fault, self.faults)
    }
}
