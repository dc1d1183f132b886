//! The hub on its sockets.

mod amqp;
pub mod certificate_watch;
pub mod connection;
pub mod isolated;
pub mod listen;
mod web_socket;

use std::convert::Infallible;
use std::error::Error as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_local};
use tokio_rustls::TlsAcceptor;

use crate::Failure;
use crate::amqp::Amqp;
use crate::backend::Backend;
use crate::backend::consumer_groups::ConsumerGroups;
use crate::backend::files::{Files, Uploads};
use crate::backend::jobs::Jobs;
use crate::engine::Engine;
use crate::engine::worker::{Worker, WorkerBuilder};
use crate::observe::view::View;
use crate::provisioning::{self, Provisioning};
use crate::server::listen::Listeners;
use crate::server::web_socket::Upgrades;
use crate::service::endpoint::mount;
use crate::service::{self, Peer};
use crate::state::StateDir;
use crate::state::device_certs::DeviceAuthorities;
use crate::storage::Storage;
use crate::store::Store;
use crate::store::reader::TelemetryReader;
use crate::transport::body;
use crate::transport::guarded::Guarded;
use crate::transport::tls::TlsPeer;
use crate::transport::tls_socket::TlsSocket;
use crate::web::{self, Page};

/// How long connections may take to part when the hub stops.
const STOP_TIME: Duration = Duration::from_secs(2);
/// What is held of a request before it is known who sent it, head included (own limit, as on the port of MQTT). A token of
/// Azure has some 300 bytes, one of Entra 2 to 4 KiB.
const HTTP_BUFFER: usize = 16 * 1024;
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
    provisioning: Option<Arc<Provisioning>>,
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
        let (others, page, provisioning) = (Router::new(), None, None);
        Ok(Self {
            engine,
            threads,
            backend,
            others,
            page,
            provisioning,
            amqp,
            tls,
            documents,
            policies,
            tier,
        })
    }

    /// Adds a Device Provisioning Service on the same ports.
    ///
    /// # Errors
    /// When the store has a document of it that cannot be read.
    pub fn with_provisioning(mut self, settings: provisioning::Settings) -> Result<Self, Failure> {
        let service =
            Arc::new(Provisioning::new(Arc::clone(&self.engine), settings, &self.documents, self.tier)?);
        self.others = self.others.merge(provisioning::router(&service, &self.policies));
        let issuer = Arc::downgrade(&service);
        self.engine.set_certificate_issuer(issuer);
        self.provisioning = Some(service);
        Ok(self)
    }

    /// Adds a storage that devices upload files to, which a back end finds at `authority`.
    ///
    /// # Errors
    /// When the storage cannot be opened, or the store has a document of it that cannot be read.
    pub fn with_files(self, state: &StateDir, uploads: &Uploads, authority: String) -> Result<Self, Failure> {
        let storage = Storage::open(state, &self.documents, uploads.bounds)?;
        self.backend.set_files(Files::load(storage, authority, uploads.sas_ttl, &self.documents)?);
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
            share(listener, &self.engine, &self.tls, self.provisioning.as_ref()).map_err(|error| {
                Failure::new(format!("cannot share a socket: {error}"), "see the limits of this system")
            })?;
        }
        self.backend.resume();
        let upgrades = Arc::new(Upgrades::new(&self.engine, &self.amqp, self.provisioning));
        let mut router = service::router(self.backend, mount(&upgrades, web_socket::ENDPOINTS), self.others);
        if let Some(page) = &self.page {
            router = web::signed_in(router, page);
        }
        let router = router.layer(from_fn(body::in_time)).layer(from_fn(service::host::is_named));
        let mut tasks = JoinSet::new();
        for listener in listeners.https {
            tasks.spawn(accept_https(listener, self.tls.clone(), Arc::clone(&self.engine), router.clone()));
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

/// The same for HTTPS, on the runtime of the service API.
async fn accept_https(listener: TcpListener, tls: Tls, engine: Arc<Engine>, router: Router) {
    loop {
        let (socket, address) = accept(&listener, &engine.view).await;
        let (tls, engine, router) = (tls.clone(), Arc::clone(&engine), router.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(
                CONNECT_TIME,
                TlsAcceptor::from(tls.config).accept(Guarded::new(socket)),
            )
            .await
            {
                Ok(Ok(socket)) => {
                    let connection = socket.get_ref().1;
                    let server_name = connection.server_name().map(Into::into);
                    let tls = TlsPeer::of(connection, &tls.authorities, server_name);
                    serve_https(router, socket, Peer { address, tls }, &engine.view).await;
                }
                Ok(Err(error)) => engine.observers().tls_failed(address, &error),
                Err(late) => engine.observers().tls_failed(address, &late.into()),
            }
        });
    }
}

async fn serve_https(
    router: Router,
    socket: tokio_rustls::server::TlsStream<Guarded<TcpStream>>,
    peer: Peer,
    view: &View,
) {
    let address = peer.address;
    let service = TowerToHyperService::new(router);
    let has_asked = AtomicBool::new(false);
    // Not by a layer: one for each connection makes all routes anew, 60 KiB of them.
    let service = service_fn(|mut request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer.clone());
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECT_TIME)
        .max_buf_size(HTTP_BUFFER)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    match connection.await {
        Err(error) if error.is_parse() => view.http_failed(address, &error),
        // A client that has nothing more to ask is let go without a word.
        Err(error) if error.is_timeout() && !has_asked.load(Ordering::Relaxed) => {
            view.http_stalled(address, "the head of its request did not arrive")
        }
        Err(error) if is_timed_out(&error) => view.http_stalled(address, "it read nothing of its answer"),
        // A client that hangs up, or has nothing more to ask, has been answered as far as it can be.
        Ok(()) | Err(_) => {}
    }
}

/// Whether a write to a client took too long.
fn is_timed_out(error: &hyper::Error) -> bool {
    let inner = error.source().and_then(|inner| inner.downcast_ref::<std::io::Error>());
    inner.is_some_and(|inner| inner.kind() == std::io::ErrorKind::TimedOut)
}
