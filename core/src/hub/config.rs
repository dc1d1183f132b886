//! What a hub is told once.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::Scale;
use crate::iothub::sas::Policy;
use crate::limits;

/// What bounds a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Links at a time, of any phase.
    pub links: usize,
    /// QoS 1 publishes of one link that may wait for the store ([`limits::IN_FLIGHT_MAX`]).
    pub in_flight: usize,
    /// Cloud-to-device messages that wait for a device ([`limits::MAILBOX_MAX`]).
    pub queue: usize,
    /// Feedback of a device that was not taken yet, and that its waiting messages may yet give; a message that asks for
    /// more is refused.
    pub feedback: usize,
    /// How often a message is delivered in vain before it is dead-lettered, at least once ([`limits::DELIVERY_COUNT`]).
    pub delivery_count: u32,
    /// Which deliveries are in vain. If set, all after which the message waits again, as the older documents have it: those
    /// over a connection that ended before the PUBACK, and those whose lock was abandoned or ran out. Otherwise, as in
    /// those of 2026, the abandoned ones alone (IoT Hub cloud-to-device guide).
    pub every_delivery_counts: bool,
    /// Time to live of a cloud-to-device message without an expiry of its own ([`limits::CLOUD_MESSAGE_TTL`]; the real
    /// service can be set to 1 minute to 2 days).
    pub cloud_message_ttl: Duration,
    /// Open direct method calls of one device; the real number behind error 403800 is not published.
    pub calls: usize,
    /// Desired-property notifications that a link may be behind; beyond, the link ends, and the device reads its twin
    /// again when it is back.
    pub notifications: usize,
    /// Filters of one SUBSCRIBE or UNSUBSCRIBE; a device has five.
    pub filters_per_packet: usize,
    /// Unsent output, in bytes, from which on nothing more is sent; from twice as much on, nothing is read either. In
    /// between, a device that reads slowly is heard, or its PINGREQ would wait until it is taken for silent.
    pub tx_high_water: usize,
    /// Time from `open` to a complete CONNECT ([`limits::CONNECT_TIME`]).
    pub connect_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            links: 1_000_000, // IoT Hub quotas: devices and modules of one hub
            in_flight: limits::IN_FLIGHT_MAX,
            queue: limits::MAILBOX_MAX,
            feedback: limits::MAILBOX_MAX.saturating_mul(2),
            delivery_count: limits::DELIVERY_COUNT,
            every_delivery_counts: false,
            cloud_message_ttl: limits::CLOUD_MESSAGE_TTL,
            calls: 64,
            notifications: 64,
            filters_per_packet: 32,
            tx_high_water: 128 * 1024,
            connect_time: limits::CONNECT_TIME,
        }
    }
}

/// What a hub is told once.
#[derive(Clone, Debug, Default)]
pub struct HubConfig {
    /// Host names that devices may use; empty: any.
    pub host_names: Vec<String>,
    /// Host names that devices usually use, where [any](Self::host_names) will do: another is taken with a
    /// [`Warning`](super::Warning). Empty: none is unusual.
    pub known_names: Vec<String>,
    /// Shared access policies that tokens may be signed with.
    pub policies: Vec<Policy>,
    /// How long after its expiry a token is still taken at CONNECT. The real service allows 300 s.
    pub clock_skew: Duration,
    /// How long after its token's expiry a live connection is cut. The real service waits 600 s.
    pub expiry_grace: Duration,
    /// The tier and units whose rates and daily quota hold; without one there are none. What was used of a day is forgotten
    /// when the hub starts again, unless it is [given back](super::Hub::set_usage).
    pub tier: Option<Scale>,
    /// Whether a device may ask for a [`Fault`](super::Fault) by the properties of a telemetry message, as Azure's SDKs do
    /// in their tests. The real service allows that on hubs of its own only.
    pub fault_injection: bool,
    /// Whether what the real hub may refuse, or act upon otherwise, is refused here as well. If not, it is taken with a
    /// [`Warning`](super::Warning).
    pub strict: bool,
    /// Bounds.
    pub limits: Limits,
}
