//! MQTT and AMQP over WebSocket: the upgrade, and binary frames of any size as one stream of bytes.
//!
//! A frame is not a packet: MQTT.js cuts each packet into many small frames, some of them empty, and others put several
//! packets into one `[MQTT-6.0.0-2]`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::handshake::derive_accept_key;

mod frames;

pub use frames::FrameError;
use frames::{Frames, write_binary};

use super::EMPTY_READS_PER_TURN;

/// Where the device SDKs connect to; any query is allowed (`?iothub-no-client-cert=true`).
pub const PATH: &str = "/$iothub/websocket";

/// The subprotocol of MQTT 3.1.1 over WebSocket `[MQTT-6.0.0-3]`, in any case.
pub const MQTT: &str = "mqtt";

/// The subprotocol of AMQP 1.0 over WebSocket, as all of Azure's SDKs ask for it.
pub const AMQP: &str = "AMQPWSB10";

/// The only version of the protocol (RFC 6455 §4.1).
const VERSION: &str = "13";

/// Why a request is not upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It asks for no WebSocket, or for one of another version.
    #[error(
        "this path is a WebSocket: send GET with Connection: Upgrade, Upgrade: websocket, Sec-WebSocket-Version: 13 and Sec-WebSocket-Key"
    )]
    NoWebSocket,
    /// It asks for none of the protocols that are spoken here.
    #[error(
        "this path speaks MQTT 3.1.1 and AMQP 1.0: ask for the WebSocket subprotocol `mqtt` or `AMQPWSB10`"
    )]
    Protocol,
}

/// An upgrade that was granted.
#[derive(Debug)]
pub struct Upgrade {
    /// Becomes the stream of bytes once `response` was sent.
    pub socket: OnUpgrade,
    /// Which of the offered protocols the client asked for first.
    pub protocol: &'static str,
    /// What the client is to be answered.
    pub response: Response,
}

/// Judges a request for a WebSocket that speaks one of `offered`.
///
/// # Errors
/// [`Refusal`].
pub fn upgrade(request: &mut Request<Body>, offered: &[&'static str]) -> Result<Upgrade, Refusal> {
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| {
        request.method() == Method::GET
            && names(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
            && names(headers, &UPGRADE).any(|name| name.eq_ignore_ascii_case("websocket"))
            && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == VERSION)
    });
    let accept = derive_accept_key(key.ok_or(Refusal::NoWebSocket)?.as_bytes());
    let find =
        |name: &str| Some((name.to_owned(), *offered.iter().find(|own| own.eq_ignore_ascii_case(name))?));
    let (asked, protocol) =
        names(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(find).ok_or(Refusal::Protocol)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = [
        (CONNECTION, "upgrade"),
        (UPGRADE, "websocket"),
        (SEC_WEBSOCKET_ACCEPT, &accept),
        // Echoed as the client wrote it: some compare it with what they sent.
        (SEC_WEBSOCKET_PROTOCOL, &asked),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_str(value).map_err(|_| Refusal::Protocol)?);
    }
    Ok(Upgrade { socket: hyper::upgrade::on(request), protocol, response })
}

/// The names in the list that a header is, in one line or in several.
fn names<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// A WebSocket as a stream of bytes.
#[derive(Debug)]
pub struct WebSocketBytes<S> {
    socket: S,
    frames: Frames,
    /// Frames that the socket did not take yet: one of data and two of control at most.
    unsent: Vec<u8>,
}

/// What hyper leaves of a connection that was upgraded.
pub type Upgraded = WebSocketBytes<TokioIo<hyper::upgrade::Upgraded>>;

impl<S> WebSocketBytes<S> {
    /// The server's side of a WebSocket whose upgrade is done.
    pub fn new(socket: S) -> Self {
        Self { socket, frames: Frames::default(), unsent: Vec::new() }
    }
}

impl<S: AsyncWrite + Unpin> WebSocketBytes<S> {
    /// Writes what waits. An idle connection keeps no buffer.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let result = loop {
            let rest = self.unsent.get(written..).unwrap_or_default();
            if rest.is_empty() {
                self.unsent = Vec::new();
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.unsent.drain(..written);
        result
    }

    /// Writes what waits, then the control frames that are owed.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        self.frames.answer(&mut self.unsent);
        if !self.unsent.is_empty() {
            ready!(self.poll_unsent(cx))?;
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        for _ in 0..EMPTY_READS_PER_TURN {
            // A client that does not read its pongs gets fewer of them; what it sends is read all the same.
            let _ = this.poll_answer(cx)?;
            if this.frames.has_ended() || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
            let arrived = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if arrived.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let payload = this.frames.open(arrived);
            let count = payload.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            buf.set_filled(before + count);
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WebSocketBytes<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        let taken = write_binary(buf, &mut self.unsent);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.frames.close();
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// Pings with 125 bytes each, as a client writes them; their mask is zero.
    fn pings(count: usize) -> Vec<u8> {
        [&[0x89, 0xfd, 0, 0, 0, 0][..], &[7; 125]].concat().repeat(count)
    }

    fn pair(capacity: usize) -> (DuplexStream, WebSocketBytes<DuplexStream>) {
        let (client, server) = tokio::io::duplex(capacity);
        (client, WebSocketBytes::new(server))
    }

    fn request(protocols: &str) -> Request<Body> {
        Request::builder()
            .uri(PATH)
            .header(CONNECTION, "keep-alive, Upgrade")
            .header(UPGRADE, "WebSocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .header(SEC_WEBSOCKET_PROTOCOL, protocols)
            .body(Body::empty())
            .unwrap()
    }

    #[test]
    fn an_upgrade_answers_with_the_key_of_the_specification_and_the_protocol_as_it_was_written() {
        let upgrade = upgrade(&mut request("chat, MQTT"), &[MQTT]).unwrap();
        let headers = upgrade.response.headers();
        assert_eq!(headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "RFC 6455 §1.3");
        assert_eq!((headers[SEC_WEBSOCKET_PROTOCOL].to_str().unwrap(), upgrade.protocol), ("MQTT", MQTT));
    }

    #[test]
    fn what_is_no_websocket_and_what_speaks_another_protocol_is_told_apart() {
        assert_eq!(upgrade(&mut request("AMQPWSB10"), &[MQTT]).unwrap_err(), Refusal::Protocol);
        for missing in [CONNECTION, UPGRADE, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY] {
            let mut request = request("mqtt");
            request.headers_mut().remove(missing);
            assert_eq!(upgrade(&mut request, &[MQTT]).unwrap_err(), Refusal::NoWebSocket);
        }
    }

    #[tokio::test]
    async fn pings_whose_pongs_are_not_read_are_read_on_and_cost_two_frames() {
        let (mut client, mut socket) = pair(64);
        let flood = tokio::spawn(async move {
            client.write_all(&pings(10_000)).await.unwrap();
            client.write_all(b"\x82\x81\0\0\0\0!").await.unwrap();
            client
        });
        assert_eq!(socket.read_u8().await.unwrap(), b'!', "the flood was read to its end");
        assert!(socket.unsent.capacity() <= 512, "{}", socket.unsent.capacity());
        flood.await.unwrap();
    }

    #[test]
    fn a_client_that_sends_empty_frames_without_end_gives_others_their_turn() {
        /// A socket that has always something to read.
        #[derive(Debug)]
        struct Endless;
        impl AsyncRead for Endless {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                buf.put_slice(&b"\x82\x80\0\0\0\0".repeat(buf.remaining() / 6));
                Poll::Ready(Ok(()))
            }
        }
        impl AsyncWrite for Endless {
            fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(buf.len()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let mut socket = WebSocketBytes::new(Endless);
        let mut room = [0; 4096];
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut socket).poll_read(&mut context, &mut ReadBuf::new(&mut room)).is_pending());
    }

    #[tokio::test]
    async fn what_is_written_goes_out_in_frames_and_a_shutdown_says_goodbye() {
        let (mut client, mut socket) = pair(1024);
        socket.write_all(b"abc").await.unwrap();
        socket.flush().await.unwrap();
        socket.shutdown().await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"\x82\x03abc\x88\x02\x03\xe8");
    }

    #[tokio::test]
    async fn a_text_frame_is_told_apart_from_a_lost_connection() {
        let (mut client, mut socket) = pair(64);
        client.write_all(b"\x81\x81\0\0\0\0a").await.unwrap();
        let error = socket.read_u8().await.unwrap_err();
        assert_eq!(error.get_ref().and_then(|inner| inner.downcast_ref()), Some(&FrameError::Text));
    }
}
