//! A device with its driver, without sockets, joined to a [`HubHost`] by two byte pipes.

use std::time::Duration;

use devicebound::device::{
    Action, CallId, CertificateFailure, Delivery, DeviceConfig, DropReason, Event, Message, RequestFailure,
    RequestId, Ticket, Wait,
};
use devicebound::hub::LinkId;
use devicebound::iothub::{CertificateChain, Subscription, SystemProperty};
use devicebound::{Close, Device};

use crate::hub_host::HubHost;

/// What a device's application hears, with nothing borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of devicebound::device::Action")]
pub enum Heard {
    Connected {
        session_present: bool,
    },
    Subscribed(Subscription),
    SubscriptionRefused(Subscription),
    Unsubscribed(Subscription),
    Delivered {
        message_id: Option<String>,
        properties: Vec<(String, Option<String>)>,
        payload: Vec<u8>,
        dup: bool,
        delivery: Delivery,
    },
    Twin {
        version: u64,
        document: String,
    },
    Desired {
        version: u64,
        patch: String,
    },
    Invoked {
        id: CallId,
        name: String,
        payload: String,
    },
    Answered {
        request: RequestId,
        status: u16,
        version: Option<u64>,
        body: String,
    },
    Failed(RequestId, RequestFailure),
    Acknowledged(Ticket),
    Dropped(Ticket, DropReason),
    CertificateDue,
    CertificateIssued(Box<CertificateChain>),
    CertificateFailed(CertificateFailure),
    TokenExpires {
        after: Duration,
    },
    Closed(Close),
}

impl Heard {
    /// What an action tells the application, if anything.
    #[must_use]
    pub fn of(action: &Action<'_>) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(match action {
            Action::Wait(_) | Action::Handled => return None,
            Action::Connected { session_present } => Self::Connected { session_present: *session_present },
            Action::Subscribed(subscription) => Self::Subscribed(*subscription),
            Action::SubscriptionRefused(subscription) => Self::SubscriptionRefused(*subscription),
            Action::Unsubscribed(subscription) => Self::Unsubscribed(*subscription),
            Action::Deliver(message, delivery) => Self::Delivered {
                message_id: message.system(SystemProperty::MessageId).map(|id| id.into_owned()),
                properties: message
                    .application()
                    .map(|(name, value)| (name.into_owned(), value.map(|value| value.into_owned())))
                    .collect(),
                payload: message.payload.to_vec(),
                dup: message.dup,
                delivery: *delivery,
            },
            Action::Twin(twin) => Self::Twin { version: twin.version, document: text(twin.document) },
            Action::Desired { version, patch } => Self::Desired { version: *version, patch: text(patch) },
            Action::Invoke(call) => {
                Self::Invoked { id: call.id, name: call.name.to_string(), payload: text(call.payload) }
            }
            Action::Answered(answer) => Self::Answered {
                request: answer.request,
                status: answer.status,
                version: answer.version,
                body: text(answer.body),
            },
            Action::Failed(request, failure) => Self::Failed(*request, *failure),
            Action::Acknowledged(ticket) => Self::Acknowledged(*ticket),
            Action::Dropped(ticket, reason) => Self::Dropped(*ticket, *reason),
            Action::CertificateDue => Self::CertificateDue,
            Action::CertificateIssued(chain) => Self::CertificateIssued(chain.clone()),
            Action::CertificateFailed(failure) => Self::CertificateFailed(failure.clone()),
            &Action::TokenExpires { after } => Self::TokenExpires { after },
        })
    }
}

/// A device in a test: its machine, its transport, and what its application has heard.
#[derive(Debug)]
pub struct Station {
    /// The machine.
    pub device: Device,
    /// All that the application has heard.
    pub heard: Vec<Heard>,
    /// The transport, if there is one.
    pub link: Option<LinkId>,
    /// Whether a transport can be had.
    pub network: bool,
    rx: Vec<u8>,
    tx: Vec<u8>,
    reconnect_at: Option<devicebound::time::Instant>,
}

impl Station {
    /// A device that is offline, on a good network.
    ///
    /// # Panics
    /// When no device can be made from the config.
    #[must_use]
    pub fn new(config: DeviceConfig) -> Self {
        let device = Device::new(config).expect("the tests' configs are good");
        Self {
            device,
            heard: Vec::new(),
            link: None,
            network: true,
            rx: Vec::new(),
            tx: Vec::new(),
            reconnect_at: None,
        }
    }

    /// Opens a transport, and lets both sides talk until they have nothing to say.
    pub fn connect(&mut self, hub: &mut HubHost) {
        self.link = Some(hub.open());
        self.rx.clear();
        self.reconnect_at = None;
        let event = Event::Opened { jitter: 1, unix_time: hub.unix_time() };
        self.event(hub, event);
        self.talk(hub);
    }

    /// The transport breaks without a word.
    pub fn cut(&mut self, hub: &mut HubHost) {
        if let Some(link) = self.link.take() {
            hub.hang_up(link);
            self.event(hub, Event::Closed);
        }
    }

    /// Carries bytes to and fro until neither side has anything to say.
    pub fn talk(&mut self, hub: &mut HubHost) {
        self.pull(hub);
        while let Some(link) = self.link {
            let out = std::mem::take(&mut self.tx);
            if !out.is_empty() {
                hub.receive(link, &out);
            }
            let arrived = hub.take_output(link);
            if out.is_empty() && arrived.is_empty() {
                if hub.closed(link).is_some() {
                    self.link = None;
                    self.event(hub, Event::Closed);
                }
                return;
            }
            self.rx.extend(arrived);
            self.pull(hub);
        }
    }

    /// Sends telemetry.
    ///
    /// # Panics
    /// When the machine refuses.
    pub fn telemetry(&mut self, hub: &mut HubHost, message: Message<'_>) -> Ticket {
        let ticket =
            self.device.telemetry(hub.now, message, &mut self.tx).expect("there is room in the outbox");
        self.talk(hub);
        ticket
    }

    /// Asks for a subscription.
    ///
    /// # Panics
    /// When the machine refuses.
    pub fn subscribe(&mut self, hub: &mut HubHost, subscription: Subscription) {
        self.device.subscribe(hub.now, subscription, &mut self.tx).expect("few subscriptions are open");
        self.talk(hub);
    }

    /// Calls the machine for the application, then lets both sides talk.
    pub fn command<T>(
        &mut self,
        hub: &mut HubHost,
        command: impl FnOnce(&mut Device, &mut Vec<u8>) -> T,
    ) -> T {
        let result = command(&mut self.device, &mut self.tx);
        self.talk(hub);
        result
    }

    /// Bytes that the machine wants to send next, for tests that hold them back.
    pub fn unsent(&mut self) -> &mut Vec<u8> {
        &mut self.tx
    }

    /// What was heard since the last call.
    pub fn take_heard(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.heard)
    }

    /// When this device wants to be woken: a deadline, or time to connect.
    #[must_use]
    pub fn wake_at(&self) -> Option<devicebound::time::Instant> {
        let deadline = self.device.poll_timeout().map(|deadline| deadline.at);
        [deadline, self.reconnect_at.filter(|_| self.network)].into_iter().flatten().min()
    }

    /// Does what is due at the present time.
    pub fn wake(&mut self, hub: &mut HubHost) {
        if self.device.poll_timeout().is_some_and(|deadline| deadline.at <= hub.now) {
            self.event(hub, Event::TimedOut);
        }
        if self.network && self.link.is_none() && self.reconnect_at.is_some_and(|at| at <= hub.now) {
            self.connect(hub);
        }
        self.talk(hub);
    }

    fn pull(&mut self, hub: &mut HubHost) {
        let rx = std::mem::take(&mut self.rx);
        let mut rest = rx.as_slice();
        loop {
            match self.device.handle(hub.now, Event::Received(&mut rest), &mut self.tx) {
                Ok(Action::Wait(wait)) => {
                    self.waits(hub, wait);
                    break;
                }
                Ok(action) => self.hear(&action),
                Err(close) => {
                    self.closed(hub, close);
                    return;
                }
            }
        }
        self.rx = rest.to_vec();
    }

    fn event(&mut self, hub: &mut HubHost, event: Event<'_, 'static>) {
        match self.device.handle(hub.now, event, &mut self.tx) {
            Ok(Action::Wait(wait)) => self.waits(hub, wait),
            Ok(action) => self.hear(&action),
            Err(close) => self.closed(hub, close),
        }
        if self.link.is_none() {
            self.pull(hub);
        }
    }

    fn waits(&mut self, hub: &HubHost, wait: Wait) {
        self.reconnect_at = match wait {
            Wait::Connect { after } => Some(hub.now.after(after)),
            _ => None,
        };
    }

    fn closed(&mut self, hub: &mut HubHost, close: Close) {
        if self.heard.last() != Some(&Heard::Closed(close)) {
            self.heard.push(Heard::Closed(close));
        }
        let out = std::mem::take(&mut self.tx);
        if let Some(link) = self.link.take() {
            hub.receive(link, &out);
            hub.hang_up(link);
        }
        match self.device.handle(hub.now, Event::Closed, &mut self.tx) {
            Ok(Action::Wait(wait)) => self.waits(hub, wait),
            Ok(action) => self.hear(&action),
            Err(_) => {}
        }
        self.rx.clear();
    }

    fn hear(&mut self, action: &Action<'_>) {
        self.heard.extend(Heard::of(action));
    }
}

/// Moves time on for a hub and its devices, from one deadline to the next.
pub fn advance(hub: &mut HubHost, stations: &mut [&mut Station], by: Duration) {
    let end = hub.now.after(by);
    loop {
        let wakes = stations.iter().filter_map(|station| station.wake_at());
        let hubs = hub.hub.poll_timeout().map(|deadline| deadline.at);
        let next = wakes.chain(hubs).min().filter(|at| *at <= end).unwrap_or(end);
        hub.advance(next.since(hub.now));
        for station in stations.iter_mut() {
            station.wake(hub);
        }
        if next >= end {
            return;
        }
    }
}
