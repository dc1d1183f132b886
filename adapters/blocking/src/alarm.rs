//! Ends a wait from another thread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

/// How long a read waits at most that nothing can wake, once somebody may want to.
const PATIENCE: Duration = Duration::from_millis(100);

/// Rung from any thread, heard by the client's `wait`.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_rung: bool,
    /// Ends the read of the present socket, where that can be done.
    socket: Option<Waker>,
}

impl Alarm {
    /// Whether it was rung, which is then forgotten.
    pub(crate) fn take(&self) -> bool {
        std::mem::take(&mut self.state().is_rung)
    }

    /// Sleeps until it is rung, or `timeout` is over.
    pub(crate) fn sleep(&self, timeout: Duration) {
        let end = Instant::now().checked_add(timeout);
        let mut state = self.state();
        while !state.is_rung {
            let left = end.map_or(timeout, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            state = self.rung.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A read is to be ended by this; or there is no socket any more.
    pub(crate) fn set_socket(&self, socket: Option<Waker>) {
        self.state().socket = socket;
    }

    /// How long a read may wait: for as long as it likes where it can be woken, or nobody could want to.
    pub(crate) fn patience(self: &Arc<Self>, wanted: Duration) -> Duration {
        if Arc::strong_count(self) == 1 || self.state().socket.is_some() {
            wanted
        } else {
            wanted.min(PATIENCE)
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let mut state = self.state();
        state.is_rung = true;
        let socket = state.socket.clone();
        drop(state);
        self.rung.notify_one();
        socket.iter().for_each(Waker::wake_by_ref);
    }
}
