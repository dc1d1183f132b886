//! The live view: a line for each packet with its meaning, and for each end of a connection the rule, the bytes, the fix.
//!
//! The same ends, without the packets, go to the structured log (`--log`), which is there instead of the view and not
//! beside it: one thing is told once.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use devicebound::Rule;
use devicebound::explain::{Sender, explain};
use devicebound::hub::{Comparison, Warning};
use devicebound::iothub::Identity;
use devicebound::packet::{Decoded, Packet, decode};
use devicebound::session::CloseReason;
use serde_json::{Map, Value, json};
use tracing::{Level, enabled, info, warn};

use super::repeats::Repeats;
use super::takeovers::{Takeover, Takeovers};
use super::wording::End;
use crate::clock::unix_time;
use crate::observe::event_log::{EventLog, Standing};
use crate::observe::printable::{printable, printable_json, printable_lines};
use crate::observe::wording;

/// Lines that may wait to be printed; a terminal that is slower than the hub loses lines, not the hub its time.
const LINES_MAX: usize = 4096;
/// How often it is looked whether the sum of repeated lines is due.
const REPEATS_LOOKED_AT: Duration = Duration::from_secs(1);

/// How the view is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where everything that happens is told; cheap to copy, and nothing when it is off.
#[derive(Clone, Debug, Default)]
pub struct View {
    printer: Option<Arc<Printer>>,
    timeline: Timeline,
}

/// The same as JSON, kept for who comes later: each packet while somebody follows it, and each end in any case.
#[derive(Clone, Debug)]
pub struct Timeline(pub Arc<EventLog>);

/// So many lines and bytes are kept (own limit): a busy minute, or the ends of a day.
const TIMELINE_LINES: usize = 20_000;
const TIMELINE_BYTES: usize = 16 * 1024 * 1024;

impl Default for Timeline {
    fn default() -> Self {
        Self(Arc::new(EventLog::new(TIMELINE_LINES, TIMELINE_BYTES)))
    }
}

#[derive(Debug)]
struct Printer {
    format: Format,
    /// The banner and nothing else: a log tells the rest.
    banner_alone: bool,
    lines: SyncSender<String>,
    /// Lines that found no room since the last that did.
    lost: AtomicU64,
    takeovers: Takeovers,
}

/// Whose line it is.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The client id, once it is known.
    pub client_id: Option<&'a str>,
    /// The other end of the socket.
    pub peer: SocketAddr,
}

impl View {
    /// A view that prints to standard output.
    #[must_use]
    pub fn stdout(format: Format) -> Self {
        let (view, printed) = Self::lines(format);
        thread::spawn(move || print(&printed, format));
        view
    }

    /// A view that prints the [`banner`](Self::banner) to standard output, and leaves the rest to the log.
    #[must_use]
    pub fn banner_alone(format: Format) -> Self {
        let (view, printed) = Self::of(format, true);
        thread::spawn(move || print(&printed, format));
        view
    }

    /// A view whose lines somebody else takes.
    #[must_use]
    pub fn lines(format: Format) -> (Self, Receiver<String>) {
        Self::of(format, false)
    }

    fn of(format: Format, banner_alone: bool) -> (Self, Receiver<String>) {
        let (lines, taken) = sync_channel(LINES_MAX);
        let printer =
            Printer { format, banner_alone, lines, lost: AtomicU64::new(0), takeovers: Takeovers::default() };
        (Self { printer: Some(Arc::new(printer)), timeline: Timeline::default() }, taken)
    }

    /// The printer of what happens, if anybody looks.
    fn watched(&self) -> Option<&Printer> {
        self.printer.as_deref().filter(|printer| !printer.banner_alone)
    }

    /// Whether anybody looks at packets. Without, none is copied for it, nor explained.
    #[must_use]
    pub fn shows_packets(&self) -> bool {
        self.watched().is_some() || self.timeline.0.is_followed()
    }

    /// What happened, as JSON lines.
    #[must_use]
    pub fn timeline(&self) -> &Arc<EventLog> {
        &self.timeline.0
    }

    /// Keeps a line for who follows.
    fn keep(&self, who: Option<Who<'_>>, mut line: Value) {
        let client_id = who.and_then(|who| who.client_id);
        let device_id = client_id.map_or("", |id| id.split_once('/').map_or(id, |(device_id, _)| device_id));
        let standing = if client_id.is_some() { Standing::Known } else { Standing::Stranger };
        self.timeline.0.append(device_id.into(), standing, |cursor| {
            if let Some(line) = line.as_object_mut() {
                line.insert("cursor".to_owned(), cursor.into());
            }
            line.to_string()
        });
    }

    /// A whole packet went one way or the other.
    pub fn packet(&self, who: Who<'_>, sender: Sender, bytes: &[u8]) {
        self.tell_packet(who, sender, bytes, false);
    }

    /// A device has acknowledged what it was not sent.
    pub fn stray_acknowledgement(&self, who: Who<'_>, bytes: &[u8]) {
        self.tell_packet(who, Sender::Device, bytes, true);
    }

    fn tell_packet(&self, who: Who<'_>, sender: Sender, bytes: &[u8], answers_nothing: bool) {
        let (printer, is_followed) = (self.watched(), self.timeline.0.is_followed());
        if printer.is_none() && !is_followed {
            return;
        }
        let mut input = bytes;
        let Ok(Decoded::Packet(packet)) = decode(&mut input, usize::MAX) else { return };
        if let (Packet::Connect(connect), Sender::Device, Some(printer)) = (packet, sender, printer) {
            printer.takeovers.connects(connect.client_id.as_str(), who.peer);
        }
        let identity = who.client_id.and_then(|client_id| Identity::from_client_id(client_id).ok());
        let explained = explain(&packet, sender, identity);
        let text = if answers_nothing { explained.answering_nothing() } else { explained }.to_string();
        let direction = match sender {
            Sender::Device => "toHub",
            Sender::Hub => "toDevice",
        };
        let json = || {
            let name = format!("{:?}", packet.packet_type()).to_uppercase();
            who.json(
                "packet",
                json!({"direction": direction, "packet": name, "text": text, "size": bytes.len()}),
            )
        };
        if let Some(printer) = printer {
            printer.tell(|| wording::packet(&time_of_day(), &who.name(), sender, &text), json);
        }
        if is_followed {
            self.keep(Some(who), json());
        }
    }

    /// A connection is over.
    pub fn closed(&self, who: Who<'_>, end: End<'_>) {
        log_close(who, end);
        let End { close, offending, comparison } = end;
        let (printer, rule) = (self.watched(), close.rule());
        let takeover = printer.and_then(|printer| printer.takeover(who, rule));
        let text = || {
            let mut text = wording::closed(&time_of_day(), &who.name(), end);
            if let Some(takeover) = takeover {
                text.push_str(&wording::detail("by:", &takeover.to_string()));
            }
            text
        };
        let json = || {
            let mut details = json!({
                "rule": rule.id(), "reason": close.reason().to_string(), "says": rule.says(),
                "mend": rule.fix(), "source": rule.source(), "bytes": wording::hex(offending),
            });
            if let Some(takeover) = takeover {
                details["newcomer"] = takeover.newcomer.map(|newcomer| newcomer.to_string()).into();
                details["takeovers"] = takeover.count.into();
            }
            who.json("closed", compared(details, comparison))
        };
        if let Some(printer) = printer {
            printer.tell(text, json);
        }
        self.keep(Some(who), json());
    }

    /// Something was taken that the real hub may not take, or that comes to nothing.
    pub fn warned(&self, who: Who<'_>, warning: &Warning) {
        log_warning(who.client_id, Some(who.peer), warning);
        let rule = warning.rule;
        let json = || {
            let details = json!({
                "rule": rule.id(), "says": rule.says(), "mend": rule.fix(), "source": rule.source(),
            });
            who.json("warning", compared(details, warning.comparison.as_ref()))
        };
        if let Some(printer) = self.watched() {
            printer.tell(|| wording::warned(&time_of_day(), &who.name(), warning), json);
        }
        self.keep(Some(who), json());
    }

    /// A registration was taken that the real hub may not take so.
    pub fn registration_warned(&self, client_id: &str, warning: &Warning) {
        log_warning(Some(client_id), None, warning);
        let Some(printer) = self.watched() else { return };
        printer.tell(
            || wording::warned(&time_of_day(), client_id, warning),
            || {
                let line = json!({
                    "event": "warning", "time": unix_time().to_string(), "device": client_id,
                    "rule": warning.rule.id(), "says": warning.rule.says(), "mend": warning.rule.fix(),
                    "source": warning.rule.source(),
                });
                compared(line, warning.comparison.as_ref())
            },
        );
    }

    /// What is told when the hub is ready, in both forms.
    pub fn banner(&self, text: &str, json: &Value) {
        if let Some(printer) = &self.printer {
            printer.tell(|| text.to_owned(), || json.clone());
        }
    }

    /// Something that is not about one packet.
    pub fn note(&self, event: &str, text: &str) {
        let mut fields = Map::new();
        for (name, value) in [("event", event), ("time", &unix_time().to_string()), ("text", text)] {
            fields.insert(name.to_owned(), value.into());
        }
        self.told(true, event, text, fields);
    }

    /// The same with the fields of its JSON.
    pub(super) fn told(&self, is_warning: bool, event: &str, text: &str, fields: Map<String, Value>) {
        if is_warning {
            warn!(event, "{text}");
        } else {
            info!(event, "{text}");
        }
        let json = Value::Object(fields);
        if let Some(printer) = self.watched() {
            printer.tell(|| format!("{} {text}", time_of_day()), || json.clone());
        }
        self.keep(None, json);
    }

    /// A client spoke something else than HTTP on the port of HTTPS.
    pub fn http_failed(&self, peer: SocketAddr, error: &dyn std::error::Error) {
        let advice = "this port is for HTTPS and MQTT over WebSocket; MQTT without WebSocket is on the other port, 8883 by default";
        self.note("httpFailed", &format!("what {peer} sent is no HTTP request: {error}; {advice}"));
    }

    /// A request was not done: its method and path, who asked, and why not. What a client chose cannot move the cursor, and
    /// is cut.
    pub fn request_refused(&self, peer: Option<SocketAddr>, request: [&str; 2], why: &str) {
        if self.watched().is_some() || enabled!(Level::WARN) {
            let [method, path] = request.map(wording::cut);
            let whose = peer.map_or_else(String::new, |peer| format!(" of {peer}"));
            let text = format!("{method} {path}{whose}: {why}");
            self.note("requestRefused", &printable(&text));
        }
    }

    /// A client of the HTTPS port did not finish, or did not read, within 30 s.
    pub fn http_stalled(&self, peer: SocketAddr, what: &str) {
        let advice = "a slow client is given up after 30 s, so that it holds nothing; send and read at once";
        self.note("httpStalled", &format!("HTTPS connection of {peer} closed: {what} within 30 s; {advice}"));
    }

    /// A client asked for a WebSocket that MQTT cannot go over.
    pub fn web_socket_refused(&self, peer: SocketAddr, advice: &str) {
        self.note("webSocketRefused", &format!("WebSocket of {peer} refused: {}", advice.trim_end()));
    }

    /// A client gave up on TLS, or spoke something else.
    pub fn tls_failed(&self, peer: SocketAddr, error: &io::Error) {
        if self.watched().is_some() || enabled!(Level::WARN) {
            let advice = tls_advice(&error.to_string());
            self.note("tlsFailed", &format!("TLS with {peer} failed: {error}; {advice}"));
        }
    }
}

impl Printer {
    fn tell(&self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) {
        let line = match self.format {
            Format::Text => printable_lines(&text()),
            Format::Json => printable_json(&json().to_string()),
        };
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && !self.send(self.lost_line(lost)) {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        if !self.send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Who took the place of a connection that ended by that.
    fn takeover(&self, who: Who<'_>, rule: Rule) -> Option<Takeover> {
        let client_id = who.client_id.filter(|_| matches!(rule, Rule::Takeover | Rule::TakeoverFight))?;
        Some(self.takeovers.taken_over(Instant::now(), client_id, who.peer))
    }

    fn send(&self, line: String) -> bool {
        !matches!(self.lines.try_send(line), Err(TrySendError::Full(_)))
    }

    fn lost_line(&self, lost: u64) -> String {
        match self.format {
            Format::Text => format!("… {lost} lines not shown: the terminal is slower than the hub"),
            Format::Json => json!({"event": "lost", "lines": lost}).to_string(),
        }
    }
}

impl Who<'_> {
    fn name(&self) -> String {
        self.client_id.map_or_else(|| self.peer.to_string(), str::to_owned)
    }

    fn json(&self, event: &str, details: Value) -> Value {
        let mut line = json!({
            "event": event, "time": unix_time().to_string(), "device": self.client_id, "peer": self.peer.to_string(),
        });
        if let (Some(line), Value::Object(details)) = (line.as_object_mut(), details) {
            line.extend(details);
        }
        line
    }
}

/// The end of a connection as fields: what is in order is information, all else a warning.
fn log_close(who: Who<'_>, end: End<'_>) {
    let End { close, offending, comparison } = end;
    let rule = close.rule();
    macro_rules! log {
        ($level:ident) => {
            $level!(
                event = "closed",
                rule = rule.id(),
                says = rule.says(),
                fix = rule.fix(),
                source = rule.source(),
                bytes = wording::hex(offending),
                received = comparison.map(|comparison| comparison.received.as_str()),
                expected = comparison.map(|comparison| comparison.expected.as_str()),
                device = who.client_id,
                peer = %who.peer,
                "{}", close.reason()
            )
        };
    }
    match close.reason() {
        CloseReason::Disconnected => log!(info),
        _ => log!(warn),
    }
}

/// The same with what was compared, if anything was.
fn compared(mut details: Value, comparison: Option<&Comparison>) -> Value {
    if let (Some(Comparison { received, expected }), Some(details)) = (comparison, details.as_object_mut()) {
        details.insert("received".to_owned(), received.as_str().into());
        details.insert("expected".to_owned(), expected.as_str().into());
    }
    details
}

fn log_warning(client_id: Option<&str>, peer: Option<SocketAddr>, warning: &Warning) {
    let (rule, comparison) = (warning.rule, warning.comparison.as_ref());
    warn!(
        event = "warning",
        rule = rule.id(),
        says = rule.says(),
        mend = rule.fix(),
        source = rule.source(),
        received = comparison.map(|comparison| comparison.received.as_str()),
        expected = comparison.map(|comparison| comparison.expected.as_str()),
        device = client_id,
        peer = peer.map(tracing::field::display),
        "taken with a warning"
    );
}

fn print(lines: &Receiver<String>, format: Format) {
    let mut out = io::stdout();
    let mut repeats = Repeats::default();
    let mut is_over = false;
    while !is_over {
        let line = lines.recv_timeout(REPEATS_LOOKED_AT);
        is_over = line == Err(RecvTimeoutError::Disconnected);
        let now = Instant::now();
        let mut told = Vec::new();
        if format == Format::Text {
            told = if is_over { repeats.rest(&time_of_day()) } else { repeats.due(now, &time_of_day()) };
        }
        told.extend(line.ok().and_then(|line| match format {
            Format::Text => repeats.take(now, line),
            // Programs count for themselves.
            Format::Json => Some(line),
        }));
        let written = told.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
        // Nobody reads any more (`| head`): the hub goes on without a view.
        if written.is_err() {
            break;
        }
    }
}

fn time_of_day() -> String {
    let time = unix_time().to_string();
    time.get(11..23).unwrap_or_default().to_owned()
}

/// What usually is behind an error of the TLS handshake.
fn tls_advice(error: &str) -> &'static str {
    if error.contains("UnknownCA") || error.contains("BadCertificate") || error.contains("CertificateUnknown")
    {
        "the client does not trust this hub: give it ca.pem, and connect by a name of the certificate (--name adds one)"
    } else if error.contains("InvalidContentType") || error.contains("corrupt message") {
        "the client speaks without TLS: turn it on (there is no plaintext port)"
    } else if error.contains("ProtocolVersion")
        || error.contains("UnsupportedVersion")
        || error.contains("NotOffered")
        // An extension that TLS 1.2 has brought.
        || error.contains("SignatureAlgorithmsExtensionRequired")
    {
        "the client offers no TLS 1.2 or 1.3: update its TLS library, or allow them"
    } else if error.contains("InCommon") {
        "the client offers nothing that this hub takes: allow ECDHE-ECDSA or ECDHE-RSA with AES-GCM or ChaCha20, and P-256 or X25519"
    } else if error.contains("showed a chain of") {
        "send the device's certificate and its intermediates, 8 in all at most; the root is not needed"
    } else {
        "check the client's TLS settings"
    }
}

#[cfg(test)]
mod tests {
    use devicebound::session::Close;

    use super::*;

    #[test]
    fn an_error_of_tls_is_told_with_what_the_client_is_to_change() {
        for (error, said) in [
            ("received fatal alert: UnknownCA", "ca.pem"),
            ("received corrupt message of type InvalidContentType", "without TLS"),
            ("peer is incompatible: SignatureAlgorithmsExtensionRequired", "TLS 1.2"),
            ("peer is incompatible: Tls12NotOfferedOrEnabled", "TLS 1.2"),
            ("peer is incompatible: NoCipherSuitesInCommon", "ECDHE-ECDSA"),
            ("the client showed a chain of 90 certificates", "8 in all"),
            ("tls handshake eof", "TLS settings"),
        ] {
            assert!(tls_advice(error).contains(said), "{error}: {}", tls_advice(error));
        }
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn connect() -> Vec<u8> {
        let mut connect = vec![0x10, 16, 0, 4];
        connect.extend(b"MQTT\x04\x02\x00\x3c\x00\x04demo");
        connect
    }

    #[test]
    fn a_takeover_is_told_with_the_newcomers_address_and_how_often_it_happened() {
        let (view, told) = View::lines(Format::Text);
        let who = |port| Who { client_id: Some("demo"), peer: peer(port) };
        let close = Close::new(CloseReason::Ended(Rule::Takeover));
        for port in 1..=3 {
            view.packet(who(port + 1), Sender::Device, &connect());
            view.closed(who(port), End::of(&close));
        }
        let lines: Vec<String> = told.try_iter().collect();
        assert!(lines.iter().any(|line| line.contains("by:    127.0.0.1:2")), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("127.0.0.1:4, 3rd takeover in 10 s")), "{lines:?}");
    }

    #[test]
    fn a_good_goodbye_carries_no_alarm_sign_and_a_breach_does() {
        let (view, told) = View::lines(Format::Text);
        let who = Who { client_id: Some("demo"), peer: peer(1) };
        for (reason, is_alarm) in [
            (CloseReason::Disconnected, false),
            (CloseReason::Ended(Rule::HubStopping), false),
            (CloseReason::Lost, true),
            (CloseReason::Violation(Rule::PublishQos2), true),
        ] {
            view.closed(who, End::of(&Close::new(reason)));
            assert_eq!(told.recv().unwrap().contains("─╳─"), is_alarm, "{reason}");
        }
    }

    #[test]
    fn a_packet_that_is_too_large_is_told_with_the_size_that_it_announced() {
        let (view, told) = View::lines(Format::Text);
        let who = Who { client_id: Some("demo"), peer: peer(1) };
        // 400,000 in seven bits each, the low ones first.
        let length = [0x80, 0xb5, 0x18];
        let close = Close::new(CloseReason::Malformed(Rule::PacketSize));
        view.closed(who, End { offending: &length, ..End::of(&close) });
        let line = told.recv().unwrap();
        assert!(line.contains("size:  400000 bytes announced"), "{line}");
        assert!(line.contains("at most 262144"), "{line}");

        let body = vec![b'x'; 262_145];
        let topic = b"devices/demo/messages/events/";
        let length = 2 + topic.len() + body.len();
        let septets = [length & 0x7f | 0x80, length >> 7 & 0x7f | 0x80, length >> 14].map(|byte| byte as u8);
        let packet = [&[0x30][..], &septets, &[0, topic.len() as u8], topic, &body].concat();
        let close = Close::new(CloseReason::Violation(Rule::MessageSize));
        view.closed(who, End { offending: &packet, ..End::of(&close) });
        let line = told.recv().unwrap();
        assert!(line.contains("size:  262145 bytes of body; a message has at most 262144"), "{line}");
    }

    #[test]
    fn the_reason_of_a_refused_twin_request_stands_in_its_line() {
        let (view, told) = View::lines(Format::Text);
        let who = Who { client_id: Some("demo"), peer: peer(1) };
        let reason = format!("{{\"message\":\"{}the reason\"}}", "x".repeat(200));
        let topic = b"$iothub/twin/res/400/?$rid=1";
        let length = 2 + topic.len() + reason.len();
        let mut packet = vec![0x30, 0x80 | (length & 0x7f) as u8, (length >> 7) as u8, 0, topic.len() as u8];
        packet.extend(topic);
        packet.extend(reason.as_bytes());
        view.packet(who, Sender::Hub, &packet);
        let line = told.recv().unwrap();
        assert!(line.contains("twin answer 400") && line.contains("the reason"), "{line}");
    }
}
