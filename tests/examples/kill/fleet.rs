//! Devices that work, each on a thread of its own, and a back end that sends them messages.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use devicebound::Device;
use devicebound::device::{Action, DeviceConfig, Message, RequestId, Ticket, Timing};
use devicebound::iothub::{Subscription, SystemProperty};
use devicebound_blocking::{Client, Machine, Tls};

use crate::hub::{Hub, Service};

/// Telemetry that a device has under way.
const WINDOW: usize = 8;
/// Cloud messages under way for all devices: few enough that no queue is ever full.
const CLOUD_MESSAGES: u64 = 100;
/// A device looks this often whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// A reported property that the hub has confirmed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) number: u64,
    pub(crate) version: u64,
}

pub(crate) struct Fleet {
    ledgers: Vec<Arc<Mutex<Ledger>>>,
    back_end: Arc<Mutex<Service>>,
    accepted: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What one device and the back end know of each other.
#[derive(Default)]
struct Ledger {
    device_id: String,
    /// Telemetry that the hub has, since the last look.
    acknowledged: Vec<u64>,
    confirmed: Report,
    /// How many were.
    reports: u64,
    /// Cloud messages that the hub has taken.
    accepted: HashSet<String>,
    /// Those that came.
    delivered: HashSet<String>,
    /// Those of which the hub knows for sure that they are done: an update behind the PUBACK was confirmed.
    completed: HashSet<String>,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    pub(crate) fn start(hub: &Hub, count: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let back_end = Arc::new(Mutex::new(hub.service()));
        let accepted = Arc::new(AtomicU64::new(0));
        let mut ledgers = Vec::new();
        let mut threads = Vec::new();
        for index in 0..count {
            let device_id = format!("device-{index}");
            let connection_string = hub.register(&device_id);
            let tls = Tls::with_authorities_file(&hub.ca)
                .unwrap_or_else(|error| panic!("the hub's authority: {error}"));
            let ledger = Arc::new(Mutex::new(Ledger { device_id, ..Ledger::default() }));
            let device = Working::new(&connection_string, tls.with_port(hub.mqtt), Arc::clone(&ledger));
            let is_over = Arc::clone(&is_over);
            threads.push(thread::spawn(move || device.work(&is_over)));
            ledgers.push(ledger);
        }
        let (all, service, count, over) =
            (ledgers.clone(), Arc::clone(&back_end), Arc::clone(&accepted), Arc::clone(&is_over));
        threads.push(thread::spawn(move || send_messages(&all, &service, &count, &over)));
        Self { ledgers, back_end, accepted, is_over, threads }
    }

    /// The hub is another process now.
    pub(crate) fn meet(&self, hub: &Hub) {
        *lock(&self.back_end) = hub.service();
        let failed = self.threads.iter().any(JoinHandle::is_finished);
        assert!(!failed, "a device has found a fault: see above");
    }

    /// Telemetry that was acknowledged since the last look.
    pub(crate) fn take_acknowledged(&self) -> Vec<(String, Vec<u64>)> {
        let take = |ledger: &Arc<Mutex<Ledger>>| {
            let mut ledger = lock(ledger);
            (ledger.device_id.clone(), std::mem::take(&mut ledger.acknowledged))
        };
        self.ledgers.iter().map(take).collect()
    }

    /// The last update of each device that was confirmed.
    pub(crate) fn confirmed(&self) -> Vec<(String, Report)> {
        let confirmed = |ledger: &Arc<Mutex<Ledger>>| {
            let ledger = lock(ledger);
            (ledger.device_id.clone(), ledger.confirmed)
        };
        self.ledgers.iter().map(confirmed).collect()
    }

    /// Cloud messages of each device that were accepted and have not come yet.
    pub(crate) fn undelivered(&self) -> Vec<HashSet<String>> {
        let undelivered = |ledger: &Arc<Mutex<Ledger>>| {
            let mut ledger = lock(ledger);
            let Ledger { accepted, delivered, .. } = &mut *ledger;
            accepted.retain(|message| !delivered.contains(message));
            accepted.clone()
        };
        self.ledgers.iter().map(undelivered).collect()
    }

    /// One of these that has not come by now.
    pub(crate) fn still_undelivered(&self, before: &[HashSet<String>]) -> Option<(String, String)> {
        self.ledgers.iter().zip(before).find_map(|(ledger, before)| {
            let ledger = lock(ledger);
            let message = before.difference(&ledger.delivered).next()?.clone();
            Some((ledger.device_id.clone(), message))
        })
    }

    pub(crate) fn reports(&self) -> u64 {
        self.ledgers.iter().map(|ledger| lock(ledger).reports).sum()
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert!(thread.join().is_ok(), "a device has found a fault: see above");
        }
    }
}

fn send_messages(
    ledgers: &[Arc<Mutex<Ledger>>],
    service: &Mutex<Service>,
    count: &AtomicU64,
    is_over: &AtomicBool,
) {
    let mut number = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        let waiting: usize = ledgers
            .iter()
            .map(|ledger| {
                let ledger = lock(ledger);
                ledger.accepted.difference(&ledger.delivered).count()
            })
            .sum();
        if waiting as u64 >= CLOUD_MESSAGES {
            thread::sleep(LOOK);
            continue;
        }
        for ledger in ledgers {
            number += 1;
            let message_id = format!("m-{number}");
            let device_id = lock(ledger).device_id.clone();
            let service = lock(service).clone();
            if service.send(&device_id, &message_id).is_err() {
                // The hub is dead, and it is not known whether it has the message: it may come or not.
                thread::sleep(LOOK);
                continue;
            }
            count.fetch_add(1, Ordering::Relaxed);
            lock(ledger).accepted.insert(message_id);
        }
    }
}

/// A device that works.
struct Working {
    client: Client<devicebound_blocking::TlsSocket>,
    ledger: Arc<Mutex<Ledger>>,
    number: u64,
    under_way: HashMap<Ticket, u64>,
    report: Option<(RequestId, Pending)>,
    reported: u64,
    /// Cloud messages that were completed on this connection since the last report.
    completing: Vec<String>,
    is_online: bool,
}

struct Pending {
    number: u64,
    /// The hub has seen the PUBACKs of these before the report.
    completed: Vec<String>,
}

impl Working {
    fn new(connection_string: &str, tls: Tls, ledger: Arc<Mutex<Ledger>>) -> Self {
        let timing = Timing {
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_millis(200),
            ..Timing::default()
        };
        let config = DeviceConfig::from_connection_string(connection_string)
            .unwrap_or_else(|error| panic!("{connection_string}: {error}"))
            .with_timing(timing);
        let device = Device::new(config).unwrap_or_else(|error| panic!("{connection_string}: {error}"));
        let mut client = Client::new(device, tls);
        client
            .device()
            .subscribe(Subscription::CloudMessages)
            .unwrap_or_else(|error| panic!("{connection_string}: {error}"));
        Self {
            client,
            ledger,
            number: 0,
            under_way: HashMap::new(),
            report: None,
            reported: 0,
            completing: Vec::new(),
            is_online: false,
        }
    }

    fn work(mut self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            self.send();
            self.client.wait_timeout(LOOK);
            self.take();
        }
    }

    fn send(&mut self) {
        while self.under_way.len() < WINDOW {
            let body = format!("{:100}", self.number + 1);
            let Ok(ticket) = self.client.device().telemetry(Message::new(body.as_bytes())) else { break };
            self.number += 1;
            self.under_way.insert(ticket, self.number);
        }
        if self.is_online && self.report.is_none() {
            let number = self.reported + 1;
            let patch = format!(r#"{{"n":{number}}}"#);
            if let Ok(request) = self.client.device().report(patch.as_bytes(), None) {
                self.reported = number;
                let completed = std::mem::take(&mut self.completing);
                self.report = Some((request, Pending { number, completed }));
            }
        }
    }

    fn take(&mut self) {
        let Self { client, ledger, under_way, report, completing, is_online, .. } = self;
        let (device, mut incoming) = client.split();
        while let Some(next) = incoming.next(device) {
            match next {
                Ok(Action::Connected { .. }) => {
                    *is_online = true;
                    completing.clear();
                }
                Err(_) => {
                    *is_online = false;
                    completing.clear();
                    *report = None;
                }
                Ok(Action::Acknowledged(ticket)) => {
                    let number = under_way.remove(&ticket);
                    lock(ledger).acknowledged.extend(number);
                }
                Ok(Action::Dropped(ticket, why)) => panic!("{ticket:?} was dropped: {why:?}"),
                Ok(Action::Deliver(message, delivery)) => {
                    let id = message.system(SystemProperty::MessageId).unwrap_or_default().into_owned();
                    deliver(device, &mut lock(ledger), &id, delivery);
                    completing.push(id);
                }
                Ok(Action::Answered(answer)) => {
                    if let Some((_, pending)) = report.take_if(|(request, _)| *request == answer.request)
                        && answer.is_success()
                    {
                        confirm(&mut lock(ledger), pending, answer.version.unwrap_or(0));
                    }
                }
                Ok(Action::Failed(request, _)) => {
                    report.take_if(|(open, _)| *open == request);
                }
                Ok(_) => {}
            }
        }
    }
}

fn deliver(device: &mut Machine, ledger: &mut Ledger, id: &str, delivery: devicebound::device::Delivery) {
    let device_id = &ledger.device_id;
    assert!(!ledger.completed.contains(id), "{device_id}: message {id} was completed and has come back");
    ledger.delivered.insert(id.to_owned());
    // On a connection that has just ended it comes again.
    let _ = device.complete(delivery);
}

fn confirm(ledger: &mut Ledger, pending: Pending, version: u64) {
    ledger.confirmed = Report { number: pending.number, version };
    ledger.reports += 1;
    ledger.completed.extend(pending.completed);
}
