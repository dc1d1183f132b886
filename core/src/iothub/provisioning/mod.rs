//! The words of the Device Provisioning Service: a device that knows its registration id and one secret asks it for a hub.
//!
//! | what | text |
//! |---|---|
//! | client id | the registration id |
//! | user name | [`Username`]: `{id scope}/registrations/{registration id}/api-version={version}[&ClientVersion={agent}]` |
//! | password | [`sign`]: a SAS token for `{id scope}/registrations/{registration id}`; none with a certificate |
//! | topics | [`FromDevice`], [`FromService`], [`ANSWERS`] |
//! | payloads | [`RegisterBody`], [`Answer`] |

mod answer;
mod body;
mod identity;
mod token;
mod topic;

pub use answer::{Answer, Assignment, ErrorBody, RETRY_AFTER, RETRY_AFTER_DEFAULT, Status};
pub use body::{BodyError, RegisterBody, register_body};
pub use identity::{RegistrationId, RegistrationIdError, Username, UsernameError};
pub use token::{derive_key, resource, sign, verify};
pub use topic::{ANSWERS, FromDevice, FromService, answer_topic, check_filter, poll_topic, register_topic};

/// The host by which all devices of the world reach the service (IoT Hub DPS: terminology).
pub const GLOBAL_HOST: &str = "global.azure-devices-provisioning.net";
/// The api-version that a device asks for which brings no certificate request.
pub const API_VERSION: &str = "2021-06-01";
/// The first api-version whose register takes a certificate request as base64 of DER.
pub const API_VERSION_WITH_CSR: &str = "2025-07-01-preview";
