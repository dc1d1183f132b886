//! A hub in memory and a device that speaks in bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use devicebound::hub::{Authentication, DeviceIdentity, DeviceRecord, HubConfig};
use devicebound::iothub::sas::{self, SymmetricKey};
use devicebound::packet::{
    Connect, Credentials, Decoded, Packet, PacketId, Publish, PublishQoS, QoS, Text, TopicName, Will, decode,
};
use devicebound_hub::Failure;
use devicebound_hub::clock::unix_time;
use devicebound_hub::engine::Engine;
use devicebound_hub::observe::view::View;
use devicebound_hub::server::connection;
use devicebound_hub::store::{Batch, Committed, Document, Ledger, MemoryStore, Store, Stored, TelemetryLog};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};

/// The key of every device here.
pub(crate) fn key() -> SymmetricKey {
    SymmetricKey::from_bytes(&[7; 32])
}

/// A store in memory that waits or fails when it is told to.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestStore {
    records: Arc<Mutex<Vec<DeviceRecord>>>,
    inner: Arc<Mutex<MemoryStore>>,
    documents: Arc<Mutex<BTreeMap<String, String>>>,
    closed: Arc<(Mutex<bool>, Condvar)>,
    failing: Arc<AtomicBool>,
    unreadable: Arc<AtomicBool>,
}

impl TestStore {
    /// From now on nothing becomes safe, until [`open`](Self::open).
    pub(crate) fn close(&self) {
        *self.closed.0.lock().unwrap() = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.0.lock().unwrap() = false;
        self.closed.1.notify_all();
    }

    /// From now on every commit fails.
    pub(crate) fn fail(&self) {
        self.failing.store(true, Ordering::SeqCst);
    }

    /// From now on every commit fails, and nothing can be read back either, until [`recover`](Self::recover).
    pub(crate) fn break_down(&self) {
        self.fail();
        self.unreadable.store(true, Ordering::SeqCst);
    }

    pub(crate) fn recover(&self) {
        self.failing.store(false, Ordering::SeqCst);
        self.unreadable.store(false, Ordering::SeqCst);
    }

    /// A record that the hub finds at its start.
    pub(crate) fn register(&self, client_id: &str, authentication: Authentication) {
        let identity = DeviceIdentity::new(client_id, "1".to_owned(), authentication).unwrap();
        self.records.lock().unwrap().push(DeviceRecord::new(identity));
    }

    /// What was stored, as the service API shows it.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let log = self.telemetry();
        let mut messages: Vec<Value> = Vec::new();
        while (messages.len() as u64) < log.newest() {
            let page = log.read(messages.len() as u64).unwrap();
            let lines = page.messages().map(|(cursor, message)| message.to_line(cursor));
            messages.extend(lines.map(|line| serde_json::from_str::<Value>(&line).unwrap()));
        }
        messages
    }
}

impl Store for TestStore {
    fn load(&mut self) -> Result<Vec<Stored>, Failure> {
        let records = self.records.lock().unwrap().clone();
        let mut ledger = Ledger::default();
        let batch = Batch {
            records: records.iter().map(|record| ledger.change(record)).collect(),
            ..Batch::default()
        };
        let committed = self.inner.lock().unwrap().commit(batch).unwrap();
        let stored = |(record, version): (_, Option<_>)| Stored { record, version: version.unwrap() };
        Ok(records.into_iter().zip(committed.versions).map(stored).collect())
    }

    fn documents(&mut self) -> Result<Vec<(String, String)>, Failure> {
        Ok(self.documents.lock().unwrap().clone().into_iter().collect())
    }

    fn commit(&mut self, batch: Batch) -> io::Result<Committed> {
        let (closed, opened) = &*self.closed;
        drop(opened.wait_while(closed.lock().unwrap(), |closed| *closed).unwrap());
        if self.failing.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut documents = self.documents.lock().unwrap();
        for Document { key, text } in &batch.documents {
            match text {
                Some(text) => drop(documents.insert(key.clone(), text.clone())),
                None => drop(documents.remove(key)),
            }
        }
        self.inner.lock().unwrap().commit(batch)
    }

    fn reload(&mut self, client_id: &str) -> io::Result<Option<Stored>> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.lock().unwrap().reload(client_id)
    }

    fn telemetry(&self) -> Arc<TelemetryLog> {
        self.inner.lock().unwrap().telemetry()
    }
}

/// A hub without sockets, with the device `demo`.
pub(crate) struct Hub {
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: TestStore,
}

impl Hub {
    pub(crate) fn start() -> Self {
        Self::start_with(View::default())
    }

    pub(crate) fn start_with(view: View) -> Self {
        Self::start_as(HubConfig::default(), view, 2)
    }

    pub(crate) fn start_as(config: HubConfig, view: View, workers: usize) -> Self {
        Self::start_from(config, view, workers, |_| {})
    }

    /// A hub that finds more in its store than `demo`.
    pub(crate) fn prepared(prepare: impl FnOnce(&TestStore)) -> Self {
        Self::start_from(HubConfig::default(), View::default(), 2, prepare)
    }

    fn start_from(config: HubConfig, view: View, workers: usize, prepare: impl FnOnce(&TestStore)) -> Self {
        let store = TestStore::default();
        prepare(&store);
        store.register("demo", Authentication::Sas { primary: key(), secondary: key() });
        Self::on(store, config, view, workers)
    }

    /// A hub with the documents of one that was there before; its records begin anew.
    pub(crate) fn start_on(before: &TestStore) -> Self {
        let store = TestStore { documents: Arc::clone(&before.documents), ..TestStore::default() };
        store.register("demo", Authentication::Sas { primary: key(), secondary: key() });
        Self::on(store, HubConfig::default(), View::default(), 2)
    }

    fn on(store: TestStore, config: HubConfig, view: View, workers: usize) -> Self {
        let (engine, parts) = Engine::start(config, Box::new(store.clone()), view, workers).unwrap();
        let writer = parts.writer.unwrap();
        thread::spawn(move || writer.run());
        // On the thread of the test, so that it may hold the clock.
        parts.workers.into_iter().for_each(|worker| drop(tokio::task::spawn_local(worker.run())));
        Self { engine, store }
    }

    /// A transport to the hub whose buffer holds `capacity` bytes.
    pub(crate) fn transport(&self, capacity: usize) -> DuplexStream {
        let (near, far) = tokio::io::duplex(capacity);
        connection::adopt(&self.engine, far, ([127, 0, 0, 1], 1).into(), None, None);
        near
    }

    /// A device that is connected, its CONNACK read.
    pub(crate) async fn connected(&self, connect: &[u8]) -> Device<DuplexStream> {
        let mut device = Device::new(self.transport(64 * 1024));
        device.send(connect).await;
        assert_eq!(device.receive().await.as_deref(), Some(ACCEPTED));
        device
    }

    /// The last line of the operations log, once `count` connections have begun or ended.
    pub(crate) async fn operation(&self, count: u64) -> Value {
        let entry = self.engine.operations.log.wait_after(count - 1).await;
        serde_json::from_str(&entry.line).unwrap()
    }
}

pub(crate) const ACCEPTED: &[u8] = &[0x20, 2, 0, 0];
pub(crate) const REFUSED: &[u8] = &[0x20, 2, 0, 5];
pub(crate) const PINGREQ: &[u8] = &[0xc0, 0];
pub(crate) const PINGRESP: &[u8] = &[0xd0, 0];
pub(crate) const DISCONNECT: &[u8] = &[0xe0, 0];

/// The other end of a connection, packet by packet.
pub(crate) struct Device<S> {
    pub(crate) stream: S,
    received: Vec<u8>,
}

impl<S: tokio::io::AsyncRead + AsyncWrite + Unpin> Device<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next packet; `None` at the end of the stream.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut rest = &self.received[..];
            if let Decoded::Packet(_) = decode(&mut rest, usize::MAX).expect("the hub sends MQTT") {
                let length = self.received.len() - rest.len();
                return Some(self.received.drain(..length).collect());
            }
            if self.stream.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

/// A CONNECT of `client_id` with a token of its own.
pub(crate) fn connect_as(client_id: &str, keep_alive: u16, will: Option<Will<'_>>) -> Vec<u8> {
    connect_with(client_id, "", keep_alive, will)
}

/// The same, with `params` at the end of the user name.
pub(crate) fn connect_with(
    client_id: &str,
    params: &str,
    keep_alive: u16,
    will: Option<Will<'_>>,
) -> Vec<u8> {
    let username = format!("localhost/{client_id}/?api-version=2021-04-12{params}");
    let expiry = unix_time().after(std::time::Duration::from_secs(3600));
    let token = sas::sign(&format!("localhost/devices/{client_id}"), &key(), expiry, None);
    let credentials =
        Some(Credentials { username: Text::new(&username).unwrap(), password: Some(token.as_bytes()) });
    let client_id = Text::new(client_id).unwrap();
    bytes(Packet::Connect(Connect { clean_session: true, keep_alive, client_id, will, credentials }))
}

pub(crate) fn connect() -> Vec<u8> {
    connect_as("demo", 60, None)
}

pub(crate) fn connect_with_will() -> Vec<u8> {
    let topic = TopicName::new("devices/demo/messages/events/").unwrap();
    let will = Will { topic, message: b"last words", qos: QoS::AtLeastOnce, retain: false };
    connect_as("demo", 60, Some(will))
}

pub(crate) fn publish(id: u16, payload: &[u8]) -> Vec<u8> {
    let qos = PublishQoS::AtLeastOnce { packet_id: PacketId::new(id).unwrap(), dup: false };
    let topic = TopicName::new("devices/demo/messages/events/").unwrap();
    bytes(Packet::Publish(Publish { qos, retain: false, topic, payload }))
}

pub(crate) fn puback(id: u16) -> Vec<u8> {
    bytes(Packet::PubAck(PacketId::new(id).unwrap()))
}

pub(crate) fn bytes(packet: Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes).unwrap();
    bytes
}
