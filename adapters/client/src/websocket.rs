//! MQTT over WebSocket: the upgrade, and binary frames of any size as one stream of bytes.

use std::io::{self, Read, Write};
use std::mem;

use tungstenite::client::{ClientRequestBuilder, IntoClientRequest as _};
use tungstenite::error::ProtocolError;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::http::uri::InvalidUri;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Error, Message, WebSocket};

/// The port of MQTT over WebSocket (IoT Hub MQTT).
pub const WEBSOCKET_PORT: u16 = 443;

/// What a device asks for (Node and .NET SDK).
const PATH: &str = "/$iothub/websocket";
/// The same, with the advice that no client certificate will be shown, which the hub would ask for (Java and embedded C
/// SDK).
const PATH_WITHOUT_CERTIFICATE: &str = "/$iothub/websocket?iothub-no-client-cert=true";
/// The subprotocol of MQTT 3.1.1 `[MQTT-6.0.0-3]`.
const SUBPROTOCOL: &str = "mqtt";

/// Longest frame or message taken: the longest packet that can be right fits, with some more behind it.
const MESSAGE_MAX: usize = 512 * 1024;
/// Longest frame sent, so that a copy of it is no burden: a TLS record.
const FRAME_MAX: usize = 16 * 1024;
/// Most bytes held until the hub has upgraded; a device sends CONNECT and waits.
const EARLY_MAX: usize = 64 * 1024;

/// A WebSocket as a stream of bytes, over a stream no call of which waits.
#[derive(Debug)]
pub(crate) struct WebSocketBytes<S: Read + Write> {
    state: State<S>,
}

#[derive(Debug)]
enum State<S: Read + Write> {
    /// The hub has not upgraded yet; these bytes wait for that.
    Upgrading(MidHandshake<ClientHandshake<S>>, Vec<u8>),
    /// What is left of the message that was read last.
    Open(WebSocket<S>, Bytes),
    /// There was no upgrade.
    Failed,
}

impl<S: Read + Write> WebSocketBytes<S> {
    /// Asks for the upgrade. `authority` is host and port of the hub as in a URL.
    pub(crate) fn new(stream: S, authority: &str, has_certificate: bool) -> io::Result<Self> {
        let path = if has_certificate { PATH } else { PATH_WITHOUT_CERTIFICATE };
        let uri = format!("wss://{authority}{path}").parse();
        let uri = uri.map_err(|error: InvalidUri| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL).into_client_request();
        let config = WebSocketConfig::default()
            .read_buffer_size(FRAME_MAX)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * EARLY_MAX)
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        let handshake = request.and_then(|request| ClientHandshake::start(stream, request, Some(config)));
        Ok(Self { state: State::Upgrading(handshake.map_err(into_io)?, Vec::new()) })
    }

    /// The stream underneath; `None` where there was no upgrade.
    pub(crate) fn stream(&mut self) -> Option<&mut S> {
        match &mut self.state {
            State::Upgrading(handshake, _) => Some(handshake.get_mut().get_mut()),
            State::Open(socket, _) => Some(socket.get_mut()),
            State::Failed => None,
        }
    }

    /// Goes on with the upgrade, as far as the stream goes.
    fn upgrade(&mut self) -> io::Result<()> {
        let State::Upgrading(handshake, early) = mem::replace(&mut self.state, State::Failed) else {
            return Ok(());
        };
        match handshake.handshake() {
            Ok((mut socket, _)) => {
                if !early.is_empty() {
                    unless_idle(socket.write(Message::Binary(early.into())))?;
                }
                self.state = State::Open(socket, Bytes::new());
                Ok(())
            }
            Err(HandshakeError::Interrupted(handshake)) => {
                self.state = State::Upgrading(handshake, early);
                Ok(())
            }
            Err(HandshakeError::Failure(error)) => Err(into_io(error)),
        }
    }

    /// The library answers pings and the closing handshake by itself while it is read.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if matches!(self.state, State::Upgrading(..)) {
            self.upgrade()?;
        }
        match &mut self.state {
            State::Upgrading(..) => Err(io::ErrorKind::WouldBlock.into()),
            State::Failed => Err(io::ErrorKind::UnexpectedEof.into()),
            State::Open(socket, rest) => {
                while rest.is_empty() {
                    match socket.read().map_err(into_io)? {
                        Message::Binary(bytes) => *rest = bytes,
                        Message::Text(_) => {
                            return Err(io::Error::new(io::ErrorKind::InvalidData, TextFrame));
                        }
                        _ => {}
                    }
                }
                let taken = rest.split_to(rest.len().min(room.len()));
                room[..taken.len()].copy_from_slice(&taken);
                Ok(taken.len())
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.state {
            State::Upgrading(_, early) => {
                let taken = bytes.len().min(EARLY_MAX.saturating_sub(early.len()));
                early.extend(&bytes[..taken]);
                if taken == 0 && !bytes.is_empty() {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(taken)
                }
            }
            State::Failed => Err(io::ErrorKind::BrokenPipe.into()),
            State::Open(socket, _) => {
                let frame = bytes.get(..FRAME_MAX).unwrap_or(bytes);
                // A frame that the stream does not take is kept until `flush`.
                unless_idle(socket.write(Message::Binary(Bytes::copy_from_slice(frame))))?;
                Ok(frame.len())
            }
        }
    }

    /// Whether the stream has taken all.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match &mut self.state {
            State::Open(socket, _) => unless_idle(socket.flush()),
            State::Upgrading(..) | State::Failed => Ok(true),
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn close(&mut self) {
        if let State::Open(socket, _) = &mut self.state {
            let _ = socket.close(None); // an error is seen by who reads on
        }
    }
}

/// A text frame came where only binary frames may `[MQTT-6.0.0-1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a WebSocket text frame; MQTT travels in binary frames")]
struct TextFrame;

/// Whether the stream has taken it.
fn unless_idle(result: Result<(), Error>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(into_io(error)),
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => io::ErrorKind::UnexpectedEof.into(),
        Error::Http(response) => io::Error::other(NoUpgrade(response.status().as_u16())),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

/// What answers is no IoT Hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no WebSocket there, but HTTP status {0}; check that host and port are those of an IoT Hub")]
struct NoUpgrade(u16);

#[cfg(test)]
mod tests {
    use tungstenite::handshake::derive_accept_key;

    use super::*;

    /// What the hub has sent and what it is sent; no more room for that than is said.
    #[derive(Debug, Default)]
    struct Memory {
        incoming: Vec<u8>,
        outgoing: Vec<u8>,
        room: usize,
    }

    impl Read for Memory {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            if self.incoming.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = self.incoming.as_slice().read(room)?;
            self.incoming.drain(..length);
            Ok(length)
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room - self.outgoing.len());
            if length == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.outgoing.write(&bytes[..length])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn asking(has_certificate: bool) -> WebSocketBytes<Memory> {
        let memory = Memory { room: usize::MAX, ..Memory::default() };
        let mut socket = WebSocketBytes::new(memory, "hub.example.test:443", has_certificate).unwrap();
        assert_eq!(read(&mut socket), Err(io::ErrorKind::WouldBlock));
        socket
    }

    /// A socket that was upgraded, with what was written before.
    fn open(early: &[u8]) -> WebSocketBytes<Memory> {
        let mut socket = asking(false);
        assert_eq!(socket.write(early).unwrap(), early.len());
        let request = String::from_utf8(mem::take(&mut memory(&mut socket).outgoing)).unwrap();
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        memory(&mut socket).incoming.extend(answer.bytes());
        assert_eq!(read(&mut socket), Err(io::ErrorKind::WouldBlock));
        socket
    }

    fn memory(socket: &mut WebSocketBytes<Memory>) -> &mut Memory {
        socket.stream().unwrap()
    }

    fn read(socket: &mut WebSocketBytes<Memory>) -> Result<Vec<u8>, io::ErrorKind> {
        let mut room = [0; 8];
        let length = socket.read(&mut room).map_err(|error| error.kind())?;
        Ok(room[..length].to_vec())
    }

    /// A frame from the hub, which is not masked.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, payload.len() as u8], payload].concat()
    }

    /// The frames in what was sent, each with its first byte, unmasked.
    fn sent(socket: &mut WebSocketBytes<Memory>) -> Vec<(u8, Vec<u8>)> {
        let bytes = mem::take(&mut memory(socket).outgoing);
        let mut rest = bytes.as_slice();
        let mut frames = Vec::new();
        while let [first, length, more @ ..] = rest {
            let (length, more) = match length & 0x7f {
                126 => (usize::from(u16::from_be_bytes([more[0], more[1]])), &more[2..]),
                length => (length.into(), more),
            };
            let (mask, more) = more.split_at(4);
            let payload = more[..length].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
            frames.push((*first, payload.collect()));
            rest = &more[length..];
        }
        frames
    }

    #[test]
    fn the_hub_is_asked_for_mqtt_at_its_path_and_told_that_no_certificate_will_be_shown() {
        for (has_certificate, path) in [(true, PATH), (false, PATH_WITHOUT_CERTIFICATE)] {
            let request = String::from_utf8(memory(&mut asking(has_certificate)).outgoing.clone()).unwrap();
            assert!(request.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{request}");
            assert!(request.contains("\r\nHost: hub.example.test:443\r\n"), "{request}");
            assert!(request.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{request}");
        }
    }

    #[test]
    fn what_is_written_before_the_upgrade_is_sent_after_it_in_one_frame() {
        assert_eq!(sent(&mut open(b"CONNECT")), [(0x82, b"CONNECT".to_vec())]);
    }

    #[test]
    fn no_more_is_held_before_the_upgrade_than_its_limit() {
        let mut socket = asking(false);
        assert_eq!(socket.write(&[0; 2 * EARLY_MAX]).unwrap(), EARLY_MAX);
        assert_eq!(socket.write(b"more").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn frames_of_any_size_make_one_stream() {
        let mut socket = open(b"");
        let mut stream = Vec::new();
        for incoming in
            [frame(0x82, b"\x10"), frame(0x82, b""), frame(0x02, b"\x0c"), frame(0x80, b"\0\x04MQTTetc")]
        {
            // Whole, and a byte at a time.
            for byte in incoming {
                memory(&mut socket).incoming.push(byte);
                while let Ok(read) = read(&mut socket) {
                    stream.extend(read);
                }
            }
        }
        assert_eq!(stream, b"\x10\x0c\0\x04MQTTetc");
    }

    #[test]
    fn a_long_write_becomes_frames_of_a_bounded_size() {
        let mut socket = open(b"");
        assert_eq!(socket.write(&[7; 20_000]).unwrap(), FRAME_MAX);
        assert_eq!(sent(&mut socket), [(0x82, vec![7; FRAME_MAX])]);
    }

    #[test]
    fn a_frame_that_the_stream_does_not_take_is_kept_and_sent_later() {
        let mut socket = open(b"");
        memory(&mut socket).room = 5;
        assert_eq!(socket.write(b"telemetry").unwrap(), 9);
        assert!(!socket.flush().unwrap());
        memory(&mut socket).room = usize::MAX;
        assert!(socket.flush().unwrap());
        assert_eq!(sent(&mut socket), [(0x82, b"telemetry".to_vec())]);
    }

    #[test]
    fn a_ping_is_answered_and_not_seen() {
        let mut socket = open(b"");
        memory(&mut socket).incoming = frame(0x89, b"x");
        assert_eq!(read(&mut socket), Err(io::ErrorKind::WouldBlock));
        assert_eq!(sent(&mut socket), [(0x8a, b"x".to_vec())]);
    }

    #[test]
    fn pings_of_a_hub_that_does_not_read_are_no_burden() {
        let mut socket = open(b"");
        memory(&mut socket).room = memory(&mut socket).outgoing.len();
        for _ in 0..10_000 {
            memory(&mut socket).incoming = frame(0x89, &[0; 125]);
            assert_eq!(read(&mut socket), Err(io::ErrorKind::WouldBlock));
        }
        memory(&mut socket).room = usize::MAX;
        assert!(socket.flush().unwrap());
        assert!(memory(&mut socket).outgoing.len() <= 3 * EARLY_MAX);
    }

    #[test]
    fn a_text_frame_and_a_message_without_end_are_refused() {
        let huge = [0x82, 0x7f, 0, 0, 0, 0, 0x10, 0, 0, 0];
        for incoming in [frame(0x81, b"hello"), huge.to_vec()] {
            let mut socket = open(b"");
            memory(&mut socket).incoming = incoming;
            assert_eq!(read(&mut socket), Err(io::ErrorKind::InvalidData));
        }
    }

    #[test]
    fn what_is_no_hub_is_named_by_its_status() {
        let mut socket = asking(false);
        memory(&mut socket).incoming = b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec();
        let told = socket.read(&mut [0]).unwrap_err().to_string();
        assert!(told.contains("404"), "{told}");
        assert_eq!(read(&mut socket), Err(io::ErrorKind::UnexpectedEof), "it is over");
    }

    #[test]
    fn both_may_close_and_the_other_hears_of_it() {
        let mut socket = open(b"");
        memory(&mut socket).incoming = frame(0x88, b"");
        assert_eq!(read(&mut socket), Err(io::ErrorKind::WouldBlock), "the hub closes TCP next");
        assert_eq!(sent(&mut socket), [(0x88, vec![])]);

        let mut socket = open(b"");
        socket.close();
        socket.close();
        assert_eq!(sent(&mut socket), [(0x88, vec![])]);
    }
}
