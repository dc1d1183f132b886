//! MQTT 3.1.1 as Azure IoT Hub speaks it, as pure state machines: [`Device`] for the field, [`Hub`] for tests, gateways
//! and edge sites.
//!
//! They do no I/O, read no clock and draw no randomness: bytes, time and random numbers come in as arguments, and what is
//! to be done comes out as values. The crate is `no_std` with `alloc` and has no unsafe code. Adapters that bring
//! sockets are crates of their own; any event loop can drive the machines itself.
//!
//! ```text
//!           bytes            Packet<'a>           typed message          Action<'a>
//!  socket ────────▶ packet ────────────▶ iothub ────────────────▶ device │ hub ────────▶ application, store
//!         ◀──────── encode ◀──────────── topics ◀──────────────── tx bytes, in order ◀── commands
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`packet`] | the 14 packets of MQTT 3.1.1, strictly, and nothing of Azure |
//! | [`iothub`] | the words of the dialect: connection strings, user names, SAS tokens, topics, property bags, twins |
//! | [`session`] | what both roles share: which packet is legal when, and why a connection ends |
//! | [`device`] | the device's machine |
//! | [`hub`] | the hub's machine |
//! | [`provisioning`] | the machines of the Device Provisioning Service: the device's, and the service's for a connection |
//! | [`explain`] | one packet in words, for logs |
//!
//! # The loop
//!
//! One call takes at most one packet and gives one action that borrows the received bytes and nothing else. Pull until
//! the action is `Wait`, then do I/O. Here is a device whose hub is a few bytes in memory:
//!
//! ```
//! use devicebound::device::{Action, Device, DeviceConfig, Event, Message, Wait};
//! use devicebound::time::{Instant, UnixTime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = DeviceConfig::from_connection_string(
//!     "HostName=contoso.azure-devices.net;DeviceId=MyDevice01;SharedAccessKey=Zm9vYmFy",
//! )?;
//! let mut device = Device::new(config)?;
//! let (now, mut tx) = (Instant::from_secs(0), Vec::new());
//!
//! // A transport is open: CONNECT is written to `tx`.
//! device.handle(now, Event::Opened { jitter: 7, unix_time: UnixTime::from_secs(1_700_000_000) }, &mut tx)?;
//! assert_eq!(tx[0], 0x10);
//! tx.clear(); // written to the socket
//!
//! // The hub's CONNACK has come, and nothing else yet.
//! let mut rx: &[u8] = &[0x20, 2, 0, 0];
//! assert_eq!(device.handle(now, Event::Received(&mut rx), &mut tx)?, Action::Connected { session_present: false });
//! assert!(matches!(device.handle(now, Event::Received(&mut rx), &mut tx)?, Action::Wait(Wait::Read { .. })));
//!
//! // The application has something to say; PUBLISH is written to `tx`. Its fate comes as `Action::Acknowledged`.
//! let ticket = device.telemetry(now, Message::new(b"{\"temperature\":21.5}"), &mut tx)?;
//! assert_eq!(tx[0], 0x32);
//! tx.clear();
//! let mut rx: &[u8] = &[0x40, 2, 0, 1];
//! assert_eq!(device.handle(now, Event::Received(&mut rx), &mut tx)?, Action::Acknowledged(ticket));
//! # Ok(())
//! # }
//! ```
//!
//! # The states of a connection
//!
//! By what arrives; the table behind it is [`session::legality`].
#![doc = include_str!("session/states.md")]
//!
//! # Features
//!
//! All are on by default.
//!
//! | feature | what it brings |
//! |---|---|
//! | `device` | [`device`] |
//! | `hub` | [`hub`], and `twin` |
//! | `provisioning` | [`provisioning`] for each side that is there, `iothub::provisioning`, certificates that are issued and renewed; needs serde_json and x509-cert |
//! | `twin` | `iothub::twin`, and a document of desired properties that the device keeps; needs serde_json |
//!
//! # Limits
//!
//! Every bound has a name, a number and a source.
//!
//! | what | number | where |
//! |---|---|---|
//! | telemetry message | 256 KB | [`limits::MESSAGE_MAX`] |
//! | cloud-to-device message | 64 KB | [`limits::CLOUD_MESSAGE_MAX`] |
//! | messages that wait for a device | 50 | [`limits::MAILBOX_MAX`] |
//! | unacknowledged telemetry, then the hub stops reading | 16 | [`limits::IN_FLIGHT_MAX`] |
//! | twin section; tags | 32 KB; 8 KB | [`limits::TWIN_SECTION_MAX`], [`limits::TWIN_TAGS_MAX`] |
//! | method payload, either way | 128 KB | [`limits::METHOD_PAYLOAD_MAX`] |
//! | time to CONNECT | 30 s | [`limits::CONNECT_TIME`] |
//! | silence | 1.5 × keep alive, at most 1767 s | [`limits::KEEP_ALIVE_MAX`] |
//! | what one machine holds | see there | [`device::Limits`], [`hub::Limits`] |
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

extern crate alloc;

#[cfg(feature = "device")]
pub mod device;
pub mod explain;
#[cfg(feature = "hub")]
pub mod hub;
pub mod iothub;
pub mod limits;
pub mod packet;
#[cfg(all(feature = "provisioning", any(feature = "device", feature = "hub")))]
pub mod provisioning;
mod rule;
pub mod session;
pub mod time;

#[cfg(feature = "device")]
pub use device::Device;
#[cfg(feature = "hub")]
pub use hub::Hub;
pub use rule::Rule;
pub use session::{Close, CloseReason};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
