//! A hub inside a test: in this process, on free ports of the loopback, with a state of its own that ends with it.
//!
//! ```
//! # fn main() -> Result<(), devicebound_hub::Failure> {
//! use devicebound_hub::testing::Hub;
//!
//! let hub = Hub::start()?;
//! let connection_string = hub.add_device("thermostat")?; // for a client, with hub.ca() and hub.mqtt().port()
//! assert!(connection_string.contains("DeviceId=thermostat"));
//! # Ok(())
//! # }
//! ```
//!
//! Any number of them run side by side. Azure's SDKs know one port only: for them there is `devicebound hub --isolated`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

use crate::Failure;
use crate::backend::identity::Wish;
use crate::backend::{Backend, ClientId, Error};
use crate::cli::hub::{Facts, Private, prepare_private};

/// A hub that runs until this is dropped.
#[derive(Debug)]
pub struct Hub {
    running: Running,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Removed when the hub has ended.
    _state: TempDir,
}

/// The way to a hub on its thread.
#[derive(Debug)]
struct Running {
    backend: Arc<Backend>,
    facts: Facts,
    runtime: Handle,
}

impl Hub {
    /// Starts a hub; it listens when this returns. May be called from an asynchronous test, too.
    ///
    /// # Errors
    /// When this machine has no port, thread or temporary folder left.
    pub fn start() -> Result<Self, Failure> {
        let state = tempfile::Builder::new().prefix("devicebound-").tempdir();
        let state = state.map_err(|error| lacking("temporary folder", &error))?;
        let folder = state.path().to_owned();
        let (stop, stopped) = oneshot::channel();
        let (started, has_started) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("hub".to_owned());
        // On a thread of its own, as no runtime starts within another.
        let thread = thread.spawn(move || run(folder, &started, stopped));
        let thread = thread.map_err(|error| lacking("thread", &error))?;
        let gone = |_| Failure::new("the hub's thread has ended", "see what it has printed");
        let running = has_started.recv().map_err(gone)??;
        Ok(Self { running, stop: Some(stop), thread: Some(thread), _state: state })
    }

    /// Registers a device with keys of its own, and gives its connection string.
    ///
    /// # Errors
    /// When the id is none, or there is such a device already.
    pub fn add_device(&self, id: &str) -> Result<String, Failure> {
        let failed = |error: Error| {
            let fix = "an id has 1 to 128 letters, digits and signs of Azure's, and is registered once";
            Failure::new(error.to_string(), fix)
        };
        let client_id = ClientId::new(id, None).map_err(failed)?;
        let wish = Wish::read(&json!({"deviceId": id})).map_err(failed)?;
        let backend = Arc::clone(&self.running.backend);
        let (added, is_added) = mpsc::sync_channel(1);
        self.running.runtime.spawn(async move {
            // Nobody has gone away: the caller waits.
            drop(added.send(backend.put_identity(&client_id, None, wish).await));
        });
        let gone = |_| Failure::new("the hub has ended", "see what it has printed");
        let identity = is_added.recv().map_err(gone)?.map_err(failed)?;
        let key = &identity["authentication"]["symmetricKey"]["primaryKey"];
        let key = key.as_str().unwrap_or_default();
        Ok(format!("HostName=localhost;DeviceId={id};SharedAccessKey={key}"))
    }

    /// Where MQTT over TLS is.
    #[must_use]
    pub const fn mqtt(&self) -> SocketAddr {
        self.running.facts.mqtt
    }

    /// Where HTTPS and MQTT over WebSocket are.
    #[must_use]
    pub const fn https(&self) -> SocketAddr {
        self.running.facts.https
    }

    /// Where AMQP over TLS is.
    #[must_use]
    pub const fn amqp(&self) -> SocketAddr {
        self.running.facts.amqp
    }

    /// The PEM file of the authority that signed the hub's certificate, which is for `localhost`.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.running.facts.ca
    }

    /// The connection string of the service API's owner.
    #[must_use]
    pub fn service_connection_string(&self) -> &str {
        &self.running.facts.service
    }

    /// The connection string of the Event Hubs-compatible endpoint.
    #[must_use]
    pub fn event_hub_connection_string(&self) -> &str {
        &self.running.facts.event_hub
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the hub has said so.
            let _ = thread.join();
        }
    }
}

/// The hub's thread.
fn run(
    folder: PathBuf,
    started: &mpsc::SyncSender<Result<Running, Failure>>,
    stopped: oneshot::Receiver<()>,
) {
    let prepared = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let prepared = prepared.map_err(|error| lacking("thread", &error)).and_then(|runtime| {
        let private = runtime.block_on(prepare_private(folder))?;
        Ok((runtime, private))
    });
    match prepared {
        Ok((runtime, Private { server, listeners, facts, lock: _lock })) => {
            let backend = Arc::clone(server.backend());
            let running = Running { backend, facts, runtime: runtime.handle().clone() };
            if started.send(Ok(running)).is_ok() {
                // What ends it early is seen by its users: its ports are closed.
                drop(runtime.block_on(server.run(listeners, async { drop(stopped.await) })));
            }
        }
        Err(failure) => drop(started.send(Err(failure))),
    }
}

fn lacking(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(format!("no {what} can be had: {error}"), "see the limits of this system")
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn hubs_run_side_by_side_and_end_with_their_test() {
        let hubs = [Hub::start().unwrap(), Hub::start().unwrap()];
        let ports = hubs.each_ref().map(Hub::mqtt);
        assert_ne!(ports[0], ports[1]);
        assert!(hubs.iter().all(|hub| hub.ca().is_file() && TcpStream::connect(hub.https()).is_ok()));
        let folder = hubs[0].ca().parent().unwrap().to_owned();
        drop(hubs);
        assert!(!folder.exists() && ports.iter().all(|port| TcpStream::connect(port).is_err()));
    }

    #[tokio::test]
    async fn a_device_is_added_once_from_an_asynchronous_test_too() {
        let hub = Hub::start().unwrap();
        let connection_string = hub.add_device("dev-1").unwrap();
        assert!(connection_string.starts_with("HostName=localhost;DeviceId=dev-1;SharedAccessKey="));
        assert!(hub.add_device("dev-1").unwrap_err().to_string().contains("registered"));
        assert!(hub.add_device("no id").is_err());
        assert!(hub.service_connection_string().contains("iothubowner"));
        assert!(hub.event_hub_connection_string().contains("EntityPath="));
    }
}
