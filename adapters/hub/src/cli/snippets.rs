//! Complete lines to paste, so that any client is connected within a minute.

use std::fmt::Write as _;
use std::path::Path;

use crate::server::listen::{HTTPS_PORT, MQTT_PORT};

/// What a client has to be told.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The hub's name, as it stands in connection strings.
    pub host: &'a str,
    /// Where to connect to: `localhost`, or an address.
    pub address: &'a str,
    /// The port of MQTT over TLS.
    pub mqtt_port: u16,
    /// The port of HTTPS and of MQTT over WebSocket.
    pub https_port: u16,
    /// The authority's certificate.
    pub ca: &'a Path,
    /// The device that the lines are for.
    pub device_id: &'a str,
    /// The device's connection string.
    pub connection_string: &'a str,
    /// A token of the device.
    pub device_token: &'a str,
    /// A token for the service API.
    pub service_token: &'a str,
}

impl Facts<'_> {
    /// All snippets, each under a heading.
    #[must_use]
    pub fn snippets(&self) -> String {
        let mut text = String::new();
        for (heading, body) in [
            ("mosquitto_pub", self.mosquitto()),
            ("Paho (pip install paho-mqtt)", self.paho()),
            ("Azure's Python SDK (pip install azure-iot-device)", self.python()),
            ("Azure's Node SDK (npm install azure-iot-device azure-iot-device-mqtt)", self.node()),
            ("the service API", self.curl()),
        ] {
            // Writing to a String cannot fail.
            let _ = write!(text, "── {heading}\n{body}\n");
        }
        text
    }

    /// How a device learns its hub by itself, from an enrollment on.
    #[must_use]
    pub fn provisioning(&self, id_scope: &str, state_flag: &str) -> String {
        let (host, ca) = (quoted(self.host), quoted(&self.ca.display().to_string()));
        let id_scope = quoted(id_scope);
        let (python_note, node_note) = (self.fixed_port_note("#"), self.fixed_port_note("//"));
        format!(
            "── provisioning: an enrollment lets a device in, and prints its keys\n\
             devicebound enrollment add{state_flag} my-device\n\n\
             ── then with Azure's Python SDK\n\
             from azure.iot.device import ProvisioningDeviceClient\n\
             client = ProvisioningDeviceClient.create_from_symmetric_key(\n    \
             provisioning_host={host}, registration_id=\"my-device\", id_scope={id_scope},\n    \
             symmetric_key=\"…\", server_verification_cert=open({ca}).read())\n\
             print(client.register())\n{python_note}\n\
             ── or with Azure's Node SDK (NODE_EXTRA_CA_CERTS={ca})\n\
             const {{ ProvisioningDeviceClient }} = require('azure-iot-provisioning-device');\n\
             const {{ Mqtt }} = require('azure-iot-provisioning-device-mqtt');\n\
             const {{ SymmetricKeySecurityClient }} = require('azure-iot-security-symmetric-key');\n\
             const security = new SymmetricKeySecurityClient('my-device', '…');\n\
             ProvisioningDeviceClient.create({host}, {id_scope}, new Mqtt(), security)\n  \
             .register((error, result) => console.log(error || result));\n{node_note}"
        )
    }

    fn user_name(&self) -> String {
        format!("{}/{}/?api-version=2021-04-12", self.host, self.device_id)
    }

    fn mosquitto(&self) -> String {
        format!(
            "mosquitto_pub -h {address} -p {port} --cafile {ca} -i {device} \\\n  -u {user} \\\n  -P {token} \\\n  -q 1 -t {topic} -m {message}\n",
            address = self.address,
            port = self.mqtt_port,
            ca = shell_quoted(&self.ca.display().to_string()),
            device = shell_quoted(self.device_id),
            user = shell_quoted(&self.user_name()),
            token = shell_quoted(self.device_token),
            topic = shell_quoted(&format!("devices/{}/messages/events/", self.device_id)),
            message = shell_quoted(r#"{"temperature":21.5}"#),
        )
    }

    fn paho(&self) -> String {
        format!(
            "import paho.mqtt.client as mqtt\n\
             client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id={device}, protocol=mqtt.MQTTv311)\n\
             client.username_pw_set({user}, {token})\n\
             client.tls_set(ca_certs={ca})\n\
             client.connect({address}, {port})\n\
             client.loop_start()\n\
             client.publish({topic}, '{{\"temperature\":21.5}}', qos=1).wait_for_publish()\n\
             client.disconnect()\n",
            device = quoted(self.device_id),
            user = quoted(&self.user_name()),
            token = quoted(self.device_token),
            ca = quoted(&self.ca.display().to_string()),
            address = quoted(self.address),
            port = self.mqtt_port,
            topic = quoted(&format!("devices/{}/messages/events/", self.device_id)),
        )
    }

    fn python(&self) -> String {
        format!(
            "from azure.iot.device import IoTHubDeviceClient\n\
             client = IoTHubDeviceClient.create_from_connection_string(\n    {connection},\n    server_verification_cert=open({ca}).read())\n\
             client.send_message('{{\"temperature\":21.5}}')\n\
             client.shutdown()\n{note}",
            connection = quoted(self.connection_string),
            ca = quoted(&self.ca.display().to_string()),
            note = self.fixed_port_note("#"),
        )
    }

    fn node(&self) -> String {
        format!(
            "const {{ Client, Message }} = require('azure-iot-device');\n\
             const {{ Mqtt }} = require('azure-iot-device-mqtt');\n\
             const client = Client.fromConnectionString({connection}, Mqtt);\n\
             client.setOptions({{ ca: require('fs').readFileSync({ca}, 'utf8') }})\n  \
             .then(() => client.sendEvent(new Message('{{\"temperature\":21.5}}')))\n  \
             .then(() => client.close());\n{note}",
            connection = quoted(self.connection_string),
            ca = quoted(&self.ca.display().to_string()),
            note = self.fixed_port_note("//"),
        )
    }

    fn fixed_port_note(&self, comment: &str) -> String {
        if self.mqtt_port == MQTT_PORT {
            return String::new();
        }
        format!("{comment} this SDK knows port {MQTT_PORT} only, and this hub is on {}\n", self.mqtt_port)
    }

    fn curl(&self) -> String {
        let authority = if self.https_port == HTTPS_PORT {
            self.address.to_owned()
        } else {
            format!("{}:{}", self.address, self.https_port)
        };
        let line = |options: &str, path: &str| {
            format!(
                "curl {options}--cacert {} -H {} {}\n",
                shell_quoted(&self.ca.display().to_string()),
                shell_quoted(&format!("Authorization: {}", self.service_token)),
                shell_quoted(&format!("https://{authority}{path}")),
            )
        };
        line("", "/devices?api-version=2021-04-12") + &line("-N ", "/messages/events")
    }
}

/// One word for a POSIX shell.
pub(crate) fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A string literal that Python and JavaScript read alike; JSON's is one.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(mqtt_port: u16) -> Facts<'static> {
        Facts {
            host: "localhost",
            address: "localhost",
            mqtt_port,
            https_port: 8443,
            ca: Path::new("/tmp/it's here/ca.pem"),
            device_id: "demo$1",
            connection_string: "HostName=localhost;DeviceId=demo$1;SharedAccessKey=a2V5",
            device_token: "SharedAccessSignature sr=a&sig=b&se=1",
            service_token: "SharedAccessSignature sr=a&sig=c&se=1&skn=iothubowner",
        }
    }

    #[test]
    fn the_shell_takes_every_word_as_it_is_meant() {
        let text = facts(8883).snippets();
        assert!(text.contains(r"--cafile '/tmp/it'\''s here/ca.pem'"), "{text}");
        assert!(text.contains("-i 'demo$1'"), "{text}");
        assert!(text.contains("-P 'SharedAccessSignature sr=a&sig=b&se=1'"), "{text}");
    }

    #[test]
    fn sdks_that_know_one_port_say_so_when_the_hub_is_on_another() {
        assert!(!facts(8883).snippets().contains("knows port"));
        assert_eq!(facts(9000).snippets().matches("knows port 8883 only").count(), 2);
    }
}
