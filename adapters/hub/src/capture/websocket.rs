//! MQTT in WebSocket: the upgrade, and the bytes in the frames (RFC 6455).

use std::io::Cursor;

use devicebound::explain::Sender;
use devicebound::time::UnixTime;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::conversation::{Conversation, Tell};
use super::words;

/// The longest head of an HTTP message that is waited for.
const HEAD_MAX: usize = 64 * 1024;
/// Header fields of a head that are looked at.
const FIELDS_MAX: usize = 100;
/// The longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_MAX: u64 = 125;
/// The path on which an IoT Hub takes WebSockets.
const PATH: &str = "/$iothub/websocket";

/// Both sides of a connection that begins with an HTTP request.
#[derive(Debug, Default)]
pub(super) struct WebSocket {
    device: Side,
    hub: Side,
    is_upgraded: bool,
}

#[derive(Debug, Default)]
struct Side {
    stage: Stage,
    unread: Vec<u8>,
    /// The frame whose payload comes next.
    frame: Option<Frame>,
    /// The remark about frames that are not as they must be was made.
    has_remarked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Head,
    Frames,
    /// Where a frame begins is not known.
    Lost,
    /// What follows is not read.
    Over,
}

#[derive(Debug)]
struct Frame {
    left: u64,
    mask: [u8; 4],
    /// Bytes of the payload so far, which the mask goes by.
    position: usize,
    kind: OpCode,
    /// The payload of a control frame.
    control: Vec<u8>,
}

impl WebSocket {
    /// Whether the upgrade was asked for.
    pub(super) const fn is_upgraded(&self) -> bool {
        self.is_upgraded
    }

    const fn side(&mut self, sender: Sender) -> &mut Side {
        match sender {
            Sender::Device => &mut self.device,
            Sender::Hub => &mut self.hub,
        }
    }

    /// Bytes of one side are not in the capture.
    pub(super) fn gap(&mut self, sender: Sender) {
        let side = self.side(sender);
        side.unread.clear();
        side.frame = None;
        if side.stage != Stage::Over {
            side.stage = Stage::Lost;
        }
    }

    pub(super) fn received(
        &mut self,
        conversation: &mut Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        bytes: &[u8],
        tell: Tell<'_>,
    ) {
        if sender == Sender::Hub && self.device.stage == Stage::Over && !self.is_upgraded {
            return;
        }
        let side = self.side(sender);
        match side.stage {
            Stage::Over => return,
            Stage::Lost if is_whole_frames(bytes, sender) => side.stage = Stage::Frames,
            Stage::Lost => return,
            Stage::Head | Stage::Frames => {}
        }
        side.unread.extend_from_slice(bytes);
        if side.stage == Stage::Head {
            let head = match sender {
                Sender::Device => self.request(conversation, time, tell),
                Sender::Hub => self.response(conversation, time, tell),
            };
            let side = self.side(sender);
            match head {
                Some(length) => {
                    side.unread.drain(..length.min(side.unread.len()));
                }
                None if side.unread.len() > HEAD_MAX => side.over(),
                None => return,
            }
        }
        let side = self.side(sender);
        if side.stage == Stage::Frames {
            side.frames(conversation, time, sender, tell);
        }
    }

    /// The length of the request, once it is whole.
    fn request(
        &mut self,
        conversation: &mut Conversation,
        time: Option<UnixTime>,
        tell: Tell<'_>,
    ) -> Option<usize> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let length = match request.parse(&self.device.unread) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return None,
            Err(_) => {
                self.device.over();
                return Some(0);
            }
        };
        let asks = |name: &str, value: &str| {
            let of_name = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            let mut values = of_name.filter_map(|field| std::str::from_utf8(field.value).ok());
            values.any(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(value)))
        };
        self.is_upgraded = asks("upgrade", "websocket");
        if !self.is_upgraded {
            self.device.over();
            return Some(length);
        }
        let path = request.path.unwrap_or_default();
        conversation.remark(time, &format!("MQTT over WebSocket, GET {}", words::short(path)), tell);
        if path.split('?').next() != Some(PATH) {
            conversation.remark(time, &format!("an IoT Hub takes WebSockets on {PATH}"), tell);
        }
        if !asks("sec-websocket-protocol", "mqtt") {
            conversation.remark(
                time,
                "an IoT Hub takes WebSockets with the subprotocol mqtt, which is not asked for",
                tell,
            );
        }
        self.device.stage = Stage::Frames;
        Some(length)
    }

    /// The length of the response, once it is whole.
    fn response(
        &mut self,
        conversation: &mut Conversation,
        time: Option<UnixTime>,
        tell: Tell<'_>,
    ) -> Option<usize> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(&self.hub.unread) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return None,
            Err(_) => {
                self.hub.over();
                return Some(0);
            }
        };
        let code = response.code.unwrap_or_default();
        if code == 101 {
            self.hub.stage = Stage::Frames;
        } else {
            let reason = words::short(response.reason.unwrap_or_default());
            conversation.remark(time, &format!("the hub refuses the WebSocket with {code} {reason}"), tell);
            self.hub.over();
        }
        Some(length)
    }
}

impl Side {
    fn over(&mut self) {
        self.stage = Stage::Over;
        self.unread = Vec::new();
        self.frame = None;
    }

    /// Passes on what is in the frames.
    fn frames(
        &mut self,
        conversation: &mut Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        tell: Tell<'_>,
    ) {
        let unread = std::mem::take(&mut self.unread);
        let mut rest = &unread[..];
        loop {
            if let Some(mut frame) = self.frame.take() {
                let taken = usize::try_from(frame.left).map_or(rest.len(), |left| left.min(rest.len()));
                let (payload, behind) = rest.split_at(taken);
                let payload = frame.unmask(payload);
                rest = behind;
                frame.take(&payload, conversation, time, sender, tell);
                if frame.left > 0 {
                    self.frame = Some(frame);
                    break;
                }
                frame.end(conversation, time, sender, tell);
            }
            match self.header(&mut rest) {
                Ok(true) => self.remark(conversation, time, sender, tell),
                Ok(false) => break,
                Err(why) => {
                    let text = format!("what the {} sends is not read: {why}", words::name(sender));
                    conversation.remark(time, &text, tell);
                    conversation.is_unseen(sender);
                    return self.over();
                }
            }
        }
        self.unread = rest.to_vec();
    }

    /// Takes the header of a frame; false when there is no whole one.
    fn header(&mut self, rest: &mut &[u8]) -> Result<bool, &'static str> {
        let mut cursor = Cursor::new(*rest);
        let header = FrameHeader::parse(&mut cursor).map_err(|_| "it is no WebSocket frame")?;
        let Some((header, left)) = header else { return Ok(false) };
        if header.rsv1 {
            return Err("its frames are compressed (permessage-deflate); turn that off in the client");
        }
        if matches!(header.opcode, OpCode::Control(_)) && left > CONTROL_MAX {
            return Err("a control frame has more than 125 bytes");
        }
        let taken = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        *rest = rest.get(taken..).unwrap_or_default();
        let (mask, kind) = (header.mask.unwrap_or_default(), header.opcode);
        self.frame = Some(Frame { left, mask, position: 0, kind, control: Vec::new() });
        Ok(true)
    }

    /// What is wrong with a frame that is read all the same, once.
    fn remark(
        &mut self,
        conversation: &Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        tell: Tell<'_>,
    ) {
        let Some(frame) = self.frame.as_ref().filter(|_| !self.has_remarked) else { return };
        let text = if frame.kind == OpCode::Data(Data::Text) {
            "MQTT goes in binary frames, and this is a text frame (MQTT-6.0.0-1)"
        } else if sender == Sender::Device && frame.mask == [0; 4] && frame.left > 0 {
            "the frames of the device are not masked; servers close for that (RFC 6455 §5.1)"
        } else {
            return;
        };
        conversation.remark(time, text, tell);
        self.has_remarked = true;
    }
}

impl Frame {
    fn unmask(&mut self, payload: &[u8]) -> Vec<u8> {
        let position = self.position;
        self.position = position.wrapping_add(payload.len());
        self.left = self.left.saturating_sub(payload.len() as u64);
        let mask = self.mask.iter().cycle().skip(position % 4);
        payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
    }

    fn take(
        &mut self,
        payload: &[u8],
        conversation: &mut Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        tell: Tell<'_>,
    ) {
        match self.kind {
            OpCode::Data(_) => conversation.received(time, sender, payload, tell),
            OpCode::Control(_) => self.control.extend_from_slice(payload),
        }
    }

    fn end(&self, conversation: &Conversation, time: Option<UnixTime>, sender: Sender, tell: Tell<'_>) {
        if self.kind != OpCode::Control(Control::Close) {
            return;
        }
        let (code, reason) = match self.control.split_at_checked(2) {
            Some((code, reason)) => {
                (code.iter().fold(0, |code: u32, byte| code << 8 | u32::from(*byte)), reason)
            }
            None => (1005, &b""[..]),
        };
        let reason = String::from_utf8_lossy(reason);
        let text =
            format!("the {} closes the WebSocket, {code} {}", words::name(sender), words::short(&reason));
        conversation.remark(time, text.trim_end(), tell);
    }
}

/// Whether these bytes are frames from the first to the last byte, as this side sends them.
fn is_whole_frames(bytes: &[u8], sender: Sender) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut cursor = Cursor::new(rest);
        let Ok(Some((header, length))) = FrameHeader::parse(&mut cursor) else { return false };
        let is_of_sender = header.mask.is_some() == (sender == Sender::Device);
        let end = usize::try_from(cursor.position().saturating_add(length)).unwrap_or(usize::MAX);
        match rest.get(end..) {
            Some(behind) if is_of_sender && !header.rsv1 && !header.rsv2 && !header.rsv3 => rest = behind,
            _ => return false,
        }
    }
    true
}
