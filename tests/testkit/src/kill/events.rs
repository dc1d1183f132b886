//! The same telemetry as an Event Hubs client reads it: partition by partition, over AMQP.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::ledger::{Violation, violation};
use crate::amqp_client::{AmqpClient, Event};
use crate::interop::Service;
use crate::interop::hub::Ready;

/// The partitions of a hub that was not told otherwise.
const PARTITIONS: usize = 4;

/// A reader of all partitions, which goes on where it was.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// The sequence number of the next event of each.
    next: [i64; PARTITIONS],
    /// The cursor of the newest event of each.
    newest: [u64; PARTITIONS],
    digest: Digest,
}

/// What messages are together, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest(u64);

impl Digest {
    /// One more message.
    pub(super) fn add(&mut self, cursor: u64, device_id: &str, body: &[u8]) {
        let mut hasher = DefaultHasher::new();
        (cursor, device_id, body).hash(&mut hasher);
        self.0 = self.0.wrapping_add(hasher.finish());
    }
}

impl Partitions {
    /// Reads what is new. `all` is what was read of the whole log, so many messages.
    ///
    /// # Errors
    /// When a partition has a gap, changes its order, or is another one than the log.
    pub(super) fn check(
        &mut self,
        ready: &Ready,
        service: &Service,
        (all, count): (Digest, u64),
    ) -> Result<(), Violation> {
        let unreadable = |error: io::Error| Violation(format!("cannot read over AMQP: {error}"));
        let (user, password) = service.plain();
        let stream = connect(ready.amqp, &ready.ca).map_err(unreadable)?;
        let mut client = AmqpClient::open(stream, "localhost", &user, &password).map_err(unreadable)?;
        for partition in 0..PARTITIONS {
            let address = format!("devicebound/ConsumerGroups/$Default/Partitions/{partition}");
            let events = client.drain(&address, self.next[partition]).map_err(unreadable)?;
            events.iter().try_for_each(|event| self.take(partition, event))?;
        }
        client.close().map_err(unreadable)?;
        let read: i64 = self.next.iter().sum();
        if (u64::try_from(read), self.digest) != (Ok(count), all) {
            return violation(format!("the partitions have {read} events, and not the {count} of the log"));
        }
        Ok(())
    }

    fn take(&mut self, partition: usize, event: &Event) -> Result<(), Violation> {
        let (next, newest) = (&mut self.next[partition], &mut self.newest[partition]);
        if event.sequence != *next || event.cursor <= *newest {
            let Event { sequence, cursor, .. } = event;
            return violation(format!(
                "partition {partition}: behind sequence number {}, offset {newest}, came {sequence}, {cursor}",
                *next - 1
            ));
        }
        (*next, *newest) = (event.sequence + 1, event.cursor);
        self.digest.add(event.cursor, &event.device_id, &event.body);
        Ok(())
    }
}

fn connect(address: SocketAddr, ca: &Path) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, TcpStream::connect(address)?))
}
