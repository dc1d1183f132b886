//! A device machine, its driver and its application.

use std::collections::{BTreeMap, VecDeque};

use devicebound::Device;
use devicebound::device::{
    Action, CallId, ConnectionState, Delivery, DeviceConfig, Event, Limits, Message, RequestId, Save, Timing,
    Wait,
};
use devicebound::packet::QoS;
use devicebound::time::{Instant, UnixTime};
use devicebound::{Close, iothub::Subscription};
use serde_json::{Map, Value};

use super::{Canary, Options};
use crate::fixtures;
use crate::station::Heard;

/// What the application will do.
#[derive(Clone, Debug)]
pub(super) enum Todo {
    Complete(Delivery, u64),
    Respond(CallId, String),
    /// The right credential has come.
    BringCredential,
}

/// What the application asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// The twin, when this version of the reported properties was known.
    Get { version: u64 },
    /// To merge this patch.
    Patch { number: u64 },
}

/// A device machine with its owner.
#[derive(Debug)]
pub(super) struct Thing {
    pub(super) identity: usize,
    pub(super) device: Device,
    /// The outbox as the application has written it down: after each message that the machine has taken over.
    pub(super) saved: Vec<u8>,
    follow: bool,
    /// Its connection, by number.
    pub(super) connection: Option<u64>,
    pub(super) rx: Vec<u8>,
    pub(super) tx: Vec<u8>,
    pub(super) reconnect_at: Option<Instant>,
    pub(super) todo: VecDeque<(Instant, Todo)>,
    pub(super) requests: BTreeMap<RequestId, Request>,
    /// The desired properties as the application knows them.
    pub(super) mirror: Option<(u64, Map<String, Value>)>,
    pub(super) paused_until: Instant,
    /// So long the hub's address does not answer it.
    pub(super) unanswered_until: Instant,
    /// When its attempt to connect is over.
    pub(super) gives_up_at: Option<Instant>,
    /// It is in this world for a while only.
    pub(super) is_rival: bool,
    /// It was switched off.
    pub(super) is_off: bool,
    pub(super) heard: Vec<Heard>,
    pub(super) closes: Vec<Close>,
    pub(super) config: DeviceConfig,
}

impl Thing {
    pub(super) fn new(identity: usize, number: usize, is_rival: bool, options: &Options) -> Self {
        let config = fixtures::config(&options.client_id(identity))
            .with_api_version(options.api_version)
            .with_keep_alive(options.keep_alive)
            .with_timing(Timing { token_lifetime: options.token, ..options.timing })
            .with_limits(Limits {
                tx_high_water: options.high_water,
                outbox_messages: options.outbox,
                ..Limits::default()
            })
            .with_outbox(options.outbox_policy)
            .with_requests(options.requests)
            .with_clean_session(options.clean)
            .with_will(&Message::new(format!("w{number}.0").as_bytes()), QoS::AtLeastOnce)
            .expect("a short will is a will");
        Self {
            identity,
            device: machine(&config, None, options.follow),
            saved: Vec::new(),
            follow: options.follow,
            connection: None,
            rx: Vec::new(),
            tx: Vec::new(),
            reconnect_at: Some(Instant::default()),
            todo: VecDeque::new(),
            requests: BTreeMap::new(),
            mirror: None,
            paused_until: Instant::default(),
            unanswered_until: Instant::default(),
            gives_up_at: None,
            is_rival,
            is_off: false,
            heard: Vec::new(),
            closes: Vec::new(),
            config,
        }
    }

    /// Writes the outbox down.
    pub(super) fn save(&mut self) {
        let mut written = Vec::new();
        match self.device.save(&mut written) {
            Save::Nothing => {}
            Save::Append => self.saved.extend(written),
            Save::Replace => self.saved = written,
        }
    }

    /// The process dies, and starts again with its config, and with what it has written down where that is `kept`.
    pub(super) fn restart(&mut self, kept: bool) {
        let saved = std::mem::take(&mut self.saved);
        let saved = Some(saved).filter(|saved| kept && !saved.is_empty());
        self.device = machine(&self.config, saved.as_deref(), self.follow);
        self.save();
        self.reconnect_at = Some(Instant::default());
        self.gives_up_at = None;
        self.todo.clear();
        self.requests.clear();
        self.mirror = None;
        self.rx.clear();
        self.tx.clear();
    }

    pub(super) fn is_online(&self) -> bool {
        self.device.status().connection == ConnectionState::Online
    }

    /// When it wants to be woken.
    pub(super) fn wake_at(&self, canary: Option<Canary>) -> Option<Instant> {
        if self.is_off {
            return None;
        }
        let timers = canary != Some(Canary::DeviceTimersIgnored);
        let deadline = self.device.poll_timeout().map(|deadline| deadline.at).filter(|_| timers);
        let todo = self.todo.iter().map(|(at, _)| *at).min();
        let reconnect = self.reconnect_at.filter(|_| self.connection.is_none());
        let at = [deadline, todo, reconnect, self.gives_up_at].into_iter().flatten().min()?;
        Some(at.max(self.paused_until))
    }

    /// A transport is open.
    pub(super) fn opened(&mut self, now: Instant, jitter: u32, unix_time: UnixTime) {
        self.rx.clear();
        self.reconnect_at = None;
        self.event(now, Event::Opened { jitter, unix_time });
    }

    /// Tells the machine, then pulls.
    pub(super) fn event(&mut self, now: Instant, event: Event<'_, 'static>) {
        match self.device.handle(now, event, &mut self.tx) {
            Ok(action) => self.take(now, &action),
            Err(close) => self.closes.push(close),
        }
        self.pull(now);
    }

    /// Pulls until the machine waits. A close is noted in `closes`.
    pub(super) fn pull(&mut self, now: Instant) {
        let rx = std::mem::take(&mut self.rx);
        let mut rest = rx.as_slice();
        loop {
            match self.device.handle(now, Event::Received(&mut rest), &mut self.tx) {
                Ok(action) => {
                    self.take(now, &action);
                    if matches!(action, Action::Wait(_)) {
                        break;
                    }
                }
                Err(close) => {
                    if self.closes.is_empty() {
                        self.closes.push(close);
                    }
                    break;
                }
            }
        }
        self.rx = rest.to_vec();
    }

    fn take(&mut self, now: Instant, action: &Action<'_>) {
        if let Action::Wait(wait) = action {
            self.reconnect_at = match wait {
                Wait::Connect { after } => Some(now.after(*after)),
                Wait::Nothing => self.reconnect_at, // it is the application that will connect again
                Wait::Read { .. } | Wait::Flush => None,
            };
        }
        self.heard.extend(Heard::of(action));
    }
}

fn machine(config: &DeviceConfig, saved: Option<&[u8]>, follow: bool) -> Device {
    let device = match saved {
        Some(saved) => Device::restore(config, saved).map_err(|error| error.to_string()),
        None => Device::new(config.clone()).map_err(|error| error.to_string()),
    };
    let mut device = device.expect("the config is good, and what was saved is whole");
    let (now, mut tx) = (Instant::default(), Vec::new());
    // Modules have no cloud messages, and the device knows what it is.
    let is_module = config.identity().module_id().is_some();
    let messages = (!is_module).then_some(Subscription::CloudMessages);
    for subscription in messages.into_iter().chain([Subscription::Methods, Subscription::DesiredPatches]) {
        device.subscribe(now, subscription, &mut tx).expect("an offline device takes every subscription");
    }
    if follow {
        device.follow_desired(now, &mut tx).expect("an offline device takes every subscription");
    }
    device
}
