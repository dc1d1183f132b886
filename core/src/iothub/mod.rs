//! The words of Azure IoT Hub: text in, typed values out, and back. Nothing here has state, and nothing knows packets.
//!
//! | module | what it reads and writes |
//! |---|---|
//! | [`topic`] | topic names of both directions, percent-encoded where the documents say so |
//! | [`sas`] | SAS tokens and the keys and policies that they are signed with |
//! | [`twin`] | twin documents: what may stand in them, merging, size |
//! | `provisioning` | what a device and the Device Provisioning Service say to each other |
//! | the rest | identities, user names, connection strings, property bags, subscriptions, api-versions |

mod api_version;
#[cfg(feature = "provisioning")]
mod certificate;
mod connection_string;
mod escape;
mod identity;
mod properties;
#[cfg(feature = "provisioning")]
pub mod provisioning;
pub mod sas;
mod scan;
mod subscription;
pub mod topic;
#[cfg(feature = "twin")]
pub mod twin;
mod username;

#[cfg(feature = "hub")]
pub(crate) use api_version::is_published;
pub use api_version::{API_VERSION, ApiVersion};
#[cfg(feature = "provisioning")]
pub use certificate::{
    CertificateChain, CertificateError, CertificateRequest, IssueBody, IssueBodyError, is_issue_id,
    issue_certificate_body, issued_certificates,
};
pub use connection_string::{ConnectionString, ConnectionStringError, Credential, Excerpt, Kind};
pub use escape::Escaped;
pub use identity::{IdError, Identity};
#[cfg(feature = "device")]
pub(crate) use properties::BagWriter;
pub use properties::{PropertyBag, SystemProperty, encode_property};
pub use subscription::{Subscription, Subscriptions};
pub use username::{Username, UsernameError};

/// The text that the JSON `value` is; `None` where it is something else.
#[cfg(feature = "provisioning")]
fn json_text(value: &str) -> Option<alloc::string::String> {
    serde_json::from_str(value).ok()
}

/// Whether `text` is JSON.
#[cfg(all(feature = "provisioning", feature = "device"))]
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}
