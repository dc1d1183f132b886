//! `devicebound sas`: a token for a device, to be used as its MQTT password, or for the service API.

use std::time::Duration;

use clap::Args;
use devicebound::iothub::sas::{self, SymmetricKey};
use devicebound::iothub::{ConnectionString, Credential};
use devicebound::time::UnixTime;
use serde_json::Value;
use ureq::http::Method;

use super::client::{Client, identity_path};
use super::{Target, parse_duration, say};
use crate::Failure;
use crate::clock::unix_time;

#[derive(Debug, Args)]
pub(super) struct SasArgs {
    /// The device id, or DEVICE/MODULE; its key is looked up in the hub
    #[arg(required_unless_present_any = ["device_connection_string", "service"])]
    id: Option<String>,
    /// How long the token is good for: 90s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    /// Make it from a device's connection string, without asking a hub
    #[arg(long, value_name = "TEXT", conflicts_with = "id")]
    device_connection_string: Option<String>,
    /// Make one for the service API instead: the Authorization header of curl, and of Prometheus elsewhere
    #[arg(long, conflicts_with_all = ["id", "device_connection_string"])]
    service: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &SasArgs) -> Result<(), Failure> {
    let expiry = unix_time().after(args.ttl);
    let token = match (&args.device_connection_string, &args.id) {
        (Some(text), _) => of_connection_string(text, expiry)?,
        (None, Some(id)) => of_hub(&args.target, id, expiry)?,
        (None, None) => Client::connect(&args.target)?.service_token(expiry),
    };
    say(token);
    Ok(())
}

/// A token of a device that signs with its own key.
pub(super) fn device_token(host_name: &str, client_id: &str, key: &SymmetricKey, expiry: UnixTime) -> String {
    let resource = match client_id.split_once('/') {
        None => format!("{host_name}/devices/{client_id}"),
        Some((device, module)) => format!("{host_name}/devices/{device}/modules/{module}"),
    };
    sas::sign(&resource, key, expiry, None)
}

fn of_connection_string(text: &str, expiry: UnixTime) -> Result<String, Failure> {
    let next = "use the connection string that `devicebound device add` printed";
    let string = ConnectionString::parse(text)
        .map_err(|error| Failure::new(format!("bad connection string: {error}"), next))?;
    match (string.identity(), string.credential()) {
        (Some(identity), Credential::Key(key)) => {
            Ok(device_token(string.host_name(), &identity.to_string(), key, expiry))
        }
        _ => Err(Failure::new("this connection string is not one of a device with a SharedAccessKey", next)),
    }
}

fn of_hub(target: &Target, id: &str, expiry: UnixTime) -> Result<String, Failure> {
    let client = Client::connect(target)?;
    let identity = client.json(Method::GET, &identity_path("devices", id), None)?;
    let key = identity.pointer("/authentication/symmetricKey/primaryKey").and_then(Value::as_str);
    let key = key.and_then(|key| SymmetricKey::from_base64(key).ok()).ok_or_else(|| {
        Failure::new(
            format!("`{id}` has no key: it shows a client certificate"),
            "connect with its certificate, without a token",
        )
    })?;
    Ok(device_token(client.host_name(), id, &key, expiry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_a_connection_string_is_the_known_one() {
        // V1 and V2 of the vectors: computed with another program.
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let string = format!("HostName=contoso.azure-devices.net;DeviceId=MyDevice01;SharedAccessKey={key}");
        let token = of_connection_string(&string, UnixTime::from_secs(1_700_000_000)).unwrap();
        assert_eq!(
            token,
            "SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2FMyDevice01\
             &sig=7P6y9zXmNpUD7mSMphRr66XEKU%2FJT0MA9kYxAim5Qxc%3D&se=1700000000"
        );
    }

    #[test]
    fn a_service_connection_string_makes_no_device_token() {
        let string =
            "HostName=h.example;SharedAccessKeyName=iothubowner;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==";
        assert!(of_connection_string(string, UnixTime::default()).is_err());
    }
}
