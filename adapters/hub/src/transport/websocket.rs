//! MQTT over WebSocket: the upgrade, and binary frames of any size as one stream of bytes.
//!
//! A frame is not a packet: MQTT.js cuts each packet into many small frames, some of them empty, and others put several
//! packets into one `[MQTT-6.0.0-2]`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where the device SDKs connect to; any query is allowed behind it (`?iothub-no-client-cert=true`).
pub const PATH: &str = "/$iothub/websocket";

/// The subprotocol of MQTT 3.1.1 over WebSocket `[MQTT-6.0.0-3]`, in any case.
const SUBPROTOCOL: &str = "mqtt";

/// Longest frame or message taken: the longest packet that can be right fits, with some more behind it.
const MESSAGE_MAX: usize = 512 * 1024;

/// Longest frame sent, so that a copy of it is no burden.
const FRAME_MAX: usize = 64 * 1024;

/// Why a client that does not ask for MQTT is refused.
pub const REFUSAL: &str = "this path speaks MQTT 3.1.1: ask for the WebSocket subprotocol `mqtt`; this hub has no AMQP: send cloud-to-device messages with POST /devices/{id}/messages/deviceBound\n";

/// Answers the upgrade and gives `serve` the bytes; 400 with [`REFUSAL`] for a client that does not ask for MQTT.
///
/// The service SDKs' AMQP over WebSocket comes to the very same path, with the subprotocol `AMQPWSB10`.
pub fn accept<F>(
    mut upgrade: WebSocketUpgrade,
    serve: impl FnOnce(WebSocketBytes) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let is_mqtt =
        |name: &&axum::http::HeaderValue| name.as_bytes().eq_ignore_ascii_case(SUBPROTOCOL.as_bytes());
    let Some(selected) = upgrade.requested_protocols().find(is_mqtt).cloned() else {
        return (StatusCode::BAD_REQUEST, REFUSAL).into_response();
    };
    // Echoed as the client wrote it: some compare it with what they sent.
    upgrade.set_selected_protocol(selected);
    upgrade
        .max_frame_size(MESSAGE_MAX)
        .max_message_size(MESSAGE_MAX)
        .on_upgrade(|socket| serve(WebSocketBytes::new(socket)))
}

/// A text frame came where only binary frames may `[MQTT-6.0.0-1]`; the inner error of the [`io::Error`] of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a WebSocket text frame; MQTT travels in binary frames")]
pub struct TextFrame;

/// A WebSocket as a stream of bytes.
#[derive(Debug)]
pub struct WebSocketBytes<S = WebSocket> {
    socket: S,
    /// What is left of the message that was read last.
    rest: Bytes,
}

impl<S> WebSocketBytes<S> {
    const fn new(socket: S) -> Self {
        Self { socket, rest: Bytes::new() }
    }
}

impl<S> AsyncRead for WebSocketBytes<S>
where
    S: Stream<Item = Result<Message, axum::Error>> + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, TextFrame)));
                }
                // The library answers pings and the closing handshake by itself while it is read.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl<S> AsyncWrite for WebSocketBytes<S>
where
    S: Sink<Message, Error = axum::Error> + Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
        let frame = buf.get(..FRAME_MAX).unwrap_or(buf);
        let message = Message::Binary(Bytes::copy_from_slice(frame));
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(frame.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn incoming(
        messages: Vec<Message>,
    ) -> WebSocketBytes<impl Stream<Item = Result<Message, axum::Error>> + Unpin> {
        WebSocketBytes::new(futures_util::stream::iter(messages.into_iter().map(Ok)))
    }

    #[tokio::test]
    async fn frames_of_any_size_make_one_stream() {
        let frames = ["\u{10}", "", "\u{c}", "", "\0\u{4}MQ", "TT"];
        let mut stream = incoming(frames.map(|text| Message::Binary(text.into())).to_vec());
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"\x10\x0c\0\x04MQTT");
    }

    #[tokio::test]
    async fn pings_between_frames_are_not_seen() {
        let mut stream = incoming(vec![
            Message::Binary("a".into()),
            Message::Ping("x".into()),
            Message::Pong("y".into()),
            Message::Binary("b".into()),
        ]);
        let mut read = String::new();
        stream.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "ab");
    }

    #[tokio::test]
    async fn a_text_frame_is_told_apart_from_a_lost_connection() {
        let mut stream = incoming(vec![Message::Text("hello".into())]);
        let error = stream.read_u8().await.unwrap_err();
        assert!(error.get_ref().is_some_and(|inner| inner.is::<TextFrame>()));
    }
}
