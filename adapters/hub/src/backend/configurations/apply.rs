//! Which values a twin is to have, by all configurations together, and how it comes to have them.
//!
//! ```text
//!  a configuration changes ─▶ survey of all twins ─┐
//!  a twin or an identity changes ──────────────────┴▶ changed records ─▶ one twin: what it is to have ─▶ patch, then the
//!                                                                        compared with what was set      document that says so
//! ```
//! A hub that ends between the two does the same again when it starts, which changes nothing for a second time.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devicebound::hub::{Section, TwinUpdate};
use devicebound::iothub::twin::{difference, merge};
use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value};

use super::configuration::Configuration;
use super::content::{Content, Paths, overlap, patch_of};
use crate::backend::applications::{Application, Applications};
use crate::backend::{Backend, ClientId, Error};
use crate::engine::record_scan::Seen;

/// Twins that are changed at the same time (own limit).
const TWINS_AT_ONCE: usize = 100;
/// A twin that is changed more often than this in [`WINDOW`] waits for [`ROUND`]: its configurations read what they set.
const CHANGES_MAX: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// As often as the real hub looks at twins (Azure: "Automatic device management": every five minutes).
const ROUND: Duration = Duration::from_secs(300);
/// A store that failed is asked again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// All configurations, the most important first, as they are at a moment.
pub(super) type Ranked = Arc<Vec<Arc<Configuration>>>;

/// What all configurations together want of a twin.
fn wanted(ranked: &[Arc<Configuration>], seen: Seen<'_>, applications: &Applications) -> Application {
    let mut application = Application::default();
    for configuration in ranked {
        let Some(target) = &configuration.target else { continue };
        let Some((paths, of)) = paths_for(&configuration.content, seen) else { continue };
        if !target.wants(of, applications) {
            continue;
        }
        let free = paths.iter().filter(|(path, _)| !application.set.keys().any(|taken| overlap(taken, path)));
        let free: Vec<(String, Value)> = free.map(|(path, value)| (path.clone(), value.clone())).collect();
        application.targeted.insert(configuration.id.clone(), !free.is_empty());
        let own = |(path, value)| (path, (configuration.id.clone(), value));
        application.set.extend(free.into_iter().map(own));
    }
    application
}

/// What a content says of a twin, and the twin that its target condition is about.
fn paths_for<'s, 'p>(content: &'p Content, seen: Seen<'s>) -> Option<(&'p Paths, Seen<'s>)> {
    let identity = seen.record.identity.identity();
    match (content, identity.module_id()) {
        (Content::Device(paths), None) | (Content::Module(paths), Some(_)) => Some((paths, seen)),
        (Content::Modules(modules), Some(module)) => {
            let paths = modules.get(module)?;
            let key = seen.hub.find(identity.device_id())?;
            let record = seen.hub.record(key).filter(|device| device.identity.is_edge)?;
            Some((paths, Seen { key, record, ..seen }))
        }
        _ => None,
    }
}

/// What makes desired properties with what was set before have what is to be set.
fn patch(before: &Application, after: &Application, desired: &Map<String, Value>) -> Map<String, Value> {
    let gone = before.set.keys().filter(|path| !after.set.keys().any(|kept| overlap(kept, path)));
    let gone = gone.map(|path| (path.as_str(), Value::Null));
    // What somebody else has changed since is left alone until a configuration changes.
    let is_new = |path: &str, value: &Value| before.set.get(path).is_none_or(|(_, set)| set != value);
    let new = after.set.iter().filter(|(path, (_, value))| is_new(path, value));
    let mut patch = patch_of(gone.filter(|(path, _)| has(desired, path)));
    for (path, (_, value)) in new {
        // A whole object takes the place of what a longer path had set.
        let former = before.set.keys().filter(|old| old.len() > path.len() && overlap(old, path));
        let former = patch_of(former.map(|old| (old.as_str(), Value::Null)));
        merge_keeping_nulls(&mut patch, former);
        merge_keeping_nulls(&mut patch, patch_of([(path.as_str(), value.clone())]));
    }
    let mut after = desired.clone();
    merge(&mut after, &patch);
    difference(desired, &after)
}

fn merge_keeping_nulls(patch: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, value) in more {
        match (patch.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge_keeping_nulls(old, new),
            (_, value) => drop(patch.insert(name, value)),
        }
    }
}

fn has(desired: &Map<String, Value>, path: &str) -> bool {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    match (desired.get(first), rest) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(value), Some(rest)) => value.as_object().is_some_and(|inner| has(inner, rest)),
    }
}

/// How often a twin was changed, since when.
type Changes = HashMap<String, (Instant, u32)>;

impl Backend {
    /// Applies and withdraws configurations, for ever. To be called once.
    pub(in crate::backend) fn keep_configured(self: &Arc<Self>) {
        let own = Arc::clone(self);
        tokio::spawn(async move {
            own.survey().await;
            let mut changes = Changes::new();
            loop {
                let mut ids = own.engine.changed.take().await;
                changes.retain(|_, (since, _)| since.elapsed() < WINDOW);
                ids.retain(|id| own.is_quiet(&mut changes, id));
                let changed: Vec<String> = stream::iter(ids)
                    .map(|id| own.configure(id))
                    .buffer_unordered(TWINS_AT_ONCE)
                    .filter_map(|changed| async { changed })
                    .collect()
                    .await;
                for id in changed {
                    let entry = changes.entry(id).or_insert_with(|| (Instant::now(), 0));
                    entry.1 = entry.1.saturating_add(1);
                }
            }
        });
    }

    /// Whether a twin was not changed too often. One that was is looked at again in the next round.
    fn is_quiet(self: &Arc<Self>, changes: &mut Changes, id: &str) -> bool {
        let Some((_, count)) = changes.get_mut(id).filter(|(_, count)| *count >= CHANGES_MAX) else {
            return true;
        };
        if *count == CHANGES_MAX {
            *count = count.saturating_add(1);
            let advice = "let no targetCondition read what a configuration sets";
            let text = format!(
                "the configurations of {id} have changed it {CHANGES_MAX} times in a minute and wait for five; {advice}"
            );
            self.engine.view.note("configurationsFight", &text);
            self.look_again(id.to_owned(), ROUND);
        }
        false
    }

    fn look_again(self: &Arc<Self>, id: String, after: Duration) {
        let engine = Arc::clone(&self.engine);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            engine.changed.mark([id]);
        });
    }

    /// Finds the twins that are not as all configurations together want them.
    pub(super) async fn survey(&self) {
        let ranked = self.configurations.ranked();
        let applied = self.applications.client_ids();
        self.engine.changed.watch(!ranked.is_empty() || !applied.is_empty());
        let applications = Arc::clone(&self.applications);
        let found = self.engine.look_through("", Vec::new(), move |found: &mut Vec<String>, seen| {
            let id = seen.record.identity.client_id();
            if wanted(&ranked, seen, &applications) != applications.of(id) {
                found.push(id.to_owned());
            }
            ControlFlow::Continue(())
        });
        // Those with which something was done and which are gone are found here alone.
        self.engine.changed.mark(found.await.into_iter().flatten().chain(applied));
    }

    /// Makes a twin what all configurations together want; gives its client id if it was changed.
    async fn configure(self: &Arc<Self>, client_id: String) -> Option<String> {
        let (device_id, module_id) = match client_id.split_once('/') {
            Some((device_id, module_id)) => (device_id, Some(module_id)),
            None => (client_id.as_str(), None),
        };
        let id = ClientId::new(device_id, module_id).ok()?;
        let (ranked, applications) = (self.configurations.ranked(), Arc::clone(&self.applications));
        let before = applications.of(&client_id);
        let known = before.clone();
        let has_modules =
            ranked.iter().any(|configuration| matches!(configuration.content, Content::Modules(_)));
        let looked = self.at(&id, move |core, now, id| {
            let key = core.hub.find(id.as_str())?;
            let record = core.hub.record(key)?;
            let seen = Seen { hub: &core.hub, now, key, record };
            let after = wanted(&ranked, seen, &applications);
            let patch = patch(&known, &after, record.twin().desired());
            Some((after, patch))
        });
        // Of a twin that is gone, nothing is left.
        let (after, patch) = looked.await.unwrap_or_default();
        let is_changed = !patch.is_empty();
        if is_changed {
            let update = TwinUpdate { desired: Some(Section::Patch(patch)), ..TwinUpdate::default() };
            if let Err(error) = self.update_twin(&id, update).await {
                self.failed(&client_id, &error);
                return None;
            }
        }
        if after != before {
            self.keep_application(&client_id, after).await;
        }
        if has_modules && module_id.is_none() {
            // The conditions of their configurations are about the device.
            self.engine.changed.mark(self.module_ids(&id).await);
        }
        is_changed.then_some(client_id)
    }

    fn failed(self: &Arc<Self>, client_id: &str, error: &Error) {
        self.engine.view.note("configurationFailed", &format!("{client_id} cannot be configured: {error}"));
        self.look_again(client_id.to_owned(), ROUND);
    }

    async fn keep_application(&self, client_id: &str, application: Application) {
        let document = Applications::to_document(client_id, &application);
        while !self.engine.keep_documents(vec![document.clone()]).await {
            tokio::time::sleep(RETRY).await;
        }
        self.engine.observers().configured(client_id, application.targeted.keys());
        self.applications.kept(client_id, application);
    }

    async fn module_ids(&self, device: &ClientId) -> Vec<String> {
        let begin = format!("{}/", device.as_str());
        self.at(device, move |core, _, _| {
            let modules =
                core.hub.devices_after(&begin).map(|(_, record)| record.identity.client_id().to_owned());
            modules.take_while(|id| id.starts_with(&begin)).collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn application(set: &[(&str, &str, Value)]) -> Application {
        let set = set.iter().map(|(path, id, value)| ((*path).to_owned(), ((*id).to_owned(), value.clone())));
        Application { targeted: BTreeMap::new(), set: set.collect() }
    }

    fn patched(before: &Application, after: &Application, desired: Value) -> Value {
        let Value::Object(desired) = desired else { panic!("an object") };
        Value::Object(patch(before, after, &desired))
    }

    #[test]
    fn what_is_set_no_more_goes_and_what_others_set_stays() {
        let before = application(&[("a", "c1", json!(1)), ("b.x", "c1", json!(2))]);
        let after = application(&[("a", "c2", json!(5))]);
        let desired = json!({"a": 1, "b": {"x": 2, "y": 3}, "own": true});
        assert_eq!(patched(&before, &after, desired), json!({"a": 5, "b": {"x": null}}));
        assert_eq!(patched(&before, &before, json!({"a": 7})), json!({}), "a user's change is left alone");
        assert_eq!(
            patched(&before, &Application::default(), json!({"own": 1})),
            json!({}),
            "it is gone already"
        );
        assert_eq!(
            patched(&Application::default(), &after, json!({"a": 5})),
            json!({}),
            "it is there already"
        );
    }

    #[test]
    fn a_whole_object_takes_the_place_of_its_parts() {
        let before = application(&[("a.x", "c1", json!(1)), ("a.y", "c1", json!(2))]);
        let after = application(&[("a", "c2", json!({"y": 2, "z": 3}))]);
        assert_eq!(
            patched(&before, &after, json!({"a": {"x": 1, "y": 2}})),
            json!({"a": {"x": null, "z": 3}})
        );
        assert_eq!(
            patched(&after, &before, json!({"a": {"y": 2, "z": 3}})),
            json!({"a": {"x": 1}}),
            "what the longer paths do not name stays"
        );
    }
}
