//! What an instance of the service is made from: id scope, the key of its policy, the hubs that are linked to it.

use std::time::Duration;

use devicebound::iothub::sas::{Policy, Rights, SymmetricKey};
use serde_json::{Value, json};

use super::certificates::Authority;
use crate::Failure;
use crate::state::device_certs::Issuer;
use crate::state::{Secrecy, StateDir, policies};

/// The policy with all rights of the service.
pub const OWNER: &str = "provisioningserviceowner";
const FILE: &str = "provisioning.json";
/// Life of an issued certificate unless something else is said: 30 days (Azure: 7 to 90).
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The hubs that devices can be assigned to.
#[derive(Clone, Debug)]
pub struct LinkedHubs {
    /// This hub.
    pub own: String,
    /// Others, by name; a device is told of them, and has to be registered there by somebody else.
    pub others: Vec<String>,
}

impl LinkedHubs {
    /// All names, this hub first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.own.as_str()).chain(self.others.iter().map(String::as_str))
    }

    /// Whether it is this hub.
    pub(super) fn is_own(&self, name: &str) -> bool {
        self.own.eq_ignore_ascii_case(name)
    }
}

/// What an instance of the service is made from.
#[derive(Debug)]
pub struct Settings {
    /// Which instance it is: `0ne` and eight hexadecimal digits.
    pub id_scope: String,
    /// Who may ask the service for what.
    pub policy: Policy,
    /// Where devices can be assigned to.
    pub hubs: LinkedHubs,
    /// Who signs certificates that devices ask for.
    pub issuer: Issuer,
    /// How long these are good.
    pub certificate_life: Duration,
    /// Certificates that enrollment groups can name (`caReferences`).
    pub authorities: Vec<Authority>,
}

impl Settings {
    /// Id scope and key of a state folder, made at the first start.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or the file is damaged.
    pub fn load_or_make(
        state: &StateDir,
        hubs: LinkedHubs,
        certificate_life: Duration,
        further: &[std::path::PathBuf],
    ) -> Result<Self, Failure> {
        let stored = state.read(FILE)?;
        let stored: Value = match &stored {
            None => Value::Null,
            Some(text) => serde_json::from_str(text).map_err(|error| damaged(&error))?,
        };
        let (id_scope, keys) = if stored.is_null() {
            let (id_scope, keys) = (new_id_scope()?, [policies::new_key()?, policies::new_key()?]);
            let [primary, secondary] = keys.each_ref().map(SymmetricKey::to_base64);
            let text =
                json!({"idScope": id_scope, OWNER: {"primaryKey": primary, "secondaryKey": secondary}});
            state.write(FILE, format!("{text:#}\n").as_bytes(), Secrecy::Secret)?;
            (id_scope, keys.to_vec())
        } else {
            let id_scope = stored.get("idScope").and_then(Value::as_str).filter(|scope| !scope.is_empty());
            let id_scope = id_scope.ok_or_else(|| damaged(&"it has no idScope"))?.to_owned();
            let keys = policies::read_keys(OWNER, stored.get(OWNER).unwrap_or(&Value::Null));
            (id_scope, keys.map_err(|error| damaged(&error))?)
        };
        let rights = Rights::REGISTRY_READ | Rights::REGISTRY_WRITE;
        Ok(Self {
            id_scope,
            policy: Policy { name: OWNER.to_owned(), keys, rights },
            hubs,
            issuer: Issuer::load(state)?,
            certificate_life,
            authorities: Authority::load(state, further)?,
        })
    }

    /// What a program that manages enrollments connects with.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let key = self.policy.keys.first().map(SymmetricKey::to_base64).unwrap_or_default();
        format!("HostName={};SharedAccessKeyName={OWNER};SharedAccessKey={key}", self.hubs.own)
    }
}

fn new_id_scope() -> Result<String, Failure> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(format!("cannot make an id scope: {error}"), "see why the system gives no randomness")
    })?;
    Ok(format!("0ne{:08X}", u32::from_be_bytes(bytes)))
}

fn damaged(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        format!("{FILE} in the state folder cannot be used: {error}"),
        format!("restore {FILE}, or remove it; devices then need the new id scope"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_start_has_the_same_id_scope_and_keys() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let load = || {
            let hubs = LinkedHubs { own: "localhost".to_owned(), others: Vec::new() };
            let settings = Settings::load_or_make(&state, hubs, CERTIFICATE_LIFE, &[]).unwrap();
            (settings.id_scope.clone(), settings.connection_string())
        };
        let first = load();
        assert_eq!(first.0.len(), 11, "{}", first.0);
        assert_eq!(load(), first);
        state.write(FILE, b"{}", Secrecy::Secret).unwrap();
        let hubs = LinkedHubs { own: "localhost".to_owned(), others: Vec::new() };
        assert!(Settings::load_or_make(&state, hubs, CERTIFICATE_LIFE, &[]).is_err());
    }
}
