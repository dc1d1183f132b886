//! The hub on its sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::{Extension, Router};
use devicebound::hub::HubConfig;
use devicebound::iothub::sas::Policy;
use devicebound::limits::CONNECT_TIME;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Failure;
use crate::connection;
use crate::engine::Engine;
use crate::listen::Listeners;
use crate::log::EventLog;
use crate::service::{self, Peer, Service};
use crate::store::Store;
use crate::transport::tls;
use crate::view::View;
use crate::writer::Writer;

/// How long connections may take to part when the hub stops.
const STOP_TIME: Duration = Duration::from_secs(2);
/// A pause when no socket can be accepted, usually because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A hub that is ready to listen.
#[derive(Debug)]
pub struct Server {
    engine: Arc<Engine>,
    writer: thread::JoinHandle<()>,
    router: Router,
    tls: Arc<ServerConfig>,
}

impl Server {
    /// Loads what the store has, and starts the writer.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(
        config: HubConfig,
        policies: Vec<Policy>,
        store: Box<dyn Store>,
        telemetry: Arc<EventLog>,
        tls: Arc<ServerConfig>,
        view: View,
    ) -> Result<Self, Failure> {
        let host_names = config.host_names.clone();
        let (engine, writer) = Engine::start(config, store, view)?;
        let service = Service { engine: Arc::clone(&engine), telemetry, policies, host_names };
        Ok(Self {
            engine,
            writer: thread::spawn(move || Writer::run(writer)),
            router: service::router(Arc::new(service)),
            tls,
        })
    }

    /// The hub itself.
    #[must_use]
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Serves until `stop`; then ends every connection and waits until all that was taken is written.
    pub async fn run(self, listeners: Listeners, stop: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        let engine = Arc::clone(&self.engine);
        tasks.spawn(async move { engine.keep_time().await });
        for listener in listeners.mqtt {
            tasks.spawn(accept(
                listener,
                TlsAcceptor::from(Arc::clone(&self.tls)),
                Arc::clone(&self.engine),
                serve_mqtt,
            ));
        }
        for listener in listeners.https {
            let router = self.router.clone();
            let serve = move |_, socket, peer| serve_https(router.clone(), socket, peer);
            tasks.spawn(accept(
                listener,
                TlsAcceptor::from(Arc::clone(&self.tls)),
                Arc::clone(&self.engine),
                serve,
            ));
        }
        stop.await;
        self.engine.stop();
        // Whoever has not parted by then is left behind; what they sent was not acknowledged.
        let _ = tokio::time::timeout(STOP_TIME, self.engine.all_closed()).await;
        tasks.shutdown().await;
        self.engine.backlog().end();
        let _ = tokio::task::spawn_blocking(move || self.writer.join()).await;
    }
}

/// Accepts for ever; each connection gets a task of its own, its TLS handshake included.
async fn accept<F, S>(listener: TcpListener, tls: TlsAcceptor, engine: Arc<Engine>, serve: S)
where
    S: Fn(Arc<Engine>, TlsStream<TcpStream>, Peer) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok((socket, address)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (tls, engine, serve) = (tls.clone(), Arc::clone(&engine), serve.clone());
        tokio::spawn(async move {
            if let Some((socket, peer)) = handshake(&tls, &engine, socket, address).await {
                serve(engine, socket, peer).await;
            }
        });
    }
}

async fn handshake(
    tls: &TlsAcceptor,
    engine: &Engine,
    socket: TcpStream,
    address: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    // Answers are small and wanted at once; a socket that is closed already fails below.
    let _ = socket.set_nodelay(true);
    match tokio::time::timeout(CONNECT_TIME, tls.accept(socket)).await {
        Ok(Ok(socket)) => {
            let certificate = tls::client_certificate(socket.get_ref().1);
            Some((socket, Peer { address, certificate }))
        }
        Ok(Err(error)) => {
            engine.view.tls_failed(address, &error);
            None
        }
        Err(_) => None,
    }
}

async fn serve_mqtt(engine: Arc<Engine>, socket: TlsStream<TcpStream>, peer: Peer) {
    connection::serve(&engine, socket, peer.address, peer.certificate).await;
}

async fn serve_https(router: Router, socket: TlsStream<TcpStream>, peer: Peer) {
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECT_TIME)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    // A client that breaks HTTP or hangs up has been answered as far as it can be.
    let _ = connection.await;
}
