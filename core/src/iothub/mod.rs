//! The words of Azure IoT Hub: text in, typed values out, and back. Nothing here has state, and nothing knows packets.
//!
//! | module | what it reads and writes |
//! |---|---|
//! | [`topic`] | topic names of both directions, percent-encoded where the documents say so |
//! | [`sas`] | SAS tokens and the keys and policies that they are signed with |
//! | [`twin`] | twin documents: what may stand in them, merging, size |
//! | the rest | identities, user names, connection strings, property bags, subscriptions, editions |

mod connection_string;
mod edition;
mod escape;
mod identity;
mod properties;
pub mod sas;
mod subscription;
pub mod topic;
#[cfg(feature = "twin")]
pub mod twin;
mod username;

pub use connection_string::{ConnectionString, ConnectionStringError, Credential, Kind};
pub use edition::{API_VERSION, Edition};
pub use escape::Escaped;
pub use identity::{IdError, Identity};
pub use properties::{PropertyBag, SystemProperty, encode_property};
pub use subscription::{Subscription, Subscriptions};
pub use username::{Username, UsernameError};
