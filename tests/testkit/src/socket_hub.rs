//! A hub on real sockets, in this process, whose connections can be cut.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use devicebound::hub::{
    CloudMessage, DeviceKey, DeviceRecord, HubConfig, MethodRequest, Section, TwinUpdate,
};
use devicebound::limits::METHOD_RESPONSE_TIME;
use devicebound::time::Instant;
use devicebound_hub::Failure;
use devicebound_hub::engine::Engine;
use devicebound_hub::engine::core::{CallOutcome, Core};
use devicebound_hub::engine::durability::Change;
use devicebound_hub::server::listen::{self, Ports};
use devicebound_hub::server::{Server, ServerConfig};
use devicebound_hub::state::StateDir;
use devicebound_hub::state::certs;
use devicebound_hub::store::{DiskStore, Position, Retention, Store as _, TelemetryLog};
use devicebound_hub::transport::tls;
use devicebound_tokio::Tls;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::connect_proxy::{Admission, ConnectProxy};
use crate::relay::Relay;
use crate::walk::{self, Service, Walk};

/// The name that the hub's certificate is for.
pub const HOST: &str = "localhost";

type Serving = JoinHandle<Result<(), Failure>>;

/// A hub and, in front of each of its ports, a relay that can cut.
#[derive(Debug)]
pub struct SocketHub {
    /// The hub itself.
    pub engine: Arc<Engine>,
    /// All telemetry that was stored.
    pub telemetry: Arc<TelemetryLog>,
    /// What came of the last call of a method.
    pub outcome: Option<oneshot::Receiver<CallOutcome>>,
    runtime: Runtime,
    serving: Option<(oneshot::Sender<()>, Serving)>,
    mqtt: Relay,
    https: Relay,
    state: TempDir,
}

impl SocketHub {
    /// Starts a hub with one device.
    ///
    /// # Panics
    /// When this machine has no port left.
    #[must_use]
    pub fn start(record: DeviceRecord) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let state = StateDir::open(folder.path()).expect("the folder is ours");
        let certificates = certs::load_or_make(&state, &[]).expect("certificates can be made");
        let store = DiskStore::at(&state, Retention::default()).expect("an empty folder can be used");
        let telemetry = store.telemetry();
        let tls = tls::server_config(certificates).expect("the certificate was made for the key");
        let config = ServerConfig::new(HubConfig::default(), Vec::new(), Box::new(store), tls);
        let server = Server::start(ServerConfig { workers: 2, ..config });
        let server = server.expect("an empty folder can be read");
        let engine = Arc::clone(server.engine());
        let client_id = record.identity.client_id().to_owned();
        let inserted = engine.at(&client_id, |core, _| core.hub.insert(record).ok());
        runtime.block_on(inserted).expect("it is the first one");

        let ports = Ports {
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            mqtt: 0,
            https: Some(0),
            amqp: Some(0),
            emulator: None,
        };
        let listeners = runtime.block_on(listen::bind(&ports)).expect("there are free ports");
        let relay = |listener: &TcpListener| {
            Relay::start(runtime.handle(), listener.local_addr().expect("it is bound"))
        };
        let (mqtt, https) = (relay(&listeners.mqtt[0]), relay(&listeners.https[0]));
        let (stop, stopped) = oneshot::channel();
        let serving = runtime.spawn(server.run(listeners, async { drop(stopped.await) }));

        Self {
            engine,
            telemetry,
            outcome: None,
            runtime,
            serving: Some((stop, serving)),
            mqtt,
            https,
            state: folder,
        }
    }

    /// How devices reach the hub: they trust its authority.
    ///
    /// # Panics
    /// When the authority's file is gone.
    #[must_use]
    pub fn tls(&self) -> Tls {
        let tls = Tls::with_authorities_file(self.state.path().join("ca.pem"));
        tls.expect("the hub has written its authority").with_port(self.mqtt.port())
    }

    /// The same over WebSocket.
    #[must_use]
    pub fn websocket(&self) -> Tls {
        self.tls().with_websocket().with_port(self.https.port())
    }

    /// A proxy on the way to it.
    #[must_use]
    pub fn proxy(&self, admission: Admission) -> ConnectProxy {
        ConnectProxy::start(self.runtime.handle(), admission)
    }

    /// The port that devices connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.mqtt.port()
    }

    /// What devices send reaches the hub no more; what it sends reaches them.
    pub fn stop_reading(&self) {
        self.mqtt.deafen();
        self.https.deafen();
    }

    /// Waits until so many messages were stored since the start.
    pub fn wait_until_stored(&self, count: u64) {
        self.runtime.block_on(self.telemetry.wait_after(count.saturating_sub(1)));
    }

    /// The bodies of all telemetry that was stored, in order.
    ///
    /// # Panics
    /// When a body is not text.
    #[must_use]
    pub fn stored(&self) -> Vec<String> {
        let (mut bodies, mut position) = (Vec::new(), Position::START);
        while position.cursor() < self.telemetry.newest() {
            let page = self.telemetry.read(position).expect("the store can be read");
            let text = |body: &[u8]| String::from_utf8(body.to_vec()).expect("all bodies are text");
            bodies.extend(page.messages().map(|(_, message)| text(message.body)));
            position = page.next;
        }
        bodies
    }

    /// What came of the last call of a method; waits for it.
    ///
    /// # Panics
    /// When none was made.
    pub fn outcome(&mut self) -> CallOutcome {
        let outcome = self.outcome.take().expect("a method was called");
        self.runtime.block_on(outcome).expect("the hub forgets no call")
    }

    /// Does something with the device `dev`.
    fn at_device<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Core, Instant, DeviceKey) -> R + Send + 'static,
    ) -> R {
        self.runtime.block_on(self.engine.at("dev", |core, now| {
            let device = core.hub.find("dev").expect("it is registered");
            act(core, now, device)
        }))
    }

    /// Makes what was done to the record of `dev` safe; whoever waits for that hears of it.
    fn commit(&self) {
        let engine = Arc::clone(&self.engine);
        self.runtime.spawn(async move {
            let device = engine.at("dev", |core, _| core.hub.find("dev")).await.expect("it is registered");
            engine.durable("dev", Change::Record(device)).await
        });
    }
}

impl Drop for SocketHub {
    fn drop(&mut self) {
        if let Some((stop, serving)) = self.serving.take() {
            drop(stop);
            let _ = self.runtime.block_on(serving); // what a test found out before counts
        }
    }
}

impl Service for SocketHub {
    fn send(&mut self, payload: &str) {
        let message = CloudMessage { payload: payload.as_bytes().to_vec(), ..CloudMessage::default() };
        self.at_device(move |core, now, device| {
            let _ = core.hub.enqueue(now, device, message).expect("the queue has room");
        });
        self.commit();
    }

    fn patch_desired(&mut self, patch: Value) {
        let patch = patch.as_object().cloned().expect("a patch is an object");
        let update = TwinUpdate { desired: Some(Section::Patch(patch)), ..TwinUpdate::default() };
        self.at_device(move |core, now, device| {
            let _ = core.hub.update_twin(now, device, update).expect("the patch is good");
        });
        self.commit();
    }

    fn invoke(&mut self, name: &str, payload: Value) {
        let request = MethodRequest {
            name: name.to_owned(),
            payload: Some(payload.to_string()),
            response_timeout: METHOD_RESPONSE_TIME.1,
            connect_timeout: Duration::ZERO,
        };
        self.outcome = Some(self.at_device(move |core, now, device| {
            let call = core.hub.invoke(now, device, request).expect("the device listens");
            Engine::expect_outcome(core, call)
        }));
    }

    fn cut(&mut self) {
        self.mqtt.cut();
        self.https.cut();
    }
}

impl Walk<SocketHub> {
    /// Checks that the device has heard all that belongs to a walk, and that the hub has all that came of it.
    ///
    /// # Panics
    /// When something is missing.
    pub fn assert_complete(self) {
        assert_eq!(self.heard, walk::WALK);
        let mut hub = self.service;
        assert_eq!(hub.stored(), walk::TELEMETRY);
        assert_eq!(hub.outcome(), Ok((200, br#""now""#.to_vec())));
        let waiting = hub
            .at_device(|core, _, device| core.hub.record(device).expect("it is registered").waiting().len());
        assert_eq!(waiting, 0, "the cloud message was completed");
    }
}
