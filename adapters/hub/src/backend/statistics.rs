//! How many devices there are, and how many are connected. Modules are not counted.

use std::ops::ControlFlow;

use super::Backend;
use crate::engine::record_scan::Seen;

/// How many devices the registry has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// All of them.
    pub total: usize,
    /// Those that may connect.
    pub enabled: usize,
}

impl Backend {
    /// Counts the devices of the registry.
    pub async fn count_devices(&self) -> DeviceCounts {
        let [total, enabled] = self.count(|seen| [true, seen.record.identity.enabled]).await;
        DeviceCounts { total, enabled }
    }

    /// Counts the devices that are connected.
    pub async fn count_connected(&self) -> usize {
        let [connected] = self.count(|seen| [seen.hub.is_connected(seen.key)]).await;
        connected
    }

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
