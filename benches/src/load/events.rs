//! One AMQP reader of what is stored already.

use std::io::{Read as ReadBytes, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use devicebound_testkit::amqp_client::AmqpClient;
use rustls::{ClientConnection, StreamOwned};

use super::{Failure, Process, Tls};

/// Where events are, and who may read them.
#[derive(Clone, Debug)]
pub struct EventSource {
    /// The port of AMQP.
    pub address: SocketAddr,
    /// TLS, or plain TCP.
    pub tls: Option<Tls>,
    /// For SASL PLAIN.
    pub user: String,
    /// For SASL PLAIN.
    pub password: String,
    /// What is read, all of it over one connection.
    pub nodes: Vec<String>,
}

/// What came of reading.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Events that were read.
    pub events: u64,
    /// In how long.
    pub elapsed: Duration,
    /// CPU time of the server.
    pub server_cpu: Duration,
    /// CPU time of this process.
    pub reader_cpu: Duration,
}

trait Stream: ReadBytes + Write {}
impl<S: ReadBytes + Write> Stream for S {}

impl EventSource {
    /// A client of it.
    ///
    /// # Errors
    /// When the server refuses.
    fn client(&self) -> Result<AmqpClient<Box<dyn Stream>>, Failure> {
        let tcp = TcpStream::connect(self.address)?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(Tls { config, name }) => {
                Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), name.clone())?, tcp))
            }
            None => Box::new(tcp),
        };
        Ok(AmqpClient::open(stream, "localhost", &self.user, &self.password)?)
    }

    /// Sends so many messages with this body to the first node.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn fill(&self, body: &[u8], messages: u64) -> Result<(), Failure> {
        let node = self.nodes.first().ok_or("there is no node")?;
        let mut client = self.client()?;
        let sender = client.sender(node)?;
        client.send(sender, body, messages)?;
        // RabbitMQ 3.10 may reset what is closed while it holds its senders back.
        let _ = client.close();
        Ok(())
    }
}

/// Reads so many events of all nodes, from the oldest on.
///
/// # Errors
/// When the server refuses, or is gone.
pub fn read_events(source: &EventSource, events: u64, server: &Process) -> Result<Read, Failure> {
    let mut client = source.client()?;
    server.wait_until_quiet()?;
    let own = Process::own()?;
    let (own_before, before, began) = (own.cpu()?, server.cpu()?, Instant::now());
    let receivers = source.nodes.iter().map(|node| client.receiver(node)).collect::<Result<Vec<_>, _>>()?;
    client.count(&receivers, events)?;
    let elapsed = began.elapsed();
    let read =
        Read { events, elapsed, server_cpu: server.cpu()? - before, reader_cpu: own.cpu()? - own_before };
    client.close()?;
    Ok(read)
}
