//! The Device Provisioning Service: how a device that knows its registration id and one secret finds its hub.
//!
//! | machine | whose side |
//! |---|---|
//! | `Provisioner` (feature `device`) | the device's: register, ask until there is an assignment, over as many connections as it takes |
//! | `ServiceLink` (feature `hub`) | the service's, of one connection: who registers and what for; the verdict is its owner's |

#[cfg(feature = "device")]
mod client;
#[cfg(feature = "device")]
mod config;
#[cfg(feature = "hub")]
mod link;
#[cfg(all(test, feature = "device", feature = "hub"))]
mod tests;

#[cfg(feature = "device")]
pub use client::{Action, Failure, Provisioned, Provisioner};
#[cfg(feature = "device")]
pub use config::{Credential, ProvisioningConfig, ProvisioningConfigError};
#[cfg(feature = "hub")]
pub use link::{LinkLimits, RequestTicket, ServiceAction, ServiceLink, ServiceRequest, is_for_provisioning};
