//! What happens by itself: bytes arrive, deadlines come, the disk is done.

use devicebound::time::Instant;

use super::{Breach, Wake, World, breach};

/// Events of one instant, above which something turns in a circle.
const EVENTS_AT_ONCE: u32 = 1_000_000;

impl World<'_> {
    /// Lets everything happen that is due until `end`.
    pub(super) fn run_until(&mut self, end: Instant) -> Result<(), Breach> {
        let mut events = 0_u32;
        while let Some((at, wake)) = self.queue.first().copied().filter(|(at, _)| *at <= end) {
            self.queue.pop_first();
            events = if at > self.now { 0 } else { events + 1 };
            if events > EVENTS_AT_ONCE {
                return breach(format!("time stands still: {EVENTS_AT_ONCE} events, the last for {wake:?}"));
            }
            self.now = at;
            match wake {
                Wake::Up(connection) => self.hub_reads(connection)?,
                Wake::Down(connection) => self.device_reads(connection)?,
                Wake::Disk => self.disk_is_done(self.now)?,
                Wake::Thing(thing) => self.wake_thing(thing)?,
                Wake::Guest(link) => self.wake_guest(link)?,
                Wake::Hub => self.wake_hub()?,
            }
        }
        self.now = end;
        Ok(())
    }
}
