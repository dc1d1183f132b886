//! The service's side of the load: cloud messages and desired properties, one request after the other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Shared;
use super::ledger::{Violation, violation};
use super::shared::Account;
use crate::interop::Service;
use crate::interop::service::Method;
use devicebound_world::{Entropy as _, Seeded};

/// So many messages may wait for one device: less than the hub keeps, 50.
const WAITING_MAX: usize = 20;
/// Longest pause between two requests.
const PAUSE_MS: u32 = 10;

/// A back end that looks after some of the devices; no other sends to them.
#[derive(Debug)]
pub(super) struct BackEnd {
    shared: Arc<Shared>,
    accounts: Vec<Account>,
    choices: Seeded,
}

/// Status and body of an answer.
type Answer = Result<(u16, String), ureq::Error>;

impl BackEnd {
    /// For these devices.
    #[must_use]
    pub(super) fn new(shared: &Arc<Shared>, accounts: Vec<Account>, choices: Seeded) -> Self {
        Self { shared: Arc::clone(shared), accounts, choices }
    }

    /// Works whenever there is a hub, until there will be none any more.
    ///
    /// # Errors
    /// What the hub did that must not be.
    pub(super) async fn run(mut self) -> Result<(), Violation> {
        let shared = Arc::clone(&self.shared);
        loop {
            let hub = shared.hub.read().await;
            let Some(hub) = &*hub else { return Ok(()) };
            self.turn(&hub.service).await?;
        }
    }

    /// One request and a pause.
    async fn turn(&mut self, service: &Service) -> Result<(), Violation> {
        let account = usize::try_from(self.choices.below(self.accounts.len().try_into().unwrap_or(u32::MAX)));
        let account = account.ok().and_then(|index| self.accounts.get(index)).cloned();
        if let Some(account) = account.filter(|_| !self.shared.is_draining()) {
            let done = if self.choices.one_in(2) {
                send(service, &account).await
            } else {
                patch(service, &account).await
            };
            done.map_err(|what| account.accuse(&what))?;
        }
        sleep(Duration::from_millis(self.choices.below(PAUSE_MS).into())).await;
        Ok(())
    }
}

async fn send(service: &Service, account: &Account) -> Result<(), Violation> {
    let (path, number) = {
        let mut ledger = account.lock();
        if ledger.cloud.waiting_max() >= WAITING_MAX {
            return Ok(());
        }
        (format!("/devices/{}/messages/deviceBound", ledger.device_id), ledger.cloud.send())
    };
    let answer = ask(service, Method::POST, path, number.to_string()).await;
    let mut ledger = account.lock();
    match answer {
        Ok((200..300, _)) => {
            ledger.note(format!("cloud message {number} accepted"));
            ledger.cloud.accepted(number);
        }
        Ok((status @ 400..500, body)) => {
            ledger.note(format!("cloud message {number} refused: {status} {body}"));
            ledger.cloud.refused(number);
        }
        Ok((status, body)) => return violation(format!("a cloud message was answered with {status} {body}")),
        Err(error) => ledger.note(format!("cloud message {number} not answered: {error}")),
    }
    Ok(())
}

async fn patch(service: &Service, account: &Account) -> Result<(), Violation> {
    let (path, patch) = {
        let mut ledger = account.lock();
        let Some(patch) = ledger.desired.change() else { return Ok(()) };
        (format!("/twins/{}", ledger.device_id), Value::Object(patch))
    };
    let twin = json!({"properties": {"desired": patch}}).to_string();
    let answer = ask(service, Method::PATCH, path, twin).await;
    let mut ledger = account.lock();
    match answer {
        Ok((200..300, body)) => {
            let twin: Value = serde_json::from_str(&body).unwrap_or_default();
            let version = twin["properties"]["desired"]["$version"].as_u64().unwrap_or_default();
            ledger.note(format!("desired {patch} has made version {version}"));
            ledger.desired.accepted(version)
        }
        Ok((status, body)) => violation(format!("desired properties were answered with {status} {body}")),
        Err(error) => {
            ledger.note(format!("desired {patch} not answered: {error}"));
            Ok(())
        }
    }
}

async fn ask(service: &Service, method: Method, path: String, body: String) -> Answer {
    let service = service.clone();
    let asked = spawn_blocking(move || {
        let mut response = service.ask(method, &path, &[], body.as_bytes())?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    });
    // It does not panic, and nobody cancels it.
    asked.await.unwrap_or_else(|error| Err(ureq::Error::Other(error.into())))
}
