//! How long the hub bears silence.

use core::time::Duration;

use crate::limits::KEEP_ALIVE_MAX;

/// The longest silence for the keep alive that CONNECT asks for, in seconds: one and a half times as much
/// `[MQTT-3.1.2-24]`, at most 1767 s (IoT Hub MQTT: 29.45 minutes). 0 asks for no limit and gets the largest
/// (Azure protocol gateway).
#[must_use]
pub fn keep_alive_timeout(keep_alive: u16) -> Duration {
    match keep_alive {
        0 => KEEP_ALIVE_MAX,
        secs => Duration::from_millis(u64::from(secs).saturating_mul(1500)).min(KEEP_ALIVE_MAX),
    }
}
