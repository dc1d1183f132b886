//! The sockets of AMQP: TLS on 5671, and for emulator connection strings plain TCP on loopback.

use std::sync::Arc;

use devicebound::limits::CONNECT_TIME;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Tls, accept};
use crate::amqp::{Amqp, connection};
use crate::engine::Engine;
use crate::transport::guarded::Guarded;

/// Accepts for ever; each connection gets a task of its own, its TLS handshake included.
pub(super) async fn accept_tls(listener: TcpListener, tls: Tls, engine: Arc<Engine>, amqp: Arc<Amqp>) {
    loop {
        let (socket, peer) = accept(&listener, &engine.view).await;
        let (tls, engine, amqp) = (tls.clone(), Arc::clone(&engine), Arc::clone(&amqp));
        tokio::spawn(async move {
            let handshake = TlsAcceptor::from(tls.config).accept(Guarded::new(socket));
            match tokio::time::timeout(CONNECT_TIME, handshake).await {
                Ok(Ok(socket)) => connection::serve(amqp, socket, peer).await,
                Ok(Err(error)) => engine.observers().tls_failed(peer, &error),
                Err(late) => engine.observers().tls_failed(peer, &late.into()),
            }
        });
    }
}

/// The same without TLS.
pub(super) async fn accept_plain(listener: TcpListener, engine: Arc<Engine>, amqp: Arc<Amqp>) {
    loop {
        let (socket, peer) = accept(&listener, &engine.view).await;
        tokio::spawn(connection::serve(Arc::clone(&amqp), Guarded::new(socket), peer));
    }
}
