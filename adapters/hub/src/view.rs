//! The live view: a line for each packet with its meaning, and for each end of a connection the rule, the bytes, the fix.
//!
//! The same ends, without the packets, go to the structured log (`--log`), which is there instead of the view and not
//! beside it: one thing is told once.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use devicebound::explain::{Sender, explain};
use devicebound::iothub::Identity;
use devicebound::packet::{Decoded, decode};
use devicebound::session::{Close, CloseReason};
use serde_json::{Value, json};
use tracing::{Level, enabled, info, warn};

use crate::clock::unix_time;
use crate::lines;

/// Lines that may wait to be printed; a terminal that is slower than the hub loses lines, not the hub its time.
const LINES_MAX: usize = 4096;

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
}

#[derive(Debug)]
struct Printer {
    format: Format,
    /// The banner and nothing else: a log tells the rest.
    banner_alone: bool,
    lines: SyncSender<String>,
    /// Lines that found no room since the last that did.
    lost: AtomicU64,
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
        thread::spawn(move || print(&printed));
        view
    }

    /// A view that prints the [`banner`](Self::banner) to standard output, and leaves the rest to the log.
    #[must_use]
    pub fn banner_alone(format: Format) -> Self {
        let (view, printed) = Self::of(format, true);
        thread::spawn(move || print(&printed));
        view
    }

    /// A view whose lines somebody else takes.
    #[must_use]
    pub fn lines(format: Format) -> (Self, Receiver<String>) {
        Self::of(format, false)
    }

    fn of(format: Format, banner_alone: bool) -> (Self, Receiver<String>) {
        let (lines, taken) = sync_channel(LINES_MAX);
        let printer = Printer { format, banner_alone, lines, lost: AtomicU64::new(0) };
        (Self { printer: Some(Arc::new(printer)) }, taken)
    }

    /// The printer of what happens, if anybody looks.
    fn watched(&self) -> Option<&Printer> {
        self.printer.as_deref().filter(|printer| !printer.banner_alone)
    }

    /// Whether anybody looks at packets. Without, none is copied for it, nor explained.
    #[must_use]
    pub fn shows_packets(&self) -> bool {
        self.watched().is_some()
    }

    /// A whole packet went one way or the other.
    pub fn packet(&self, who: Who<'_>, sender: Sender, bytes: &[u8]) {
        let Some(printer) = self.watched() else { return };
        let mut input = bytes;
        let Ok(Decoded::Packet(packet)) = decode(&mut input, usize::MAX) else { return };
        let identity = who.client_id.and_then(|client_id| Identity::from_client_id(client_id).ok());
        let text = explain(&packet, sender, identity).to_string();
        let direction = match sender {
            Sender::Device => "toHub",
            Sender::Hub => "toDevice",
        };
        printer.tell(
            || lines::packet(&time_of_day(), &who.name(), sender, &text),
            || {
                let name = format!("{:?}", packet.packet_type()).to_uppercase();
                who.json(
                    "packet",
                    json!({"direction": direction, "packet": name, "text": text, "size": bytes.len()}),
                )
            },
        );
    }

    /// A connection is over. `offending` are the bytes that are to blame, if any.
    pub fn closed(&self, who: Who<'_>, close: &Close, offending: &[u8]) {
        log_close(who, close, offending);
        let Some(printer) = self.watched() else { return };
        let rule = close.rule();
        printer.tell(
            || lines::closed(&time_of_day(), &who.name(), close, offending),
            || {
                let details = json!({
                    "rule": rule.id(), "reason": close.reason().to_string(), "says": rule.says(),
                    "mend": rule.mend(), "source": rule.source(), "bytes": lines::hex(offending),
                });
                who.json("closed", details)
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
        warn!(event, "{text}");
        let Some(printer) = self.watched() else { return };
        printer.tell(
            || format!("{} {text}", time_of_day()),
            || json!({"event": event, "time": unix_time().to_string(), "text": text}),
        );
    }

    /// A client spoke something else than HTTP on the port of HTTPS.
    pub fn http_failed(&self, peer: SocketAddr, error: &dyn std::error::Error) {
        let advice = "this port is for HTTPS and MQTT over WebSocket; MQTT without WebSocket is on the other port, 8883 by default";
        self.note("httpFailed", &format!("what {peer} sent is no HTTP request: {error}; {advice}"));
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
            Format::Text => text(),
            Format::Json => json().to_string(),
        };
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && !self.send(self.lost_line(lost)) {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        if !self.send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
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
fn log_close(who: Who<'_>, close: &Close, offending: &[u8]) {
    let rule = close.rule();
    macro_rules! log {
        ($level:ident) => {
            $level!(
                event = "closed",
                rule = rule.id(),
                says = rule.says(),
                mend = rule.mend(),
                source = rule.source(),
                bytes = lines::hex(offending),
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

fn print(lines: &Receiver<String>) {
    let mut out = io::stdout();
    while let Ok(line) = lines.recv() {
        // Nobody reads any more (`| head`): the hub goes on without a view.
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
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
        "the client offers nothing that this hub takes: allow ECDHE-ECDSA with AES-GCM or ChaCha20, and P-256 or X25519"
    } else {
        "check the client's TLS settings"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_tls_is_told_with_what_the_client_is_to_change() {
        for (error, said) in [
            ("received fatal alert: UnknownCA", "ca.pem"),
            ("received corrupt message of type InvalidContentType", "without TLS"),
            ("peer is incompatible: SignatureAlgorithmsExtensionRequired", "TLS 1.2"),
            ("peer is incompatible: Tls12NotOfferedOrEnabled", "TLS 1.2"),
            ("peer is incompatible: NoCipherSuitesInCommon", "ECDHE-ECDSA"),
            ("tls handshake eof", "TLS settings"),
        ] {
            assert!(tls_advice(error).contains(said), "{error}: {}", tls_advice(error));
        }
    }
}
