//! `devicebound ca`: how each SDK and tool is told of the authority that signed the hub's certificate.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::say;
use crate::Failure;
use crate::cli::snippets::shell_quoted;
use crate::state::StateDir;

/// The variables that SDKs read the path of a CA file from, and who reads them.
const VARIABLES: [(&str, &str); 4] = [
    ("SSL_CERT_FILE", "Python's ssl: azure-iot-device, azure-eventhub; OpenSSL; Rust"),
    ("REQUESTS_CA_BUNDLE", "Python's requests: azure-iot-hub over HTTPS"),
    ("NODE_EXTRA_CA_CERTS", "Node: all Azure SDKs; read when node starts"),
    ("CURL_CA_BUNDLE", "curl"),
];

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Print the path of the hub's CA certificate
    Path(Folder),
    /// Print the variables from which SDKs read it, as lines for a shell: eval "$(devicebound ca env)"
    Env(Folder),
    /// Print, for each SDK and tool, the one way in which it is told of the CA
    Install(Folder),
}

/// The state folder of a hub that was started once.
#[derive(Debug, Args)]
pub(super) struct Folder {
    /// The state folder of the hub
    #[arg(long, value_name = "DIR", env = "DEVICEBOUND_STATE")]
    state: Option<PathBuf>,
}

impl Folder {
    fn ca(&self) -> Result<PathBuf, Failure> {
        let folder = self.state.clone().unwrap_or_else(StateDir::default_path);
        let path = folder.join("ca.pem");
        if path.is_file() {
            return Ok(path);
        }
        let cause = format!("there is no CA certificate at {}", path.display());
        Err(Failure::new(
            cause,
            "start a hub once, which makes it: devicebound hub; or name its folder: --state DIR",
        ))
    }
}

pub(super) fn run(command: &CaCommand) -> Result<(), Failure> {
    match command {
        CaCommand::Path(folder) => say(folder.ca()?.display()),
        CaCommand::Env(folder) => say(exports(&folder.ca()?)),
        CaCommand::Install(folder) => say(ways(&folder.ca()?)),
    };
    Ok(())
}

/// The variables with their value, as the `ready` line has them.
pub(super) fn environment(ca: &Path) -> Value {
    let value = Value::from(ca.display().to_string());
    VARIABLES.iter().map(|(name, _)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>().into()
}

fn exports(ca: &Path) -> String {
    let value = shell_quoted(&ca.display().to_string());
    VARIABLES.map(|(name, _)| format!("export {name}={value}")).join("\n")
}

/// One heading per SDK or tool, and under it what to write.
fn ways(ca: &Path) -> String {
    let file = shell_quoted(&ca.display().to_string());
    let ways = [
        (
            "Python, azure-iot-device",
            format!(
                "export SSL_CERT_FILE={file}\n  or: create_from_connection_string(…, server_verification_cert=open({file}).read())"
            ),
        ),
        ("Python, azure-iot-hub (HTTPS)", format!("export REQUESTS_CA_BUNDLE={file}")),
        (
            "Python, azure-iot-hub (AMQP)",
            format!("cat {file} >> \"$(python3 -m certifi)\"    # it knows no other way"),
        ),
        (
            "Python, azure-eventhub",
            format!("EventHubConsumerClient.from_connection_string(…, connection_verify={file})"),
        ),
        ("Node, all Azure SDKs", format!("export NODE_EXTRA_CA_CERTS={file}    # before node starts")),
        ("paho-mqtt 1 and 2", format!("client.tls_set(ca_certs={file})")),
        ("mosquitto_pub, mosquitto_sub", format!("--cafile {file}")),
        ("curl", format!("curl --cacert {file} …")),
        ("openssl", format!("openssl s_client -CAfile {file} …")),
        (
            "Java",
            format!(
                "keytool -importcert -noprompt -alias devicebound -file {file} -keystore ca.p12 -storetype PKCS12 -storepass changeit\n  java -Djavax.net.ssl.trustStore=ca.p12 -Djavax.net.ssl.trustStorePassword=changeit …    # by its documents, not tried"
            ),
        ),
        (
            ".NET on Linux",
            format!(
                "sudo cp {file} /usr/local/share/ca-certificates/devicebound.crt && sudo update-ca-certificates    # by its documents, not tried"
            ),
        ),
    ];
    ways.iter().fold(String::new(), |mut text, (tool, way)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{tool}\n  {way}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_for_a_shell_survive_a_folder_with_spaces() {
        let text = exports(Path::new("/a b/ca.pem"));
        assert!(
            text.lines().all(|line| line.starts_with("export ") && line.ends_with("='/a b/ca.pem'")),
            "{text}"
        );
    }

    #[test]
    fn a_folder_without_a_ca_is_named_with_the_way_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Folder { state: Some(folder.path().to_owned()) }.ca().unwrap_err();
        assert!(
            failure.cause().contains("ca.pem") && failure.next().contains("devicebound hub"),
            "{failure}"
        );
    }
}
