//! The hub's shared access policies, made at the first start.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    let is_known = |name: &String| Rights::DEFAULT_POLICIES.iter().any(|(known, _)| known == name);
    if let Some(unknown) = stored.keys().find(|name| !is_known(name)) {
        return Err(damaged(&format!("no policy is called `{unknown}`")));
    }
    let mut policies = Vec::new();
    for (name, rights) in Rights::DEFAULT_POLICIES {
        let keys = match stored.get(name) {
            Some(keys) => read_keys(name, keys).map_err(|error| damaged(&error))?,
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

/// The two keys of a policy, by the rule for keys in requests.
///
/// # Errors
/// Which of them is missing or no key.
pub(crate) fn read_keys(policy: &str, value: &Value) -> Result<Vec<SymmetricKey>, String> {
    let members = value.as_object().ok_or_else(|| format!("{policy} is no object"))?;
    if let Some(unknown) = members.keys().find(|name| !KEYS.contains(&name.as_str())) {
        return Err(format!("{policy}.{unknown} is not known"));
    }
    let key = |name: &str| {
        let key = members.get(name).and_then(Value::as_str).and_then(parse_key);
        key.ok_or_else(|| format!("{policy}.{name} is not base64 of 16 to 64 bytes"))
    };
    KEYS.into_iter().map(key).collect()
}

/// The members of a policy.
const KEYS: [&str; 2] = ["primaryKey", "secondaryKey"];
/// The lengths of keys that Azure takes, in bytes.
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 16..=64;

/// The key in a text, if it is one that Azure would take.
#[must_use]
pub fn parse_key(text: &str) -> Option<SymmetricKey> {
    let length = STANDARD.decode(text).ok()?.len();
    SymmetricKey::from_base64(text).ok().filter(|_| KEY_LENGTHS.contains(&length))
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
    fn keys_in_the_file_are_judged_as_keys_in_requests_are() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        drop(load_or_make(&state).unwrap());
        let whole: Map<String, Value> = serde_json::from_str(&state.read(FILE).unwrap().unwrap()).unwrap();
        let short = STANDARD.encode([7; 15]);
        let long = STANDARD.encode([7; 65]);
        for keys in [
            json!({"primaryKey": "", "secondaryKey": ""}),
            json!({"primaryKey": short, "secondaryKey": STANDARD.encode([7; 16])}),
            json!({"primaryKey": STANDARD.encode([7; 64]), "secondaryKey": long}),
            json!({"primaryKey": "not base64!", "secondaryKey": "    "}),
            json!({"primaryKey": STANDARD.encode([7; 32])}),
            json!({"primaryKey": null, "secondaryKey": 1}),
            json!({"primaryKey": STANDARD.encode([7; 32]), "secondaryKey": STANDARD.encode([7; 32]), "x": 1}),
            json!({}),
            json!(null),
        ] {
            let mut changed = whole.clone();
            changed.insert("service".to_owned(), keys.clone());
            state.write(FILE, Value::Object(changed).to_string().as_bytes(), Secrecy::Secret).unwrap();
            let failure = load_or_make(&state).unwrap_err();
            assert!(
                failure.cause().contains("service") && failure.next().contains(FILE),
                "{keys}: {failure}"
            );
        }
        let mut changed = whole;
        changed.insert("Service".to_owned(), json!({}));
        state.write(FILE, Value::Object(changed).to_string().as_bytes(), Secrecy::Secret).unwrap();
        assert!(load_or_make(&state).unwrap_err().cause().contains("`Service`"));
    }

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
