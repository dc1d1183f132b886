//! What comes due (AMQP 1.0 §2.4.5).

use alloc::vec::Vec;

use devicebound::time::Instant;

use super::{Action, Connection, Fault, Phase};
use crate::Rule;
use crate::frame;
use crate::limits::{AUTHENTICATION_TIME, SILENCE_MAX};

impl Connection {
    /// When to call [`expire`](Self::expire); `None` when the connection is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Closed {
            return None;
        }
        let silence = self.last_heard.after(SILENCE_MAX);
        let stranger = self.unproven.map(|_| self.began.after(AUTHENTICATION_TIME));
        let heartbeat = self.heartbeat.filter(|_| self.phase == Phase::Open).map(|(_, next)| next);
        [Some(silence), stranger, heartbeat].into_iter().flatten().min()
    }

    /// Does what is due: sends a heartbeat, or ends a connection that was silent or strange for too long.
    pub fn expire(&mut self, now: Instant, tx: &mut Vec<u8>) -> Action<'static> {
        if self.phase == Phase::Closed {
            return Action::Wait;
        }
        if self.unproven.is_some() && now >= self.began.after(AUTHENTICATION_TIME) {
            return self.fail(Fault::Connection(Rule::AuthenticationTime), tx);
        }
        if now >= self.last_heard.after(SILENCE_MAX) {
            return self.fail(Fault::Connection(Rule::Silence), tx);
        }
        if let Some((pause, next)) = self.heartbeat
            && self.phase == Phase::Open
            && now >= next
        {
            // Whatever else was sent: eight bytes now and then are cheaper than to keep account.
            frame::heartbeat(tx);
            self.heartbeat = Some((pause, now.after(pause)));
        }
        Action::Wait
    }
}
