//! `devicebound explain` on TLS that rustls speaks on both sides, with the secrets that it logs.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

use devicebound::explain::Sender;
use devicebound_hub::capture::{KeyLog, explain_file, explain_file_with};
use devicebound_hub::transport::key_log::KeyLogFile;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::capture::{Capture, assert_told};
use crate::common::{ACCEPTED, DISCONNECT, connect, puback, publish};

const HELLO: [&str; 6] = [
    "opened with the secrets",
    "CONNECT as demo",
    "CONNACK, accepted",
    "telemetry, QoS 1, id 1, hello",
    "PUBACK, id 1",
    "DISCONNECT",
];

/// What a program writes to `SSLKEYLOGFILE`.
#[derive(Debug, Default)]
struct Log(Mutex<String>);

impl rustls::KeyLog for Log {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        writeln!(self.0.lock().unwrap(), "{label} {} {}", hex(client_random), hex(secret)).unwrap();
    }
}

/// One connection, and the capture of it: what a side writes at a time is one segment.
struct Session {
    capture: Capture,
    client: ClientConnection,
    server: ServerConnection,
    log: Arc<Log>,
    /// Bytes of a segment at most.
    size: usize,
}

fn suites() -> Vec<rustls::SupportedCipherSuite> {
    let of_rsa = |name: &str| name.contains("RSA") && !name.contains("ECDSA");
    let all = ring::ALL_CIPHER_SUITES.iter().copied();
    all.filter(|suite| !of_rsa(&format!("{:?}", suite.suite()))).collect()
}

impl Session {
    fn new(suite: rustls::SupportedCipherSuite) -> Self {
        Self::of(suite, true, usize::MAX)
    }

    fn of(suite: rustls::SupportedCipherSuite, is_trusted: bool, size: usize) -> Self {
        let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..ring::default_provider() });
        Self::between(Arc::clone(&provider), provider, is_trusted, size)
    }

    fn between(
        of_client: Arc<CryptoProvider>,
        of_server: Arc<CryptoProvider>,
        is_trusted: bool,
        size: usize,
    ) -> Self {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let der = key.cert.der().clone();
        let mut roots = RootCertStore::empty();
        if is_trusted {
            roots.add(der.clone()).unwrap();
        }
        let log = Arc::new(Log::default());
        let client = ClientConfig::builder_with_provider(of_client)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut server = ServerConfig::builder_with_provider(of_server)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der], key.signing_key.serialize_der().try_into().unwrap())
            .unwrap();
        server.key_log = Arc::clone(&log) as Arc<dyn rustls::KeyLog>;
        let name = "localhost".try_into().unwrap();
        Self {
            capture: Capture::new_on(8883),
            client: ClientConnection::new(Arc::new(client), name).unwrap(),
            server: ServerConnection::new(Arc::new(server)).unwrap(),
            log,
            size,
        }
    }

    /// Carries what both sides have to say, into the capture, too; whether both are content.
    fn carry(&mut self) -> bool {
        let mut is_content = true;
        loop {
            let (mut of_client, mut of_server) = (Vec::new(), Vec::new());
            while self.client.wants_write() {
                self.client.write_tls(&mut of_client).unwrap();
            }
            for chunk in of_client.chunks(self.size) {
                self.capture.sends(Sender::Device, chunk);
            }
            let mut bytes = &of_client[..];
            while !bytes.is_empty() {
                self.server.read_tls(&mut bytes).unwrap();
                is_content &= self.server.process_new_packets().is_ok();
            }
            while self.server.wants_write() {
                self.server.write_tls(&mut of_server).unwrap();
            }
            for chunk in of_server.chunks(self.size) {
                self.capture.sends(Sender::Hub, chunk);
            }
            let mut bytes = &of_server[..];
            while !bytes.is_empty() {
                self.client.read_tls(&mut bytes).unwrap();
                is_content &= self.client.process_new_packets().is_ok();
            }
            if of_client.is_empty() && of_server.is_empty() {
                return is_content;
            }
        }
    }

    fn device(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).unwrap();
        self.carry();
        let mut heard = vec![0; bytes.len()];
        self.server.reader().read_exact(&mut heard).unwrap();
    }

    fn hub(&mut self, bytes: &[u8]) {
        self.server.writer().write_all(bytes).unwrap();
        self.carry();
        let mut heard = vec![0; bytes.len()];
        self.client.reader().read_exact(&mut heard).unwrap();
    }

    fn hello(&mut self) {
        assert!(self.carry(), "the handshake");
        self.device(&connect());
        self.hub(ACCEPTED);
        self.device(&publish(1, b"hello"));
        self.hub(&puback(1));
        self.device(DISCONNECT);
    }

    fn secrets(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.lines_with(&self.secrets())
    }

    fn lines_with(&self, secrets: &str) -> Vec<String> {
        let mut log = KeyLog::default();
        log.read(secrets.as_bytes());
        assert_eq!(log.unread_line(), None);
        let mut lines = Vec::new();
        explain_file_with(log, &self.capture.pcap(), &mut |line| lines.push(line.to_owned())).unwrap();
        lines
    }
}

fn assert_spotless(lines: &[String]) {
    for word in ["broken", "missing", "malformed", "none of"] {
        assert!(!lines.iter().any(|line| line.contains(word)), "{word}:\n{}", lines.join("\n"));
    }
}

#[test]
fn every_cipher_suite_of_both_versions_is_opened() {
    let suites = suites();
    assert_eq!(suites.len(), 6, "three of each version");
    for suite in suites {
        for size in [usize::MAX, 100, 1] {
            let mut session = Session::of(suite, true, size);
            session.hello();
            let lines = session.lines();
            assert_told(&lines, &HELLO);
            assert_told(&lines, &["to localhost"]);
            assert_spotless(&lines);
        }
    }
}

#[test]
fn key_updates_of_both_sides_are_followed() {
    for suite in suites().into_iter().filter(|suite| suite.tls13().is_some()) {
        let mut session = Session::new(suite);
        session.carry();
        session.device(&connect());
        session.client.refresh_traffic_keys().unwrap();
        session.hub(ACCEPTED);
        session.server.refresh_traffic_keys().unwrap();
        session.device(&publish(1, b"hello"));
        session.client.refresh_traffic_keys().unwrap();
        session.client.refresh_traffic_keys().unwrap();
        session.hub(&puback(1));
        session.device(DISCONNECT);
        let lines = session.lines();
        assert_told(&lines, &HELLO);
        assert_spotless(&lines);
    }
}

#[test]
fn secrets_that_are_missing_are_named_for_their_stream() {
    for suite in suites() {
        let mut session = Session::new(suite);
        session.hello();
        let random = session.secrets().split(' ').nth(1).unwrap()[..16].to_owned();
        let lines = session.lines_with("");
        let labels: &[&str] = match suite.tls13() {
            Some(_) => &["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"],
            None => &["CLIENT_RANDOM"],
        };
        for label in labels {
            assert_told(&lines, &[label, "something else than MQTT"]);
        }
        assert_told(&lines, &[&random, "something else than MQTT"]);
        assert!(!lines.iter().any(|line| line.contains("CONNECT as")), "{lines:?}");
    }
}

#[test]
fn with_the_secrets_of_one_side_that_side_is_told_and_nobody_is_charged() {
    let suite = suites().into_iter().find(|suite| suite.tls13().is_some()).unwrap();
    for (label, told, untold) in [
        ("SERVER_TRAFFIC_SECRET_0", "PUBACK, id 1", "telemetry"),
        ("CLIENT_TRAFFIC_SECRET_0", "telemetry", "PUBACK, id 1"),
    ] {
        let mut session = Session::new(suite);
        session.hello();
        session.capture.frame(Sender::Device, &[], "F.");
        let secrets = session.secrets();
        let line = secrets.lines().find(|line| line.starts_with(label)).unwrap();
        let lines = session.lines_with(line);
        assert_told(&lines, &["lacks", told, "the device closes"]);
        assert!(!lines.iter().any(|line| line.contains(untold) || line.contains("broken")), "{lines:?}");
    }
}

#[test]
fn what_the_capture_lost_is_told_and_what_comes_behind_it_is_read() {
    for suite in suites() {
        let mut session = Session::new(suite);
        session.carry();
        session.device(&connect());
        session.hub(ACCEPTED);
        let lost = session.capture.frames.len();
        session.device(&publish(1, b"one"));
        session.hub(&puback(1));
        session.device(&publish(2, b"two"));
        session.device(&publish(3, b"three"));
        session.capture.frames.remove(lost);
        let lines = session.lines();
        assert_told(&lines, &["CONNECT as demo", "bytes of the device are missing", "two", "three"]);
        assert!(!lines.iter().any(|line| line.contains("broken")), "{lines:?}");
    }
}

#[test]
fn secrets_may_stand_in_the_capture_itself() {
    let mut session = Session::new(suites()[0]);
    session.hello();
    let mut file = session.capture.pcapng();
    let mut secrets = session.secrets().into_bytes();
    let length = u32::try_from(secrets.len()).unwrap();
    secrets.resize(secrets.len().next_multiple_of(4), 0);
    let block = u32::try_from(20 + secrets.len()).unwrap().to_le_bytes();
    // Behind the packets that they are for: a block of secrets, of the type TLS key log.
    file.extend(10_u32.to_le_bytes());
    file.extend(block);
    file.extend(0x544c_534b_u32.to_le_bytes());
    file.extend(length.to_le_bytes());
    file.extend(secrets);
    file.extend(block);
    let mut lines = Vec::new();
    explain_file(&file, &mut |line| lines.push(line.to_owned())).unwrap();
    assert_told(&lines, &HELLO);
}

#[test]
fn secrets_of_another_session_open_nothing_and_that_is_said() {
    let (mut session, mut other) = (Session::new(suites()[0]), Session::new(suites()[0]));
    session.hello();
    other.hello();
    let random = |text: &str| text.split(' ').nth(1).unwrap().to_owned();
    let (own, foreign) = (session.secrets(), other.secrets());
    let mixed = foreign.replace(&random(&foreign), &random(&own));
    assert_told(&session.lines_with(&mixed), &["records of the device opens", "records of the hub opens"]);
}

#[test]
fn a_client_that_does_not_trust_the_hub_says_so_in_its_alert() {
    for suite in suites() {
        let mut session = Session::of(suite, false, usize::MAX);
        assert!(!session.carry());
        let lines = session.lines();
        assert_told(&lines, &["the device sends the TLS alert UnknownCa"]);
        assert_told(&lines, &["give it the CA of the hub"]);
    }
}

#[test]
fn what_the_hub_writes_for_a_key_log_opens_its_sessions_and_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let log = KeyLogFile::open(&path).unwrap();
    assert!(log.warning().contains(&path.display().to_string()));
    let mut session = Session::new(suites()[0]);
    session.server = {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        session.client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                key.signing_key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        ServerConnection::new(log.attach(&server)).unwrap()
    };
    session.hello();
    let written = std::fs::read_to_string(&path).unwrap();
    assert_told(&session.lines_with(&written), &HELLO);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(KeyLogFile::open(folder.path()).is_err(), "a folder is no file");
}

#[test]
fn a_hub_that_asks_for_another_client_hello_is_followed() {
    let of_server = CryptoProvider { kx_groups: vec![ring::kx_group::SECP384R1], ..ring::default_provider() };
    let of_client = Arc::new(ring::default_provider());
    let mut session = Session::between(of_client, Arc::new(of_server), true, usize::MAX);
    session.hello();
    let hellos = |frame: &(u64, Vec<u8>)| {
        frame.1.windows(6).any(|bytes| bytes[..3] == [22, 3, 1] || bytes[..3] == [22, 3, 3])
    };
    assert!(session.capture.frames.iter().filter(|frame| hellos(frame)).count() >= 4, "two of each side");
    let lines = session.lines();
    assert_told(&lines, &HELLO);
    assert_spotless(&lines);
}

/// A binary frame; a device's mask of zeros leaves the payload as it is.
fn frame(sender: Sender, payload: &[u8]) -> Vec<u8> {
    let is_masked = if sender == Sender::Device { 0x80 } else { 0 };
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![0x82, is_masked | 126, length[0], length[1]];
    if sender == Sender::Device {
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

#[test]
fn mqtt_over_websocket_in_tls_is_read_on_any_port() {
    for suite in suites() {
        let mut session = Session::new(suite);
        session.capture = Capture::new_on(443);
        session.carry();
        session.device(b"GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n");
        session.hub(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
        session.device(&frame(Sender::Device, &connect()));
        session.hub(&frame(Sender::Hub, ACCEPTED));
        session.device(&frame(Sender::Device, &publish(1, b"hello")));
        session.hub(&frame(Sender::Hub, &puback(1)));
        session.device(&frame(Sender::Device, DISCONNECT));
        let lines = session.lines();
        assert_told(&lines, &["opened with the secrets", "MQTT over WebSocket"]);
        assert_told(&lines, &HELLO);
        assert_spotless(&lines);
    }
}
