//! A device under load: it sends bursts of telemetry, completes cloud messages when it likes, and reports properties.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use devicebound::Device;
use devicebound::device::{ConfigError, Delivery, DeviceConfig, Message, RequestId, Ticket, Timing};
use devicebound::iothub::Subscription;
use devicebound_tokio::{Client, Offline, Tls, TlsError, TlsSocket};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::ledger::{Violation, violation};
use super::shared::Account;
use devicebound_world::station::Heard;
use devicebound_world::{Entropy as _, Seeded};

/// Messages of one burst.
const BURST: u32 = 8;
/// Longest pause between two bursts.
const PAUSE_MS: u32 = 200;
/// So many messages may wait for their acknowledgement; the device sends all of them at once.
const OPEN_MAX: usize = 16;
/// A hub that was killed is looked for at once.
const RECONNECT: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// A device with its application.
#[derive(Debug)]
pub(super) struct KillDevice {
    shared: Arc<Shared>,
    account: Account,
    client: Client<TlsSocket>,
    port: Arc<AtomicU16>,
    choices: Seeded,
    online: bool,
    /// Grows with each connection.
    connection: u64,
    tickets: VecDeque<(Ticket, u64)>,
    /// Cloud messages that the application has and has not completed, in the order of receipt.
    held: VecDeque<Held>,
    /// Cloud messages whose PUBACK was sent on this connection, and not known to have been taken.
    completed: Vec<u64>,
    report: Option<Report>,
}

#[derive(Debug)]
struct Held {
    number: u64,
    delivery: Delivery,
    connection: u64,
}

/// A report that waits for its answer.
#[derive(Debug)]
struct Report {
    id: RequestId,
    /// Cloud messages that are known to be completed once it is answered.
    proves: Vec<u64>,
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the names say it")]
pub(super) enum NoDevice {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The body of telemetry.
#[must_use]
pub(super) fn body(device_id: &str, number: u64) -> String {
    let filler = usize::try_from(number * 37 % 400).unwrap_or_default();
    format!("{device_id} {number} {:.>filler$}", "")
}

/// The number in the body of telemetry, if it is one that [`body`] has made, whole.
#[must_use]
pub(super) fn number(device_id: &str, text: &str) -> Option<u64> {
    let number = text.split(' ').nth(1)?.parse().ok()?;
    (text == body(device_id, number)).then_some(number)
}

impl KillDevice {
    /// A device of the hub that trusts the certificate authority of `shared`.
    ///
    /// # Errors
    /// When the connection string or the authority is not usable.
    pub(super) fn new(
        shared: &Arc<Shared>,
        account: Account,
        connection_string: &str,
        choices: Seeded,
    ) -> Result<Self, NoDevice> {
        let [soon, late] = RECONNECT;
        let timing = Timing {
            reconnect_min: soon,
            reconnect_max: late,
            refused_min: soon,
            refused_max: late,
            ..Timing::default()
        };
        let config = DeviceConfig::from_connection_string(connection_string)?.with_timing(timing);
        let tls = Tls::with_authorities_file(&shared.ca)?;
        let port = Arc::<AtomicU16>::default();
        let current = Arc::clone(&port);
        let client = Client::over(Device::new(config)?, move |host| {
            let tls = tls.clone().with_port(current.load(Ordering::Relaxed));
            Box::pin(TlsSocket::connect(host.to_owned(), tls))
        });
        Ok(Self {
            shared: Arc::clone(shared),
            account,
            client,
            port,
            choices,
            online: false,
            connection: 0,
            tickets: VecDeque::new(),
            held: VecDeque::new(),
            completed: Vec::new(),
            report: None,
        })
    }

    /// Works whenever there is a hub, until there will be none any more.
    ///
    /// # Errors
    /// What the hub did that must not be.
    pub(super) async fn run(mut self) -> Result<(), Violation> {
        let shared = Arc::clone(&self.shared);
        let subscribed = self.client.device().subscribe(Subscription::CloudMessages);
        subscribed.map_err(|error| Violation(error.to_string()))?;
        loop {
            let hub = shared.hub.read().await;
            let Some(hub) = &*hub else { return Ok(()) };
            self.port.store(hub.mqtt_port, Ordering::Relaxed);
            self.until_lost().await.map_err(|what| self.account.accuse(&what))?;
        }
    }

    async fn until_lost(&mut self) -> Result<(), Violation> {
        let mut next_burst = Instant::now();
        loop {
            tokio::select! {
                _ = self.client.wait() => if self.hear()? {
                    return Ok(());
                },
                () = sleep_until(next_burst) => {
                    next_burst = Instant::now() + Duration::from_millis(self.choices.below(PAUSE_MS).into());
                    self.send();
                }
            }
            if self.online {
                self.complete()?;
                self.report();
            }
        }
    }

    /// Takes all there is; true if the connection is lost.
    fn hear(&mut self) -> Result<bool, Violation> {
        let (machine, mut incoming) = self.client.split();
        let mut heard = Vec::new();
        while let Some(next) = incoming.next(machine) {
            heard.push(next.map(|action| Heard::of(&action)));
        }
        drop(incoming);
        let mut lost = false;
        for next in heard {
            match next {
                Ok(Some(heard)) => self.heard(heard)?,
                Ok(None) => {}
                Err(offline) => {
                    lost = true;
                    self.lost(&offline);
                }
            }
        }
        Ok(lost)
    }

    fn heard(&mut self, heard: Heard) -> Result<(), Violation> {
        let mut ledger = self.account.lock();
        match heard {
            Heard::Connected { session_present } => {
                (self.online, self.connection) = (true, self.connection + 1);
                ledger.connected(session_present)?;
            }
            Heard::Subscribed(_) => ledger.subscribed(),
            Heard::Acknowledged(ticket) => {
                let place = self.tickets.iter().position(|(waiting, _)| *waiting == ticket);
                if let Some((_, number)) = place.and_then(|place| self.tickets.remove(place)) {
                    ledger.note(format!("PUBACK of telemetry {number}"));
                    ledger.telemetry.acknowledged(number, self.shared.start.elapsed());
                }
            }
            Heard::Delivered { payload, delivery, .. } => {
                let number = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok());
                let Some(number) = number else { return violation("a cloud message that nobody sent") };
                ledger.note(format!("cloud message {number} delivered"));
                ledger.cloud.delivered(number)?;
                self.held.push_back(Held { number, delivery, connection: self.connection });
            }
            Heard::Answered { request, status, version, body } => {
                let report = self.report.take_if(|report| report.id == request);
                match (status, version) {
                    (204, Some(version)) => {
                        let proves = report.map(|report| report.proves).unwrap_or_default();
                        ledger.note(format!("report answered with version {version}; completed: {proves:?}"));
                        ledger.reported.accepted(version)?;
                        ledger.cloud.known_completed(&proves);
                    }
                    _ => return violation(format!("a report was answered with {status} {body}")),
                }
            }
            Heard::Failed(request, why) => {
                ledger.note(format!("report not answered: {why}"));
                self.report.take_if(|report| report.id == request);
            }
            other => return violation(format!("the device hears {other:?}")),
        }
        Ok(())
    }

    fn lost(&mut self, why: &Offline) {
        self.online = false;
        self.report = None;
        self.completed.clear();
        self.account.lock().note(format!("offline: {why}"));
        self.shared.lost(why);
    }

    fn send(&mut self) {
        if !self.online || self.shared.is_draining() {
            return;
        }
        for _ in 0..=self.choices.below(BURST) {
            let mut ledger = self.account.lock();
            if ledger.telemetry.open() >= OPEN_MAX {
                break;
            }
            let number = ledger.telemetry.send();
            ledger.note(format!("telemetry {number} sent"));
            let body = body(&ledger.device_id, number);
            if let Ok(ticket) = self.client.device().telemetry(Message::new(body.as_bytes())) {
                self.tickets.push_back((ticket, number));
            }
        }
    }

    /// Completes some of what is held, the oldest first: PUBACKs leave in that order.
    fn complete(&mut self) -> Result<(), Violation> {
        while !self.held.is_empty() && (self.shared.is_draining() || self.choices.one_in(2)) {
            let Some(held) = self.held.pop_front() else { break };
            // Where the hub has delivered it again, this delivery is over, and the later one is completed.
            if self.client.device().complete(held.delivery).is_ok() {
                let mut ledger = self.account.lock();
                ledger.note(format!("cloud message {} completed", held.number));
                ledger.cloud.completed(held.number);
                // That of an earlier connection is acknowledged when the hub sends the message again.
                if held.connection == self.connection {
                    self.completed.push(held.number);
                }
            }
        }
        Ok(())
    }

    fn report(&mut self) {
        let wanted =
            if self.shared.is_draining() { !self.completed.is_empty() } else { self.choices.one_in(4) };
        if self.report.is_some() || !wanted {
            return;
        }
        let mut ledger = self.account.lock();
        let Some(patch) = ledger.reported.change() else { return };
        let patch = Value::Object(patch).to_string();
        match self.client.device().report(patch.as_bytes(), None) {
            Ok(id) => {
                ledger.note(format!("report {patch}"));
                self.report = Some(Report { id, proves: std::mem::take(&mut self.completed) });
            }
            Err(_) => ledger.reported.refused(),
        }
    }
}
