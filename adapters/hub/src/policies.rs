//! The hub's shared access policies, made at the first start.

use devicebound::iothub::sas::{Policy, Rights, SymmetricKey};
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::state::{Secrecy, StateDir};

/// The policy with all rights, whose key stands in the service connection string.
pub const OWNER: &str = "iothubowner";

const FILE: &str = "policies.json";
/// Length of a key that the hub makes, as in Azure.
const KEY_LENGTH: usize = 32;

/// Loads the five policies that a hub starts with; makes keys for those that have none yet.
///
/// # Errors
/// When the file cannot be read or written, or is damaged.
pub fn load_or_make(state: &StateDir) -> Result<Vec<Policy>, Failure> {
    let stored = state.read(FILE)?;
    let stored: Map<String, Value> = match &stored {
        None => Map::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| damaged(&error))?,
    };
    let mut policies = Vec::new();
    for (name, rights) in Rights::DEFAULT_POLICIES {
        let keys = match stored.get(name) {
            Some(keys) => read_keys(keys)?,
            None => vec![new_key()?, new_key()?],
        };
        policies.push(Policy { name: name.to_owned(), keys, rights });
    }
    if policies.iter().any(|policy| !stored.contains_key(&policy.name)) {
        let text: Map<String, Value> =
            policies.iter().map(|policy| (policy.name.clone(), to_json(policy))).collect();
        state.write(FILE, format!("{:#}\n", Value::Object(text)).as_bytes(), Secrecy::Secret)?;
    }
    Ok(policies)
}

/// A key that nobody can guess.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn new_key() -> Result<SymmetricKey, Failure> {
    let mut bytes = [0; KEY_LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(format!("cannot make a key: {error}"), "see why the system gives no randomness")
    })?;
    Ok(SymmetricKey::from_bytes(&bytes))
}

fn read_keys(value: &Value) -> Result<Vec<SymmetricKey>, Failure> {
    let keys =
        ["primaryKey", "secondaryKey"].into_iter().filter_map(|name| value.get(name).and_then(Value::as_str));
    let keys: Result<Vec<_>, _> = keys.map(SymmetricKey::from_base64).collect();
    keys.map_err(|error| damaged(&error))
}

fn to_json(policy: &Policy) -> Value {
    let mut keys = policy.keys.iter().map(SymmetricKey::to_base64);
    json!({"primaryKey": keys.next(), "secondaryKey": keys.next()})
}

fn damaged(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        format!("{FILE} in the state folder cannot be used: {error}"),
        format!(
            "restore {FILE}, or remove it to have new keys made; services then need the new connection string"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_start_has_the_same_keys() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let keys = || -> Vec<String> {
            load_or_make(&state)
                .unwrap()
                .iter()
                .flat_map(|policy| &policy.keys)
                .map(SymmetricKey::to_base64)
                .collect()
        };
        let first = keys();
        assert_eq!(first.len(), 10);
        assert_eq!(keys(), first);
    }
}
