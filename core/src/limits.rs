//! Every bound, with its number and where the number comes from.

use core::time::Duration;

/// Largest telemetry message: 256 KB (IoT Hub quotas).
pub const MESSAGE_MAX: usize = 262_144;
/// Largest cloud-to-device message: 64 KB (IoT Hub cloud-to-device guide).
pub const CLOUD_MESSAGE_MAX: usize = 65_536;
/// Largest text that MQTT can carry `[MQTT-4.7.3-3]`.
pub const TEXT_MAX: usize = 65_535;
/// Largest remaining length that four bytes can say (MQTT 3.1.1 §2.2.3).
pub const REMAINING_LENGTH_MAX: usize = 268_435_455;
/// Largest PUBLISH that can be right: payload, topic with its length, packet id.
pub const PACKET_MAX: usize = MESSAGE_MAX + TEXT_MAX + 4;
/// Largest CONNECT: will topic and will message of 64 KB each, and 13 KB for ids, user name and token.
pub const CONNECT_MAX: usize = 2 * (TEXT_MAX + 2) + 13_312;
/// Longest device or module id (IoT Hub identity registry).
pub const ID_MAX: usize = 128;
/// Largest body of a register: 96 KB (IoT Hub DPS limits).
pub const DPS_MESSAGE_MAX: usize = 98_304;
/// Largest certificate request, as base64: 8 KB (IoT Hub: certificate renewal).
pub const CSR_MAX: usize = 8192;
/// Lengths of an id by which a request for a certificate is replaced (IoT Hub: certificate renewal).
pub const REPLACE_ID: core::ops::RangeInclusive<usize> = 4..=36;
/// Longest `$rid`, in bytes (own limit: the documents name none, SDKs send 36 at most; the topic of an answer repeats it,
/// and has to be no longer than [`TEXT_MAX`]).
pub const REQUEST_ID_MAX: usize = 1024;
/// Cloud-to-device messages that wait for a device, delivered or not (IoT Hub cloud-to-device guide; error 403004).
pub const MAILBOX_MAX: usize = 50;
/// QoS 1 publishes of one connection that may wait for the store; then the hub stops reading
/// (Azure protocol gateway: `MaxPendingInboundAcknowledgements`; MQTT 5 preview: Receive Maximum).
pub const IN_FLIGHT_MAX: usize = 16;
/// Largest section of a twin, desired or reported: 32 KB (IoT Hub device twin guide).
pub const TWIN_SECTION_MAX: usize = 32_768;
/// Largest tags section of a twin: 8 KB (IoT Hub device twin guide).
pub const TWIN_TAGS_MAX: usize = 8_192;
/// Deepest nesting of a twin section (IoT Hub device twin guide).
pub const TWIN_DEPTH_MAX: usize = 10;
/// Longest name in a twin: 1 KB (IoT Hub device twin guide).
pub const TWIN_KEY_MAX: usize = 1024;
/// Longest string in a twin: 4 KB (IoT Hub device twin guide).
pub const TWIN_STRING_MAX: usize = 4096;
/// Largest body of a direct method, either way: 128 KB (IoT Hub quotas).
pub const METHOD_PAYLOAD_MAX: usize = 131_072;
/// Time from accept to a complete CONNECT (IoT Hub MQTT 5 preview).
pub const CONNECT_TIME: Duration = Duration::from_secs(30);
/// How long the end of a connection waits for the store, so that what came before it is acknowledged (own limit: a store
/// that is slower has failed).
pub const LAST_WORDS_TIME: Duration = Duration::from_secs(5);
/// Longest silence, whatever keep alive the device asks for (IoT Hub MQTT: 29.45 minutes).
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(1767);
/// Time to live of a cloud-to-device message without an expiry of its own (IoT Hub cloud-to-device guide).
pub const CLOUD_MESSAGE_TTL: Duration = Duration::from_secs(3600);
/// Shortest time to live that a hub gives cloud-to-device messages without an expiry of their own (IoT Hub cloud-to-device
/// guide).
pub const CLOUD_MESSAGE_TTL_MIN: Duration = Duration::from_secs(60);
/// Longest time to live of a cloud-to-device message (IoT Hub cloud-to-device guide).
pub const CLOUD_MESSAGE_TTL_MAX: Duration = Duration::from_secs(2 * 24 * 3600);
/// How long a receiver without MQTT holds a message that it was given (IoT Hub cloud-to-device guide).
pub const CLOUD_MESSAGE_LOCK: Duration = Duration::from_secs(60);
/// How often a cloud-to-device message is delivered in vain before it is dead-lettered (IoT Hub cloud-to-device guide:
/// 1 to 100).
pub const DELIVERY_COUNT: u32 = 10;
/// Shortest, usual and longest wait for the answer to a direct method (IoT Hub direct method guide).
pub const METHOD_RESPONSE_TIME: (Duration, Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(300));
/// Longest wait for a device to come online for a direct method (IoT Hub direct method guide).
pub const METHOD_CONNECT_TIME_MAX: Duration = Duration::from_secs(300);
/// Bytes that count as one message of the daily quota (IoT Hub quotas).
pub const METER: usize = 4096;
/// The same, of the free tier (IoT Hub quotas).
pub const METER_FREE: usize = 512;
/// Longest delay by which telemetry above its rate is slowed down; beyond, the connection ends (own limit: the documents
/// say that delays are short and an error follows, and give no number).
pub const THROTTLE_DELAY_MAX: Duration = Duration::from_secs(30);
/// Longest delay, and longest duration, of a fault that somebody asked for (own limit).
pub const FAULT_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Takeovers of an identity in a row, each soon after the one before, from which on two clients are fighting over it
/// (own limit: a device that comes back early takes over once).
pub const TAKEOVER_FIGHT: u8 = 3;
/// How soon after a connection began its takeover counts as part of a fight (own limit: SDKs come back within 10 s).
pub const TAKEOVER_FIGHT_TIME: Duration = Duration::from_secs(15);
