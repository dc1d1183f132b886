//! `/statistics`: how many devices there are, and how many are connected. Modules are not counted.

use std::ops::ControlFlow;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::{Service, Shared};
use crate::scan::Seen;

pub(super) async fn devices(State(service): Shared) -> Json<Value> {
    let [total, enabled] = service.count(|seen| [true, seen.record.identity.enabled]).await;
    Json(json!({
        "totalDeviceCount": total,
        "enabledDeviceCount": enabled,
        "disabledDeviceCount": total.saturating_sub(enabled),
    }))
}

pub(super) async fn service(State(service): Shared) -> Json<Value> {
    let [connected] = service.count(|seen| [seen.hub.is_connected(seen.key)]).await;
    Json(json!({"connectedDeviceCount": connected}))
}

impl Service {
    /// How many devices have each of these traits.
    async fn count<const N: usize>(
        &self,
        traits: impl Fn(Seen<'_>) -> [bool; N] + Clone + Send + 'static,
    ) -> [usize; N] {
        let add = |counts: [usize; N], more: [usize; N]| {
            std::array::from_fn(|index| counts[index].saturating_add(more[index]))
        };
        let counts = self.engine.look_through("", [0; N], move |counts, seen| {
            if seen.record.identity.identity().module_id().is_none() {
                *counts = add(*counts, traits(seen).map(usize::from));
            }
            ControlFlow::Continue(())
        });
        counts.await.into_iter().fold([0; N], add)
    }
}
