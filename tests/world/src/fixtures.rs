//! Hubs and devices in the states that tests start from.

use devicebound::device::DeviceConfig;
use devicebound::hub::{
    Authentication, CloudMessage, DeviceIdentity, DeviceRecord, HubConfig, Section, TwinUpdate,
};
use devicebound::iothub::sas::SymmetricKey;
use serde_json::Value;

use crate::hub_host::HubHost;
use crate::station::Station;

/// The hub's host name.
pub const HOST: &str = "hub.example.test";
/// The primary and the secondary key of every device.
pub const KEYS: [&str; 2] = ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "MDEyMzQ1Njc4OWFiY2RlZg=="];

/// The record of a new device or module with [`KEYS`].
///
/// # Panics
/// When `client_id` is none.
#[must_use]
pub fn record(client_id: &str) -> DeviceRecord {
    let key = |text| SymmetricKey::from_base64(text).expect("the keys are base64");
    let authentication = Authentication::Sas { primary: key(KEYS[0]), secondary: key(KEYS[1]) };
    let identity = DeviceIdentity::new(client_id, "1".to_owned(), authentication);
    DeviceRecord::new(identity.expect("the tests' client ids are ids"))
}

/// A hub named [`HOST`] with these identities.
#[must_use]
pub fn hub(client_ids: &[&str]) -> HubHost {
    let mut host = HubHost::new(HubConfig { host_names: vec![HOST.to_owned()], ..HubConfig::default() });
    for client_id in client_ids {
        host.register(record(client_id));
    }
    host
}

/// The config of a device of that hub.
///
/// # Panics
/// When `device_id` is none.
#[must_use]
pub fn config(device_id: &str) -> DeviceConfig {
    config_at(HOST, device_id)
}

/// The config of a device of the hub at `host_name`.
///
/// # Panics
/// When `host_name` or `device_id` is none.
#[must_use]
pub fn config_at(host_name: &str, device_id: &str) -> DeviceConfig {
    let ids = match device_id.split_once('/') {
        Some((device_id, module_id)) => format!("DeviceId={device_id};ModuleId={module_id}"),
        None => format!("DeviceId={device_id}"),
    };
    let text = format!("HostName={host_name};{ids};SharedAccessKey={}", KEYS[0]);
    DeviceConfig::from_connection_string(&text).expect("the connection string is good")
}

/// A hub with the device `dev`, and the device connected.
#[must_use]
pub fn connected() -> (HubHost, Station) {
    connected_with(config("dev"))
}

/// A hub with the device `dev`, and the device connected with this config.
#[must_use]
pub fn connected_with(config: DeviceConfig) -> (HubHost, Station) {
    let mut hub = hub(&["dev"]);
    let mut station = Station::new(config);
    station.connect(&mut hub);
    (hub, station)
}

/// Puts a message into the queue of `dev`.
///
/// # Panics
/// When the hub refuses it.
pub fn send(hub: &mut HubHost, message_id: &str) {
    let message = CloudMessage {
        message_id: Some(message_id.to_owned()),
        payload: message_id.as_bytes().to_vec(),
        ..CloudMessage::default()
    };
    let device = hub.device("dev");
    let (_, commit) = hub.hub.enqueue(hub.now, device, message).expect("the queue has room");
    hub.commit(commit);
}

/// Patches the desired properties of `dev`.
///
/// # Panics
/// When the hub refuses the patch.
pub fn patch_desired(hub: &mut HubHost, patch: &Value) {
    let patch = patch.as_object().cloned().expect("a patch is an object");
    let update = TwinUpdate { desired: Some(Section::Patch(patch)), ..TwinUpdate::default() };
    let device = hub.device("dev");
    let commit = hub.hub.update_twin(hub.now, device, update).expect("the patch is good");
    hub.commit(commit);
}
