//! TLS in a capture: opened with the secrets of a key log, for TLS 1.2 and 1.3 with AES-GCM and ChaCha20-Poly1305.
//!
//! Nothing is verified but what the AEAD verifies: a record opens, or it does not. What is missing is named: the secrets of
//! a session, a cipher that is not read, a handshake that the capture does not have.

mod keys;
mod records;

use devicebound::explain::Sender;
use devicebound::time::UnixTime;
use tls_parser::{
    TlsAlertDescription, TlsCipherSuite, TlsExtension, TlsMessage, TlsMessageHandshake, TlsVersion,
    parse_tls_client_hello_extensions, parse_tls_message_handshake, parse_tls_server_hello_extensions,
};

use keys::{Suite, Version};
use records::{Next, Record, Records};

use super::{Content, Secrets};
use crate::capture::conversation::{Conversation, Tell};
use crate::capture::key_log::{Label, Random};
use crate::capture::words;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// No handshake message that is read here is longer.
const HANDSHAKE_MAX: usize = 64 * 1024;
/// The random of a ServerHello that asks for another ClientHello (RFC 8446 §4.1.3).
const HELLO_RETRY_REQUEST: Random = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// One TLS connection.
#[derive(Debug)]
pub(super) struct Tls {
    secrets: Secrets,
    client_random: Option<Random>,
    server_name: Option<String>,
    stage: Stage,
    device: Side,
    hub: Side,
    inner: Box<Content>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Hello,
    /// The keys are there, of one side at least.
    Open(Version),
    /// What follows is encrypted, and it was said why it is not read.
    Closed,
}

#[derive(Debug, Default)]
struct Side {
    records: Records,
    /// Handshake messages that are not encrypted, up to the last whole one.
    handshake: Vec<u8>,
}

/// What a ServerHello says.
struct Chosen {
    version: TlsVersion,
    suite: u16,
    random: Random,
}

impl Tls {
    pub(super) fn new(name: &str, is_mqtt_port: bool, secrets: Secrets) -> Self {
        Self {
            inner: Box::new(Content::new(name, is_mqtt_port, secrets.clone())),
            secrets,
            client_random: None,
            server_name: None,
            stage: Stage::Hello,
            device: Side::default(),
            hub: Side::default(),
        }
    }

    /// Whether it carries MQTT that could be seen.
    pub(super) fn is_mqtt(&self) -> bool {
        self.inner.is_mqtt()
    }

    const fn side(&mut self, sender: Sender) -> &mut Side {
        match sender {
            Sender::Device => &mut self.device,
            Sender::Hub => &mut self.hub,
        }
    }

    pub(super) fn received(
        &mut self,
        outer: &Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        bytes: &[u8],
        tell: Tell<'_>,
    ) {
        self.side(sender).records.extend(bytes);
        loop {
            match self.side(sender).records.next() {
                Next::Record(record) => self.record(outer, time, sender, &record, tell),
                Next::Found(kind, content) => self.content(outer, time, sender, kind, &content, tell),
                Next::Incomplete => return,
                Next::Broken if self.stage == Stage::Closed => return self.side(sender).records.finish(),
                Next::Broken => {
                    let text = format!("what the {} sends is no TLS any more", words::name(sender));
                    outer.remark(time, &text, tell);
                    self.side(sender).records.finish();
                    self.inner.is_unseen(sender);
                    return;
                }
            }
        }
    }

    /// Bytes of one side are not in the capture.
    pub(super) fn gap(
        &mut self,
        outer: &Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        missing: Option<u64>,
        tell: Tell<'_>,
    ) {
        match self.stage {
            Stage::Closed => self.side(sender).records.finish(),
            Stage::Hello => {
                let text =
                    "TLS whose handshake is not whole in the capture: which keys it has cannot be told";
                self.close(outer, time, text, tell);
            }
            Stage::Open(_) => {
                self.side(sender).records.gap(missing.unwrap_or(1));
                self.inner.gap(time, sender, missing, tell);
            }
        }
    }

    pub(super) fn ended(
        &mut self,
        outer: &Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        reset: bool,
        tell: Tell<'_>,
    ) {
        if let Stage::Open(_) = self.stage {
            self.inner.ended(time, sender, reset, tell);
        } else {
            let how = if reset { "resets" } else { "closes" };
            outer.remark(time, &format!("the {} {how} the connection", words::name(sender)), tell);
        }
    }

    /// The capture is over.
    pub(super) fn end(&mut self, outer: &Conversation, tell: Tell<'_>) {
        for (side, sender) in [(&self.device, Sender::Device), (&self.hub, Sender::Hub)] {
            let records = &side.records;
            if records.has_keys() && records.opened == 0 && records.failed > 0 {
                let text = format!(
                    "none of {} records of the {} opens with the secrets that were given",
                    records.failed,
                    words::name(sender)
                );
                outer.remark(None, &text, tell);
            }
        }
        if self.stage == Stage::Hello {
            outer.remark(None, "TLS whose handshake does not come to a ServerHello", tell);
        }
        self.inner.end(tell);
    }

    /// Nothing of it is read from here on, for a reason that is told.
    fn close(&mut self, outer: &Conversation, time: Option<UnixTime>, why: &str, tell: Tell<'_>) {
        outer.remark(time, why, tell);
        self.stage = Stage::Closed;
    }

    fn record(
        &mut self,
        outer: &Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        record: &Record,
        tell: Tell<'_>,
    ) {
        let version = match self.stage {
            Stage::Open(version) => Some(version),
            Stage::Hello | Stage::Closed => None,
        };
        let is_closed = self.stage == Stage::Closed;
        let side = self.side(sender);
        if side.records.is_encrypted(version, record.kind) {
            if let Some((kind, content)) = side.records.open(record) {
                self.content(outer, time, sender, kind, &content, tell);
            }
            return;
        }
        match record.kind {
            CHANGE_CIPHER_SPEC => side.records.is_encrypted = true,
            ALERT => self.alert(outer, time, sender, &record.body, tell),
            _ if is_closed => {}
            HANDSHAKE => {
                side.handshake.extend_from_slice(&record.body);
                self.handshake(outer, time, sender, tell);
            }
            _ => {
                let text = "TLS that began before the capture: which keys it has cannot be told; capture from the start of the connection";
                self.close(outer, time, text, tell);
            }
        }
    }

    /// What was in a record that opened.
    fn content(
        &mut self,
        outer: &Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        kind: u8,
        content: &[u8],
        tell: Tell<'_>,
    ) {
        match kind {
            APPLICATION_DATA if !content.is_empty() => {
                self.inner.received(time, sender, content, true, tell);
            }
            ALERT => self.alert(outer, time, sender, content, tell),
            _ => {}
        }
    }

    fn alert(
        &self,
        outer: &Conversation,
        time: Option<UnixTime>,
        sender: Sender,
        alert: &[u8],
        tell: Tell<'_>,
    ) {
        let [_, description] = alert else { return };
        let advice = match description {
            0 => return,
            42 | 46 | 48 if sender == Sender::Device => {
                ": it does not trust the hub's certificate; give it the CA of the hub"
            }
            42 | 43 | 46 | 48 | 116 => ": the hub does not take the device's certificate",
            40 | 71 => ": they have no cipher suite or group in common",
            70 => ": they have no version of TLS in common",
            45 => ": a certificate has expired, or a clock is wrong",
            112 => ": the hub does not know the name that the device asks for (SNI)",
            _ => "",
        };
        let name = TlsAlertDescription(*description);
        let text = format!("the {} sends the TLS alert {name}{advice}", words::name(sender));
        outer.remark(time, &text, tell);
    }

    /// Reads the handshake messages that are whole.
    fn handshake(&mut self, outer: &Conversation, time: Option<UnixTime>, sender: Sender, tell: Tell<'_>) {
        loop {
            let side = self.side(sender);
            let Some([_, a, b, c]) = side.handshake.first_chunk::<4>() else { return };
            let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap_or(usize::MAX);
            if length > HANDSHAKE_MAX {
                return self.close(
                    outer,
                    time,
                    "TLS with a handshake message that is too long to be one",
                    tell,
                );
            }
            if side.handshake.len() < 4 + length {
                return;
            }
            let message: Vec<u8> = side.handshake.drain(..4 + length).collect();
            match parse_tls_message_handshake(&message) {
                Ok((_, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)))) => {
                    self.client_random = hello.random.try_into().ok();
                    self.server_name = hello.ext.and_then(server_name);
                }
                Ok((_, TlsMessage::Handshake(TlsMessageHandshake::ServerHello(hello)))) => {
                    let Ok(random) = Random::try_from(hello.random) else { return };
                    if self.stage == Stage::Hello && random != HELLO_RETRY_REQUEST {
                        let version = hello.ext.and_then(selected_version).unwrap_or(hello.version);
                        let chosen = Chosen { version, suite: hello.cipher.0, random };
                        self.establish(outer, time, &chosen, tell);
                    }
                }
                // Certificates and keys are of no use here.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// The hub has chosen: sets up the keys, or says what is missing.
    fn establish(&mut self, outer: &Conversation, time: Option<UnixTime>, chosen: &Chosen, tell: Tell<'_>) {
        let named = TlsCipherSuite::from_id(chosen.suite)
            .map_or_else(|| format!("cipher suite {:#06x}", chosen.suite), |suite| suite.name.to_owned());
        let to = self.server_name.as_deref().map(|name| format!(" to {}", words::short(name)));
        let to = to.unwrap_or_default();
        let version = match chosen.version {
            TlsVersion::Tls12 => Version::Tls12,
            TlsVersion::Tls13 => Version::Tls13,
            version => {
                let text = format!("{version:?}{to}, which is not read; only TLS 1.2 and 1.3 are");
                return self.close(outer, time, &text, tell);
            }
        };
        let number = if version == Version::Tls12 { "1.2" } else { "1.3" };
        let Some(suite) = Suite::of(version, chosen.suite) else {
            let text = format!(
                "TLS {number}{to}, {named}, which is not read; only AES-GCM and ChaCha20-Poly1305 are"
            );
            return self.close(outer, time, &text, tell);
        };
        let Some(random) = self.client_random else {
            let text = format!("TLS {number}{to} without ClientHello: which keys it has cannot be told");
            return self.close(outer, time, &text, tell);
        };
        let missing = match version {
            Version::Tls12 => self.keys_12(suite, &random, &chosen.random),
            Version::Tls13 => self.keys_13(suite, &random),
        };
        let names: Vec<_> = missing.iter().map(|label| label.name()).collect();
        let session = random.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        let is_closed = !self.device.records.has_keys() && !self.hub.records.has_keys();
        let text = if names.is_empty() {
            format!("TLS {number}{to}, {named}, opened with the secrets of client random {session}…")
        } else {
            let names = names.join(" and ");
            format!(
                "TLS {number}{to}, {named}; for client random {session}… the key log lacks {names}: set SSLKEYLOGFILE where the device runs, or start the hub with --key-log FILE, and give FILE to explain with --key-log"
            )
        };
        if is_closed {
            return self.close(outer, time, &text, tell);
        }
        outer.remark(time, &text, tell);
        self.stage = Stage::Open(version);
        for (label, sender) in [(Label::ClientTraffic, Sender::Device), (Label::ServerTraffic, Sender::Hub)] {
            if missing.contains(&label) {
                self.inner.is_unseen(sender);
            }
        }
    }

    fn keys_12(&mut self, suite: Suite, client: &Random, server: &Random) -> Vec<Label> {
        let master = self.secrets.secret(Label::ClientRandom, client);
        let Some([device, hub]) = master.and_then(|master| suite.of_master_secret(master, client, server))
        else {
            return vec![Label::ClientRandom];
        };
        self.device.records.add_keys(device, None);
        self.hub.records.add_keys(hub, None);
        Vec::new()
    }

    fn keys_13(&mut self, suite: Suite, client: &Random) -> Vec<Label> {
        let secrets = self.secrets.clone();
        let mut missing = Vec::new();
        let of_device = [Label::ClientEarly, Label::ClientHandshake];
        for (side, before, label) in [
            (&mut self.device, &of_device[..], Label::ClientTraffic),
            (&mut self.hub, &[Label::ServerHandshake][..], Label::ServerTraffic),
        ] {
            // What comes before is useful for alerts and early data, and not needed.
            for secret in before.iter().filter_map(|label| secrets.secret(*label, client)) {
                if let Some(opener) = suite.of_traffic_secret(secret) {
                    side.records.add_keys(opener, None);
                }
            }
            match secrets
                .secret(label, client)
                .and_then(|secret| Some((suite.of_traffic_secret(secret)?, secret)))
            {
                Some((opener, secret)) => side.records.add_keys(opener, Some((suite, secret.clone()))),
                None => missing.push(label),
            }
        }
        missing
    }
}

fn server_name(extensions: &[u8]) -> Option<String> {
    let (_, extensions) = parse_tls_client_hello_extensions(extensions).ok()?;
    extensions.into_iter().find_map(|extension| match extension {
        TlsExtension::SNI(names) => names.first().map(|(_, name)| String::from_utf8_lossy(name).into_owned()),
        _ => None,
    })
}

fn selected_version(extensions: &[u8]) -> Option<TlsVersion> {
    let (_, extensions) = parse_tls_server_hello_extensions(extensions).ok()?;
    extensions.into_iter().find_map(|extension| match extension {
        TlsExtension::SupportedVersions(versions) => versions.first().copied(),
        _ => None,
    })
}
