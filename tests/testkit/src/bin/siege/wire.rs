//! An attacker's end of a connection: TLS, and any bytes in it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use devicebound::packet::{
    ConnAck, Connect, Credentials, Decoded, Packet, PacketId, Publish, PublishQoS, QoS, Subscribe, Text,
    TopicFilter, TopicName, Will, decode,
};
use devicebound_testkit::interop::Device;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Outcome;

/// The name in the hub's certificate.
const NAME: &str = "localhost";
/// Addresses of the loopback that connections come from, in turn: each has 28,000 ports of its own.
const SOURCES: u32 = 16;
/// TLS handshakes at a time: enough to keep the hub busy, and few enough that each is taken up at once.
const HANDSHAKES: usize = 64;
/// Longest wait for what the hub should say at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// The way to one hub.
pub(crate) struct Door {
    address: SocketAddr,
    tls: TlsConnector,
    next_source: AtomicU32,
    handshakes: Semaphore,
}

/// A connection that may say anything.
pub(crate) struct Wire<S = TlsStream<TcpStream>> {
    pub(crate) socket: S,
    heard: Inbox,
}

/// Bytes that have come and were not looked at yet.
#[derive(Default)]
pub(crate) struct Inbox(Vec<u8>);

/// What the hub says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// CONNACK, with its return code.
    ConnAck(u8),
    PubAck(u16),
    SubAck(u16),
    PingResp,
    /// PUBLISH, with its packet id at QoS 1.
    Publish {
        topic: String,
        packet_id: Option<u16>,
        payload: Vec<u8>,
    },
    /// What no hub has to say to these attackers.
    Other,
}

/// CONNECT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello<'d> {
    pub(crate) device: &'d Device,
    pub(crate) keep_alive: u16,
    pub(crate) clean_session: bool,
    pub(crate) will: Option<&'d str>,
}

impl Door {
    pub(crate) fn new(address: SocketAddr, ca: &str) -> Outcome<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&fs::read(ca)?) {
            roots.add(certificate?)?;
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Each connection is one of a device that was not here before.
        config.resumption = Resumption::disabled();
        Ok(Self {
            address,
            tls: TlsConnector::from(Arc::new(config)),
            next_source: AtomicU32::new(0),
            handshakes: Semaphore::new(HANDSHAKES),
        })
    }

    pub(crate) fn tls_config(&self) -> Arc<ClientConfig> {
        Arc::clone(self.tls.config())
    }

    /// A socket with a source address of its own.
    pub(crate) fn socket(&self) -> io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        let source = self.next_source.fetch_add(1, Ordering::Relaxed) % SOURCES;
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST).wrapping_add(source));
        socket.bind((source, 0).into())?;
        Ok(socket)
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// TCP alone.
    pub(crate) async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = self.socket()?.connect(self.address).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// TCP and TLS.
    pub(crate) async fn open(&self) -> io::Result<Wire> {
        // Never closed.
        let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
        self.secure(self.tcp().await?).await
    }

    /// TLS over what is connected.
    pub(crate) async fn secure(&self, socket: TcpStream) -> io::Result<Wire> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let socket = self.tls.connect(name, socket).await?;
        Ok(Wire { socket, heard: Inbox::default() })
    }

    /// A device that was accepted.
    pub(crate) async fn online(&self, hello: Hello<'_>) -> io::Result<Wire> {
        let mut wire = self.open().await?;
        wire.log_in(hello).await?;
        Ok(wire)
    }
}

impl Wire {
    /// Its two halves, for a flood.
    pub(crate) fn halves(self) -> (Wire<ReadHalf<TlsStream<TcpStream>>>, WriteHalf<TlsStream<TcpStream>>) {
        let (reader, writer) = tokio::io::split(self.socket);
        (Wire { socket: reader, heard: self.heard }, writer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Sends CONNECT; an error unless it is accepted.
    pub(crate) async fn log_in(&mut self, hello: Hello<'_>) -> io::Result<()> {
        self.send(&hello.packet()).await?;
        match self.expect().await? {
            Heard::ConnAck(0) => Ok(()),
            other => Err(io::Error::other(format!("CONNECT was answered with {other:?}"))),
        }
    }

    /// Subscribes to a filter at QoS 1; an error unless that is granted.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        self.send(&subscribe(1, &[filter])).await?;
        match self.expect().await? {
            Heard::SubAck(1) => Ok(()),
            other => Err(io::Error::other(format!("SUBSCRIBE was answered with {other:?}"))),
        }
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// The next packet, which has to come.
    pub(crate) async fn expect(&mut self) -> io::Result<Heard> {
        self.hear().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The next packet; `None` at the end of the connection, however it comes. An error when neither comes.
    pub(crate) async fn hear(&mut self) -> io::Result<Option<Heard>> {
        loop {
            if let Some(heard) = self.heard.next()? {
                return Ok(Some(heard));
            }
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.heard.0)).await;
            match read.map_err(|_| io::Error::other("the hub says nothing"))? {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    /// Waits for the end, however it comes, and gives what was said until then.
    pub(crate) async fn end(&mut self) -> Vec<u8> {
        // A reset is an end like any other.
        while let Ok(1..) = self.socket.read_buf(&mut self.heard.0).await {}
        std::mem::take(&mut self.heard.0)
    }
}

impl Inbox {
    fn next(&mut self) -> io::Result<Option<Heard>> {
        let mut rest = self.0.as_slice();
        let decoded = decode(&mut rest, usize::MAX).map_err(io::Error::other)?;
        let heard = match decoded {
            Decoded::Incomplete { .. } => return Ok(None),
            Decoded::Packet(packet) => Heard::of(&packet),
        };
        let taken = self.0.len() - rest.len();
        self.0.drain(..taken);
        Ok(Some(heard))
    }
}

impl Heard {
    fn of(packet: &Packet<'_>) -> Self {
        match packet {
            Packet::ConnAck(connack) => Self::ConnAck(connack.return_code()),
            Packet::PubAck(id) => Self::PubAck(id.get()),
            Packet::SubAck(suback) => Self::SubAck(suback.packet_id().get()),
            Packet::PingResp => Self::PingResp,
            Packet::Publish(publish) => Self::Publish {
                topic: publish.topic.as_str().to_owned(),
                packet_id: publish.qos.packet_id().map(PacketId::get),
                payload: publish.payload.to_vec(),
            },
            _ => Self::Other,
        }
    }
}

impl<'d> Hello<'d> {
    /// CONNECT of a device that keeps its session and is silent for as long as it likes.
    pub(crate) const fn of(device: &'d Device) -> Self {
        Self { device, keep_alive: 0, clean_session: false, will: None }
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        self.packet_with(Some(self.device.token(NAME).as_bytes()))
    }

    /// The packet with another password, or with none.
    pub(crate) fn packet_with(&self, password: Option<&[u8]>) -> Vec<u8> {
        let user_name = self.device.user_name();
        let topic = self.device.telemetry_topic("");
        let will = self.will.map(|message| Will {
            topic: name(&topic),
            message: message.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
        });
        let connect = Connect {
            clean_session: self.clean_session,
            keep_alive: self.keep_alive,
            client_id: text(&self.device.id),
            will,
            credentials: Some(Credentials { username: text(&user_name), password }),
        };
        encoded(|out| connect.encode(out))
    }
}

/// The bytes of CONNACK with this return code, without a session.
pub(crate) fn connack(code: u8) -> Vec<u8> {
    let mut out = Vec::new();
    ConnAck::Accepted { session_present: false }.encode(&mut out);
    out[3] = code;
    out
}

/// A PUBLISH at QoS 0.
pub(crate) fn publish_once(topic: &str, payload: &[u8]) -> Vec<u8> {
    let publish = Publish { qos: PublishQoS::AtMostOnce, retain: false, topic: name(topic), payload };
    encoded(|out| publish.encode(out))
}

/// A SUBSCRIBE at QoS 1.
pub(crate) fn subscribe(packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<_> = filters
        .iter()
        .map(|filter| (TopicFilter::new(filter).expect("attackers' filters are UTF-8"), QoS::AtLeastOnce))
        .collect();
    let packet_id = PacketId::new(packet_id).expect("0 is no packet id");
    encoded(|out| Subscribe::encode(packet_id, &filters, out))
}

/// A PUBACK.
pub(crate) fn puback(packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [0x40, 2, high, low]
}

/// A PINGREQ.
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
/// A DISCONNECT.
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// Runs futures at the same time; each has a second task's independence, so that the slowest delays no other.
pub(crate) async fn all<T: Send + 'static>(
    futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Outcome<Vec<T>> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await?);
    }
    Ok(results)
}

/// How long something takes.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let begun = Instant::now();
    let result = work.await;
    (begun.elapsed(), result)
}

fn encoded<E: std::fmt::Debug>(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out).expect("attackers' packets fit");
    out
}

fn text(text: &str) -> Text<'_> {
    Text::new(text).expect("attackers' names are MQTT text")
}

fn name(topic: &str) -> TopicName<'_> {
    TopicName::new(topic).expect("attackers' topics are topic names")
}
