//! One connection of a client: TCP, TLS if the server wants it, packets in and out.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use devicebound::packet::{Decoded, Packet, decode};
use mio::event::Source as _;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::Failure;

/// Enough for the acknowledgements of a thousand full windows in one read.
const READ_SIZE: usize = 64 * 1024;
/// A client that only publishes is sent nothing longer.
const PACKET_MAX: usize = 256;

/// The server under load.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    /// How to speak TLS with it; plain TCP without.
    pub tls: Option<Tls>,
}

/// TLS 1.3, a full handshake each time.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl Tls {
    /// Trusts the authorities in the PEM file `ca`, and expects a certificate for `name`.
    ///
    /// # Errors
    /// When the file holds no certificates, or the name is none.
    pub fn new(ca: &Path, name: &str) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        let unusable = |error: &dyn std::fmt::Display| format!("cannot use {}: {error}", ca.display());
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(&error))? {
            roots.add(certificate.map_err(|error| unusable(&error))?)?;
        }
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name: ServerName::try_from(name)?.to_owned() })
    }
}

/// What all lines read into, one after the other.
#[derive(Debug)]
pub(super) struct Scratch {
    wire: Vec<u8>,
    /// Packets after TLS; the start of one that the last read cut off comes first.
    packets: Vec<u8>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { wire: vec![0; READ_SIZE], packets: vec![0; READ_SIZE + PACKET_MAX] }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    /// Packets to send.
    pub(super) out: Vec<u8>,
    /// The start of a packet whose end has not come.
    cut: Vec<u8>,
}

impl Line {
    /// Starts to connect.
    pub(super) fn open(peer: &Peer, registry: &Registry, token: Token) -> Result<Self, Failure> {
        let mut tcp = TcpStream::connect(peer.address)?;
        tcp.set_nodelay(true)?;
        let tls = match &peer.tls {
            Some(Tls { config, name }) => {
                let mut tls = ClientConnection::new(Arc::clone(config), name.clone())?;
                tls.set_buffer_limit(None);
                Some(tls)
            }
            None => None,
        };
        tcp.register(registry, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { tcp, tls, out: Vec::new(), cut: Vec::new() })
    }

    /// Writes what there is to write, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => {
                while !self.out.is_empty() {
                    match self.tcp.write(&self.out) {
                        Ok(written) => drop(self.out.drain(..written)),
                        Err(error) => return waits(error),
                    }
                }
            }
            Some(tls) => {
                if !self.out.is_empty() {
                    tls.writer().write_all(&self.out)?;
                    self.out.clear();
                }
                while tls.wants_write() {
                    if let Err(error) = tls.write_tls(&mut self.tcp) {
                        return waits(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads all that is there and hands out the packets, each with when it came and with [`Line::out`].
    pub(super) fn receive(
        &mut self,
        scratch: &mut Scratch,
        mut packet: impl FnMut(Packet<'_>, Instant, &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let read = match self.tcp.read(&mut scratch.wire) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(read) => read,
                Err(error) => return Ok(waits(error)?),
            };
            let now = Instant::now();
            let mut packet = |received: Packet<'_>| packet(received, now, &mut self.out);
            match &mut self.tls {
                None => {
                    let end = self.cut.len() + read;
                    scratch.packets[..self.cut.len()].copy_from_slice(&self.cut);
                    scratch.packets[self.cut.len()..end].copy_from_slice(&scratch.wire[..read]);
                    take(&scratch.packets[..end], &mut self.cut, &mut packet)?;
                }
                Some(tls) => {
                    let mut records = &scratch.wire[..read];
                    while !records.is_empty() {
                        tls.read_tls(&mut records)?;
                        tls.process_new_packets()?;
                        loop {
                            let start = self.cut.len();
                            scratch.packets[..start].copy_from_slice(&self.cut);
                            match tls.reader().read(&mut scratch.packets[start..]) {
                                Ok(0) => return Err("the server has ended TLS on a connection".into()),
                                Ok(read) => {
                                    take(&scratch.packets[..start + read], &mut self.cut, &mut packet)?;
                                }
                                Err(error) => break waits(error)?,
                            }
                        }
                    }
                }
            }
            // Whatever comes from now on wakes us again.
            if read < scratch.wire.len() {
                return Ok(());
            }
        }
    }

    /// Says good-bye in good order.
    pub(super) fn close(mut self) -> io::Result<()> {
        devicebound::packet::disconnect(&mut self.out);
        self.flush()?;
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush()
    }
}

/// Hands out the whole packets in `bytes` and leaves the rest in `cut`.
fn take(
    mut bytes: &[u8],
    cut: &mut Vec<u8>,
    packet: &mut impl FnMut(Packet<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match decode(&mut bytes, PACKET_MAX)? {
            Decoded::Packet(whole) => packet(whole)?,
            Decoded::Incomplete { .. } => break,
        }
    }
    cut.clear();
    cut.extend_from_slice(bytes);
    Ok(())
}

/// A socket that is not ready is no error.
fn waits(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}
