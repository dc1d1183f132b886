//! The devices of a hub of ours: registered through its service API, each with its SAS token.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use devicebound::iothub::sas::{self, SymmetricKey};
use devicebound::iothub::{ConnectionString, Credential};
use devicebound::time::UnixTime;
use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{Client, Failure, device_id};

const API_VERSION: &str = "2021-04-12";
/// Longer than any run.
const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Entries of one bulk request (IoT Hub quotas).
const ENTRIES_MAX: usize = 100;
/// Bulk requests at a time: the hub reads one while it carries another out.
const REQUESTS: usize = 4;
/// The key of all devices: what is measured does not depend on its being another for each.
const KEY: [u8; 32] = [0x5A; 32];

/// The registry of a hub, found through the state folder that the hub runs on.
#[derive(Debug)]
pub struct Registry {
    agent: ureq::Agent,
    url: String,
    host: String,
    token: String,
    expiry: UnixTime,
}

impl Registry {
    /// The registry of the hub that runs on the folder `state`.
    ///
    /// # Errors
    /// When none does.
    pub fn of(state: &Path) -> Result<Self, Failure> {
        let path = state.join("service.json");
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("no hub runs on {}: {}: {error}", state.display(), path.display()))?;
        let service: Value = serde_json::from_str(&text)?;
        let field =
            |name| service.get(name).and_then(Value::as_str).ok_or(format!("service.json has no {name}"));
        let string = ConnectionString::parse(field("connectionString")?)?;
        let (Some(policy), Credential::Key(key)) = (string.key_name(), string.credential()) else {
            return Err("the connection string in service.json is not one for services".into());
        };
        let expiry =
            UnixTime::from_secs(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()).after(TOKEN_LIFE);
        let ca = Certificate::from_pem(&fs::read(field("ca")?)?)?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca])).build();
        Ok(Self {
            agent: ureq::Agent::config_builder().proxy(None).tls_config(tls).build().into(),
            url: field("url")?.to_owned(),
            host: string.host_name().to_owned(),
            token: sas::sign(string.host_name(), key, expiry, Some(policy)),
            expiry,
        })
    }

    /// How many telemetry messages the hub has taken since it began.
    ///
    /// # Errors
    /// When it does not tell.
    pub fn telemetry(&self) -> Result<u64, Failure> {
        let text = self.agent.get(format!("{}/metrics", self.url)).call()?.body_mut().read_to_string()?;
        let line = r#"devicebound_messages_total{kind="telemetry"} "#;
        let count = text.lines().find_map(|told| told.strip_prefix(line)).ok_or("no count of telemetry")?;
        Ok(count.trim().parse()?)
    }

    /// A token of the policy, and the policy's name, as AMQP's SASL PLAIN takes them.
    ///
    /// # Errors
    /// When the token names no policy.
    pub fn plain(&self) -> Result<(String, String), Failure> {
        let policy = self.token.rsplit_once("skn=").ok_or("the token names no policy")?.1;
        Ok((format!("{policy}@sas.root.{}", self.host), self.token.clone()))
    }

    /// The first `count` devices, registered now where they are not.
    ///
    /// # Errors
    /// When the hub refuses one.
    pub fn clients(&self, count: usize) -> Result<Vec<Client>, Failure> {
        self.register(count)?;
        let key = SymmetricKey::from_bytes(&KEY);
        let client = |index| {
            let id = device_id(index);
            let token = sas::sign(&format!("{}/devices/{id}", self.host), &key, self.expiry, None);
            Client {
                credentials: Some((format!("{}/{id}/?api-version={API_VERSION}", self.host), token)),
                id,
            }
        };
        Ok((0..count).map(client).collect())
    }

    /// Registers the first `count` devices.
    ///
    /// # Errors
    /// When the hub refuses one.
    pub fn register(&self, count: usize) -> Result<(), Failure> {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let start = next.fetch_add(ENTRIES_MAX, Ordering::Relaxed);
                if start >= count {
                    return Ok(());
                }
                self.register_some(start..count.min(start + ENTRIES_MAX))?;
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err("a thread that registers devices panicked".into()))
            })
        })
    }

    fn register_some(&self, indices: Range<usize>) -> Result<(), Failure> {
        let key = SymmetricKey::from_bytes(&KEY).to_base64();
        let keys = json!({"primaryKey": key, "secondaryKey": key});
        let entry = |index| {
            json!({
                "id": device_id(index),
                "importMode": "createOrUpdate",
                "authentication": {"type": "sas", "symmetricKey": keys},
            })
        };
        let entries: Vec<Value> = indices.map(entry).collect();
        let request = self.agent.post(format!("{}/devices?api-version={API_VERSION}", self.url));
        let request = request.header("Authorization", &self.token).header("Content-Type", "application/json");
        request
            .send(Value::from(entries).to_string())
            .map_err(|error| format!("the hub did not register devices: {error}"))?;
        Ok(())
    }
}
