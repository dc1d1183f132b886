//! The hub on real sockets: TLS and WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;

use devicebound::hub::{Authentication, HubConfig};
use devicebound::packet::{Connect, Credentials, Packet, Text};
use devicebound_hub::observe::view::{Format, View};
use devicebound_hub::server::listen::{self, Ports};
use devicebound_hub::server::{Server, ServerConfig};
use devicebound_hub::state::StateDir;
use devicebound_hub::state::certs;
use devicebound_hub::state::device_certs::{self, DeviceAuthorities};
use devicebound_hub::store::Store as _;
use devicebound_hub::transport::tls;
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::common::{
    ACCEPTED, Device, REFUSED, TestStore, bytes, connect, connect_with_will, key, puback, publish,
};

struct Sockets {
    mqtt: SocketAddr,
    https: SocketAddr,
    amqp: SocketAddr,
    store: TestStore,
    roots: RootCertStore,
    engine: Arc<devicebound_hub::engine::Engine>,
    state: StateDir,
    _folder: tempfile::TempDir,
}

impl Sockets {
    async fn start(prepare: impl FnOnce(&TestStore)) -> Self {
        Self::start_with(View::default(), prepare).await
    }

    async fn start_with(view: View, prepare: impl FnOnce(&TestStore)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let certificates = certs::load_or_make(&state, &[]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificates.servers[0].chain[1].clone()).unwrap();
        let store = TestStore::default();
        store.register("demo", Authentication::Sas { primary: key(), secondary: key() });
        prepare(&store);
        let tls = tls::server_config(certificates).unwrap();
        let config = ServerConfig::new(HubConfig::default(), Vec::new(), Box::new(store.clone()), tls);
        let authorities = DeviceAuthorities::load(&state, &[]).unwrap();
        let server = Server::start(ServerConfig { authorities, view, workers: 2, ..config }).unwrap();
        let ports = Ports {
            addresses: vec![[127, 0, 0, 1].into()],
            mqtt: 0,
            https: Some(0),
            amqp: Some(0),
            emulator: None,
        };
        let listeners = listen::bind(&ports).await.unwrap();
        let mqtt = listeners.mqtt[0].local_addr().unwrap();
        let https = listeners.https[0].local_addr().unwrap();
        let amqp = listeners.amqp[0].local_addr().unwrap();
        let engine = Arc::clone(server.engine());
        tokio::spawn(server.run(listeners, std::future::pending()));
        Self { mqtt, https, amqp, store, roots, engine, state, _folder: folder }
    }

    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> TlsConnector {
        let builder = ClientConfig::builder_with_provider(devicebound_hub::state::provider::provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![identity.certificate.clone()], key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }

    async fn dial(&self, address: SocketAddr, client: TlsConnector) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(address).await.unwrap();
        client.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap()
    }

    async fn upgrade(
        &self,
        path: &str,
        protocol: &str,
    ) -> Result<(WebSocketStream<TlsStream<TcpStream>>, String), Error> {
        let socket = self.dial(self.https, self.client(rustls::ALL_VERSIONS, None)).await;
        let mut request = format!("wss://localhost{path}").into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
        let (stream, response) = client_async(request, socket).await?;
        let selected = response.headers()["sec-websocket-protocol"].to_str().unwrap().to_owned();
        Ok((stream, selected))
    }
}

/// A self-signed client certificate.
struct Identity {
    certificate: CertificateDer<'static>,
    key: String,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["device".to_owned()]).unwrap();
        Self { certificate: made.cert.der().clone(), key: made.signing_key.serialize_pem() }
    }

    /// A certificate that the hub's own authority for devices has signed.
    fn of_the_hub(hub: &Sockets, name: &str) -> Self {
        let made = device_certs::issue(&hub.state, name, std::time::Duration::from_secs(3600)).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap();
        Self { certificate, key: made.key }
    }

    fn thumbprint(&self) -> String {
        Sha256::digest(&self.certificate).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A CONNECT without a password.
fn connect_by_certificate(client_id: &str) -> Vec<u8> {
    let username = format!("localhost/{client_id}/?api-version=2021-04-12");
    let credentials = Some(Credentials { username: Text::new(&username).unwrap(), password: None });
    bytes(Packet::Connect(Connect {
        clean_session: true,
        keep_alive: 60,
        client_id: Text::new(client_id).unwrap(),
        will: None,
        credentials,
    }))
}

#[tokio::test]
async fn tls_1_2_and_1_3_both_carry_mqtt() {
    let hub = Sockets::start(|_| {}).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut device = Device::new(hub.dial(hub.mqtt, hub.client(&[version], None)).await);
        device.send(&connect()).await;
        assert_eq!(device.receive().await.as_deref(), Some(ACCEPTED), "{version:?}");
    }
}

#[tokio::test]
async fn a_message_of_many_tls_records_passes_and_what_follows_it() {
    let hub = Sockets::start(|_| {}).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut device = Device::new(hub.dial(hub.mqtt, hub.client(&[version], None)).await);
        device.send(&connect()).await;
        assert_eq!(device.receive().await.as_deref(), Some(ACCEPTED));
        let mut sent = publish(1, &vec![b'x'; 262_144]);
        (2..=40).for_each(|id| sent.extend(publish(id, b"hello")));
        device.send(&sent).await;
        for id in 1..=40 {
            assert_eq!(device.receive().await, Some(puback(id)), "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_says_close_notify_is_gone_and_its_will_comes() {
    let hub = Sockets::start(|_| {}).await;
    let mut device = Device::new(hub.dial(hub.mqtt, hub.client(rustls::ALL_VERSIONS, None)).await);
    device.send(&connect_with_will()).await;
    assert_eq!(device.receive().await.as_deref(), Some(ACCEPTED));
    device.stream.shutdown().await.unwrap();
    hub.store.telemetry().wait_after(0).await;
    assert_eq!(device.receive().await, None);
}

#[tokio::test]
async fn tls_that_comes_byte_by_byte_is_tls() {
    let hub = Sockets::start(|_| {}).await;
    let socket = TcpStream::connect(hub.mqtt).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (near, far) = tokio::io::duplex(1);
    tokio::spawn(async move {
        let (mut near, mut socket) = (near, socket);
        let _ = tokio::io::copy_bidirectional_with_sizes(&mut near, &mut socket, 1, 1).await;
    });
    let name = ServerName::try_from("localhost").unwrap();
    let stream = hub.client(rustls::ALL_VERSIONS, None).connect(name, far).await.unwrap();
    let mut device = Device::new(stream);
    device.send(&connect()).await;
    assert_eq!(device.receive().await.as_deref(), Some(ACCEPTED));
}

#[tokio::test]
async fn who_speaks_without_tls_is_told_by_an_alert() {
    let hub = Sockets::start(|_| {}).await;
    let mut socket = TcpStream::connect(hub.mqtt).await.unwrap();
    socket.write_all(&connect()).await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    assert_eq!(answer.first(), Some(&21), "the content type of alerts (RFC 8446 §5.1): {answer:?}");
}

#[tokio::test]
async fn a_device_is_known_by_its_self_signed_certificate() {
    let (known, stranger) = (Identity::new(), Identity::new());
    let hub = Sockets::start(|store| {
        let primary = known.thumbprint();
        store.register("by-certificate", Authentication::SelfSigned { primary, secondary: None });
    })
    .await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (identity, answer) in [(Some(&known), ACCEPTED), (Some(&stranger), REFUSED), (None, REFUSED)] {
            let mut device = Device::new(hub.dial(hub.mqtt, hub.client(&[version], identity)).await);
            device.send(&connect_by_certificate("by-certificate")).await;
            assert_eq!(device.receive().await.as_deref(), Some(answer), "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_device_is_known_by_the_authority_and_the_name_of_its_certificate() {
    let hub = Sockets::start(|store| store.register("pump", Authentication::CertificateAuthority)).await;
    let (own, other) = (Identity::of_the_hub(&hub, "pump"), Identity::of_the_hub(&hub, "valve"));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (identity, answer) in [(&own, ACCEPTED), (&other, REFUSED), (&Identity::new(), REFUSED)] {
            let mut device = Device::new(hub.dial(hub.mqtt, hub.client(&[version], Some(identity))).await);
            device.send(&connect_by_certificate("pump")).await;
            assert_eq!(device.receive().await.as_deref(), Some(answer), "{version:?}");
        }
    }
}

#[tokio::test]
async fn web_socket_frames_of_any_size_carry_mqtt() {
    let hub = Sockets::start(|_| {}).await;
    let (mut socket, selected) =
        hub.upgrade("/$iothub/websocket?iothub-no-client-cert=true", "MQTT").await.unwrap();
    assert_eq!(selected, "MQTT");
    for byte in connect().into_iter().chain(publish(1, b"hello")) {
        socket.send(Message::binary(vec![byte])).await.unwrap();
        socket.send(Message::binary(Vec::new())).await.unwrap();
    }
    let mut received = Vec::new();
    let expected = [ACCEPTED, &puback(1)].concat();
    while received.len() < expected.len() {
        let Message::Binary(frame) = socket.next().await.unwrap().unwrap() else { panic!("a binary frame") };
        received.extend_from_slice(&frame);
    }
    assert_eq!(received, expected);
    assert_eq!(hub.store.messages().len(), 1);
}

#[tokio::test]
async fn a_text_frame_ends_the_connection_with_its_rule() {
    let hub = Sockets::start(|_| {}).await;
    let (mut socket, _) = hub.upgrade("/$iothub/websocket", "mqtt").await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        assert!(!message.is_binary(), "{message}");
    }
    let operation = hub.engine.operations.log.wait_after(0).await;
    assert!(operation.line.contains("MQTT-6.0.0-1"), "{}", operation.line);
}

#[tokio::test]
async fn the_view_tells_who_asks_the_wrong_thing_of_the_https_port() {
    let (view, lines) = View::lines(Format::Text);
    let hub = Sockets::start_with(view, |_| {}).await;
    let _ = hub.upgrade("/$iothub/websocket", "wamp").await;
    let mut socket = hub.dial(hub.https, hub.client(rustls::ALL_VERSIONS, None)).await;
    socket.write_all(&connect()).await.unwrap();
    let told = tokio::task::spawn_blocking(move || [lines.recv().unwrap(), lines.recv().unwrap()]);
    let [web_socket, mqtt] = told.await.unwrap();
    assert!(web_socket.contains("subprotocol `mqtt` or `AMQPWSB10`"), "{web_socket}");
    assert!(mqtt.contains("no HTTP request") && mqtt.contains("8883"), "{mqtt}");
}

/// Header and open of azure-iothub, without SASL; then a session, and a link to a node without a token.
fn amqp_without_a_token() -> Vec<u8> {
    let frame = |body: &[u8]| {
        let size = u32::try_from(body.len() + 8).unwrap().to_be_bytes();
        [&size[..], &[2, 0, 0, 0], body].concat()
    };
    let open = [&[0, 0x53, 0x10, 0xc0, 14, 2, 0xa1, 0][..], &[0xa1, 9], b"localhost"].concat();
    let begin = [0, 0x53, 0x11, 0xc0, 7, 4, 0x40, 0x43, 0x52, 9, 0x52, 9];
    let node = |code: u8, address: &str| {
        let length = u8::try_from(address.len()).unwrap();
        [&[0, 0x53, code, 0xc0, length + 3, 1, 0xa1, length], address.as_bytes()].concat()
    };
    let mut fields = vec![0xa1, 1, b'n', 0x43, 0x42, 0x40, 0x40];
    fields.extend([node(0x28, "me"), node(0x29, "/messages/devicebound")].concat());
    let size = u8::try_from(fields.len() + 1).unwrap();
    let attach = [&[0, 0x53, 0x12, 0xc0, size, 7][..], &fields].concat();
    [b"AMQP\0\x01\0\0".to_vec(), frame(&open), frame(&begin), frame(&attach)].concat()
}

/// Whether this is what the hub says to it: the header, and in the end that there is no token.
fn is_refused_for_want_of_a_token(received: &[u8]) -> bool {
    let text = String::from_utf8_lossy(received);
    received.starts_with(b"AMQP\0\x01\0\0")
        && text.contains("amqp:unauthorized-access")
        && text.contains("$cbs")
}

#[tokio::test]
async fn amqp_over_web_socket_comes_to_the_amqp_side_on_the_paths_of_both_families_of_sdks() {
    let hub = Sockets::start(|_| {}).await;
    for path in ["/$iothub/websocket", "/$servicebus/websocket", "/$servicebus/websocket/"] {
        let (mut socket, selected) = hub.upgrade(path, "AMQPWSB10").await.unwrap();
        assert_eq!(selected, "AMQPWSB10");
        let start = amqp_without_a_token();
        // Frames of WebSocket are none of AMQP.
        for bytes in start.chunks(7) {
            socket.send(Message::binary(bytes.to_vec())).await.unwrap();
        }
        let mut received = Vec::new();
        while !is_refused_for_want_of_a_token(&received) {
            let Message::Binary(frame) = socket.next().await.unwrap().unwrap() else {
                panic!("a binary frame")
            };
            received.extend_from_slice(&frame);
        }
    }
}

#[tokio::test]
async fn amqp_over_tls_opens_and_refuses_a_link_without_a_token() {
    let hub = Sockets::start(|_| {}).await;
    let mut socket = hub.dial(hub.amqp, hub.client(rustls::ALL_VERSIONS, None)).await;
    socket.write_all(&amqp_without_a_token()).await.unwrap();
    let mut received = Vec::new();
    while !is_refused_for_want_of_a_token(&received) {
        assert_ne!(
            socket.read_buf(&mut received).await.unwrap(),
            0,
            "{}",
            String::from_utf8_lossy(&received)
        );
    }
}

#[tokio::test]
async fn a_client_that_goes_on_writing_still_reads_why_it_is_refused() {
    let hub = Sockets::start(|_| {}).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut device = Device::new(hub.dial(hub.mqtt, hub.client(&[version], None)).await);
        device.send(&connect_by_certificate("unknown")).await;
        // More than the sockets' buffers hold: it goes through only as long as the hub reads.
        for _ in 0..64 {
            device.stream.write_all(&[0x5a; 16 * 1024]).await.expect("the hub closes politely");
        }
        assert_eq!(device.receive().await.as_deref(), Some(REFUSED), "{version:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_refused_before_its_body_was_sent_is_answered() {
    let hub = Sockets::start(|_| {}).await;
    let mut socket = hub.dial(hub.https, hub.client(rustls::ALL_VERSIONS, None)).await;
    let head = "POST /devices/query?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048000\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..64 {
        socket.write_all(&[b' '; 16 * 1024]).await.expect("the hub closes politely");
    }
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn a_head_that_is_too_long_for_a_stranger_is_refused_by_name() {
    let hub = Sockets::start(|_| {}).await;
    let mut socket = hub.dial(hub.https, hub.client(rustls::ALL_VERSIONS, None)).await;
    let head =
        format!("GET /devices HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(32 * 1024));
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let hub = Sockets::start(|_| {}).await;
    for (hosts, status) in [
        ("Host: localhost\r\n", "401"),
        ("", "400"),
        ("Host: localhost\r\nHost: localhost\r\n", "400"),
        ("Host: a\r\nhost: b\r\n", "400"),
        ("Host: \r\n", "400"),
        ("Host: me@localhost\r\n", "400"),
    ] {
        let mut socket = hub.dial(hub.https, hub.client(rustls::ALL_VERSIONS, None)).await;
        let head = format!("GET /devices HTTP/1.1\r\n{hosts}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, format!("HTTP/1.1 {status}").as_bytes(), "{hosts:?}");
    }
}
