//! A device of the demo, on either adapter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use devicebound::device::{Action, CallId, Delivery, DeviceConfig, RequestId, Ticket};
use devicebound::iothub::{Subscription, SystemProperty};
use devicebound::session::Close;
use devicebound::{CloseReason, Device};
use devicebound_blocking::{Machine, Offline, Tls, TlsSocket};
use tokio::runtime::Handle;

use super::REPORT;
use super::stage::PATIENCE;
use crate::Failure;

/// What the device's application hears, with nothing borrowed.
#[derive(Debug)]
pub(super) enum Heard {
    Connected { session_present: bool },
    Subscribed(Subscription),
    Delivered { message_id: String, body: String, delivery: Delivery },
    Twin { document: String },
    Desired { version: u64, patch: String },
    Invoked { id: CallId, name: String, payload: String },
    Answered { request: RequestId, status: u16, version: Option<u64>, body: String },
    Acknowledged(Ticket),
    Closed(Close),
    Other,
}

/// A device with its application, which does one thing at a time.
pub(super) struct Actor {
    client: Client,
    heard: VecDeque<Heard>,
}

enum Client {
    Blocking(Box<devicebound_blocking::Client<TlsSocket>>),
    Tokio(Box<devicebound_tokio::Client<devicebound_tokio::TlsSocket>>, Handle),
}

impl Actor {
    pub(super) fn blocking(config: DeviceConfig, tls: Tls) -> Result<Self, Failure> {
        let client = Box::new(devicebound_blocking::Client::new(device(config)?, tls));
        Ok(Self { client: Client::Blocking(client), heard: VecDeque::new() })
    }

    pub(super) fn tokio(config: DeviceConfig, tls: Tls, handle: Handle) -> Result<Self, Failure> {
        let client = Box::new(devicebound_tokio::Client::new(device(config)?, tls));
        Ok(Self { client: Client::Tokio(client, handle), heard: VecDeque::new() })
    }

    /// The device, to ask for something.
    pub(super) fn device(&mut self) -> &mut Machine {
        match &mut self.client {
            Client::Blocking(client) => client.device(),
            Client::Tokio(client, _) => client.device(),
        }
    }

    /// Waits until the application hears something that `pick` takes; all else passes by.
    pub(super) fn hear<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(Heard) -> Option<T>,
    ) -> Result<T, Failure> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            while let Some(heard) = self.heard.pop_front() {
                if let Some(picked) = pick(heard) {
                    return Ok(picked);
                }
            }
            self.go_on(end.saturating_duration_since(Instant::now()));
        }
        Err(Failure::new(format!("the device did not hear of it: {what}"), REPORT))
    }

    /// Lets the device go on for this time; what the application hears is kept for [`hear`](Self::hear).
    pub(super) fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.go_on(end.saturating_duration_since(Instant::now()));
        }
    }

    /// Lets the device go on until the application has something to hear.
    fn go_on(&mut self, at_most: Duration) {
        match &mut self.client {
            // What it says of the application's disconnecting is heard as Closed.
            Client::Blocking(client) => drop(client.wait_timeout(at_most)),
            Client::Tokio(client, handle) => {
                let wait = async { tokio::time::timeout(at_most, client.wait()).await };
                drop(handle.block_on(wait));
            }
        }
        self.take();
    }

    /// Says DISCONNECT.
    pub(super) fn disconnect(&mut self) {
        match &mut self.client {
            Client::Blocking(client) => client.close(),
            Client::Tokio(client, handle) => handle.block_on(client.close()),
        }
    }

    fn take(&mut self) {
        let (device, mut incoming) = match &mut self.client {
            Client::Blocking(client) => client.split(),
            Client::Tokio(client, _) => client.split(),
        };
        while let Some(next) = incoming.next(device) {
            self.heard.push_back(heard(next));
        }
    }
}

fn device(config: DeviceConfig) -> Result<Device, Failure> {
    Device::new(config)
        .map_err(|error| Failure::new(format!("no device can be made from the config: {error}"), REPORT))
}

fn heard(next: Result<Action<'_>, Offline>) -> Heard {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match next {
        Err(Offline::Closed(close)) => Heard::Closed(close),
        Err(Offline::Transport(_)) => Heard::Closed(Close::new(CloseReason::Lost)),
        Ok(Action::Connected { session_present }) => Heard::Connected { session_present },
        Ok(Action::Subscribed(subscription)) => Heard::Subscribed(subscription),
        Ok(Action::Deliver(message, delivery)) => {
            let message_id = message.system(SystemProperty::MessageId).unwrap_or_default().into_owned();
            Heard::Delivered { message_id, body: text(message.payload), delivery }
        }
        Ok(Action::Twin(twin)) => Heard::Twin { document: text(twin.document) },
        Ok(Action::Desired { version, patch }) => Heard::Desired { version, patch: text(&patch) },
        Ok(Action::Invoke(call)) => {
            Heard::Invoked { id: call.id, name: call.name.into_owned(), payload: text(call.payload) }
        }
        Ok(Action::Answered(answer)) => Heard::Answered {
            request: answer.request,
            status: answer.status,
            version: answer.version,
            body: text(answer.body),
        },
        Ok(Action::Acknowledged(ticket)) => Heard::Acknowledged(ticket),
        Ok(_) => Heard::Other,
    }
}
