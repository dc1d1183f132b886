//! The hub on its sockets.

mod amqp;
pub mod certificate_watch;
mod config;
pub mod connection;
mod https;
pub mod isolated;
pub mod listen;
mod threads;
mod web_socket;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use devicebound::Rule;
use devicebound::iothub::sas::Policy;
use devicebound::limits::CONNECT_TIME;
use devicebound::session::CloseReason;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_local};

use crate::Failure;
use crate::amqp::Amqp;
use crate::backend::Backend;
use crate::backend::certificates::Certificates;
use crate::backend::consumer_groups::ConsumerGroups;
use crate::backend::files::Files;
use crate::backend::jobs::Jobs;
use crate::engine::Engine;
use crate::engine::worker::Worker;
use crate::observe::view::View;
use crate::provisioning::{self, Provisioning};
pub use crate::server::config::{FileStorage, ServerConfig};
use crate::server::listen::Listeners;
use crate::server::threads::{Threads, no_thread, start_worker};
use crate::server::web_socket::Upgrades;
use crate::service;
use crate::service::endpoint::mount;
use crate::state::device_certs::DeviceAuthorities;
use crate::storage::Storage;
use crate::store::reader::TelemetryReader;
use crate::transport::body;
use crate::transport::tls::TlsPeer;
use crate::transport::tls_socket::TlsSocket;
use crate::web::{self, Page};

/// How long connections may take to part when the hub stops.
const STOP_TIME: Duration = Duration::from_secs(2);
/// A pause when no socket can be accepted, usually because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A hub that is ready to listen.
#[derive(Debug)]
pub struct Server {
    engine: Arc<Engine>,
    threads: Threads,
    backend: Arc<Backend>,
    page: Option<Arc<Page>>,
    provisioning: Option<Arc<Provisioning>>,
    /// Those of provisioning.
    policies: Vec<Policy>,
    amqp: Arc<Amqp>,
    tls: Tls,
}

/// What a connection needs before it speaks MQTT or HTTP.
#[derive(Clone, Debug)]
struct Tls {
    config: Arc<rustls::ServerConfig>,
    /// Whose word is taken for who a device is.
    authorities: DeviceAuthorities,
}

impl Server {
    /// Loads what the store has, and starts the writer and the workers.
    ///
    /// # Errors
    /// When the store cannot be read or has a document that cannot, the storage cannot be opened, or a thread cannot be had.
    pub fn start(config: ServerConfig) -> Result<Self, Failure> {
        let ServerConfig { hub, policies, mut store, tls, view, workers, .. } = config;
        let (host_names, tier) = (hub.host_names.clone(), hub.tier);
        let telemetry = TelemetryReader::of(store.telemetry()).map_err(no_thread)?;
        let documents = store.documents()?;
        let (engine, parts) = Engine::start(hub, store, view, workers)?;
        let threads = Threads::new();
        for worker in parts.workers {
            start_worker(&threads, worker)?;
        }
        if let Some(writer) = parts.writer {
            threads.start("writer", move || writer.run())?;
        }
        let mut backend = Backend::new(Arc::clone(&engine), telemetry, policies.clone(), host_names)
            .with_consumer_groups(ConsumerGroups::load(&documents)?)
            .with_jobs(Jobs::load(&documents)?)
            .with_configurations(&documents)?
            .with_routing(&documents, config.files.as_ref().map(|files| files.state.path().join("routed")))?
            .with_settings(config.settings)
            .with_certificates(Certificates::new(config.certificates, config.authorities.clone()));
        if let Some(FileStorage { state, uploads, authority }) = config.files {
            let storage = Storage::open(&state, &documents, uploads.bounds)?;
            backend = backend.with_files(Files::load(storage, authority, uploads.sas_ttl, &documents)?);
        }
        let backend = Arc::new(backend);
        let provisioning = match config.provisioning {
            Some(settings) => {
                let service = Provisioning::new(Arc::clone(&engine), settings, &documents, tier)?;
                Some(Arc::new(service))
            }
            None => None,
        };
        if let Some(service) = &provisioning {
            let issuer = Arc::downgrade(service);
            engine.set_certificate_issuer(issuer);
        }
        let amqp = Arc::new(Amqp::new(Arc::clone(&backend)));
        let tls = Tls { config: tls, authorities: config.authorities };
        Ok(Self { engine, threads, backend, page: config.page, provisioning, policies, amqp, tls })
    }

    /// What a back end may ask of it.
    pub(crate) const fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The hub itself.
    #[must_use]
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Serves until `stop`; then ends every connection and waits until all that was taken is written.
    ///
    /// # Errors
    /// When a socket cannot be shared by the workers.
    pub async fn run(self, listeners: Listeners, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        for listener in listeners.mqtt {
            share(listener, &self.engine, &self.tls, self.provisioning.as_ref()).map_err(|error| {
                Failure::new(format!("cannot share a socket: {error}"), "see the limits of this system")
            })?;
        }
        self.backend.resume();
        let mut others = Router::new();
        if let Some(service) = &self.provisioning {
            others = others.merge(provisioning::router(service, &self.policies));
        }
        if let Some(page) = &self.page {
            others = others.merge(web::router(page));
        }
        let upgrades = Arc::new(Upgrades::new(&self.engine, &self.amqp, self.provisioning));
        let mut router = service::router(self.backend, mount(&upgrades, web_socket::ENDPOINTS), others);
        if let Some(page) = &self.page {
            router = web::signed_in(router, page);
        }
        let router = router.layer(from_fn(body::in_time)).layer(from_fn(service::host::is_named));
        let mut tasks = JoinSet::new();
        for listener in listeners.https {
            tasks.spawn(https::accept_all(
                listener,
                self.tls.clone(),
                Arc::clone(&self.engine),
                router.clone(),
            ));
        }
        if let Some(Ok(address)) = listeners.amqp.first().map(TcpListener::local_addr) {
            self.amqp.is_at(address.port());
        }
        for listener in listeners.amqp {
            let (tls, engine) = (self.tls.clone(), Arc::clone(&self.engine));
            tasks.spawn(amqp::accept_tls(listener, tls, engine, Arc::clone(&self.amqp)));
        }
        for listener in listeners.emulator {
            tasks.spawn(amqp::accept_plain(listener, Arc::clone(&self.engine), Arc::clone(&self.amqp)));
        }
        tasks.spawn(Arc::clone(&self.amqp).follow());
        stop.await;
        self.engine.stop();
        self.amqp.stop();
        // Whoever has not parted by then is left behind; what they sent was not acknowledged.
        let all_closed = async { tokio::join!(self.engine.all_closed(), self.amqp.all_closed()) };
        let _ = tokio::time::timeout(STOP_TIME, all_closed).await;
        tasks.shutdown().await;
        self.engine.end();
        self.threads.all_ended().await;
        Ok(())
    }
}

/// Has every worker accept from the same socket: whoever has time takes the next connection.
fn share(
    listener: TcpListener,
    engine: &Engine,
    tls: &Tls,
    provisioning: Option<&Arc<Provisioning>>,
) -> std::io::Result<()> {
    let listener = listener.into_std()?;
    for place in 0..engine.places() {
        let (listener, tls, provisioning) = (listener.try_clone()?, tls.clone(), provisioning.cloned());
        engine.send(place, |worker| {
            // It was registered once already, and so it can be again.
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            worker.listen(accept_mqtt(Rc::clone(worker), listener, tls, provisioning));
        });
    }
    Ok(())
}

/// Accepts for ever; each connection gets a task of its own, its TLS handshake included.
async fn accept_mqtt(
    worker: Rc<Worker>,
    listener: TcpListener,
    tls: Tls,
    provisioning: Option<Arc<Provisioning>>,
) {
    loop {
        let (socket, peer) = accept(&listener, &worker.engine.view).await;
        let (worker, tls, provisioning) = (Rc::clone(&worker), tls.clone(), provisioning.clone());
        // Before the handshake: a client that takes its time over it has less for CONNECT.
        let began = worker.engine.clock.now();
        spawn_local(async move {
            // Of use for the handshake alone, and so not in the connection's own task.
            if let Some((socket, client, rx)) = Box::pin(handshake(&worker, socket, tls, peer)).await {
                connection::serve(worker, socket, peer, Some(client), rx, began, provisioning).await;
            }
        });
    }
}

async fn accept(listener: &TcpListener, view: &View) -> (TcpStream, SocketAddr) {
    let mut is_told = false;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                // Answers are small and wanted at once; a socket that is closed already fails later.
                let _ = socket.set_nodelay(true);
                return (socket, peer);
            }
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    let advice =
                        "who connects waits until others leave; let the hub open more files (ulimit -n)";
                    view.note("acceptPaused", &format!("cannot accept connections: {error}; {advice}"));
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(
    worker: &Worker,
    socket: TcpStream,
    tls: Tls,
    peer: SocketAddr,
) -> Option<(TlsSocket, TlsPeer, Vec<u8>)> {
    let mut socket = TlsSocket::new(socket, tls.config).ok()?;
    let mut rx = Vec::new();
    let done =
        std::future::poll_fn(|cx| socket.poll_handshake(cx, &mut worker.buffers.borrow_mut(), &mut rx));
    match tokio::time::timeout(CONNECT_TIME, done).await {
        Ok(Ok(())) => {
            let server_name = socket.take_server_name();
            let client = TlsPeer::of(socket.state(), &tls.authorities, server_name);
            Some((socket, client, rx))
        }
        Ok(Err(error)) => {
            worker.engine.observers().tls_failed(peer, &error);
            None
        }
        Err(_) => {
            let observers = worker.engine.observers();
            observers.opened();
            observers.turned_away(peer, CloseReason::TimedOut(Rule::ConnectTime));
            None
        }
    }
}
