//! `GET /$iothub/websocket` and `/$servicebus/websocket`: MQTT and AMQP over WebSocket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::TokioIo;

use super::connection;
use crate::amqp::{self, Amqp};
use crate::backend::Error;
use crate::engine::Engine;
use crate::provisioning::Provisioning;
use crate::service::endpoint::{Endpoint, Right};
use crate::service::{ApiError, Call};
use crate::transport::websocket::{self, WebSocketBytes};

/// Who takes a connection over once it is a WebSocket.
#[derive(Debug)]
pub(super) struct Upgrades {
    engine: Arc<Engine>,
    amqp: Arc<Amqp>,
    provisioning: Option<Arc<Provisioning>>,
}

impl Upgrades {
    pub(super) fn new(
        engine: &Arc<Engine>,
        amqp: &Arc<Amqp>,
        provisioning: Option<Arc<Provisioning>>,
    ) -> Self {
        Self { engine: Arc::clone(engine), amqp: Arc::clone(amqp), provisioning }
    }
}

/// What the HTTPS port serves besides the service API.
pub(super) const ENDPOINTS: &[Endpoint<Upgrades>] =
    &[endpoint(websocket::PATH), endpoint("/$servicebus/websocket")];

const fn endpoint(path: &'static str) -> Endpoint<Upgrades> {
    Endpoint {
        method: Method::GET,
        path,
        // CONNECT, or what AMQP shows to $cbs, says who it is.
        right: Right::Anybody,
        operation: None,
        audit: None,
        versioned: false,
        handler: |upgrades, call| Box::pin(upgrade(upgrades, call)),
    }
}

async fn upgrade(upgrades: Arc<Upgrades>, call: Call) -> Result<Response, ApiError> {
    let peer = call.peer().cloned().ok_or_else(Error::stopping)?;
    let mut request = Request::from_parts(call.parts, Body::empty());
    match websocket::upgrade(&mut request, &[websocket::MQTT, websocket::AMQP]) {
        Ok(upgrade) => {
            tokio::spawn(async move {
                // A client that has hung up by now has been answered.
                let Ok(socket) = upgrade.socket.await else { return };
                let socket = WebSocketBytes::new(TokioIo::new(socket));
                if upgrade.protocol == websocket::AMQP {
                    amqp::connection::serve(Arc::clone(&upgrades.amqp), socket, peer.address).await;
                } else {
                    let provisioning = upgrades.provisioning.clone();
                    connection::adopt(&upgrades.engine, socket, peer.address, Some(peer.tls), provisioning);
                }
            });
            Ok(upgrade.response)
        }
        Err(refusal) => {
            let advice = refusal.to_string();
            upgrades.engine.view.web_socket_refused(peer.address, &advice);
            Ok((StatusCode::BAD_REQUEST, advice + "\n").into_response())
        }
    }
}
