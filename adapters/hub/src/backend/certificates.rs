//! The certificates that the hub shows and trusts, with their dates: what runs out has to be seen before it does.

use std::sync::Arc;

use devicebound::time::UnixTime;
use rustls::pki_types::CertificateDer;

use super::Backend;
use crate::state::device_certs::{Described, DeviceAuthorities};
use crate::transport::offer::Offer;

/// Where the certificates are, which are exchanged while the hub runs.
#[derive(Debug, Default)]
pub struct Certificates {
    offer: Option<Arc<Offer>>,
    authorities: DeviceAuthorities,
}

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Clients see it in the handshake, on each port that speaks TLS.
    Server,
    /// Devices that show a certificate signed by it are known by their common name.
    DeviceAuthority,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// What it is good for.
    pub usage: Usage,
    /// Whose it is, as its subject says.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// SHA-256, in upper-case hex.
    pub thumbprint: String,
    /// From when on it is good.
    pub begins: UnixTime,
    /// Until when it is good.
    pub ends: UnixTime,
}

impl Certificates {
    pub(crate) const fn new(offer: Option<Arc<Offer>>, authorities: DeviceAuthorities) -> Self {
        Self { offer, authorities }
    }
}

impl Backend {
    /// The server certificates in the order in which they are offered, then the authorities for devices.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        let Certificates { offer, authorities } = &self.certificates;
        let servers = offer.iter().flat_map(|offer| offer.certificates());
        let servers = servers.map(|certificate| (Usage::Server, certificate));
        let authorities = authorities.certificates().into_iter();
        let authorities = authorities.map(|certificate| (Usage::DeviceAuthority, certificate));
        servers.chain(authorities).filter_map(|(usage, der)| certificate(usage, &der)).collect()
    }
}

fn certificate(usage: Usage, der: &CertificateDer<'_>) -> Option<Certificate> {
    let Described { subject, issuer, thumbprint, validity } = Described::of(der)?;
    Some(Certificate { usage, subject, issuer, thumbprint, begins: validity.begin, ends: validity.end })
}
