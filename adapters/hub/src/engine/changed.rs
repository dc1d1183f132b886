//! Which records have changed, for who acts on it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The client ids of records that have changed since somebody looked: each once, so that there are no more than identities.
#[derive(Debug, Default)]
pub(crate) struct ChangedRecords {
    /// Nobody pays for it while nobody looks.
    is_watched: AtomicBool,
    ids: Mutex<HashSet<String>>,
    more: Notify,
}

impl ChangedRecords {
    /// Whether changes are to be remembered from now on.
    pub(crate) fn watch(&self, is_watched: bool) {
        self.is_watched.store(is_watched, Ordering::Relaxed);
    }

    /// Whether they are.
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// A record has changed, or is to be looked at anew for another reason.
    pub(crate) fn mark(&self, client_ids: impl IntoIterator<Item = String>) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.extend(client_ids);
        if !ids.is_empty() {
            self.more.notify_one();
        }
    }

    /// Those that have changed; waits for one.
    pub(crate) async fn take(&self) -> Vec<String> {
        loop {
            let taken = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken.into_iter().collect();
            }
            self.more.notified().await;
        }
    }
}
