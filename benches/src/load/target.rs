//! What load is pointed at.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use devicebound::iothub::sas::{self, SymmetricKey};
use devicebound::packet::{Connect, Credentials, Packet, Text};
use devicebound::time::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A server, and how one gets in.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Where the server listens
    #[arg(long)]
    pub address: SocketAddr,
    /// The authority of the server's certificate; without it there is no TLS
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// The name that the certificate is for
    #[arg(long, default_value = "localhost")]
    pub host: String,
    /// A policy's name and key, as `name=base64`: devices then show a SAS token; without it they show nothing
    #[arg(long)]
    pub policy: Option<String>,
    /// The ids of the devices are this with a number from 0
    #[arg(long, default_value = "bench-")]
    pub prefix: String,
}

/// A target with all that is made only once for many connections.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where the server listens.
    pub address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    token: Option<String>,
    host: String,
    prefix: String,
}

impl Target {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read, or are not what they should be.
    pub fn way(&self) -> io::Result<Way> {
        let tls = match &self.ca {
            Some(path) => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                Some((Arc::new(tls_config(path)?), name))
            }
            None => None,
        };
        let token = self.policy.as_deref().map(|policy| token(&self.host, policy)).transpose()?;
        Ok(Way { address: self.address, tls, token, host: self.host.clone(), prefix: self.prefix.clone() })
    }
}

/// A token of a policy, good for a day and for every device.
///
/// # Errors
/// When it is no policy's name and key.
pub fn token(host: &str, policy: &str) -> io::Result<String> {
    let (name, key) =
        policy.split_once('=').ok_or_else(|| io::Error::other("a policy is written as name=key"))?;
    let key = SymmetricKey::from_base64(key).map_err(io::Error::other)?;
    let since = std::time::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
    let expiry = UnixTime::from_secs(since.as_secs() + 24 * 3600);
    Ok(sas::sign(host, &key, expiry, Some(name)))
}

/// TLS that trusts this authority.
///
/// # Errors
/// When the file has no certificates.
pub fn tls_config(ca: &Path) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&fs::read(ca)?) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    // Each connection is a new one to the server.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

impl Way {
    /// The client side of TLS, if there is TLS.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn tls(&self) -> io::Result<Option<ClientConnection>> {
        let new = |(config, name): &(Arc<ClientConfig>, ServerName<'static>)| {
            ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)
        };
        self.tls.as_ref().map(new).transpose()
    }

    /// The CONNECT of the device with this number.
    ///
    /// # Errors
    /// When the prefix makes ids that are none.
    pub fn connect(&self, number: usize) -> io::Result<Vec<u8>> {
        let client_id = self.client_id(number);
        let username = format!("{}/{client_id}/?api-version=2021-04-12", self.host);
        let no_text = |_| io::Error::other("this is no MQTT text");
        let username = Text::new(&username).map_err(no_text)?;
        let credentials =
            self.token.as_ref().map(|token| Credentials { username, password: Some(token.as_bytes()) });
        let client_id = Text::new(&client_id).map_err(no_text)?;
        let packet = Packet::Connect(Connect {
            clean_session: true,
            keep_alive: 1200,
            client_id,
            will: None,
            credentials,
        });
        let mut bytes = Vec::new();
        packet.encode(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// The id of the device with this number.
    #[must_use]
    pub fn client_id(&self, number: usize) -> String {
        format!("{}{number}", self.prefix)
    }
}
