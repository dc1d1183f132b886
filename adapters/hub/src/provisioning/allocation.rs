//! Which hub a device gets.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use devicebound::Rule;
use serde_json::{Map, Value, json};

use super::Provisioning;
use super::caller::Attested;
use super::entry::{Allocation, Kind, initial_twin};
use super::registration::Registration;

/// How long the webhook of a custom allocation may take (own choice: the documents name no time).
const WEBHOOK_TIME: Duration = Duration::from_secs(10);
/// Largest answer of a webhook: as large as a register.
const WEBHOOK_ANSWER_MAX: u64 = devicebound::limits::DPS_MESSAGE_MAX as u64;

/// What was decided.
#[derive(Clone, Debug)]
pub(super) struct Allocated {
    pub(super) hub: String,
    /// The twin that the device begins with, where the webhook names one: it counts before the enrollment's.
    pub(super) twin: Option<(Map<String, Value>, Map<String, Value>)>,
    /// JSON for the device.
    pub(super) payload: Option<Value>,
}

/// Why a device gets no hub; a registration can fail so.
#[derive(Clone, Debug)]
pub(super) struct Unallocated {
    pub(super) number: u32,
    pub(super) message: String,
}

impl Unallocated {
    fn no_hub(what: String) -> Self {
        Self { number: 400_208, message: format!("{what}; {}", Rule::DpsNoHub.fix()) }
    }

    fn webhook(what: &str) -> Self {
        Self { number: 400_207, message: format!("Custom allocation failed {what}") }
    }
}

impl Provisioning {
    pub(super) async fn allocate(
        &self,
        attested: &Attested,
        id: &str,
        payload: Option<&Value>,
        before: Option<&Registration>,
    ) -> Result<Allocated, Unallocated> {
        let plain = |hub| Allocated { hub, twin: None, payload: None };
        match &attested.entry.allocation {
            Allocation::Hashed(hubs) => {
                let hubs = self.linked(hubs)?;
                hashed(id, &hubs).map(plain).ok_or_else(|| Unallocated::no_hub("no hub is linked".to_owned()))
            }
            Allocation::Static(hubs) => {
                let hubs = self.linked(hubs)?;
                let first = hubs.into_iter().next();
                first.map(plain).ok_or_else(|| Unallocated::no_hub("no hub is linked".to_owned()))
            }
            Allocation::Custom { url, hubs } => {
                let hubs = self.linked(hubs)?;
                let request = question(attested, id, payload, before, &hubs);
                let answer = ask(url.clone(), request).await?;
                self.custom(&answer, &hubs)
            }
        }
    }

    /// These hubs, as they are linked; all that are, where none is named.
    fn linked(&self, named: &[String]) -> Result<Vec<String>, Unallocated> {
        if named.is_empty() {
            return Ok(self.settings.hubs.names().map(str::to_owned).collect());
        }
        let find = |wanted: &String| {
            let mut names = self.settings.hubs.names();
            let found = names.find(|name| name.eq_ignore_ascii_case(wanted)).map(str::to_owned);
            found.ok_or_else(|| {
                let linked: Vec<&str> = self.settings.hubs.names().collect();
                Unallocated::no_hub(format!("the hub {wanted} is not linked, but {}", linked.join(", ")))
            })
        };
        named.iter().map(find).collect()
    }

    fn custom(&self, answer: &Value, hubs: &[String]) -> Result<Allocated, Unallocated> {
        let hub = answer.get("iotHubHostName").and_then(Value::as_str).unwrap_or_default();
        let hub = hubs.iter().find(|known| known.eq_ignore_ascii_case(hub)).cloned().ok_or_else(|| {
            Unallocated::webhook(&format!(
                "with iotHubHostName `{hub}`, which is none of {}",
                hubs.join(", ")
            ))
        })?;
        let twin = match answer
            .as_object()
            .filter(|answer| answer.get("initialTwin").is_some_and(|twin| !twin.is_null()))
        {
            None => None,
            Some(answer) => Some(
                initial_twin(answer)
                    .map_err(|error| Unallocated::webhook(&format!("with {}", error.message())))?,
            ),
        };
        Ok(Allocated {
            hub,
            twin,
            payload: answer.get("payload").filter(|payload| !payload.is_null()).cloned(),
        })
    }
}

/// Always the same for the same id and hubs, evenly over many ids.
fn hashed(id: &str, hubs: &[String]) -> Option<String> {
    let mut hasher = DefaultHasher::new();
    id.to_ascii_lowercase().hash(&mut hasher);
    let count = u64::try_from(hubs.len()).ok()?;
    let place = usize::try_from(hasher.finish().checked_rem(count)?).ok()?;
    hubs.get(place).cloned()
}

/// What the webhook is told: keys are not.
fn question(
    attested: &Attested,
    id: &str,
    payload: Option<&Value>,
    before: Option<&Registration>,
    hubs: &[String],
) -> Value {
    let member = match attested.entry.kind {
        Kind::Individual => "individualEnrollment",
        Kind::Group => "enrollmentGroup",
    };
    let mut context = json!({"registrationId": id});
    let (name, mechanism) = &attested.mechanism;
    if let Some(context) = context.as_object_mut() {
        let mechanism = if *name == "symmetricKey" { json!({}) } else { mechanism.clone() };
        context.insert((*name).to_owned(), mechanism);
        if let Some(payload) = payload {
            context.insert("payload".to_owned(), payload.clone());
        }
        if let Some(before) = before {
            let known =
                [("currentIotHubHostName", before.hub()), ("currentDeviceId", before.text("deviceId"))];
            context
                .extend(known.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))));
        }
    }
    json!({member: attested.entry.shown(false), "deviceRuntimeContext": context, "linkedHubs": hubs})
}

async fn ask(url: String, request: Value) -> Result<Value, Unallocated> {
    let asked = tokio::task::spawn_blocking(move || post(&url, &request)).await;
    asked.unwrap_or_else(|error| Err(Unallocated::webhook(&format!("in this service: {error}"))))
}

/// Blocks: for a thread of its own.
fn post(url: &str, request: &Value) -> Result<Value, Unallocated> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(WEBHOOK_TIME))
        .max_redirects(0)
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let sent = agent.post(url).header("Content-Type", "application/json").send(request.to_string());
    let mut response = sent.map_err(|error| Unallocated::webhook(&format!("at {url}: {error}")))?;
    let status = response.status();
    if !status.is_success() {
        return Err(Unallocated::webhook(&format!("with status code: {}", status.as_u16())));
    }
    let body = response.body_mut().with_config().limit(WEBHOOK_ANSWER_MAX).read_to_vec();
    let body = body.map_err(|error| Unallocated::webhook(&format!("at {url}: {error}")))?;
    serde_json::from_slice(&body).map_err(|_| Unallocated::webhook("with a body that is not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_spread_over_hubs_and_stay_where_they_are() {
        let hubs: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let mut counts = [0_u32; 3];
        for device in 0..3000 {
            let hub = hashed(&format!("dev-{device}"), &hubs).unwrap();
            assert_eq!(hashed(&format!("DEV-{device}"), &hubs).as_ref(), Some(&hub));
            counts[hubs.iter().position(|known| *known == hub).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(hashed("dev", &[]), None);
    }
}
