//! A look through all records, a little at a time: the devices of a worker are served in between.
//!
//! A million records take a second or more, and what a request looks for may take far longer for each of them.

use std::ops::ControlFlow;
use std::time::{Duration, Instant as Time};

use devicebound::hub::{DeviceKey, DeviceRecord, Hub};
use devicebound::time::Instant;
use futures_util::future::join_all;

use crate::engine::Engine;
use crate::engine::core::Core;

/// So long a worker looks at records, and its devices wait, before it turns to them again.
const VISIT: Duration = Duration::from_millis(1);

/// What is looked at: the record, and what its hub knows besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'c> {
    pub(crate) hub: &'c Hub,
    pub(crate) now: Instant,
    pub(crate) key: DeviceKey,
    pub(crate) record: &'c DeviceRecord,
}

impl Engine {
    /// Shows every record behind this client id to `look`, in each place in the order of client ids, until it breaks off
    /// there; gives what was gathered in each place. Records that come and go meanwhile may be seen or not.
    pub(crate) async fn look_through<G: Clone + Send + 'static>(
        &self,
        after: &str,
        gathered: G,
        look: impl Fn(&mut G, Seen<'_>) -> ControlFlow<()> + Clone + Send + 'static,
    ) -> Vec<G> {
        let places = 0..self.places();
        join_all(places.map(|place| self.look_through_place(place, after, gathered.clone(), look.clone())))
            .await
    }

    async fn look_through_place<G: Send + 'static>(
        &self,
        place: usize,
        after: &str,
        mut gathered: G,
        look: impl Fn(&mut G, Seen<'_>) -> ControlFlow<()> + Clone + Send + 'static,
    ) -> G {
        let mut next = Some(after.to_owned());
        while let Some(after) = next {
            let look = look.clone();
            let visit = move |core: &mut Core, now| {
                let began = Time::now();
                let next = visit(
                    &core.hub,
                    now,
                    &after,
                    |seen| look(&mut gathered, seen),
                    || began.elapsed() >= VISIT,
                );
                (gathered, next)
            };
            (gathered, next) = self.ask(place, visit).await;
        }
        gathered
    }
}

/// Looks at one record, and at more until it `is_over`; gives the client id behind which to go on, if there is need to.
fn visit(
    hub: &Hub,
    now: Instant,
    after: &str,
    mut look: impl FnMut(Seen<'_>) -> ControlFlow<()>,
    mut is_over: impl FnMut() -> bool,
) -> Option<String> {
    for (key, record) in hub.devices_after(after) {
        if look(Seen { hub, now, key, record }).is_break() {
            return None;
        }
        if is_over() {
            return Some(record.identity.client_id().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use devicebound::hub::HubConfig;
    use devicebound::time::UnixTime;

    use super::*;
    use crate::backend::identity::new_identity;

    fn hub() -> Hub {
        let mut hub = Hub::new(HubConfig::default(), Instant::default(), UnixTime::default());
        for id in ["c", "a", "b", "b/m", "d"] {
            hub.insert(DeviceRecord::new(new_identity(id).unwrap())).unwrap();
        }
        hub
    }

    /// The client ids of each visit.
    fn visits(is_over: impl Fn() -> bool, last: &str) -> Vec<Vec<String>> {
        let (hub, mut visits, mut next) = (hub(), Vec::new(), Some(String::new()));
        while let Some(after) = next {
            let mut seen = Vec::new();
            let look = |one: Seen<'_>| {
                let id = one.record.identity.client_id();
                seen.push(id.to_owned());
                if id == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            next = visit(&hub, Instant::default(), &after, look, &is_over);
            visits.push(seen);
        }
        visits
    }

    #[test]
    fn a_visit_ends_when_its_time_is_over_and_the_next_one_goes_on_behind_it() {
        assert_eq!(visits(|| false, ""), [vec!["a", "b", "b/m", "c", "d"]]);
        assert_eq!(visits(|| true, ""), [vec!["a"], vec!["b"], vec!["b/m"], vec!["c"], vec!["d"], vec![]]);
        assert_eq!(visits(|| true, "b"), [["a"], ["b"]], "whoever has found enough does not go on");
    }
}
