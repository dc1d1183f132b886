//! Programs that read what devices send, one for each Event Hubs SDK, with the CA told in each one's own way.

use std::path::Path;

use serde_json::{Value, json};

use super::snippets::{quoted, shell_quoted};
use crate::amqp::AMQP_PORT;

/// What an Event Hubs client has to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventFacts<'a> {
    /// The Event Hubs-compatible connection string.
    pub(super) connection_string: &'a str,
    /// The name or address that is dialled.
    pub(super) host: &'a str,
    /// The port of AMQP over TLS.
    pub(super) port: u16,
    /// The authority's certificate.
    pub(super) ca: &'a Path,
}

impl EventFacts<'_> {
    /// As fields: `python`, `node`, `dotnet`, `java`.
    pub(super) fn json(&self) -> Value {
        json!({"python": self.python(), "node": self.node(), "dotnet": self.dotnet(), "java": self.java()})
    }

    /// All of them, each under a heading.
    pub(super) fn text(&self) -> String {
        [
            ("Python (pip install azure-eventhub)", self.python()),
            ("Node (npm install @azure/event-hubs)", self.node()),
            (
                ".NET (dotnet add package Azure.Messaging.EventHubs), by its documents, not tried",
                self.dotnet(),
            ),
            ("Java (com.azure:azure-messaging-eventhubs), by its documents, not tried", self.java()),
        ]
        .map(|(heading, body)| format!("── {heading}\n{body}"))
        .join("\n")
    }

    /// An option of its SDK where the port is not the usual one; nothing where it is.
    fn endpoint(&self, option: impl FnOnce(String) -> String) -> String {
        if self.port == AMQP_PORT { String::new() } else { option(format!("{}:{}", self.host, self.port)) }
    }

    fn python(&self) -> String {
        let (connection, ca) = (quoted(self.connection_string), quoted(&self.ca.display().to_string()));
        let endpoint = self
            .endpoint(|place| format!(",\n    custom_endpoint_address={}", quoted(&format!("sb://{place}"))));
        format!(
            "from azure.eventhub import EventHubConsumerClient\n\
             client = EventHubConsumerClient.from_connection_string(\n    {connection},\n    \"$Default\", connection_verify={ca}{endpoint})\n\
             client.receive(on_event=lambda partition, event: print(event.body_as_str()), starting_position=\"-1\")\n"
        )
    }

    fn node(&self) -> String {
        let (connection, ca) = (quoted(self.connection_string), shell_quoted(&self.ca.display().to_string()));
        let endpoint = self.endpoint(|place| {
            format!(",\n  {{ customEndpointAddress: {} }}", quoted(&format!("sb://{place}")))
        });
        format!(
            "// NODE_EXTRA_CA_CERTS={ca} node read.js\n\
             const {{ EventHubConsumerClient, earliestEventPosition }} = require('@azure/event-hubs');\n\
             const client = new EventHubConsumerClient('$Default',\n  {connection}{endpoint});\n\
             client.subscribe({{\n  \
             processEvents: async (events) => events.forEach((event) => console.log(event.body)),\n  \
             processError: async (error) => console.error(error.message),\n\
             }}, {{ startPosition: earliestEventPosition }});\n"
        )
    }

    fn dotnet(&self) -> String {
        let (connection, ca) = (quoted(self.connection_string), shell_quoted(&self.ca.display().to_string()));
        let endpoint = self.endpoint(|place| {
            format!(
                ",\n    new EventHubConsumerClientOptions {{ ConnectionOptions = new EventHubConnectionOptions {{\n        CustomEndpointAddress = new Uri({}) }} }}",
                quoted(&format!("sb://{place}"))
            )
        });
        format!(
            "// on Linux: SSL_CERT_FILE={ca} dotnet run\n\
             using Azure.Messaging.EventHubs;\n\
             using Azure.Messaging.EventHubs.Consumer;\n\
             await using var client = new EventHubConsumerClient(\"$Default\",\n    {connection}{endpoint});\n\
             await foreach (PartitionEvent read in client.ReadEventsAsync())\n    \
             Console.WriteLine(read.Data.EventBody);\n"
        )
    }

    fn java(&self) -> String {
        let (connection, ca) = (quoted(self.connection_string), shell_quoted(&self.ca.display().to_string()));
        let endpoint = self.endpoint(|place| {
            format!("\n    .customEndpointAddress({})", quoted(&format!("https://{place}")))
        });
        format!(
            "// keytool -importcert -noprompt -alias devicebound -file {ca} -keystore ca.p12 -storetype PKCS12 -storepass changeit\n\
             // java -Djavax.net.ssl.trustStore=ca.p12 -Djavax.net.ssl.trustStorePassword=changeit …\n\
             EventHubConsumerAsyncClient client = new EventHubClientBuilder()\n    \
             .connectionString({connection})\n    \
             .consumerGroup(\"$Default\"){endpoint}\n    \
             .buildAsyncConsumerClient();\n\
             client.receive(true).doOnNext(read -> System.out.println(read.getData().getBodyAsString())).blockLast();\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sdk_is_told_of_the_ca_and_of_a_port_that_is_not_the_usual_one() {
        let facts = |port| EventFacts {
            connection_string: "Endpoint=sb://localhost/;EntityPath=devicebound",
            host: "localhost",
            port,
            ca: Path::new("/a b/ca.pem"),
        };
        let [usual, other] = [5671, 5999].map(|port| facts(port).json());
        for language in ["python", "node", "dotnet", "java"] {
            let [usual, other] = [&usual, &other].map(|json| json[language].as_str().unwrap());
            assert!(usual.contains("/a b/ca.pem") && usual.contains("$Default"), "{usual}");
            assert!(!usual.contains("ustomEndpoint") && !usual.contains("custom_endpoint"), "{usual}");
            assert!(other.contains("localhost:5999"), "{other}");
        }
    }
}
