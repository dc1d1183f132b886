//! `/statistics`: how many devices there are, and how many are connected. Modules are not counted.

use axum::Json;
use axum::extract::State;
use devicebound::hub::{DeviceKey, DeviceRecord};
use serde_json::{Value, json};

use super::Shared;
use crate::worker::Core;

pub(super) async fn devices(State(service): Shared) -> Json<Value> {
    let counts = service.engine.everywhere(|core, _| {
        let enabled = |counts: (usize, usize), (_, record): (DeviceKey, &DeviceRecord)| {
            (counts.0.saturating_add(1), counts.1.saturating_add(usize::from(record.identity.enabled)))
        };
        devices_of(core).fold((0, 0), enabled)
    });
    let (totals, enabled): (Vec<usize>, Vec<usize>) = counts.await.into_iter().unzip();
    let (total, enabled) = (totals.iter().sum::<usize>(), enabled.iter().sum());
    Json(json!({
        "totalDeviceCount": total,
        "enabledDeviceCount": enabled,
        "disabledDeviceCount": total.saturating_sub(enabled),
    }))
}

pub(super) async fn service(State(service): Shared) -> Json<Value> {
    let connected = service
        .engine
        .everywhere(|core, _| devices_of(core).filter(|(key, _)| core.hub.is_connected(*key)).count());
    Json(json!({"connectedDeviceCount": connected.await.iter().sum::<usize>()}))
}

fn devices_of(core: &Core) -> impl Iterator<Item = (DeviceKey, &DeviceRecord)> {
    core.hub.devices().filter(|(_, record)| record.identity.identity().module_id().is_none())
}
