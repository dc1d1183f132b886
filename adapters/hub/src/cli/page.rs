//! `devicebound page`: a link to the page of a hub that runs.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use devicebound::iothub::sas::{Policy, SymmetricKey};
use serde_json::Value;

use super::say;
use crate::Failure;
use crate::state::{StateDir, policies};
use crate::web::{Page, Sessions, new_code};

#[derive(Debug, Args)]
pub(super) struct PageArgs {
    /// The state folder of a hub that runs on this machine
    #[arg(long, value_name = "DIR", env = "DEVICEBOUND_STATE")]
    state: Option<PathBuf>,
}

pub(super) fn run(args: &PageArgs) -> Result<(), Failure> {
    let folder = args.state.clone().unwrap_or_else(StateDir::default_path);
    let no_hub = || {
        let cause = format!("no hub with a page runs on the state folder {}", folder.display());
        Failure::new(cause, "start one: devicebound hub; or name its folder: --state DIR")
    };
    let text = std::fs::read(folder.join("service.json")).map_err(|_| no_hub())?;
    let service: Value = serde_json::from_slice(&text).map_err(|_| no_hub())?;
    let member = |name: &str| service.get(name).and_then(Value::as_str);
    let (Some(url), Some(name)) = (member("page"), member("pagePolicy")) else { return Err(no_hub()) };
    let policies = policies::load_or_make(&StateDir::open(&folder)?)?;
    say(link(url, key_of(&policies, name)?)?);
    Ok(())
}

/// The page of a hub, whose names and authority are these.
pub(super) fn page(
    policies: &[Policy],
    name: &str,
    host_names: &[String],
    ca: String,
) -> Result<Arc<Page>, Failure> {
    key_of(policies, name)?;
    let policy =
        policies.iter().find(|policy| policy.name == name).cloned().ok_or_else(|| unknown(policies, name))?;
    Ok(Arc::new(Page { sessions: Sessions::default(), policy, host_names: host_names.to_vec(), ca }))
}

/// A link that works once: what stands in its fragment is not sent, nor logged, by any browser or proxy.
pub(super) fn link(url: &str, key: &SymmetricKey) -> Result<String, Failure> {
    let code = new_code(key).map_err(|error| {
        Failure::new(format!("the system gives no random numbers: {error}"), "start again when it does")
    })?;
    Ok(format!("{url}#code={code}"))
}

pub(super) fn key_of<'p>(policies: &'p [Policy], name: &str) -> Result<&'p SymmetricKey, Failure> {
    let policy = policies.iter().find(|policy| policy.name == name);
    policy.and_then(|policy| policy.keys.first()).ok_or_else(|| unknown(policies, name))
}

fn unknown(policies: &[Policy], name: &str) -> Failure {
    let names: Vec<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
    Failure::new(
        format!("there is no policy `{name}` with a key"),
        format!("--page-policy is one of {}", names.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_not_there_is_named_with_those_that_are() {
        let failure = page(&[], "nobody", &[], String::new()).unwrap_err();
        assert!(failure.cause().contains("nobody"), "{failure}");
    }

    #[test]
    fn without_a_hub_the_way_to_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let failure = run(&PageArgs { state: Some(folder.path().to_owned()) }).unwrap_err();
        assert!(failure.next().contains("devicebound hub"), "{failure}");
    }
}
