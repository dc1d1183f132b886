//! Every bound, with its number and where the number comes from.

use core::time::Duration;

/// Largest frame that is taken, and the `max-frame-size` of our `open` (own choice: .NET, uamqp and the C SDK say the same).
pub const FRAME_MAX: u32 = 65_536;
/// What every peer takes, whatever its `open` says (AMQP 1.0 §2.3.1: MIN-MAX-FRAME-SIZE).
pub const FRAME_MAX_MIN: u32 = 512;
/// Largest channel number that a client may use (own limit: a session needs one, and there are [`SESSIONS_MAX`]).
pub const CHANNEL_MAX: u16 = 255;
/// Sessions of one connection (own limit: a Node Event Hubs client opens one for each partition and two more).
pub const SESSIONS_MAX: usize = 64;
/// Largest handle that a client may use, so that a session has 256 links at most (own limit).
pub const HANDLE_MAX: u32 = 255;
/// Links of one connection (own limit: `az` opens one for each partition; the C SDK some for each device).
pub const LINKS_MAX: usize = 1024;
/// Longest link name in bytes (own limit: Node's names are the address and a UUID).
pub const LINK_NAME_MAX: usize = 512;
/// Longest address of a source or target in bytes (own limit: the longest seen is 67).
pub const ADDRESS_MAX: usize = 1024;
/// Longest filter set in bytes, as encoded (own limit: the longest seen is 127).
pub const FILTER_MAX: usize = 2048;
/// Longest delivery tag (AMQP 1.0 §2.8.7).
pub const DELIVERY_TAG_MAX: usize = 32;
/// Largest telemetry message, its sections included: 256 KB (IoT Hub quotas) and 16 KiB for the sections.
pub const EVENT_MAX: u64 = 262_144 + 16_384;
/// Largest cloud-to-device message, its sections included: 64 KB (IoT Hub cloud-to-device guide) and 16 KiB for the sections.
pub const CLOUD_MESSAGE_MAX: u64 = 65_536 + 16_384;
/// Largest request to `$cbs` or `$management`, its sections included (own limit: the largest seen is 337 bytes; tokens of
/// Entra have some kilobytes).
pub const REQUEST_MAX: u64 = 65_536;
/// Messages of several frames that one connection may have begun, in bytes (own limit: three events of the largest size).
pub const PARTIAL_MAX: usize = 1024 * 1024;
/// Credit that a sending client is given on each link (own limit: the Event Hubs service gives hundreds).
pub const CREDIT: u32 = 100;
/// Deliveries of clients on one session that are unsettled or covered by credit; beyond that, a link has a credit of
/// [`CREDIT_MIN`] (own limit).
pub const UNSETTLED_IN_MAX: u32 = 1000;
/// The least credit of a link, so that none starves.
pub const CREDIT_MIN: u32 = 4;
/// Deliveries to clients on one session whose outcome the hub waits for (own limit: Node gives a feedback link 1000 credits).
pub const UNSETTLED_OUT_MAX: usize = 2000;
/// Transfer frames that a session may receive before the next `flow` of ours (own limit: as rhea).
pub const INCOMING_WINDOW: u32 = 2048;
/// Deepest nesting of a value (own limit: the deepest seen has 4 levels).
pub const DEPTH_MAX: u8 = 32;
/// Most entries of a map (own limit: a property bag of the largest size that a device can send has fewer).
pub const MAP_MAX: u32 = 4096;
/// Most elements of an array whose elements take no bytes (own limit).
pub const EMPTY_ELEMENTS_MAX: u32 = 65_536;
/// Bytes that are taken before a connection has shown who it is (own limit: as for CONNECT without a will; the most seen
/// is 1.4 KB).
pub const BEFORE_AUTHENTICATION_MAX: usize = 16 * 1024 + 512;
/// Time from accept until a connection has shown who it is (IoT Hub MQTT 5 preview: 30 s).
pub const AUTHENTICATION_TIME: Duration = Duration::from_secs(30);
/// The `idle-time-out` of our `open`: 240 s, as the real service (uamqp sends its empty frames every 120 s).
pub const IDLE_TIME: Duration = Duration::from_secs(240);
/// Silence that ends a connection: twice what was announced (AMQP 1.0 §2.4.5).
pub const SILENCE_MAX: Duration = Duration::from_secs(480);
/// The shortest `idle-time-out` of a client that the hub serves (own limit; AMQP 1.0 §2.4.5 lets it refuse).
pub const IDLE_TIME_MIN: Duration = Duration::from_secs(1);
/// Longest text of an error (own limit: it fits the smallest frame).
pub const DESCRIPTION_MAX: usize = 320;
