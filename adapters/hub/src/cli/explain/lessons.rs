//! Why a rule is there, and an example of it broken and kept: what `devicebound explain RULE` says beyond the live view.

use devicebound::Rule;

/// What there is to know of a rule beyond its sentence.
pub(super) struct Lesson {
    pub(super) why: &'static str,
    pub(super) wrong: &'static str,
    pub(super) right: &'static str,
}

#[rustfmt::skip]
const LESSONS: [(Rule, [&str; 3]); 68] = [
    (Rule::ConnectFirst, ["a server knows nothing of a connection before CONNECT; IoT Hub closes without an answer", "TLS, then SUBSCRIBE", "TLS, then CONNECT, then wait for CONNACK 0"]),
    (Rule::ConnectTwice, ["one connection has one identity; IoT Hub closes at the second CONNECT", "CONNECT … CONNECT with a new token", "DISCONNECT, a new TLS connection, CONNECT with the new token"]),
    (Rule::ProtocolName, ["IoT Hub speaks MQTT 3.1.1 (and 5 in part), not 3.1", "00 06 MQIsdp", "00 04 MQTT"]),
    (Rule::ProtocolLevel, ["IoT Hub's MQTT 5 is limited and not offered here; level 4 is 3.1.1", "level 5 (paho: MQTTv5)", "level 4 (paho: MQTTv311)"]),
    (Rule::KeepAlive, ["Azure's load balancers drop silent connections, so the hub ends them at 1.5 times the keep alive, and at 1767 s whatever it is", "keep alive 60, and nothing sent for 90 s", "keep alive 60, and PINGREQ after 60 s without another packet"]),
    (Rule::EmptyClientId, ["the client id is the device's name at an IoT Hub, so an empty one names nobody", "client id \"\"", "client id \"thermostat\""]),
    (Rule::WildcardInTopic, ["# and + are for filters; in a topic name they mean nothing", "devices/demo/messages/events/a=+", "devices/demo/messages/events/a=%2B"]),
    (Rule::FixedHeaderFlags, ["the four bits are fixed by MQTT, which finds a stream that has slipped", "80 … as SUBSCRIBE", "82 … as SUBSCRIBE"]),
    (Rule::RemainingLength, ["a fifth length byte means that what is read is no MQTT: often TLS or HTTP on the wrong port", "30 ff ff ff ff 01", "30 ff ff ff 7f at most"]),
    (Rule::BodyLength, ["bytes that are left over would be read as the next packet", "c0 01 00 as PINGREQ", "c0 00 as PINGREQ"]),
    (Rule::PacketIdZero, ["0 would mean that there is no id", "PUBLISH QoS 1, id 0", "PUBLISH QoS 1, id 1"]),
    (Rule::Qos3, ["two bits have four values, and MQTT has three levels", "36 …", "32 … for QoS 1"]),
    (Rule::WebSocketFrames, ["text frames have to be UTF-8, and MQTT is not", "ws.send(text)", "ws.send(bytes), subprotocol mqtt"]),
    (Rule::PacketSize, ["IoT Hub takes 256 KB a message; what announces more is closed before it is read, so that nobody fills its memory", "PUBLISH with 300 KB", "file upload, and a message with the blob's name"]),
    (Rule::ConnectTime, ["a socket that says nothing costs the service memory, so it is given 30 s", "open TLS early, CONNECT when there is something to send", "CONNECT at once after the handshake"]),
    (Rule::ClientId, ["the hub finds the identity by the client id, and the user name has to say the same", "client id thermostat-1, user name host/thermostat/?api-version=…", "client id thermostat, user name host/thermostat/?api-version=…"]),
    (Rule::Username, ["the user name carries host, identity and api-version, because MQTT has no other place for them", "thermostat", "localhost/thermostat/?api-version=2021-04-12"]),
    (Rule::HostName, ["one service has many hubs; the host says which one, and a token is for one hub", "old-hub.azure-devices.net/demo/?api-version=…", "localhost/demo/?api-version=…, and sr=localhost%2Fdevices%2Fdemo"]),
    (Rule::NoCredentials, ["an IoT Hub has no anonymous devices", "user name without a password, no client certificate", "password SharedAccessSignature sr=…&sig=…&se=…"]),
    (Rule::SasMalformed, ["the token is read field by field; a missing one cannot be guessed", "the key itself as password", "SharedAccessSignature sr=localhost%2Fdevices%2Fdemo&sig=…%3D&se=1767225600"]),
    (Rule::SasScope, ["a token opens what sr names and what is below it, so that one that leaks opens no other device", "sr=localhost%2Fdevices%2Fother", "sr=localhost%2Fdevices%2Fdemo"]),
    (Rule::SasSignature, ["the signature proves the key without sending it; each byte of what is signed counts", "HMAC over localhost/devices/demo with the key as base64 text", "HMAC-SHA256 over localhost%2Fdevices%2Fdemo\\n1767225600 with the decoded key; sig percent-encoded"]),
    (Rule::SasExpired, ["tokens are short-lived, so that one that leaks is soon worthless; a device with a wrong clock is the usual cause", "se=1600000000", "se = now + 3600, the clock set by NTP before"]),
    (Rule::SasPolicy, ["skn says whose key signed; a device's own key has no skn", "skn=device with the device's key", "no skn, or skn=iothubowner with that policy's key"]),
    (Rule::SymmetricKey, ["a key without its padding is another key, or none", "q83vEjRWeJA", "q83vEjRWeJA="]),
    (Rule::ConnectionString, ["the SDKs take host, id and key from it; a part that is missing is found late", "HostName=localhost;DeviceId=demo", "HostName=localhost;DeviceId=demo;SharedAccessKey=…="]),
    (Rule::UnknownDevice, ["only what is registered may connect; ids are compared to the letter", "client id Demo where demo is registered", "client id demo"]),
    (Rule::DeviceDisabled, ["an operator turned the identity off, without removing it", "status \"disabled\"", "status \"enabled\""]),
    (Rule::Certificate, ["a self-signed certificate is known by its thumbprint alone", "a renewed certificate, the old thumbprint registered", "the new thumbprint as secondary before the change"]),
    (Rule::CertificateChain, ["the hub has the root only; the way to it has to come from the device", "the device's certificate alone", "the device's certificate, then each intermediate, in one file"]),
    (Rule::CertificateName, ["the name in the certificate is what the authority vouches for", "CN=My Thermostat", "CN=thermostat, the device id"]),
    (Rule::WillTopic, ["a will becomes a telemetry message, and nothing else", "will topic status/demo", "will topic devices/demo/messages/events/"]),
    (Rule::Takeover, ["an identity is one device; the newest connection is the one that works, so that a device that lost its network comes back at once", "two processes with the connection string of demo", "demo and demo-test, each registered"]),
    (Rule::TakeoverFight, ["two clients with one id throw each other out for as long as both come back", "the service and a debugger, both as demo", "stop one, or register another id for it"]),
    (Rule::ThrottledConnect, ["a fleet that comes back all at once would drown the service", "connect again at once, for ever", "wait 1, 2, 4 … s with jitter"]),
    (Rule::Throttled, ["a hub's units pay for a rate; all its devices share it", "100 small messages a second", "one message with 100 readings"]),
    (Rule::QuotaExceeded, ["a hub's units pay for messages a day, counted in blocks of 4 KB", "a message for each reading", "one message with many readings, up to 4 KB"]),
    (Rule::PublishQos2, ["IoT Hub does not keep the state that QoS 2 needs; it closes at once", "34 … PUBLISH at QoS 2", "32 … PUBLISH at QoS 1; what arrives twice is told apart by message-id"]),
    (Rule::Qos2Flow, ["these packets belong to QoS 2, which IoT Hub does not have", "PUBREC", "PUBACK"]),
    (Rule::ForeignIdentity, ["a device speaks for itself alone; IoT Hub is no broker between devices", "connected as demo: devices/Demo/messages/events/", "connected as demo: devices/demo/messages/events/"]),
    (Rule::UnknownTopic, ["IoT Hub is no general broker: its topics are its interface", "home/temperature", "devices/demo/messages/events/, temperature in the body"]),
    (Rule::UnknownFilter, ["devices get what is addressed to them, by the documented filters", "#, or devices/demo/#", "devices/demo/messages/devicebound/#"]),
    (Rule::PropertyBag, ["properties stand in the topic, so what parts them has to be encoded", "a=1=2&b", "a=1%3D2&b="]),
    (Rule::MessageSize, ["a message is at most 256 KB; billing counts blocks of 4 KB", "300 KB in one message", "two messages, or file upload"]),
    (Rule::RequestId, ["the answer comes on a topic with the same $rid, which is how it is found", "$iothub/twin/GET/", "$iothub/twin/GET/?$rid=1"]),
    (Rule::TopicParameter, ["status and version are read as numbers", "$iothub/methods/res/OK/?$rid=1", "$iothub/methods/res/200/?$rid=1"]),
    (Rule::TwinJson, ["a twin is a JSON document, and a patch is an object that is merged into it", "[1,2]", "{\"temperature\":21.5}"]),
    (Rule::TwinName, ["dot, dollar and space have a meaning in queries and metadata", "{\"a.b\":1}", "{\"a\":{\"b\":1}}"]),
    (Rule::TwinValue, ["values are what every language's JSON can keep", "9007199254740993", "\"9007199254740993\""]),
    (Rule::TwinDepth, ["queries and metadata walk the document", "11 objects in each other", "10 at most: {\"room/1/sensor\":…}"]),
    (Rule::ApiVersion, ["twins came with an api-version of their own; without one the hub speaks the oldest", "localhost/demo/", "localhost/demo/?api-version=2021-04-12"]),
    (Rule::TwinVersion, ["two writers would overwrite each other unnoticed", "$version=3 where the twin is at 5", "read, then $version=5; or none at all"]),
    (Rule::TwinSize, ["a twin is for state, not for data", "a log in reported properties", "the log in a blob, its URL in the twin"]),
    (Rule::ConnectionLost, ["without DISCONNECT the hub cannot tell a crash from an end, so it sends the will and says so to monitoring", "close the socket", "e0 00 DISCONNECT, then close the socket"]),
    (Rule::SasEncoding, ["the parts of a token are joined by &, so + / = and & in them have to be encoded, or another text is read than was signed", "sig=a+b/c=", "sig=a%2Bb%2Fc%3D"]),
    (Rule::SasExpiryRange, ["se counts seconds; in milliseconds it names a year beyond 50000", "se=1767225600000", "se=1767225600"]),
    (Rule::BagSlash, ["a slash begins another topic level, and below messages/events/ there is none", "devices/demo/messages/events/path=a/b", "devices/demo/messages/events/path=a%2Fb"]),
    (Rule::MethodJson, ["the caller gets the answer as a JSON value", "done", "\"done\""]),
    (Rule::KeepAliveRange, ["the hub ends a silent connection after 1767 s, so a longer keep alive sends PINGREQ too late", "keep alive 3600, or 0", "keep alive 240"]),
    (Rule::ApiVersionUnknown, ["the api-version chooses what twins and topics look like", "?api-version=banana", "?api-version=2021-04-12"]),
    (Rule::ServerName, ["many hubs share an address in Azure, and the name in TLS says which certificate to show", "TLS to 127.0.0.1 without a name", "TLS with SNI localhost, the host of the user name"]),
    (Rule::TwinUnheard, ["answers go to subscribers only; without the subscription the request is done and nobody hears of it", "PUBLISH $iothub/twin/GET/?$rid=1", "SUBSCRIBE $iothub/twin/res/#, SUBACK, then PUBLISH"]),
    (Rule::MethodUnknown, ["the answer finds its caller by $rid, and the caller waits for a time only", "$iothub/methods/res/200/?$rid=1 after a minute, or twice", "$rid of the call, within responseTimeoutInSeconds, once"]),
    (Rule::SubscribeQos2, ["IoT Hub has no QoS 2; SUBACK says 1, and messages come at 1", "SUBSCRIBE … at QoS 2", "SUBSCRIBE … at QoS 1"]),
    (Rule::Retain, ["IoT Hub is no broker that keeps the last message for those who come later", "PUBLISH with RETAIN 1, to be read by a subscriber", "reported properties for what is to be read later"]),
    (Rule::ProvisioningUsername, ["the provisioning service has user names of its own, and another host", "0ne…/registrations/demo/api-version=2019-03-31 at a hub", "localhost/demo/?api-version=2021-04-12 at the hub that it assigned"]),
    (Rule::CertificateTime, ["a certificate out of its time proves nothing, known by thumbprint or not", "notAfter in 2024", "a new certificate, registered before the old one ends"]),
    (Rule::SlowReader, ["what a device does not read, the hub would have to keep", "subscribe, then read nothing for minutes", "read all the time, work in another task"]),
];

/// What there is to know of a rule; of one that explains itself there is no more than its sentence.
pub(super) fn of(rule: Rule) -> Option<Lesson> {
    let (_, [why, wrong, right]) = LESSONS.iter().find(|(of, _)| *of == rule)?;
    Some(Lesson { why, wrong, right })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_that_a_device_breaks_at_a_hub_by_mistake_has_a_lesson() {
        let of_hub = Rule::ALL.iter().filter(|rule| rule.id().starts_with("HUB-SAS"));
        for rule in of_hub.chain(&[Rule::PublishQos2, Rule::UnknownTopic, Rule::Takeover, Rule::KeepAlive]) {
            let Lesson { why, wrong, right } = of(*rule).unwrap_or_else(|| panic!("{rule} has no lesson"));
            assert!(wrong != right && !why.is_empty(), "{rule}");
        }
    }

    #[test]
    fn no_rule_has_two_lessons() {
        for (index, (rule, _)) in LESSONS.iter().enumerate() {
            assert!(LESSONS.iter().skip(index + 1).all(|(other, _)| other != rule), "{rule}");
        }
    }
}
