//! The cryptography behind every certificate and every TLS connection of this crate.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// Ring, which builds without cmake.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
