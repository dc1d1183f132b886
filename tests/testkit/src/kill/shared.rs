//! What all who put the hub under load share.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::RwLock;

use super::ledger::{Ledger, Violation};
use crate::interop::Service;

/// A hub that runs.
#[derive(Debug)]
pub(super) struct RunningHub {
    /// Where devices connect to.
    pub(super) mqtt_port: u16,
    /// Its service API.
    pub(super) service: Service,
}

/// What everybody knows.
#[derive(Debug)]
pub(super) struct Shared {
    /// Whoever talks to the hub holds this for reading; whoever kills it waits for it until all of them have noticed.
    /// `None`: there will be no hub any more.
    pub(super) hub: RwLock<Option<RunningHub>>,
    /// When the run began.
    pub(super) start: Instant,
    /// The authority that devices trust.
    pub(super) ca: PathBuf,
    draining: AtomicBool,
    losses: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    /// A run that begins now.
    #[must_use]
    pub(super) fn new(hub: RunningHub, ca: PathBuf) -> Self {
        Self {
            hub: RwLock::new(Some(hub)),
            start: Instant::now(),
            ca,
            draining: AtomicBool::new(false),
            losses: Mutex::default(),
        }
    }

    /// From now on nothing new is begun, and what was begun comes to its end.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether nothing new is to be begun.
    #[must_use]
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// A connection was lost.
    pub(super) fn lost(&self, why: &impl Display) {
        *self.losses().entry(why.to_string()).or_default() += 1;
    }

    /// Why connections were lost, and how often.
    pub(super) fn losses(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device's ledger, which its application and the back end write.
#[derive(Clone, Debug)]
pub(super) struct Account(Arc<Mutex<Ledger>>);

impl Account {
    /// Of a device that has just been registered.
    #[must_use]
    pub(super) fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// To read or to write.
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A violation with the device's name and its past.
    #[must_use]
    pub(super) fn accuse(&self, what: &Violation) -> Violation {
        let ledger = self.lock();
        let history: Vec<String> = ledger.history().collect();
        Violation(format!("{}: {what}\nwhat came before:\n{}", ledger.device_id, history.join("\n")))
    }
}
