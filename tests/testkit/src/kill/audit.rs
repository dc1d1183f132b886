//! What a hub that was started again shows, beside what was acknowledged before.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{BufRead as _, BufReader};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::device;
use super::events::{Digest, Partitions};
use super::ledger::{Violation, violation};
use super::shared::Account;
use crate::interop::Service;
use crate::interop::hub::Ready;
use crate::interop::service::Method;

/// Reads telemetry on from where it was, as a back end would, and looks at every twin.
#[derive(Debug, Default)]
pub(super) struct Audit {
    accounts: BTreeMap<String, Account>,
    /// The number of the line that was read last; 0: none.
    cursor: u64,
    /// What that line was.
    line: u64,
    /// What all lines together were.
    lines: DefaultHasher,
    /// What all messages together were, and the same as partitions show them.
    digest: Digest,
    partitions: Partitions,
    /// Messages that were read back more than once.
    repeated: u64,
}

impl Audit {
    /// Of these devices.
    #[must_use]
    pub(super) fn new(accounts: &[Account]) -> Self {
        let accounts = accounts.iter().map(|account| (account.lock().device_id.clone(), account.clone()));
        Self { accounts: accounts.collect(), ..Self::default() }
    }

    /// Messages that were read back.
    #[must_use]
    pub(super) const fn stored(&self) -> u64 {
        self.cursor
    }

    /// Looks at all that the hub shows; nobody else may talk to it.
    ///
    /// # Errors
    /// When something is not as it was acknowledged.
    pub(super) fn check(&mut self, ready: &Ready, service: &Service) -> Result<(), Violation> {
        self.read_on(service)?;
        self.partitions.check(ready, service, (self.digest, self.cursor))?;
        for account in self.accounts.values() {
            let path = format!("/twins/{}", account.lock().device_id);
            let twin = get(service, &path)?;
            let mut ledger = account.lock();
            let checked = ledger.telemetry.settle().and_then(|()| ledger.check_twin(&twin));
            ledger.note("the hub was started again, and all was there");
            drop(ledger);
            checked.map_err(|what| account.accuse(&what))?;
        }
        Ok(())
    }

    /// Reads all telemetry from the first message on, which must be what was read before, bit by bit.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn read_all_again(&self, service: &Service) -> Result<(), Violation> {
        let mut lines = DefaultHasher::new();
        let mut count = 0;
        read(service, 0, |line| {
            lines.write(line.as_bytes());
            count += 1;
            Ok(())
        })?;
        if (count, lines.finish()) != (self.cursor, self.lines.finish()) {
            return violation(format!(
                "read again from the start, the {} messages that were read are {count}, or others",
                self.cursor
            ));
        }
        Ok(())
    }

    /// Reads what is new, and the line before it once more.
    fn read_on(&mut self, service: &Service) -> Result<(), Violation> {
        let mut is_known = self.cursor == 0;
        read(service, self.cursor.saturating_sub(1), |line| {
            if !is_known {
                is_known = hash(line) == self.line;
                return if is_known {
                    Ok(())
                } else {
                    violation(format!("line {} has become {line}", self.cursor))
                };
            }
            self.read_line(line)
        })?;
        if !is_known {
            return violation(format!(
                "telemetry {} was read before and is not stored any more",
                self.cursor
            ));
        }
        Ok(())
    }

    fn read_line(&mut self, line: &str) -> Result<(), Violation> {
        let event: Value =
            serde_json::from_str(line).map_err(|error| Violation(format!("{line}: {error}")))?;
        let cursor = event["cursor"].as_u64().unwrap_or_default();
        if cursor != self.cursor + 1 {
            return violation(format!("the line behind {} has the number {cursor}", self.cursor));
        }
        self.cursor = cursor;
        self.line = hash(line);
        self.lines.write(line.as_bytes());
        let device_id = event["deviceId"].as_str().unwrap_or_default();
        let body = STANDARD.decode(event["body"].as_str().unwrap_or_default()).unwrap_or_default();
        self.digest.add(cursor, device_id, &body);
        let number = device::number(device_id, &String::from_utf8_lossy(&body));
        let (Some(account), Some(number)) = (self.accounts.get(device_id), number) else {
            return violation(format!("nobody has sent this: {line}"));
        };
        let stored = account.lock().telemetry.stored(number);
        self.repeated += u64::from(stored == Ok(true));
        stored.map(drop).map_err(|what| account.accuse(&what))
    }

    /// How many messages are stored more than once, because they had to be sent again.
    #[must_use]
    pub(super) const fn repeated(&self) -> u64 {
        self.repeated
    }
}

fn hash(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(line.as_bytes());
    hasher.finish()
}

fn get(service: &Service, path: &str) -> Result<Value, Violation> {
    let unreadable = |error: &dyn std::fmt::Display| Violation(format!("GET {path}: {error}"));
    let mut response = service.ask(Method::GET, path, &[], b"").map_err(|error| unreadable(&error))?;
    let text = response.body_mut().read_to_string().map_err(|error| unreadable(&error))?;
    if !response.status().is_success() {
        return Err(unreadable(&format!("{} {text}", response.status())));
    }
    serde_json::from_str(&text).map_err(|error| unreadable(&error))
}

/// All telemetry behind a cursor, line by line.
fn read(
    service: &Service,
    after: u64,
    mut line_read: impl FnMut(&str) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let unreadable = |error: &dyn std::fmt::Display| Violation(format!("telemetry behind {after}: {error}"));
    let path = format!("/messages/events?after={after}&follow=false");
    let response = service.ask(Method::GET, &path, &[], b"").map_err(|error| unreadable(&error))?;
    if !response.status().is_success() {
        return Err(unreadable(&response.status()));
    }
    for line in BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.map_err(|error| unreadable(&error))?;
        if !line.is_empty() {
            line_read(&line)?;
        }
    }
    Ok(())
}
