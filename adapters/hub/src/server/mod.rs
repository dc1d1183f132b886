//! The hub on its sockets.

mod amqp;
pub mod certificate_watch;
pub mod connection;
mod https;
pub mod isolated;
pub mod listen;
mod web_socket;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc as answers};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use devicebound::Rule;
use devicebound::hub::{HubConfig, Scale};
use devicebound::iothub::sas::Policy;
use devicebound::limits::CONNECT_TIME;
use devicebound::session::CloseReason;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_local};

use crate::Failure;
use crate::amqp::Amqp;
use crate::backend::Backend;
use crate::backend::consumer_groups::ConsumerGroups;
use crate::backend::jobs::Jobs;
use crate::engine::Engine;
use crate::engine::worker::{Worker, WorkerBuilder};
use crate::observe::view::View;
use crate::provisioning::{self, Provisioning};
use crate::server::listen::Listeners;
use crate::server::web_socket::Upgrades;
use crate::service;
use crate::service::endpoint::mount;
use crate::state::device_certs::DeviceAuthorities;
use crate::store::Store;
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
    /// What HTTPS serves besides the service API.
    others: Router,
    page: Option<Arc<Page>>,
    amqp: Arc<Amqp>,
    tls: Tls,
    /// What the store has besides records, for who is added.
    documents: Vec<(String, String)>,
    policies: Vec<Policy>,
    tier: Option<Scale>,
}

/// What a connection needs before it speaks MQTT or HTTP.
#[derive(Clone, Debug)]
struct Tls {
    config: Arc<ServerConfig>,
    /// Whose word is taken for who a device is.
    authorities: DeviceAuthorities,
}

impl Server {
    /// Loads what the store has, and starts the writer and so many workers; at least one.
    ///
    /// # Errors
    /// When the store cannot be read, or a thread cannot be had.
    pub fn start(
        config: HubConfig,
        policies: Vec<Policy>,
        mut store: Box<dyn Store>,
        tls: Arc<ServerConfig>,
        view: View,
        workers: usize,
    ) -> Result<Self, Failure> {
        let host_names = config.host_names.clone();
        let telemetry = TelemetryReader::of(store.telemetry()).map_err(no_thread)?;
        let (documents, tier) = (store.documents()?, config.tier);
        let (engine, parts) = Engine::start(config, store, view, workers)?;
        let threads = Threads::new();
        for worker in parts.workers {
            start_worker(&threads, worker)?;
        }
        if let Some(writer) = parts.writer {
            threads.start("writer", move || writer.run())?;
        }
        let backend = Backend::new(Arc::clone(&engine), telemetry, policies.clone(), host_names)
            .with_consumer_groups(ConsumerGroups::load(&documents)?)
            .with_jobs(Jobs::load(&documents)?)
            .with_configurations(&documents)?;
        let backend = Arc::new(backend);
        let amqp = Arc::new(Amqp::new(Arc::clone(&backend)));
        let tls = Tls { config: tls, authorities: DeviceAuthorities::default() };
        let (others, page) = (Router::new(), None);
        Ok(Self { engine, threads, backend, others, page, amqp, tls, documents, policies, tier })
    }

    /// Adds a Device Provisioning Service on the same ports.
    ///
    /// # Errors
    /// When the store has a document of it that cannot be read.
    pub fn with_provisioning(mut self, settings: provisioning::Settings) -> Result<Self, Failure> {
        let service =
            Arc::new(Provisioning::new(Arc::clone(&self.engine), settings, &self.documents, self.tier)?);
        self.others = self.others.merge(provisioning::router(&service, &self.policies));
        self.engine.set_provisioning(&service);
        Ok(self)
    }

    /// Adds the page at `/`.
    #[must_use]
    pub fn with_page(mut self, page: &Arc<Page>) -> Self {
        self.others = self.others.merge(web::router(page));
        self.page = Some(Arc::clone(page));
        self
    }

    /// Takes the word of these authorities for who a device is.
    #[must_use]
    pub fn trusting(mut self, authorities: DeviceAuthorities) -> Self {
        self.tls.authorities = authorities;
        self
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
            share(listener, &self.engine, &self.tls).map_err(|error| {
                Failure::new(format!("cannot share a socket: {error}"), "see the limits of this system")
            })?;
        }
        self.backend.resume();
        let upgrades = Arc::new(Upgrades::new(&self.engine, &self.amqp));
        let mut router = service::router(self.backend, mount(&upgrades, web_socket::ENDPOINTS), self.others);
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

fn no_thread(error: std::io::Error) -> Failure {
    Failure::new(format!("cannot start threads: {error}"), "see the limits of this system")
}

/// Threads whose end can be waited for without another one.
#[derive(Debug)]
struct Threads {
    running: mpsc::Sender<Infallible>,
    ended: mpsc::Receiver<Infallible>,
}

impl Threads {
    fn new() -> Self {
        let (running, ended) = mpsc::channel(1);
        Self { running, ended }
    }

    fn start(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let running = self.running.clone();
        let run = move || {
            run();
            drop(running);
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(no_thread)
    }

    /// Waits until all have ended. One that panicked has said so.
    async fn all_ended(self) {
        let Self { running, mut ended } = self;
        drop(running);
        // Nothing is ever sent: it completes when the last sender is gone.
        let _ = ended.recv().await;
    }
}

/// A worker on its thread, whose runtime has nothing but what belongs to it.
fn start_worker(threads: &Threads, worker: WorkerBuilder) -> Result<(), Failure> {
    let (started, has_started) = answers::sync_channel(1);
    let run = move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => {
            // Whoever started it waits for that.
            let _ = started.send(Ok(()));
            runtime.block_on(worker.run());
        }
        Err(error) => drop(started.send(Err(error))),
    };
    threads.start("worker", run)?;
    let started = has_started.recv().unwrap_or_else(|error| Err(std::io::Error::other(error)));
    started.map_err(no_thread)
}

/// Has every worker accept from the same socket: whoever has time takes the next connection.
fn share(listener: TcpListener, engine: &Engine, tls: &Tls) -> std::io::Result<()> {
    let listener = listener.into_std()?;
    for place in 0..engine.places() {
        let (listener, tls) = (listener.try_clone()?, tls.clone());
        engine.send(place, |worker| {
            // It was registered once already, and so it can be again.
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            worker.listen(accept_mqtt(Rc::clone(worker), listener, tls));
        });
    }
    Ok(())
}

/// Accepts for ever; each connection gets a task of its own, its TLS handshake included.
async fn accept_mqtt(worker: Rc<Worker>, listener: TcpListener, tls: Tls) {
    loop {
        let (socket, peer) = accept(&listener, &worker.engine.view).await;
        let (worker, tls) = (Rc::clone(&worker), tls.clone());
        // Before the handshake: a client that takes its time over it has less for CONNECT.
        let began = worker.engine.clock.now();
        spawn_local(async move {
            // Of use for the handshake alone, and so not in the connection's own task.
            if let Some((socket, client, rx)) = Box::pin(handshake(&worker, socket, tls, peer)).await {
                connection::serve(worker, socket, peer, Some(client), rx, began).await;
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
