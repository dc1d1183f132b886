//! TLS on a TCP socket, without buffers of its own: records are opened where they were read to, and all that a turn has
//! to say goes out in one record and one write.
//!
//! What stays with a connection is the rest of a record that has not arrived as a whole, and sealed records that the
//! client does not take yet; an idle one has neither.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, ServerConfig};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::{EMPTY_READS_PER_TURN, READ_MAX, Transport};
use crate::transport::buffers::Buffers;

/// The most that a handshake may need to have unread at a time: messages up to 64 KiB (rustls), in records.
const UNREAD_MAX: usize = 96 * 1024;

/// A TCP socket and the TLS on it.
pub(crate) struct TlsSocket {
    tcp: TcpStream,
    tls: Box<UnbufferedServerConnection>,
    /// What has arrived and is not a whole record yet.
    unread: Vec<u8>,
    /// What the client has not taken yet.
    unsent: Vec<u8>,
    /// How many sealed bytes the client has taken.
    taken: u64,
    is_over: bool,
    /// Reads the client's first message for the server name in it, which an unbuffered connection does not tell.
    hello: Option<Box<Acceptor>>,
    server_name: Option<Box<str>>,
}

/// A [`TlsSocket`] between two threads.
pub(crate) struct Parked {
    tcp: std::net::TcpStream,
    tls: Box<UnbufferedServerConnection>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    taken: u64,
    is_over: bool,
}

impl TlsSocket {
    /// A socket whose client is to speak first.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub(crate) fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self::of(tcp, Box::new(tls), Some(Box::default())))
    }

    fn of(tcp: TcpStream, tls: Box<UnbufferedServerConnection>, hello: Option<Box<Acceptor>>) -> Self {
        let (unread, unsent) = (Vec::new(), Vec::new());
        Self { tcp, tls, unread, unsent, taken: 0, is_over: false, hello, server_name: None }
    }

    /// The server name that the client asked for, once the handshake is done; taken out.
    pub(crate) const fn take_server_name(&mut self) -> Option<Box<str>> {
        self.server_name.take()
    }

    /// Looks for the server name in what has arrived.
    fn look_for_server_name(&mut self, mut arrived: &[u8]) {
        let Some(mut hello) = self.hello.take() else { return };
        while !arrived.is_empty() {
            if !matches!(hello.read_tls(&mut arrived), Ok(1..)) {
                return;
            }
            match hello.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    self.server_name = accepted.client_hello().server_name().map(Into::into);
                    return;
                }
                // The handshake itself says what is wrong.
                Err(_) => return,
            }
        }
        self.hello = Some(hello);
    }

    /// What the handshake has brought out.
    pub(crate) fn state(&self) -> &CommonState {
        &self.tls
    }

    /// Goes on with the handshake until it is done. `rx` gets what came behind it.
    ///
    /// # Errors
    /// What is wrong with it, after the client was told as far as it listens; `UnexpectedEof` when it hung up.
    pub(crate) fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        rx: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        while self.tls.is_handshaking() {
            ready!(self.poll_flush(cx))?;
            let read = ready!(self.poll_fill(cx, buffers, rx));
            if read.is_err() {
                // The alert says why; nobody waits until it is taken.
                let _ = self.poll_flush(cx);
            }
            if read? == 0 && self.tls.is_handshaking() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        self.poll_flush(cx)
    }

    /// Reads once, and appends what was said to `rx`. Gives how many bytes came, sealed as they are.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        rx: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let kept = self.unread.len();
        let raw = buffers.raw(kept + READ_MAX);
        let mut space = ReadBuf::new(raw.get_mut(kept..).unwrap_or_default());
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut space))?;
        let count = space.filled().len();
        let Some(arrived) = raw.get_mut(..kept + count) else { return Poll::Ready(Ok(0)) };
        if let Some(front) = arrived.get_mut(..kept) {
            front.copy_from_slice(&self.unread);
        }
        self.look_for_server_name(arrived.get(kept..).unwrap_or_default());
        let taken = self.open(arrived, rx)?;
        let rest = arrived.get(taken..).unwrap_or_default();
        if rest.len() > UNREAD_MAX {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        // Exactly as much as there is; mostly nothing.
        self.unread = rest.to_vec();
        Poll::Ready(Ok(count))
    }

    /// Opens the records in `arrived` and says how many bytes of it are done with. What TLS itself has to answer goes to
    /// the unsent.
    fn open(&mut self, arrived: &mut [u8], rx: &mut Vec<u8>) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            let records = arrived.get_mut(taken..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(records);
            taken += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        rx.extend_from_slice(record.map_err(invalid)?.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => append(&mut self.unsent, |space| {
                    data.encode(space).map_err(|error| match error {
                        EncodeError::InsufficientSize(size) => Ok(size.required_size),
                        error @ EncodeError::AlreadyEncoded => Err(io::Error::other(error)),
                    })
                })?,
                // It goes out in order with all else.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.is_over = true;
                    return Ok(arrived.len());
                }
                // Blocked until more arrives, or with nothing left to open.
                Ok(_) => return Ok(taken),
                Err(error) => {
                    self.queue_alert();
                    return Err(invalid(error));
                }
            }
        }
    }

    /// After an error there is an alert to be sent, and nothing more.
    fn queue_alert(&mut self) {
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = self.tls.process_tls_records(&mut []).state {
            // An alert that does not fit into its room stays away; the connection ends all the same.
            let _ = append(&mut self.unsent, |space| {
                data.encode(space).map_err(|error| match error {
                    EncodeError::InsufficientSize(size) => Ok(size.required_size),
                    error @ EncodeError::AlreadyEncoded => Err(io::Error::other(error)),
                })
            });
        }
    }

    /// Seals `plain` behind what is unsent.
    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<()> {
        match self.tls.process_tls_records(&mut []).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => append(sealed, |space| {
                traffic.encrypt(plain, space).map_err(|error| match error {
                    EncryptError::InsufficientSize(size) => Ok(size.required_size),
                    error @ EncryptError::EncryptExhausted => Err(io::Error::other(error)),
                })
            }),
            Ok(_) => Err(io::ErrorKind::NotConnected.into()),
            Err(error) => Err(invalid(error)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let result = poll_write_all(&mut self.tcp, cx, &self.unsent, &mut written);
        self.taken += written as u64;
        if written == self.unsent.len() {
            self.unsent = Vec::new();
        } else {
            self.unsent.drain(..written);
        }
        result
    }
}

impl Transport for TlsSocket {
    const PROTOCOL: &'static str = "MQTT";

    type Parked = Parked;

    fn park(self) -> io::Result<Parked> {
        let Self { tcp, tls, unread, unsent, taken, is_over, .. } = self;
        Ok(Parked { tcp: tcp.into_std()?, tls, unread, unsent, taken, is_over })
    }

    fn resume(parked: Parked) -> io::Result<Self> {
        let Parked { tcp, tls, unread, unsent, taken, is_over } = parked;
        Ok(Self { unread, unsent, taken, is_over, ..Self::of(TcpStream::from_std(tcp)?, tls, None) })
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        rx: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let before = rx.len();
        for _ in 0..EMPTY_READS_PER_TURN {
            if self.is_over {
                return Poll::Ready(Ok(0));
            }
            if ready!(self.poll_fill(cx, buffers, rx))? == 0 {
                self.is_over = true;
            }
            if !self.unsent.is_empty() {
                // What TLS itself answers; when it goes is nobody's concern here.
                let _ = self.poll_flush(cx)?;
            }
            if rx.len() > before {
                return Poll::Ready(Ok(rx.len() - before));
            }
        }
        // Records without a payload, or records that do not become whole: others get their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        tx: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        if !self.unsent.is_empty() {
            ready!(self.poll_flush(cx))?;
        }
        if tx.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let sealed = &mut buffers.sealed;
        sealed.clear();
        self.seal(tx, sealed)?;
        tx.clear();
        let mut written = 0;
        let result = poll_write_all(&mut self.tcp, cx, sealed, &mut written);
        self.taken += written as u64;
        self.unsent.extend_from_slice(sealed.get(written..).unwrap_or_default());
        result
    }

    fn taken(&self) -> u64 {
        self.taken
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &mut Buffers) -> Poll<io::Result<()>> {
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.tls.process_tls_records(&mut []).state {
            append(&mut self.unsent, |space| {
                traffic.queue_close_notify(space).map_err(|error| match error {
                    EncryptError::InsufficientSize(size) => Ok(size.required_size),
                    error @ EncryptError::EncryptExhausted => Err(io::Error::other(error)),
                })
            })?;
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

fn poll_write_all(
    tcp: &mut TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
    written: &mut usize,
) -> Poll<io::Result<()>> {
    while let Some(rest) = bytes.get(*written..).filter(|rest| !rest.is_empty()) {
        match ready!(Pin::new(&mut *tcp).poll_write(cx, rest))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => *written += count,
        }
    }
    Poll::Ready(Ok(()))
}

/// Has `write` fill room behind `out`; where it needs more room, it says how much and is asked again.
fn append(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, io::Result<usize>>,
) -> io::Result<()> {
    let end = out.len();
    loop {
        let needed = match write(out.get_mut(end..).unwrap_or_default()) {
            Ok(count) => {
                out.truncate(end + count);
                return Ok(());
            }
            Err(needed) => needed?,
        };
        if out.len() - end >= needed {
            return Err(io::ErrorKind::InvalidData.into());
        }
        out.resize(end + needed, 0);
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
