//! What automatic configurations have done with each twin.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use serde_json::{Map, Value, json};

use crate::Failure;
use crate::store::Document;

/// Names of documents begin so.
const APPLIED: &str = "configurations/applied/";

/// What configurations have done with one twin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Application {
    /// The configurations whose target the twin is; true for those of which something is set.
    pub(super) targeted: BTreeMap<String, bool>,
    /// What is set, by path below `properties.desired`, with the configuration that it is from.
    pub(super) set: BTreeMap<String, (String, Value)>,
}

impl Application {
    pub(super) fn is_empty(&self) -> bool {
        self.targeted.is_empty() && self.set.is_empty()
    }

    fn to_text(&self) -> String {
        let set: Map<String, Value> =
            self.set.iter().map(|(path, (id, value))| (path.clone(), json!([id, value]))).collect();
        json!({"targeted": self.targeted, "set": set}).to_string()
    }

    fn of_text(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let targeted = value.get("targeted")?.as_object()?.iter();
        let targeted = targeted.map(|(id, is_applied)| Some((id.clone(), is_applied.as_bool()?)));
        let set = value.get("set")?.as_object()?.iter();
        let set = set.map(|(path, entry)| {
            Some((path.clone(), (entry.get(0)?.as_str()?.to_owned(), entry.get(1)?.clone())))
        });
        Some(Self { targeted: targeted.collect::<Option<_>>()?, set: set.collect::<Option<_>>()? })
    }
}

/// The same for all twins that are the target of something, by client id.
#[derive(Debug, Default)]
pub(crate) struct Applications(RwLock<BTreeMap<String, Application>>);

impl Applications {
    /// Those that the store has.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn load(documents: &[(String, String)]) -> Result<Self, Failure> {
        let mut all = BTreeMap::new();
        for (name, text) in documents {
            let Some(client_id) = name.strip_prefix(APPLIED) else { continue };
            let application = Application::of_text(text).ok_or_else(|| {
                Failure::new(
                    format!("the document {name} in the store does not say what is applied to a twin"),
                    "restore the store from a backup",
                )
            })?;
            all.insert(client_id.to_owned(), application);
        }
        Ok(Self(RwLock::new(all)))
    }

    /// What is done with a twin.
    pub(super) fn of(&self, client_id: &str) -> Application {
        self.read(|all| all.get(client_id).cloned()).unwrap_or_default()
    }

    /// The member `configurations` of a twin; `None` where it is the target of none.
    pub(super) fn to_json(&self, client_id: &str) -> Option<Value> {
        self.read(|all| {
            let targeted =
                &all.get(client_id).filter(|application| !application.targeted.is_empty())?.targeted;
            let status = |is_applied: bool| if is_applied { "Applied" } else { "Targeted" };
            let member =
                |(id, is_applied): (&String, &bool)| (id.clone(), json!({"status": status(*is_applied)}));
            Some(Value::Object(targeted.iter().map(member).collect()))
        })
    }

    /// How many twins a configuration has as target, and to how many of them something of it is applied; of those twins
    /// alone that are `counted`, by client id.
    pub(super) fn count(&self, id: &str, counted: impl Fn(&str) -> bool) -> (u64, u64) {
        self.read(|all| {
            let own = all.iter().filter(|(client_id, _)| counted(client_id));
            let own = own.filter_map(|(_, application)| application.targeted.get(id));
            own.fold((0_u64, 0_u64), |(targeted, applied), is_applied| {
                (targeted.saturating_add(1), applied.saturating_add(u64::from(*is_applied)))
            })
        })
    }

    /// All client ids that something is done with.
    pub(super) fn client_ids(&self) -> Vec<String> {
        self.read(|all| all.keys().cloned().collect())
    }

    /// The document by which the store keeps what is done with a twin.
    pub(super) fn to_document(client_id: &str, application: &Application) -> Document {
        let text = (!application.is_empty()).then(|| application.to_text());
        Document { key: format!("{APPLIED}{client_id}"), text }
    }

    /// The store has kept it.
    pub(super) fn kept(&self, client_id: &str, application: Application) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if application.is_empty() {
            all.remove(client_id);
        } else {
            all.insert(client_id.to_owned(), application);
        }
    }

    fn read<R>(&self, read: impl FnOnce(&BTreeMap<String, Application>) -> R) -> R {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_read_back_from_the_store_as_it_was() {
        let application = Application {
            targeted: [("a".to_owned(), true), ("b".to_owned(), false)].into(),
            set: [("x.y".to_owned(), ("a".to_owned(), json!({"z": 1})))].into(),
        };
        let document = Applications::to_document("dev/m", &application);
        let read = Applications::load(&[(document.key, document.text.unwrap())]).unwrap();
        assert_eq!(read.of("dev/m"), application);
        assert_eq!(
            read.to_json("dev/m"),
            Some(json!({"a": {"status": "Applied"}, "b": {"status": "Targeted"}}))
        );
        assert_eq!(read.count("a", |_| true), (1, 1));
        assert_eq!(Applications::to_document("dev", &Application::default()).text, None);
    }
}
