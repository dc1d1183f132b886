//! A register from beginning to end, and the questions after it.

use std::sync::{Arc, Mutex, PoisonError};

use devicebound::Rule;
use devicebound::hub::{Authentication, DeviceIdentity, DeviceRecord, Section, TwinUpdate};
use devicebound::iothub::provisioning::{RegisterBody, RegistrationId, Status};
use devicebound::time::UnixTime;
use serde_json::{Map, Value};

use super::Provisioning;
use super::allocation::{Allocated, Unallocated};
use super::caller::{Attested, Caller};
use super::error::Refusal;
use super::identifiers::{moment, operation_id};
use super::issue::{Issued, beside};
use super::records::registration_document;
use super::registration::{Registration, disabled, new_etag};
use crate::clock::unix_time;
use crate::engine::durability::Change;

/// Seconds after which a device is to ask again: the least that the SDKs take.
const RETRY_AFTER: u32 = 1;
/// Registers in a minute that a service with a tier takes (DPS limits).
const RATE: u32 = 1000;
const MINUTE: u64 = 60;

/// What a device is answered with.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u32>,
    pub(crate) body: Value,
}

impl Answer {
    const fn done(body: Value) -> Self {
        Self { status: 200, retry_after: None, body }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self { status: refusal.status(), retry_after: refusal.retry_after, body: refusal.body() }
    }
}

/// Counts registers where the hub has a tier.
#[derive(Debug)]
pub(super) struct Limiter {
    is_on: bool,
    /// The minute, and how many there were in it.
    count: Mutex<(u64, u32)>,
}

impl Limiter {
    pub(super) const fn new(is_on: bool) -> Self {
        Self { is_on, count: Mutex::new((0, 0)) }
    }

    /// One more; if it is one too many, gives the seconds after which there is room.
    fn take(&self, now: UnixTime) -> Result<(), u32> {
        let (minute, second) = (now.as_secs() / MINUTE, now.as_secs() % MINUTE);
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if count.0 != minute {
            *count = (minute, 0);
        }
        if self.is_on && count.1 >= RATE {
            return Err(u32::try_from(MINUTE - second).unwrap_or(RETRY_AFTER));
        }
        count.1 = count.1.saturating_add(1);
        Ok(())
    }
}

impl Provisioning {
    /// Takes a register. It goes on when the caller hangs up: nothing is left half done.
    pub(crate) async fn register(self: &Arc<Self>, caller: Caller, body: Vec<u8>) -> Answer {
        let service = Arc::clone(self);
        let task = tokio::spawn(async move {
            let answer = service.take_register(&caller, &body).await;
            service.tell(&caller, "registers", answer)
        });
        task.await.unwrap_or_else(|error| Refusal::unavailable(error.to_string()).into())
    }

    /// How far an operation is.
    pub(crate) fn poll(&self, caller: &Caller, operation_id: &str) -> Answer {
        let answer = self.attest(caller, unix_time()).and_then(|_| {
            let registration = self.records.registration(&caller.registration_id);
            let registration = registration.filter(|registration| registration.operation_id == operation_id);
            let registration = registration.ok_or_else(|| {
                Refusal::of(404_203, Rule::DpsOperation, "there is no operation of this id and device")
            })?;
            Ok(Answer::done(registration.outcome(&caller.api_version)))
        });
        self.tell(caller, "asks how far it is", answer)
    }

    /// What the service knows of the device that asks.
    pub(crate) fn look_up(&self, caller: &Caller) -> Answer {
        let answer = self.attest(caller, unix_time()).and_then(|_| {
            let registration = self.records.registration(&caller.registration_id);
            let none = || Refusal::new(404_202, "the device has not registered; send register first");
            Ok(Answer::done(registration.ok_or_else(none)?.shown()))
        });
        self.tell(caller, "looks itself up", answer)
    }

    /// A refusal gets a line: who, which rule, what to do.
    fn tell(&self, caller: &Caller, does: &str, answer: Result<Answer, Refusal>) -> Answer {
        answer.unwrap_or_else(|refusal| {
            let (id, number, why) = (&caller.registration_id, refusal.number(), refusal.in_words());
            self.engine.view.note("provisioningRefused", &format!("{id} {does}: refused, {number}: {why}"));
            refusal.into()
        })
    }

    async fn take_register(&self, caller: &Caller, body: &[u8]) -> Result<Answer, Refusal> {
        let now = unix_time();
        let id = RegistrationId::new(&caller.registration_id).map_err(|error| {
            Refusal::of(400_004, error.rule(), format_args!("`{}` came", caller.registration_id))
        })?;
        self.limiter.take(now).map_err(Refusal::throttled)?;
        let attested = self.attest(caller, now)?;
        let body = RegisterBody::parse(body, id).map_err(|error| {
            let number = if error.rule() == Rule::DpsBodySize { 413_001 } else { 400_004 };
            Refusal::of(number, error.rule(), format_args!("{} bytes came", body.len()))
        })?;
        let payload = match &body.payload {
            None => None,
            Some(text) => Some(
                serde_json::from_str::<Value>(text)
                    .map_err(|error| Refusal::of(400_004, Rule::DpsBody, format_args!("payload: {error}")))?,
            ),
        };
        if !attested.entry.enabled {
            let text = format!(
                "{} registers: its enrollment is disabled; fix: {}",
                id.as_str(),
                Rule::DpsDisabled.fix()
            );
            self.engine.view.note("provisioningRefused", &text);
            return Ok(Answer::done(disabled(id.as_str())));
        }
        let request = body.csr.as_deref().map(|csr| self.request(csr, id.as_str())).transpose()?;
        let request = request.filter(|_| attested.entry.issues_certificates);

        let place = self.place_of(id);
        let _alone = match self.places.get(place) {
            Some(place) => Some(place.lock().await),
            None => None,
        };
        let before = self.records.registration(id.as_str());
        if before.is_none() && !self.records.has_room() {
            return Err(Refusal::new(
                403_002,
                "there are as many registrations as the service takes; delete some",
            ));
        }
        let issued = request.map(|request| self.issue(&request)).transpose()?;
        let assigned =
            self.assign(&attested, id, payload.as_ref(), before.as_deref(), issued.as_ref()).await?;
        let registration = registration(&attested, id, assigned, before.as_deref(), issued, now)?;
        if !self.engine.keep_documents(vec![registration_document(&registration)]).await {
            return Err(Refusal::not_stored());
        }
        let answer = Answer { status: 202, retry_after: Some(RETRY_AFTER), body: registration.assigning() };
        self.engine.view.note("provisioned", &in_words(&registration));
        self.records.put_registration(registration);
        Ok(answer)
    }

    /// Which place a device waits at.
    fn place_of(&self, id: RegistrationId<'_>) -> usize {
        let sum = id.key().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        sum.checked_rem(self.places.len()).unwrap_or_default()
    }

    /// Finds the hub, and makes the device there what it is to be. The inner error is a registration that has failed.
    async fn assign(
        &self,
        attested: &Attested,
        id: RegistrationId<'_>,
        payload: Option<&Value>,
        before: Option<&Registration>,
        issued: Option<&Issued>,
    ) -> Result<Result<Assigned, Unallocated>, Refusal> {
        let policy = attested.entry.reprovisioning;
        let current = before.and_then(Registration::hub);
        let kept = current.filter(|_| !policy.updates_hub);
        let allocated = match kept {
            Some(hub) => Ok(Allocated { hub: hub.to_owned(), twin: None, payload: None }),
            None => self.allocate(attested, id.as_str(), payload, before).await,
        };
        let allocated = match allocated {
            Ok(allocated) => allocated,
            Err(failed) => return Ok(Err(failed)),
        };
        let moves = current.is_some_and(|current| !current.eq_ignore_ascii_case(&allocated.hub));
        let substatus = match (current, moves) {
            (None, _) => "initialAssignment",
            (Some(_), false) if kept.is_some() => {
                before.and_then(|before| before.text("substatus")).unwrap_or("initialAssignment")
            }
            (Some(_), _) if !policy.migrates => "deviceDataReset",
            (Some(_), true) => "deviceDataMigrated",
            (Some(_), false) => "reprovisionedToInitialAssignment",
        };
        let device_id = attested.entry.device_id.clone().unwrap_or_else(|| id.as_str().to_owned());
        let device_id = match before.and_then(|before| before.text("deviceId")).filter(|_| kept.is_some()) {
            Some(device_id) => device_id.to_owned(),
            None => device_id,
        };
        if self.settings.hubs.is_own(&allocated.hub) {
            let twin = allocated.twin.clone();
            let resets = twin.is_some() || (current.is_some() && kept.is_none() && !policy.migrates);
            let twin = twin.unwrap_or_else(|| attested.entry.initial_twin.clone());
            let authentication = authentication(attested, issued);
            self.put_device(&device_id, authentication, twin, resets).await?;
        }
        if moves && current.is_some_and(|current| self.settings.hubs.is_own(current)) {
            self.remove_device(&device_id).await?;
        }
        Ok(Ok(Assigned {
            hub: allocated.hub,
            device_id,
            substatus: substatus.to_owned(),
            payload: allocated.payload,
        }))
    }

    /// Adds the device to this hub, or gives the one that is there what it is to prove itself with.
    async fn put_device(
        &self,
        device_id: &str,
        authentication: Authentication,
        (desired, tags): (Map<String, Value>, Map<String, Value>),
        resets: bool,
    ) -> Result<(), Refusal> {
        let now = unix_time();
        let identity = DeviceIdentity::new(device_id, now.as_millis().to_string(), authentication.clone())
            .map_err(|error| Refusal::bad_request(format!("deviceId `{device_id}`: {error}")))?;
        let record = DeviceRecord::new(identity).with_twin(&desired, &tags, now);
        let record = record.map_err(|error| Refusal::bad_request(format!("initialTwin: {error}")))?;
        let id = device_id.to_owned();
        let safe = self.engine.at(device_id, move |core, now| {
            let changed = match core.hub.find(&id) {
                None => match core.register(record) {
                    Ok((_, added)) => added,
                    Err(_) => return Err(Refusal::not_stored()), // it was not there a moment ago
                },
                Some(key) => {
                    let known = core.hub.record(key).map(|record| record.identity.authentication.clone());
                    let authentication = beside(authentication, known.as_ref());
                    if known.as_ref() != Some(&authentication) {
                        // All of it is made durable below.
                        let _ = core
                            .hub
                            .update_identity(now, key, |identity| identity.authentication = authentication);
                    }
                    if resets {
                        let update = TwinUpdate {
                            desired: Some(Section::Replace(desired)),
                            tags: Some(Section::Replace(tags)),
                            if_match: None,
                        };
                        let updated = core.hub.update_twin(now, key, update);
                        let _ =
                            updated.map_err(|error| Refusal::bad_request(format!("initialTwin: {error}")))?; // as above
                    }
                    Change::Record(key)
                }
            };
            Ok(core.commit_durably([changed]))
        });
        if safe.await?.await { Ok(()) } else { Err(Refusal::not_stored()) }
    }

    /// Takes the device off this hub: it has another one now.
    async fn remove_device(&self, device_id: &str) -> Result<(), Refusal> {
        let id = device_id.to_owned();
        let safe = self.engine.at(device_id, move |core, _| {
            let gone = core.hub.find(&id).and_then(|key| core.remove(key));
            core.commit_durably(gone)
        });
        if safe.await.await { Ok(()) } else { Err(Refusal::not_stored()) }
    }
}

/// Where a device was assigned to.
struct Assigned {
    hub: String,
    device_id: String,
    substatus: String,
    payload: Option<Value>,
}

/// How the device proves itself at its hub: by the issued certificate where there is one.
fn authentication(attested: &Attested, issued: Option<&Issued>) -> Authentication {
    match issued {
        Some(issued) => Authentication::SelfSigned { primary: issued.thumbprint.clone(), secondary: None },
        None => attested.authentication.clone(),
    }
}

/// The record of it, in the order of members that the real service has.
fn registration(
    attested: &Attested,
    id: RegistrationId<'_>,
    assigned: Result<Assigned, Unallocated>,
    before: Option<&Registration>,
    issued: Option<Issued>,
    now: UnixTime,
) -> Result<Registration, Refusal> {
    let mut state = Map::new();
    let (name, mechanism) = &attested.mechanism;
    let created = before.and_then(|before| before.state.get("createdDateTimeUtc")).cloned();
    state.insert((*name).to_owned(), mechanism.clone());
    state.insert("registrationId".to_owned(), id.as_str().into());
    state.insert("createdDateTimeUtc".to_owned(), created.unwrap_or_else(|| moment(now).into()));
    let payload = match assigned {
        Ok(Assigned { hub, device_id, substatus, payload }) => {
            state.insert("assignedHub".to_owned(), hub.into());
            state.insert("deviceId".to_owned(), device_id.into());
            state.insert("status".to_owned(), Status::Assigned.word().into());
            state.insert("substatus".to_owned(), substatus.into());
            payload
        }
        Err(Unallocated { number, message }) => {
            state.insert("status".to_owned(), Status::Failed.word().into());
            state.insert("errorCode".to_owned(), number.into());
            state.insert("errorMessage".to_owned(), message.into());
            None
        }
    };
    state.insert("lastUpdatedDateTimeUtc".to_owned(), moment(now).into());
    state.insert("etag".to_owned(), new_etag()?.into());
    if let Some(payload) = payload {
        state.insert("payload".to_owned(), payload);
    }
    if let Some(issued) = issued {
        state.insert("issuedCertificateChain".to_owned(), issued.chain);
    }
    let group = (attested.entry.kind == super::entry::Kind::Group).then(|| attested.entry.id.clone());
    Ok(Registration { id: id.as_str().to_owned(), group, operation_id: operation_id()?, state })
}

fn in_words(registration: &Registration) -> String {
    let id = &registration.id;
    match registration.hub() {
        Some(hub) => {
            let device_id = registration.text("deviceId").unwrap_or_default();
            let substatus = registration.text("substatus").unwrap_or_default();
            format!("{id} is assigned to {hub} as {device_id}: {substatus}")
        }
        None => {
            let why = registration.text("errorMessage").unwrap_or_default();
            format!("{id} is not assigned: {why}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_with_a_tier_takes_a_thousand_registers_in_a_minute() {
        let (limiter, now) = (Limiter::new(true), UnixTime::from_secs(600_020));
        assert!((0..RATE).all(|_| limiter.take(now).is_ok()));
        assert_eq!(limiter.take(now), Err(40));
        assert!(limiter.take(UnixTime::from_secs(600_060)).is_ok());
        let limiter = Limiter::new(false);
        assert!((0..2 * RATE).all(|_| limiter.take(now).is_ok()));
    }
}
