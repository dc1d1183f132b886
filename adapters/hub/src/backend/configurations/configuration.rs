//! One automatic configuration: what it sets, where, and what it counts.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::time::UnixTime;
use serde_json::{Value, json};

use super::content::Content;
use crate::backend::Error;
use crate::backend::identity::text;
use crate::backend::query::{Selection, Target};

/// Longest id, in characters (Azure: "Automatic device management").
const ID_MAX: usize = 128;
/// Custom metrics of one configuration (the same).
const METRICS_MAX: usize = 5;
/// The version of the shape, as Azure writes it.
const SCHEMA_VERSION: &str = "2.0";

/// A configuration.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    pub(super) id: String,
    labels: Value,
    /// As it was sent: clients compare what comes back.
    shown_content: Value,
    pub(super) content: Content,
    condition: String,
    /// `None`: it is for nobody.
    pub(super) target: Option<Target>,
    pub(super) priority: i64,
    /// Queries by name.
    pub(super) metrics: BTreeMap<String, String>,
    pub(super) created: UnixTime,
    updated: UnixTime,
    version: u64,
}

impl Configuration {
    /// Reads the body of a PUT, or a document.
    ///
    /// # Errors
    /// 400004 with what cannot be meant.
    pub(super) fn read(id: &str, body: &Value, now: UnixTime) -> Result<Self, Error> {
        check_id(id)?;
        if text(body, "id")?.is_some_and(|named| named != id) {
            return Err(Error::invalid("the id of the body is not that of the path"));
        }
        let shown_content = body.get("content").cloned().unwrap_or_default();
        let content = Content::read(&shown_content)?;
        let condition = text(body, "targetCondition")?.unwrap_or_default().to_owned();
        let target = read_target(&condition)?;
        let is_for_modules = target.as_ref().is_some_and(Target::is_for_modules);
        if target.is_some() && is_for_modules != matches!(content, Content::Module(_)) {
            return Err(Error::invalid(
                "moduleContent and a condition `from devices.modules where …` belong together",
            )
            .with_fix("name modules in the condition for moduleContent, and devices for the others"));
        }
        let priority = match body.get("priority") {
            None | Some(Value::Null) => 0,
            Some(priority) => priority
                .as_i64()
                .filter(|priority| *priority >= 0)
                .ok_or_else(|| Error::invalid("priority is a number from 0 on"))?,
        };
        let labels =
            body.get("labels").filter(|labels| !labels.is_null()).cloned().unwrap_or_else(|| json!({}));
        if labels.as_object().is_none_or(|labels| !labels.values().all(Value::is_string)) {
            return Err(Error::invalid("labels is an object of texts"));
        }
        let metrics = read_queries(body.pointer("/metrics/queries"))?;
        for (name, query) in &metrics {
            check_query(query).map_err(|error| Error::invalid(format!("metrics.queries.{name}: {error}")))?;
        }
        Ok(Self {
            id: id.to_owned(),
            labels,
            shown_content,
            content,
            condition,
            target,
            priority,
            metrics,
            created: now,
            updated: now,
            version: 1,
        })
    }

    /// The same as the next version of another.
    ///
    /// # Errors
    /// 400004 for another content, 412001 for another ETag than the one that it must have.
    pub(super) fn after(self, before: &Self, if_match: Option<&str>) -> Result<Self, Error> {
        before.check_etag(if_match)?;
        if self.shown_content != before.shown_content {
            return Err(Error::invalid(format!("the content of `{}` cannot be changed", self.id))
                .with_fix("add a configuration with the new content and a higher priority"));
        }
        Ok(Self { created: before.created, version: before.version.saturating_add(1), ..self })
    }

    /// Whether it has this ETag; `None` is any.
    ///
    /// # Errors
    /// 412001.
    pub(super) fn check_etag(&self, if_match: Option<&str>) -> Result<(), Error> {
        if if_match.is_none_or(|etag| etag == self.etag()) {
            return Ok(());
        }
        let what = format!("the configuration `{}` has another ETag", self.id);
        Err(Error::new(crate::backend::Code::PreconditionFailed, what).with_fix("read it again"))
    }

    fn etag(&self) -> String {
        STANDARD.encode(self.version.to_string())
    }

    /// Those that come first win.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        (std::cmp::Reverse((self.priority, self.created)), self.id.clone())
    }

    /// The configuration as it is shown, with these results.
    pub(super) fn to_json(&self, system: (u64, u64), custom: &BTreeMap<String, u64>) -> Value {
        let (from, kind) = match self.content {
            Content::Device(_) => ("devices", ""),
            Content::Module(_) => ("devices.modules", ""),
            Content::Modules(_) => ("devices.modules", "moduleId = '$edgeAgent' and "),
        };
        let applied = format!(
            "select deviceId from {from} where {kind}configurations.[[{}]].status = 'Applied'",
            self.id
        );
        let targeted = match &self.target {
            None => String::new(),
            Some(_) if self.condition.trim_start().to_ascii_lowercase().starts_with("from ") => {
                format!("select deviceId {}", self.condition)
            }
            Some(_) if self.condition.trim() == "*" => "select deviceId from devices".to_owned(),
            Some(_) => format!("select deviceId from devices where {}", self.condition),
        };
        json!({
            "id": self.id, "schemaVersion": SCHEMA_VERSION, "labels": self.labels, "content": self.shown_content,
            "targetCondition": self.condition, "createdTimeUtc": self.created.to_string(),
            "lastUpdatedTimeUtc": self.updated.to_string(), "priority": self.priority,
            "systemMetrics": {
                "results": {"targetedCount": system.0, "appliedCount": system.1},
                "queries": {"targetedCount": targeted, "appliedCount": applied},
            },
            "metrics": {"results": custom, "queries": self.metrics},
            "etag": self.etag(),
        })
    }

    /// The configuration as the store keeps it.
    pub(super) fn to_document(&self) -> String {
        json!({
            "labels": self.labels, "content": self.shown_content, "targetCondition": self.condition,
            "priority": self.priority, "metrics": {"queries": self.metrics},
            "created": self.created.as_millis(), "updated": self.updated.as_millis(), "version": self.version,
        })
        .to_string()
    }

    /// Reads what [`to_document`](Self::to_document) wrote.
    pub(super) fn of_document(id: &str, document: &Value) -> Option<Self> {
        let number = |name: &str| document.get(name).and_then(Value::as_u64);
        let read = Self::read(id, document, UnixTime::from_millis(number("created")?)).ok()?;
        Some(Self { updated: UnixTime::from_millis(number("updated")?), version: number("version")?, ..read })
    }
}

/// Which twins a target condition means; `None` for an empty one, which means none.
///
/// # Errors
/// 400004 with the place of what does not fit.
pub(super) fn read_target(condition: &str) -> Result<Option<Target>, Error> {
    if condition.trim().is_empty() {
        return Ok(None);
    }
    Target::read(condition).map(Some).map_err(|error| Error::invalid(format!("targetCondition: {error}")))
}

/// Queries by name.
pub(super) fn read_queries(queries: Option<&Value>) -> Result<BTreeMap<String, String>, Error> {
    let Some(queries) = queries.filter(|queries| !queries.is_null()) else { return Ok(BTreeMap::new()) };
    let wrong = || Error::invalid("the queries of metrics are an object of texts");
    let text = |(name, query): (&String, &Value)| Some((name.clone(), query.as_str()?.to_owned()));
    let queries: Option<BTreeMap<String, String>> =
        queries.as_object().ok_or_else(wrong)?.iter().map(text).collect();
    let queries = queries.ok_or_else(wrong)?;
    if queries.len() > METRICS_MAX {
        return Err(Error::invalid(format!("a configuration has at most {METRICS_MAX} metrics")));
    }
    Ok(queries)
}

/// Whether a metric can be counted.
pub(super) fn check_query(query: &str) -> Result<(), Error> {
    match Selection::read(query)? {
        Selection::Twins(_) => Ok(()),
        Selection::JobRows { .. } => {
            Err(Error::invalid("a metric counts twins: FROM devices or devices.modules"))
        }
    }
}

fn check_id(id: &str) -> Result<(), Error> {
    let is_good = |character: char| {
        !character.is_uppercase()
            && !character.is_whitespace()
            && !character.is_control()
            && !r#"&^[]{}\|"<>/"#.contains(character)
    };
    if !id.is_empty() && id.chars().count() <= ID_MAX && id.chars().all(is_good) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{id}` is no id of a configuration"))
        .with_fix(r#"use 1 to 128 characters in lower case, without blanks and & ^ [ ] { } \ | " < > /"#))
}
