//! How a device reaches its hub: TLS as the hub speaks it, 1.2 and 1.3, and what is around it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::proxy::{Proxy, ProxyError, authority};
use crate::websocket::WEBSOCKET_PORT;

/// The port of MQTT over TLS (IoT Hub MQTT).
pub const MQTT_PORT: u16 = 8883;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}; check path and permission", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// The text is not PEM, or what is needed is not in it.
    #[error("no certificate or key can be read: {0}; give PEM text, -----BEGIN CERTIFICATE----- and so on")]
    Pem(PemError),
    /// This is no name that a certificate can be for.
    #[error(
        "{0:?} is no name that a certificate can be for; write a DNS name or an IP address, without port"
    )]
    ServerName(String),
    /// rustls cannot use certificate or key, or the system trusts nobody.
    #[error("{0}; check that key and certificate belong together, or give the hub's authority")]
    Unusable(#[from] Error),
}

/// How a device reaches its hub: whom it trusts, and who it is, on the level of TLS; MQTT straight over that, or over
/// WebSocket; with or without a proxy.
///
/// A client keeps its `Tls`. To rotate a certificate, take the device out of the client by `into_device`, and make another
/// client of it with a new `Tls`: nothing that the device holds is lost. Where the hub knows the certificate by its
/// thumbprint, register the new one as the secondary thumbprint first. A CA-signed certificate needs no registration.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) websocket: bool,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) server_name: Option<ServerName<'static>>,
    port: Option<u16>,
}

impl Tls {
    /// Trusts what the system trusts, which is right for Azure.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] where the system trusts nobody.
    pub fn system() -> Result<Self, TlsError> {
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        Ok(Self::new(builder.with_platform_verifier()?.with_no_client_auth()))
    }

    /// Trusts these authorities and, as in Azure's own SDKs, no others.
    ///
    /// # Errors
    /// [`TlsError`] where `pem` holds no certificate of an authority.
    pub fn with_authorities(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate)?;
        }
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        Ok(Self::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }

    /// [`with_authorities`](Self::with_authorities), read from a PEM file.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn with_authorities_file(path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let path = path.as_ref();
        let pem = std::fs::read(path).map_err(|error| TlsError::File { path: path.to_path_buf(), error })?;
        Self::with_authorities(&pem)
    }

    /// Shows this certificate, with those that lead to its authority behind it, when the hub asks for one (X.509). Both are
    /// PEM.
    ///
    /// # Errors
    /// [`TlsError`] where they cannot be read or do not belong together.
    pub fn with_certificate(mut self, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Pem)?;
        let certified = CertifiedKey::from_der(certificates(chain)?, key, &provider())?;
        Arc::make_mut(&mut self.config).client_auth_cert_resolver =
            Arc::new(SingleCertAndKey::from(certified));
        Ok(self)
    }

    /// Speaks MQTT over WebSocket, which firewalls that let HTTPS through let through as well.
    #[must_use]
    pub const fn with_websocket(mut self) -> Self {
        self.websocket = true;
        self
    }

    /// Goes through an HTTP proxy: `http://host:port`, or `http://user:password@host:port` (Basic authentication), with
    /// special characters as in any URL. Port 80 where none is written. TLS is spoken with the hub: the proxy sees where
    /// to, not what.
    ///
    /// # Errors
    /// [`ProxyError::Url`].
    pub fn with_proxy(mut self, url: &str) -> Result<Self, ProxyError> {
        self.proxy = Some(Proxy::parse(url)?);
        Ok(self)
    }

    /// Sets the name that the hub's certificate has to be for, and that the hub is asked for; by default the host of the
    /// connection string. For a hub that is reached by an address, or by a name of its own.
    ///
    /// # Errors
    /// [`TlsError::ServerName`].
    pub fn with_server_name(mut self, name: &str) -> Result<Self, TlsError> {
        let parsed = ServerName::try_from(name.to_owned());
        self.server_name = Some(parsed.map_err(|_| TlsError::ServerName(name.to_owned()))?);
        Ok(self)
    }

    /// Sets the hub's port; by default [`MQTT_PORT`], or [`WEBSOCKET_PORT`].
    #[must_use]
    pub const fn with_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The hub's port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self.port {
            Some(port) => port,
            None if self.websocket => WEBSOCKET_PORT,
            None => MQTT_PORT,
        }
    }

    /// Where TCP is to be connected to for the hub `host`: there, or to the proxy.
    #[must_use]
    pub fn address<'a>(&'a self, host: &'a str) -> (&'a str, u16) {
        self.proxy.as_ref().map_or((host, self.port()), |proxy| (&proxy.host, proxy.port))
    }

    /// What to tell when TCP could not be connected to the [`address`](Self::address) for the hub `host`.
    #[must_use]
    pub fn no_connection(&self, host: &str, error: io::Error) -> io::Error {
        match &self.proxy {
            Some(Proxy { host, port, .. }) => {
                ProxyError::NoConnection { proxy: authority(host, *port), why: error.to_string() }.into()
            }
            None => io::Error::new(error.kind(), format!("TCP to {}: {error}", authority(host, self.port()))),
        }
    }

    fn new(config: ClientConfig) -> Self {
        Self { config: Arc::new(config), websocket: false, proxy: None, server_name: None, port: None }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(TlsError::Pem)?;
    if all.is_empty() { Err(TlsError::Pem(PemError::NoItemsFound)) } else { Ok(all) }
}
