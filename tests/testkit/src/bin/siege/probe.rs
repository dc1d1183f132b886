//! A device that behaves, beside each fault: QoS 1 telemetry ten times a second, and an answer to a method each second.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use devicebound::Device;
use devicebound::device::{Action, DeviceConfig, Message, Ticket};
use devicebound::iothub::Subscription;
use devicebound_testkit::interop::Service;
use devicebound_tokio::{Client, Tls, TlsSocket};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::ground::Ground;
use crate::report::{Millis, Report, Times};
use crate::{Outcome, Siege};

/// Telemetry ten times a second.
const PACE: Duration = Duration::from_millis(100);
/// A call each second.
const CALLS: Duration = Duration::from_secs(1);
/// What the probe is called.
const ID: &str = "probe";
/// Once stopped, it waits so long for what it is still owed.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// The 99th percentile of the time to a PUBACK that no fault may push a probe over.
pub(crate) const P99: Duration = Duration::from_millis(50);
/// The share of its messages that a flood must leave a probe, in percent.
pub(crate) const SHARE: u64 = 90;

/// A probe that runs.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    device: JoinHandle<Outcome<Findings>>,
    back_end: JoinHandle<Outcome<Calls>>,
}

/// How the device fared.
#[derive(Debug, Default)]
struct Findings {
    elapsed: Duration,
    acknowledged: Times,
    /// Why it lost its connection, each time.
    offline: Vec<String>,
}

/// How the calls of its method fared.
#[derive(Debug, Default)]
struct Calls {
    answered: Times,
    failed: Vec<String>,
}

impl Probe {
    /// Registers the device, and comes back once it is online.
    pub(crate) fn start(ground: &Ground) -> Outcome<Self> {
        let identity = ground.device(ID)?;
        let id = identity.id.clone();
        let config = DeviceConfig::from_connection_string(&identity.connection_string())?;
        let tls = Tls::with_authorities_file(&ground.ca)?.with_port(ground.door.address().port());
        let client = Client::new(Device::new(config)?, tls);
        let stop = Arc::new(AtomicBool::new(false));
        let (online, is_online) = oneshot::channel();
        let device = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(Talk::new(client).run(&stop, online))
            }
        });
        is_online.blocking_recv().map_err(|_| "the probe could not connect")?;
        let back_end = thread::spawn({
            let (stop, service) = (Arc::clone(&stop), ground.service.clone());
            move || call(&id, &service, &stop)
        });
        Ok(Self { stop, device, back_end })
    }

    /// Ends it, and reports how it fared: its messages were acknowledged as fast as ever.
    pub(crate) fn unaffected(self, siege: &Siege, report: &mut Report) -> Outcome {
        self.finish(Some(siege.within(P99)), report)
    }

    /// The same for a fault that takes all there is of the machine: its messages were acknowledged, however long that took.
    pub(crate) fn served(self, report: &mut Report) -> Outcome {
        self.finish(None, report)
    }

    fn finish(self, p99: Option<Duration>, report: &mut Report) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut found = self.device.join().map_err(|_| "the probe broke down")??;
        let mut calls = self.back_end.join().map_err(|_| "the probe's back end broke down")??;
        let due = (found.elapsed.as_millis() / PACE.as_millis()).max(1) as u64;
        let share = found.acknowledged.len() as u64 * 100 / due;
        let acknowledged = &mut found.acknowledged;
        match p99 {
            Some(bound) => report.at_most("probe: PUBACK p99", acknowledged.at(0.99), bound),
            None => report.note("probe: PUBACK p99", Millis(acknowledged.at(0.99))),
        }
        let (median, longest) = (Millis(acknowledged.median()), Millis(acknowledged.longest()));
        report.note("probe: PUBACK median, longest", format!("{median}, {longest}"));
        report.check(
            "probe: of its 10 messages/s acknowledged",
            format!("{share} %"),
            format!("{SHARE} %"),
            share >= SHARE,
        );
        let lost = found.offline.join("; ");
        report.check("probe: connections lost", found.offline.len(), format!("none {lost}"), lost.is_empty());
        let failed = calls.failed.join("; ");
        let answered = format!("{} (median {})", calls.answered.len(), Millis(calls.answered.median()));
        report.check("probe: method calls answered", answered, format!("all {failed}"), failed.is_empty());
        Ok(())
    }
}

/// The device's side.
struct Talk {
    client: Client<TlsSocket>,
    open: HashMap<Ticket, Instant>,
    found: Findings,
    online: bool,
}

impl Talk {
    fn new(client: Client<TlsSocket>) -> Self {
        Self { client, open: HashMap::new(), found: Findings::default(), online: false }
    }

    async fn run(mut self, stop: &AtomicBool, online: oneshot::Sender<()>) -> Outcome<Findings> {
        self.client.device().subscribe(Subscription::Methods)?;
        while !self.online {
            self.client.wait().await;
            self.hear();
        }
        // Whoever waited for it is there: it blocks until this.
        let _ = online.send(());
        let begun = Instant::now();
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !stop.load(Ordering::Relaxed) {
            tokio::select! {
                _ = self.client.wait() => self.hear(),
                _ = pace.tick() => {
                    // An outbox that is full counts as a message that was not acknowledged.
                    if let Ok(ticket) = self.client.device().telemetry(Message::new(b"still here")) {
                        self.open.insert(ticket, Instant::now());
                    }
                }
            }
        }
        self.found.elapsed = begun.elapsed();
        let last = tokio::time::Instant::now() + LAST_WAIT;
        while !self.open.is_empty() && tokio::time::timeout_at(last, self.client.wait()).await.is_ok() {
            self.hear();
        }
        self.client.close().await;
        Ok(self.found)
    }

    fn hear(&mut self) {
        let mut calls = Vec::new();
        let (device, mut incoming) = self.client.split();
        while let Some(next) = incoming.next(device) {
            match next {
                Ok(Action::Acknowledged(ticket)) => {
                    if let Some(sent) = self.open.remove(&ticket) {
                        self.found.acknowledged.add(sent.elapsed());
                    }
                }
                Ok(Action::Subscribed(_)) => self.online = true,
                Ok(Action::Invoke(call)) => calls.push(call.id),
                Ok(_) => {}
                Err(offline) => self.found.offline.push(offline.to_string()),
            }
        }
        drop(incoming);
        for call in calls {
            // An answer that has no room is a call that fails, which the back end counts.
            let _ = self.client.device().respond(call, 200, b"{}");
        }
    }
}

/// The back end's side.
fn call(id: &str, service: &Service, stop: &AtomicBool) -> Outcome<Calls> {
    let mut calls = Calls::default();
    let path = format!("/twins/{id}/methods");
    let body = br#"{"methodName": "ping", "payload": {}, "responseTimeoutInSeconds": 10}"#;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match service.try_post(&path, body) {
            Ok((200, _)) => calls.answered.add(begun.elapsed()),
            Ok((status, text)) => calls.failed.push(format!("{status} {text}")),
            Err(error) => calls.failed.push(error.to_string()),
        }
        thread::sleep(CALLS.saturating_sub(begun.elapsed()));
    }
    Ok(calls)
}
