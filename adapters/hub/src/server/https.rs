//! The sockets of HTTPS: TLS, the head of the first request, then hyper.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use devicebound::limits::CONNECT_TIME;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Tls, accept};
use crate::engine::Engine;
use crate::observe::view::View;
use crate::service::Peer;
use crate::transport::guarded::{Guarded, LINGER_TIME};
use crate::transport::head::{Begun, HEAD_MAX};
use crate::transport::tls::TlsPeer;

/// RFC 9110 §15.5.9.
const TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

type Socket = Begun<TlsStream<Guarded<TcpStream>>>;

/// Accepts for ever; each connection gets a task of its own, its TLS handshake included.
pub(super) async fn accept_all(listener: TcpListener, tls: Tls, engine: Arc<Engine>, router: Router) {
    loop {
        let (socket, address) = accept(&listener, &engine.view).await;
        let (tls, engine, router) = (tls.clone(), Arc::clone(&engine), router.clone());
        tokio::spawn(async move {
            // Handshake and head have one deadline, as on the port of MQTT. What each step needs is freed with it.
            let until = Instant::now() + CONNECT_TIME;
            let handshake = TlsAcceptor::from(tls.config).accept(Guarded::new(socket));
            let socket = match Box::pin(timeout_at(until, handshake)).await {
                Ok(Ok(socket)) => socket,
                Ok(Err(error)) => return engine.observers().tls_failed(address, &error),
                Err(late) => return engine.observers().tls_failed(address, &late.into()),
            };
            let connection = socket.get_ref().1;
            let server_name = connection.server_name().map(Into::into);
            let peer = Peer { address, tls: TlsPeer::of(connection, &tls.authorities, server_name) };
            let mut socket = Begun::new(socket);
            match timeout_at(until, socket.arrives()).await {
                Ok(Ok(true)) => Box::pin(serve(router, socket, peer, &engine.view)).await,
                // It has hung up.
                Ok(Ok(false) | Err(_)) => {}
                Err(_) => {
                    engine.view.http_stalled(address, "the head of its request did not arrive");
                    // A client that does not listen either is not waited for.
                    let _ = tokio::time::timeout(LINGER_TIME, part(socket)).await;
                }
            }
        });
    }
}

/// Says why to a client that has begun to ask.
async fn part(mut socket: Socket) -> io::Result<()> {
    if socket.has_begun() {
        socket.write_all(TOO_LATE).await?;
    }
    socket.shutdown().await
}

async fn serve(router: Router, socket: Socket, peer: Peer, view: &View) {
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
        .max_buf_size(HEAD_MAX)
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
    let inner = error.source().and_then(|inner| inner.downcast_ref::<io::Error>());
    inner.is_some_and(|inner| inner.kind() == io::ErrorKind::TimedOut)
}
