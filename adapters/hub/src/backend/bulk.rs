//! Up to a hundred changes of the registry in one request.

use std::collections::HashSet;

use devicebound::hub::{Section, TwinUpdate};
use devicebound::time::Instant;
use futures_util::future::join_all;
use serde_json::Value;

use super::identity::{Wish, text};
use super::registry::{change, register, unregister};
use super::twins::{Manner, if_match, update_of};
use super::{Backend, ClientId, Error, find, safe};
use crate::engine::core::Core;
use crate::engine::durability::Change;

/// Entries of one request (IoT Hub quotas).
const ENTRIES_MAX: usize = 100;

/// One change, as an entry of the request asks for it.
#[derive(Debug)]
pub struct Entry {
    id: ClientId,
    act: Act,
}

/// What is to be done with the identity; the text is the ETag that it must have.
#[derive(Debug)]
enum Act {
    Create(Wish, TwinUpdate),
    Update(Wish, String),
    CreateOrUpdate(Wish, TwinUpdate, String),
    UpdateTwin(TwinUpdate),
    Delete(String),
}

impl Backend {
    /// Makes each change that it can, and gives those that it could not make.
    pub async fn change_many(&self, entries: Vec<Entry>) -> Vec<(ClientId, Error)> {
        let done = join_all(entries.into_iter().map(async |Entry { id, act }| {
            let done = self.carry_out(&id, act).await;
            done.err().map(|error| (id, error))
        }));
        done.await.into_iter().flatten().collect()
    }

    async fn carry_out(&self, id: &ClientId, act: Act) -> Result<(), Error> {
        self.settled(id).await?;
        let acted = self.at(id, move |core, now, id| {
            let changes = act.on(core, now, id)?;
            Ok::<_, Error>(core.commit_durably(changes))
        });
        safe(acted.await?).await
    }
}

/// Reads the body of a bulk request.
///
/// # Errors
/// 400004 with what cannot be meant; nothing is changed then.
pub fn read(body: &Value) -> Result<Vec<Entry>, Error> {
    let entries = body.as_array().ok_or_else(|| Error::invalid("the body is an array of identities"))?;
    if entries.len() > ENTRIES_MAX {
        return Err(Error::invalid("a bulk request has at most 100 entries"));
    }
    let entries = entries.iter().map(Entry::read).collect::<Result<Vec<_>, _>>()?;
    let mut ids = HashSet::new();
    match entries.iter().find(|entry| !ids.insert(&entry.id)) {
        None => {}
        Some(twice) => {
            return Err(Error::invalid(format!("`{}` is named by two entries", twice.id.as_str())));
        }
    }
    Ok(entries)
}

impl Entry {
    fn read(entry: &Value) -> Result<Self, Error> {
        let text = |name| text(entry, name).map(|text| text.filter(|text| !text.is_empty()));
        let device_id = text("id")?.ok_or_else(|| Error::invalid("each entry has an id"))?;
        let module_id = text("moduleId")?;
        let etag = || {
            let etag = text("eTag")?.or(text("etag")?);
            etag.map(str::to_owned).ok_or_else(|| Error::invalid("an IfMatchETag mode needs the eTag"))
        };
        let any = || "*".to_owned();
        let wish = || Wish::read(entry);
        let twin = |if_match| update_of(entry, Manner::Replace, if_match);
        // In any case of letters, because the SDKs do not agree: Node writes `Update`, Python `update`.
        let mode = text("importMode")?.unwrap_or("createOrUpdate").to_ascii_lowercase();
        let act = match mode.as_str() {
            "create" => Act::Create(wish()?, twin(None)?),
            "update" => Act::Update(wish()?, any()),
            "updateifmatchetag" => Act::Update(wish()?, etag()?),
            "createorupdate" => Act::CreateOrUpdate(wish()?, twin(None)?, any()),
            "createorupdateifmatchetag" => Act::CreateOrUpdate(wish()?, twin(None)?, etag()?),
            "delete" => Act::Delete(any()),
            "deleteifmatchetag" => Act::Delete(etag()?),
            "updatetwin" => Act::UpdateTwin(twin(None)?),
            "updatetwinifmatchetag" => {
                let etag = text("twinETag")?;
                let etag = etag.ok_or_else(|| Error::invalid("updateTwinIfMatchETag needs the twinETag"))?;
                Act::UpdateTwin(twin(if_match(etag))?)
            }
            _ => {
                return Err(Error::invalid(
                    "importMode is create, update, createOrUpdate, delete or updateTwin, perhaps with IfMatchETag",
                ));
            }
        };
        Ok(Self { id: ClientId::new(device_id, module_id)?, act })
    }
}

impl Act {
    /// Acts on the record; gives what is to be made durable.
    fn on(self, core: &mut Core, now: Instant, id: &ClientId) -> Result<Vec<Change>, Error> {
        let changed = match self {
            Self::Create(wish, twin) => create(core, now, id, wish, twin)?,
            Self::CreateOrUpdate(wish, twin, etag) => match core.hub.find(id.as_str()) {
                None => create(core, now, id, wish, twin)?,
                Some(_) => change(core, now, id, &etag, wish)?,
            },
            Self::Update(wish, etag) => change(core, now, id, &etag, wish)?,
            Self::UpdateTwin(twin) => {
                let key = find(core, id)?;
                core.hub.update_twin(now, key, twin)?.into()
            }
            Self::Delete(etag) => {
                return unregister(core, id, &etag);
            }
        };
        Ok(vec![changed])
    }
}

/// Registers an identity that has this twin from the start; neither is there if the twin cannot be.
fn create(
    core: &mut Core,
    now: Instant,
    id: &ClientId,
    wish: Wish,
    twin: TwinUpdate,
) -> Result<Change, Error> {
    let (key, added) = register(core, id, wish)?;
    let is_empty = |section: &Option<Section>| match section {
        None => true,
        Some(Section::Patch(members) | Section::Replace(members)) => members.is_empty(),
    };
    if is_empty(&twin.desired) && is_empty(&twin.tags) {
        return Ok(added);
    }
    core.hub.update_twin(now, key, twin).map(Change::from).map_err(|error| {
        // The store has not heard of it.
        drop(core.remove(key));
        error.into()
    })
}
