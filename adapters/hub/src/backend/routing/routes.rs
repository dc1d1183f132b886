//! The routing that a hub has: one document of the store, changed as a whole; and how far each webhook has come, another one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devicebound::time::UnixTime;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::configuration::{Destination, Routing, Webhook};
use super::webhook;
use crate::Failure;
use crate::backend::{Backend, Error, detached};
use crate::blocking_thread::BlockingThread;
use crate::clock::unix_time;
use crate::observe::metrics::EndpointGauges;
use crate::store::Document;

/// The name of the document with the configuration.
const CONFIGURATION: &str = "routing/configuration";
/// Names of documents begin so; the name of the endpoint follows.
const CURSOR: &str = "routing/cursor/";

/// The routing of a hub.
#[derive(Debug)]
pub(crate) struct Routes {
    configured: watch::Sender<Arc<Configured>>,
    /// The folder of all containers; `None` where the hub has no state folder.
    pub(super) folder: Option<PathBuf>,
    /// Held while a change goes to the store, so that memory and store see changes in one order.
    changing: tokio::sync::Mutex<()>,
}

/// What is configured.
#[derive(Debug, Default)]
pub(super) struct Configured {
    pub(super) routing: Routing,
    /// As it was given.
    json: Value,
    pub(super) endpoints: Vec<(Destination, Arc<Progress>)>,
}

/// How far an endpoint has come.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The cursor of the last message that was delivered, or is of no concern.
    cursor: u64,
    delivered: u64,
    failed: u64,
    dead_lettered: u64,
    last_success: Option<UnixTime>,
    last_attempt: Option<UnixTime>,
    /// Since the last success.
    last_error: Option<String>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            configured: watch::Sender::new(Arc::default()),
            folder: None,
            changing: tokio::sync::Mutex::default(),
        }
    }
}

impl Progress {
    fn at(cursor: u64) -> Self {
        Self(Mutex::new(State { cursor, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cursor(&self) -> u64 {
        self.state().cursor
    }

    pub(super) fn advance(&self, cursor: u64) {
        self.state().cursor = cursor;
    }

    /// The endpoint took so many events; whether it had failed before.
    pub(super) fn succeeded(&self, events: u64) -> bool {
        let mut state = self.state();
        state.delivered = state.delivered.saturating_add(events);
        (state.last_success, state.last_attempt) = (Some(unix_time()), Some(unix_time()));
        state.last_error.take().is_some()
    }

    /// The endpoint did not take an event; whether this is the first failure since it last did.
    pub(super) fn failed(&self, why: &str) -> bool {
        let mut state = self.state();
        state.failed = state.failed.saturating_add(1);
        state.last_attempt = Some(unix_time());
        state.last_error.replace(why.to_owned()).is_none()
    }

    pub(super) fn dead_lettered(&self) {
        let mut state = self.state();
        state.dead_lettered = state.dead_lettered.saturating_add(1);
    }

    /// As Azure Resource Manager tells the health of an endpoint, with the lag besides.
    fn to_json(&self, name: &str, newest: u64) -> Value {
        let state = self.state();
        let health = match (&state.last_error, state.last_success) {
            (Some(_), _) => "unhealthy",
            (None, Some(_)) => "healthy",
            (None, None) => "unknown",
        };
        let time = |time: Option<UnixTime>| time.map(|time| time.to_string());
        json!({
            "endpointId": name,
            "healthStatus": health,
            "lastKnownError": state.last_error,
            "lastSuccessfulSendAttemptTime": time(state.last_success),
            "lastSendAttemptTime": time(state.last_attempt),
            "lag": newest.saturating_sub(state.cursor),
            "delivered": state.delivered,
            "deadLettered": state.dead_lettered,
        })
    }
}

/// How far an endpoint has come, as the store keeps it.
pub(super) fn cursor_document(endpoint: &str, cursor: u64) -> Document {
    Document { key: format!("{CURSOR}{endpoint}"), text: Some(cursor.to_string()) }
}

impl Routes {
    /// The routing of the documents that a store has, whose newest message has the cursor `newest`.
    pub(crate) fn load(
        documents: &[(String, String)],
        newest: u64,
        folder: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let routes = Self { folder, ..Self::default() };
        let find =
            |wanted: &str| documents.iter().find(|(key, _)| key == wanted).map(|(_, text)| text.as_str());
        let Some(text) = find(CONFIGURATION) else { return Ok(routes) };
        let damaged = |why: String| {
            let cause = format!("the document {CONFIGURATION} in the store is no routing: {why}");
            Failure::new(cause, "restore the store from a backup")
        };
        let json: Value = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let routing = Routing::read(&json).map_err(|error| damaged(error.to_string()))?;
        let endpoint = |destination: &Destination| {
            let cursor = find(&format!("{CURSOR}{}", destination.name())).and_then(|text| text.parse().ok());
            // Without one, all that is kept goes there: twice is better than not at all.
            (destination.clone(), Arc::new(Progress::at(cursor.unwrap_or(0).min(newest))))
        };
        let endpoints = routing.destinations.iter().map(endpoint).collect();
        routes.configured.send_replace(Arc::new(Configured { routing, json, endpoints }));
        Ok(routes)
    }

    /// Hears of changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Configured>> {
        self.configured.subscribe()
    }

    fn current(&self) -> Arc<Configured> {
        Arc::clone(&self.configured.borrow())
    }
}

impl Configured {
    /// What users should hear of.
    pub(super) fn warnings(&self) -> Vec<String> {
        let silenced =
            self.routing.silenced().map(|what| format!("{what}. Here the built-in endpoint has them all"));
        silenced.into_iter().chain(self.routing.left_out()).collect()
    }

    fn to_json(&self) -> Value {
        let mut json = self.json.clone();
        if json.is_null() {
            json = json!({"endpoints": {}, "routes": [], "enrichments": []});
        }
        if let Some(members) = json.as_object_mut() {
            members.insert("warnings".to_owned(), self.warnings().into());
        }
        json
    }
}

impl Backend {
    /// The routing, as it was given, with `warnings`.
    pub(crate) fn routing(&self) -> Value {
        self.routes.current().to_json()
    }

    /// How the endpoints are.
    pub(crate) fn endpoints_health(&self) -> Value {
        let newest = self.telemetry.newest();
        let current = self.routes.current();
        let health = current.endpoints.iter().map(|(known, progress)| progress.to_json(known.name(), newest));
        json!({"value": health.collect::<Vec<_>>()})
    }

    /// What belongs to the endpoints, for the metrics.
    pub(crate) fn endpoint_gauges(&self) -> Vec<EndpointGauges> {
        let newest = self.telemetry.newest();
        let gauges = |(destination, progress): &(Destination, Arc<Progress>)| {
            let state = progress.state();
            EndpointGauges {
                name: destination.name().to_owned(),
                lag: newest.saturating_sub(state.cursor),
                delivered: state.delivered,
                failed: state.failed,
                dead_lettered: state.dead_lettered,
            }
        };
        self.routes.current().endpoints.iter().map(gauges).collect()
    }

    /// Changes the routing as a whole. An endpoint whose name was there before goes on where it is; a new one begins with
    /// what comes.
    ///
    /// # Errors
    /// 400004 for what is no routing, and for a webhook that does not want events; 503001 where it could not be stored.
    pub(crate) async fn put_routing(self: &Arc<Self>, json: Value) -> Result<Value, Error> {
        let own = Arc::clone(self);
        detached(async move {
            let _alone = own.routes.changing.lock().await;
            let before = own.routes.current();
            let mut json = Routing::member(&json).clone();
            // It is the hub's, and comes back with what was shown.
            json.as_object_mut().map(|members| members.remove("warnings"));
            let routing = Routing::read(&json)?;
            for destination in &routing.destinations {
                let is_known = before.endpoints.iter().any(|(known, _)| known == destination);
                match destination {
                    Destination::Webhook(webhook) if webhook.validates && !is_known => {
                        own.validate(webhook).await?
                    }
                    Destination::Webhook(_) | Destination::Container(_) => {}
                }
            }
            own.engine.bring_telemetry().await;
            let newest = own.telemetry.newest();
            let mut gone: BTreeMap<&str, &Arc<Progress>> =
                before.endpoints.iter().map(|(known, progress)| (known.name(), progress)).collect();
            let mut documents =
                vec![Document { key: CONFIGURATION.to_owned(), text: Some(json.to_string()) }];
            let mut endpoints = Vec::new();
            for destination in &routing.destinations {
                let progress = gone.remove(destination.name()).cloned().unwrap_or_else(|| {
                    documents.push(cursor_document(destination.name(), newest));
                    Arc::new(Progress::at(newest))
                });
                endpoints.push((destination.clone(), progress));
            }
            documents.extend(gone.keys().map(|name| Document { key: format!("{CURSOR}{name}"), text: None }));
            if !own.engine.keep_documents(documents).await {
                return Err(Error::store_failed());
            }
            let configured = Arc::new(Configured { routing, json, endpoints });
            own.routes.configured.send_replace(Arc::clone(&configured));
            Ok(configured.to_json())
        })
        .await?
    }

    async fn validate(&self, webhook: &Webhook) -> Result<(), Error> {
        let refused = |why: String| {
            Error::invalid(format!("the webhook {} was not validated: {why}", webhook.name)).with_fix(
                "let it answer 200 with {\"validationResponse\": the validationCode}, or leave validate out",
            )
        };
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Error::store_failed())?;
        let code: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (url, hub_name) = (webhook.url.clone(), self.access.hub_name().to_owned());
        let asked = async {
            BlockingThread::start("webhook")?
                .run(move || webhook::validate(&webhook::agent(), &url, &hub_name, &code))
                .await
        };
        asked.await.map_err(|error| refused(error.to_string()))?.map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_document_is_told_and_an_endpoint_without_a_place_begins_with_what_is_kept() {
        let document = |text: &str| [(CONFIGURATION.to_owned(), text.to_owned())];
        for damaged in ["", "{}", r#"{"routes": 1}"#] {
            let error = Routes::load(&document(damaged), 9, None).unwrap_err();
            assert!(error.cause().contains(CONFIGURATION), "{error}");
        }
        let text = r#"{"endpoints": {"webhooks": [{"name": "w", "url": "http://localhost/"}]}}"#;
        let cursor = |documents: &[(String, String)]| {
            Routes::load(documents, 9, None).unwrap().current().endpoints[0].1.cursor()
        };
        assert_eq!(cursor(&document(text)), 0);
        let [configuration] = document(text);
        for (stored, expected) in [("7", 7), ("70", 9), ("x", 0)] {
            assert_eq!(cursor(&[configuration.clone(), (format!("{CURSOR}w"), stored.to_owned())]), expected);
        }
    }
}
