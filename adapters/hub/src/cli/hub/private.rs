//! A hub for this process alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::arguments::HubArgs;
use super::{Prepared, prepare};
use crate::Failure;
use crate::observe::view::View;
use crate::server::Server;
use crate::server::listen::Listeners;
use crate::state::Lock;

/// A hub that only has to be run.
pub(crate) struct Private {
    pub(crate) server: Server,
    pub(crate) listeners: Listeners,
    pub(crate) facts: Facts,
    /// The right to the state folder, for as long as the hub runs.
    pub(crate) lock: Lock,
}

/// Where a hub is, and who may use it.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) mqtt: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) amqp: SocketAddr,
    pub(crate) ca: PathBuf,
    pub(crate) service: String,
    pub(crate) event_hub: String,
}

/// A hub on free ports of the loopback, which keeps in this folder what it has, and shows nothing.
///
/// # Errors
/// When this machine has no port or thread left, or the folder cannot be used.
pub(crate) async fn prepare_private(folder: PathBuf) -> Result<Private, Failure> {
    let Prepared { server, listeners, ready, lock, .. } =
        prepare(&HubArgs::private(folder), View::default()).await?;
    let facts = Facts {
        mqtt: ready.mqtt,
        https: ready.https,
        amqp: ready.amqp,
        service: ready.service_connection_string(),
        event_hub: ready.event_hub_connection_string(),
        ca: ready.ca,
    };
    Ok(Private { server, listeners, facts, lock })
}
