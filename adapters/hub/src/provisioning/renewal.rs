//! A device asks its hub for a newer certificate (IoT Hub: certificate renewal).
//!
//! The request is answered with 202 at once, and with 200 and the certificates when the hub knows the new one, safely. The
//! one that the device has stays good beside it, and the connection goes on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{Authentication, DeviceKey, IssueRequest};
use devicebound::iothub::{CertificateRequest, IssueBody, IssueBodyError, is_issue_id};
use devicebound::time::Instant;
use serde_json::{Value, json};

use super::Provisioning;
use super::error::Refusal;
use super::identifiers::{guid, moment};
use super::issue::{Issued, beside};
use crate::clock::unix_time;
use crate::engine::CertificateIssuer;
use crate::engine::core::Core;
use crate::engine::durability::Change;

/// How long a request stays open at the real service.
const OPERATION_TIME: Duration = Duration::from_secs(12 * 3600);

/// Requests whose certificate is not safe yet, by device: their rids.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<HashMap<String, String>>);

/// What is wrong with a request, and what its answer says besides.
struct Refused {
    refusal: Refusal,
    info: Value,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, info: Value::Null }
    }
}

impl CertificateIssuer for Provisioning {
    fn renew(&self, core: &mut Core, now: Instant, request: &IssueRequest<'_>) {
        let Some(record) = core.hub.record(request.device) else { return };
        let device_id = record.identity.client_id().to_owned();
        let known = record.identity.authentication.clone();
        match self.issue_for(core, &device_id, &known, request) {
            Ok((issued, authentication)) => {
                let (device, rid) = (request.device, request.rid);
                let correlation_id = guid().unwrap_or_default();
                let expires = moment(unix_time().after(OPERATION_TIME));
                let accepted = json!({"correlationId": correlation_id, "operationExpires": expires});
                core.hub.answer_certificate(device, rid, 202, &accepted.to_string());
                if let Some(authentication) = authentication {
                    // All of it is made durable below.
                    let _ = core
                        .hub
                        .update_identity(now, device, |identity| identity.authentication = authentication);
                    // The answer waits for it by itself.
                    drop(core.commit_durably([Change::Record(device)]));
                    self.renewals.open(&device_id, rid);
                }
                let body = json!({"correlationId": correlation_id, "certificates": issued.chain});
                core.hub.answer_certificate(device, rid, 200, &body.to_string());
                self.engine.view.note("certificateIssued", &format!("{device_id} has a newer certificate"));
            }
            Err(Refused { refusal, info }) => {
                let mut body = refusal.body();
                if let Some(body) = body.as_object_mut() {
                    body.insert("info".to_owned(), info);
                }
                core.hub.answer_certificate(request.device, request.rid, refusal.status(), &body.to_string());
                let (number, why) = (refusal.number(), refusal.in_words());
                let text = format!("{device_id} asks for a certificate: refused, {number}: {why}");
                self.engine.view.note("certificateRefused", &text);
            }
        }
    }
}

impl Provisioning {
    /// The certificate, and what the hub is to know the device by from now on where that changes.
    fn issue_for(
        &self,
        core: &Core,
        device_id: &str,
        known: &Authentication,
        request: &IssueRequest<'_>,
    ) -> Result<(Issued, Option<Authentication>), Refused> {
        let rid = request.rid;
        if !is_issue_id(rid) {
            return Err(Refusal::of(400_004, Rule::IssueId, format_args!("`{rid}` came")).into());
        }
        let body = IssueBody::parse(request.body, device_id).map_err(|error| match error {
            IssueBodyError::NotJson => Refusal::of(400_006, Rule::IssueBody, error),
            IssueBodyError::Member => Refusal::of(400_004, Rule::IssueBody, "something else came"),
        })?;
        self.check_active(core, request.device, device_id, rid, body.replace.as_deref())?;
        if matches!(known, Authentication::Sas { .. }) {
            let what = "the device is known by keys, and a certificate would take their place";
            let fix = "register it with a certificate, or provision it with a csr";
            return Err(Refusal::bad_request(format!("{what}; {fix}")).into());
        }
        let signing =
            self.request(&body.csr, &self.name_in_request(&body.csr, device_id)).map_err(|refusal| {
                let error = json!({
                    "correlationId": guid().unwrap_or_default(),
                    "credentialError": "FailedToDecode",
                    "credentialMessage": refusal.message(),
                });
                Refused { refusal, info: error }
            })?;
        let issued = self.issue(&signing)?;
        let new = Authentication::SelfSigned { primary: issued.thumbprint.clone(), secondary: None };
        // Of an authority, the certificate is good by itself.
        let changes = matches!(known, Authentication::SelfSigned { .. });
        Ok((issued, changes.then(|| beside(new, Some(known)))))
    }

    /// The name that a request must have: the device id, or the registration id by which the device came here.
    fn name_in_request(&self, csr: &str, device_id: &str) -> String {
        let name = CertificateRequest::from_base64(csr).map(|request| request.common_name().to_owned());
        let registration = name.ok().and_then(|name| self.records.registration(&name));
        let own = registration.filter(|registration| registration.text("deviceId") == Some(device_id));
        own.map_or_else(|| device_id.to_owned(), |registration| registration.id.clone())
    }

    /// A device has one request at a time.
    fn check_active(
        &self,
        core: &Core,
        device: DeviceKey,
        device_id: &str,
        rid: &str,
        replace: Option<&str>,
    ) -> Result<(), Refused> {
        let active = self.renewals.active(device_id, core.hub.is_safe(device));
        match (active, replace) {
            (Some(active), None) => {
                let refusal = Refusal::of(409_005, Rule::IssueActive, format_args!("`{active}` is open"));
                let expires = moment(unix_time().after(OPERATION_TIME));
                Err(Refused { refusal, info: json!({"requestId": active, "operationExpires": expires}) })
            }
            (active, Some(named)) if named != "*" && active.as_deref() != Some(named) => {
                let refusal = Refusal::of(412_001, Rule::IssueReplace, format_args!("`{named}` is not open"));
                Err(Refused { refusal, info: json!({"requestId": rid}) })
            }
            _ => Ok(()),
        }
    }
}

impl Renewals {
    fn open(&self, device_id: &str, rid: &str) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(device_id.to_owned(), rid.to_owned());
    }

    /// The request of a device that is not answered yet; it is once the record `is_safe`.
    fn active(&self, device_id: &str, is_safe: bool) -> Option<String> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_safe {
            open.remove(device_id);
        }
        open.get(device_id).cloned()
    }
}
