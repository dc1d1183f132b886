//! Automatic device management: configurations set desired properties of all twins that their conditions select, as long
//! as they select them.
//!
//! The configuration with the highest priority wins each path, of equal ones the newest; what a twin leaves behind is
//! removed. All of it happens at once: on every change of a configuration, of a twin and of the registry. A condition over
//! what is no change of a record, such as `connectionState`, is looked at again with the next change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devicebound::hub::{Section, TwinUpdate};
use serde_json::{Value, json};

use self::apply::Ranked;
use self::configuration::{Configuration, check_query, read_queries, read_target};
use self::content::{Content, Paths, patch_of, read_modules, read_paths};
use super::identity::text;
use super::query::Selection;
use super::{Backend, ClientId, Code, Error, look_up};
use crate::Failure;
use crate::clock::unix_time;
use crate::store::Document;

mod apply;
mod configuration;
mod content;

/// Names of documents begin so.
const CONFIGURATION: &str = "configurations/configuration/";
/// Configurations of a hub (Azure: "Automatic device management", limits).
const CONFIGURATIONS_MAX: usize = 100;

/// The configurations of a hub.
#[derive(Debug, Default)]
pub(crate) struct Configurations {
    all: Mutex<BTreeMap<String, Arc<Configuration>>>,
    /// Held by who changes them, so that memory and store see changes in one order.
    changing: tokio::sync::Mutex<()>,
}

impl Configurations {
    /// Those that the store has.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn load(documents: &[(String, String)]) -> Result<Self, Failure> {
        let configurations = Self::default();
        for (name, text) in documents {
            let Some(id) = name.strip_prefix(CONFIGURATION) else { continue };
            let document = serde_json::from_str(text).ok();
            let read = document.and_then(|document| Configuration::of_document(id, &document));
            let read = read.ok_or_else(|| {
                Failure::new(
                    format!("the document {name} in the store is no configuration"),
                    "restore the store from a backup",
                )
            })?;
            configurations.all().insert(id.to_owned(), Arc::new(read));
        }
        Ok(configurations)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Configuration>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<Configuration>, Error> {
        self.all().get(id).cloned().ok_or_else(|| {
            Error::new(Code::ConfigurationNotFound, format!("there is no configuration `{id}`"))
                .with_fix("list them: GET /configurations")
        })
    }

    fn ranked(&self) -> Ranked {
        let mut ranked: Vec<Arc<Configuration>> = self.all().values().cloned().collect();
        ranked.sort_by_key(|configuration| configuration.rank());
        Arc::new(ranked)
    }
}

impl Backend {
    /// Adds a configuration, or with the ETag that it must have (`*`: any) changes it; shows what it has become.
    ///
    /// # Errors
    /// 400004 with what cannot be meant, 409000 where it is there, 404000 where it is not, 412001 for another ETag, 403002 where
    /// there are as many as there may be, 503001 where it could not be stored.
    pub async fn put_configuration(
        &self,
        id: &str,
        if_match: Option<&str>,
        body: &Value,
    ) -> Result<Value, Error> {
        let read = Configuration::read(id, body, unix_time())?;
        {
            let _changing = self.configurations.changing.lock().await;
            let before = self.configurations.all().get(id).cloned();
            let next = match (before, if_match) {
                (Some(before), Some(etag)) => read.after(&before, Some(etag).filter(|etag| *etag != "*"))?,
                (Some(_), None) => {
                    let what = format!("there is a configuration `{id}`");
                    return Err(Error::new(Code::ConfigurationAlreadyExists, what)
                        .with_fix("send If-Match to change it"));
                }
                (None, Some(_)) => return self.configurations.find(id).map(|_| Value::Null),
                (None, None) if self.configurations.all().len() >= CONFIGURATIONS_MAX => {
                    let what = format!("a hub has at most {CONFIGURATIONS_MAX} configurations");
                    return Err(Error::new(Code::QuotaExceeded, what).with_fix("remove some"));
                }
                (None, None) => read,
            };
            let document = Document { key: format!("{CONFIGURATION}{id}"), text: Some(next.to_document()) };
            if !self.engine.keep_documents(vec![document]).await {
                return Err(Error::store_failed());
            }
            self.configurations.all().insert(id.to_owned(), Arc::new(next));
        }
        self.survey().await;
        self.configuration(id).await
    }

    /// Removes a configuration that has this ETag (`None`: any); what it has set is withdrawn.
    ///
    /// # Errors
    /// 404000, 412001, 503001 where that could not be stored.
    pub async fn remove_configuration(&self, id: &str, if_match: Option<&str>) -> Result<(), Error> {
        {
            let _changing = self.configurations.changing.lock().await;
            self.configurations.find(id)?.check_etag(if_match.filter(|etag| *etag != "*"))?;
            let document = Document { key: format!("{CONFIGURATION}{id}"), text: None };
            if !self.engine.keep_documents(vec![document]).await {
                return Err(Error::store_failed());
            }
            self.configurations.all().remove(id);
        }
        self.survey().await;
        Ok(())
    }

    /// A configuration as it is now, with what it counts.
    ///
    /// # Errors
    /// 404000.
    pub async fn configuration(&self, id: &str) -> Result<Value, Error> {
        let configuration = self.configurations.find(id)?;
        let counts = match configuration.content {
            Content::Device(_) | Content::Module(_) => self.applications.count(id, |_| true),
            Content::Modules(_) => {
                self.applications.count(id, |client_id| client_id.ends_with("/$edgeAgent"))
            }
        };
        let mut custom = BTreeMap::new();
        for (name, query) in &configuration.metrics {
            if let Selection::Twins(query) = Selection::read(query)? {
                custom.insert(name.clone(), self.count_rows(query).await?);
            }
        }
        Ok(configuration.to_json(counts, &custom))
    }

    /// The first configurations, the most important first.
    ///
    /// # Errors
    /// When one cannot be counted, as for [`configuration`](Self::configuration).
    pub async fn list_configurations(&self, top: usize) -> Result<Vec<Value>, Error> {
        let mut shown = Vec::new();
        for configuration in self.configurations.ranked().iter().take(top) {
            match self.configuration(&configuration.id).await {
                Ok(configuration) => shown.push(configuration),
                // It was removed meanwhile.
                Err(error) if error.code() == Code::ConfigurationNotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(shown)
    }

    /// What is wrong with a condition and with queries that metrics might have; empty where nothing is.
    ///
    /// # Errors
    /// 400004 for a body of another shape.
    pub fn test_queries(&self, body: &Value) -> Result<Value, Error> {
        let condition = text(body, "targetCondition")?.unwrap_or_default();
        let error = read_target(condition).err().map(|error| error.to_string()).unwrap_or_default();
        let queries = read_queries(body.get("customMetricQueries"))?;
        let wrong =
            queries.iter().filter_map(|(name, query)| Some((name, check_query(query).err()?.to_string())));
        let wrong: BTreeMap<_, _> = wrong.collect();
        Ok(json!({"targetConditionError": error, "customMetricQueryErrors": wrong}))
    }

    /// Sets a content in an Edge device and its modules, once.
    ///
    /// # Errors
    /// 404001, 404010, 400004 for a device that is no Edge device or a content of another shape, 503001 where it could not be
    /// stored.
    pub async fn apply_configuration_content(&self, id: &ClientId, content: &Value) -> Result<(), Error> {
        let is_edge = self
            .at(id, |core, now, id| Ok::<_, Error>(look_up(core, now, id)?.record.identity.is_edge))
            .await?;
        if !is_edge {
            return Err(Error::invalid(format!("`{}` is no Edge device", id.as_str()))
                .with_fix("register it with capabilities.iotEdge true, or set its desired properties: PATCH /twins/{id}"));
        }
        let part = |name: &str| content.get(name).filter(|part| !part.is_null());
        let (device, modules) = (part("deviceContent"), part("modulesContent"));
        if device.or(modules).is_none() {
            return Err(Error::invalid("the content has deviceContent, modulesContent or both"));
        }
        let device = device.map(|paths| read_paths("deviceContent", paths)).transpose()?;
        let modules = modules.map(|modules| read_modules("modulesContent", modules)).transpose()?;
        for (module, paths) in modules.into_iter().flatten() {
            self.set_desired(&ClientId::new(id.device_id(), Some(&module))?, paths).await?;
        }
        match device {
            Some(paths) => self.set_desired(id, paths).await,
            None => Ok(()),
        }
    }

    async fn set_desired(&self, id: &ClientId, paths: Paths) -> Result<(), Error> {
        let patch = patch_of(paths.iter().map(|(path, value)| (path.as_str(), value.clone())));
        let update = TwinUpdate { desired: Some(Section::Patch(patch)), ..TwinUpdate::default() };
        self.update_twin(id, update).await.map(drop)
    }
}
