//! What the applications hear, and whether it can be.

use devicebound::device::RequestFailure;
use devicebound::hub::Revision;
use devicebound::iothub::twin::merge;
use serde_json::{Map, Value};

use super::disk::Name;
use super::thing::{Request, Todo};
use super::{Breach, Canary, World, breach};
use crate::station::Heard;

impl World<'_> {
    /// The application was told all that the machine has to tell: what it has put together is what the machine keeps.
    pub(super) fn is_in_step(&mut self, number: usize) -> Result<(), Breach> {
        let thing = &self.things[number];
        let Some(kept) = thing.device.desired() else { return Ok(()) };
        self.marks.mark("rule: kept properties are those that were told");
        match &thing.mirror {
            Some((version, told)) if (*version, told) == (kept.version(), kept.properties()) => Ok(()),
            told => breach(format!("{told:?} was told, and {kept:?} is kept")),
        }
    }

    pub(super) fn hear(&mut self, number: usize, heard: Heard) -> Result<(), Breach> {
        if self.logic_hears(number, &heard)? {
            return Ok(());
        }
        let delay = self.draw(self.options.application);
        let due = self.now.after(delay);
        let thing = &mut self.things[number];
        let identity = thing.identity;
        match heard {
            Heard::Acknowledged(ticket) => {
                self.model.telemetry_acknowledged(number, ticket)?;
                self.marks.mark("rule: acknowledged telemetry is safe");
            }
            Heard::Dropped(ticket, _) => {
                self.model.senders[number].dropped(ticket)?;
                self.marks.mark("app: telemetry dropped");
            }
            Heard::Delivered { payload, delivery, dup, .. } => {
                let (whose, message) = parse_cloud(&String::from_utf8_lossy(&payload))?;
                if whose != identity {
                    return breach(format!("a message for dev{whose} reaches dev{identity}"));
                }
                self.marks.mark("rule: nothing reaches another device");
                if dup {
                    self.marks.mark("app: cloud message seen again by a restarted device");
                }
                if self.canary == Some(Canary::CompletedUnseen) {
                    let _ = thing.device.complete(delivery, &mut thing.tx);
                } else {
                    thing.todo.push_back((due, Todo::Complete(delivery, message)));
                }
            }
            Heard::Invoked { id, payload, .. } => {
                if !payload.contains(&format!("\"to\":{identity}}}")) {
                    return breach(format!("the call {payload} reaches dev{identity}"));
                }
                thing.todo.push_back((due, Todo::Respond(id, payload)));
            }
            Heard::Twin { version, document } => {
                let mut desired = section(&document, "desired")?;
                desired.remove("$version");
                self.model.identities[identity].device_has(version, &desired)?;
                thing.mirror = Some((version, desired));
                self.marks.mark("app: twin read");
            }
            Heard::Desired { version, patch } => {
                if self.canary == Some(Canary::NotificationLost) {
                    return Ok(());
                }
                let Some((known, desired)) = &mut thing.mirror else {
                    return breach("a change comes before the document");
                };
                // Who follows is told in one what it has missed.
                if version != *known + 1 && !(self.options.follow && version > *known) {
                    return breach(format!("desired version {version} comes after {known}"));
                }
                if version != *known + 1 {
                    self.marks.mark("app: desired changes told in one");
                }
                let mut patch = object(&patch)?;
                patch.remove("$version");
                merge(desired, &patch);
                *known = version;
                self.model.identities[identity].device_has(version, desired)?;
                self.marks.mark("app: desired change");
            }
            Heard::Answered { request, status, version, body } => {
                let asked = if self.canary == Some(Canary::AnswersCrossed) && thing.requests.len() > 1 {
                    thing.requests.pop_last().map(|(_, asked)| asked)
                } else {
                    thing.requests.remove(&request)
                };
                let Some(asked) = asked else { return breach(format!("request {request} is not open")) };
                self.is_answer(identity, asked, status, version, &body)?;
                self.marks.mark("rule: answers are not crossed");
            }
            Heard::Failed(request, failure) => {
                if thing.requests.remove(&request).is_none() {
                    return breach(format!("request {request} is not open and fails"));
                }
                if failure == RequestFailure::Refused {
                    return breach("the hub refuses a documented subscription");
                }
                self.marks.mark("app: request failed");
            }
            Heard::SubscriptionRefused(subscription) => {
                return breach(format!("the hub refuses {subscription:?}"));
            }
            Heard::Connected { .. }
            | Heard::Subscribed(_)
            | Heard::Unsubscribed(_)
            | Heard::CertificateDue
            | Heard::CertificateIssued(_)
            | Heard::CertificateFailed(_)
            | Heard::TokenExpires { .. }
            | Heard::Closed(_) => {}
        }
        Ok(())
    }

    pub(super) fn is_answer(
        &mut self,
        identity: usize,
        asked: Request,
        status: u16,
        version: Option<u64>,
        body: &str,
    ) -> Result<(), Breach> {
        let model = &mut self.model.identities[identity];
        match (asked, status, version) {
            // 200 is what api-version 2016-11-14 gets.
            (Request::Patch { number }, 200 | 204, Some(version)) => {
                model.patch_acknowledged(number, version)
            }
            (Request::Get { version: known }, 200, None) => {
                let mut reported = section(body, "reported")?;
                let version = reported.remove("$version").and_then(|version| version.as_u64()).unwrap_or(0);
                if version < known {
                    return breach(format!(
                        "reported version {known} was acknowledged, a GET says {version}"
                    ));
                }
                model.is_reported(&reported)?;
                let mut desired = section(body, "desired")?;
                let version = desired.remove("$version").and_then(|version| version.as_u64()).unwrap_or(0);
                model.device_has(version, &desired)
            }
            (_, 429, None) => Ok(()), // by a fault that somebody asked for, or by the tier
            _ => breach(format!("{asked:?} is answered with {status}, {version:?}, {body}")),
        }
    }

    /// What a quiet world has not come to rest with.
    pub(super) fn unrest(&self) -> Option<String> {
        for (number, thing) in self.things.iter().enumerate().filter(|(_, thing)| !thing.is_off) {
            let status = thing.device.status();
            let open = self.model.senders[number].open.len();
            let desired = self.disk.record(thing.identity).twin().desired_version();
            let mirror = thing.mirror.as_ref().map(|(version, _)| *version);
            let waits = status.connection != devicebound::device::ConnectionState::Online
                || status.queued + open + status.requests + status.calls + status.deliveries > 0
                || mirror != Some(desired);
            if waits {
                return Some(format!(
                    "dev{}: {status:?}, {open} tickets open, desired {mirror:?} of {desired}",
                    thing.identity
                ));
            }
        }
        if !self.model.calls.is_empty() {
            return Some(format!("calls are open: {:?}", self.model.calls));
        }
        self.model.identities.iter().find_map(super::model::Identity::unrest)
    }

    pub(super) fn revision(&self, identity: usize) -> Revision {
        self.hub.hub.record(self.keys[identity]).map_or_else(Revision::default, |record| record.revision())
    }
}

pub(super) fn call_payload(identity: usize, number: u64) -> String {
    format!("{{\"call\":{number},\"to\":{identity}}}")
}

pub(super) fn status_of(number: u64) -> i64 {
    200 + i64::try_from(number % 100).unwrap_or(0)
}

/// `t3.17`: the telemetry number 17 of the device machine 3.
pub(super) fn parse_name(text: &str) -> Option<(char, Name)> {
    let kind = text.chars().next()?;
    let (thing, number) = text.get(1..)?.split_once('.')?;
    Some((kind, Name { thing: thing.parse().ok()?, number: number.parse().ok()? }))
}

/// `c3.17`: the cloud message number 17 of the identity 3.
pub(super) fn parse_cloud(text: &str) -> Result<(usize, u64), Breach> {
    match parse_name(text) {
        Some(('c', name)) => Ok((name.thing, name.number)),
        _ => breach(format!("the back end sent no {text}")),
    }
}

pub(super) fn object(text: &str) -> Result<Map<String, Value>, Breach> {
    serde_json::from_str(text).map_err(|error| Breach(format!("{text} is no JSON object: {error}")))
}

pub(super) fn section(document: &str, name: &str) -> Result<Map<String, Value>, Breach> {
    let mut document_object = object(document)?;
    // The wrapping of api-version 2016-11-14.
    if let Some(Value::Object(inner)) = document_object.remove("properties") {
        document_object = inner;
    }
    match document_object.remove(name) {
        Some(Value::Object(section)) => Ok(section),
        _ => breach(format!("{document} has no {name}")),
    }
}
