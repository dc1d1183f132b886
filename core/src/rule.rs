//! The rule book: every rule that a peer can break has an id, what it says, how to fix a breach, and where it stands.
//!
//! Errors carry a [`Rule`] and nothing else of prose; the prose stands here, once.

use core::fmt;

macro_rules! rules {
    ($($name:ident = $id:literal, $source:literal, says $says:literal, fix $fix:literal;)*) => {
        /// One rule of MQTT 3.1.1 (`MQTT-…`) or of the hub's dialect (`HUB-…`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = concat!("`", $id, "`: ", $says)] $name,)*
        }

        impl Rule {
            /// Every rule, in the order of this file.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The id: a normative statement of MQTT 3.1.1 or a name of ours that starts with `HUB-`.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// What the rule says, one sentence.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }

            /// What to do about a breach, one sentence to the person whose device it is.
            #[must_use]
            pub const fn fix(self) -> &'static str {
                match self { $(Self::$name => $fix,)* }
            }

            /// Where the rule stands.
            #[must_use]
            pub const fn source(self) -> &'static str {
                match self { $(Self::$name => $source,)* }
            }
        }
    };
}

rules! {
    // MQTT 3.1.1: bytes
    Utf8IllFormed = "MQTT-1.5.3-1", "MQTT 3.1.1 §1.5.3",
        says "text is well-formed UTF-8 without surrogates", fix "encode client id, user name, topics and filters as UTF-8";
    Utf8Nul = "MQTT-1.5.3-2", "MQTT 3.1.1 §1.5.3",
        says "text does not contain U+0000", fix "remove the NUL character; a C string's terminator is not part of the text";
    PacketType = "MQTT-2.2.1", "MQTT 3.1.1 §2.2.1",
        says "packet types 0 and 15 are reserved", fix "check that nothing but MQTT packets is written to the connection";
    FixedHeaderFlags = "MQTT-2.2.2-2", "MQTT 3.1.1 §2.2.2",
        says "the low four bits of the first byte have the value that the packet type prescribes", fix "set the flags to 0010 for PUBREL, SUBSCRIBE and UNSUBSCRIBE and to 0000 for all others but PUBLISH";
    RemainingLength = "MQTT-2.2.3", "MQTT 3.1.1 §2.2.3",
        says "the remaining length takes at most four bytes", fix "encode the length in at most four bytes of seven bits";
    BodyLength = "MQTT-2.2.3-BODY", "MQTT 3.1.1 §3",
        says "the fields of a packet fill its remaining length exactly", fix "make the remaining length the sum of the lengths of all fields";
    PacketIdZero = "MQTT-2.3.1-1", "MQTT 3.1.1 §2.3.1",
        says "a packet id is not 0", fix "number packets from 1 to 65535";
    ProtocolName = "MQTT-3.1.2-1", "MQTT 3.1.1 §3.1.2.1",
        says "the protocol name is MQTT", fix "use an MQTT 3.1.1 client";
    ProtocolLevel = "MQTT-3.1.2-2", "MQTT 3.1.1 §3.1.2.2",
        says "the protocol level is 4", fix "select MQTT 3.1.1 in the client (mosquitto: -V mqttv311; a mosquitto bridge: try_private false)";
    ConnectReserved = "MQTT-3.1.2-3", "MQTT 3.1.1 §3.1.2.3",
        says "the lowest connect flag is reserved and 0", fix "set bit 0 of the connect flags to 0";
    WillFlags = "MQTT-3.1.2-11", "MQTT 3.1.1 §3.1.2.5",
        says "without a will, will QoS and will retain are 0", fix "set the will flag, or clear the will QoS and will retain bits";
    WillQos = "MQTT-3.1.2-14", "MQTT 3.1.1 §3.1.2.6",
        says "will QoS is not 3", fix "ask for will QoS 0 or 1";
    PasswordWithoutUsername = "MQTT-3.1.2-22", "MQTT 3.1.1 §3.1.2.9",
        says "a password comes only with a user name", fix "send the user name, too";
    EmptyClientId = "MQTT-3.1.3-8", "MQTT 3.1.1 §3.1.3.1",
        says "an empty client id needs clean session 1", fix "use the device id (module: device id, slash, module id) as client id";
    ConnAckFlags = "MQTT-3.2.2.1", "MQTT 3.1.1 §3.2.2.1",
        says "the upper seven bits of the CONNACK flags are 0", fix "check that the peer is an MQTT 3.1.1 server";
    SessionPresentRefused = "MQTT-3.2.2-4", "MQTT 3.1.1 §3.2.2.2",
        says "a refusing CONNACK has session present 0", fix "clear session present where the return code is not 0";
    ConnAckCode = "MQTT-3.2.2.3", "MQTT 3.1.1 §3.2.2.3",
        says "CONNACK return codes above 5 are reserved", fix "check that the peer is an MQTT 3.1.1 server";
    DupAtQos0 = "MQTT-3.3.1-2", "MQTT 3.1.1 §3.3.1.1",
        says "DUP is 0 at QoS 0", fix "clear DUP on QoS 0 messages; they are never sent again";
    Qos3 = "MQTT-3.3.1-4", "MQTT 3.1.1 §3.3.1.2",
        says "the two QoS bits are not both 1", fix "publish at QoS 0 or 1";
    TopicMissing = "MQTT-3.3.2-1", "MQTT 3.1.1 §3.3.2.1",
        says "PUBLISH starts with its topic name", fix "put the length-prefixed topic name first";
    WildcardInTopic = "MQTT-3.3.2-2", "MQTT 3.1.1 §3.3.2.1",
        says "a topic name has no wildcards", fix "percent-encode # as %23 and + as %2B in property bags";
    NoFilters = "MQTT-3.8.3-3", "MQTT 3.1.1 §3.8.3",
        says "SUBSCRIBE and UNSUBSCRIBE carry at least one filter", fix "send no packet where there is nothing to subscribe or to unsubscribe";
    RequestedQos = "MQTT-3.8.3-4", "MQTT 3.1.1 §3.8.3",
        says "a requested QoS is 0, 1 or 2", fix "ask for QoS 0 or 1";
    SubAckCode = "MQTT-3.9.3-2", "MQTT 3.1.1 §3.9.3",
        says "SUBACK return codes are 0, 1, 2 or 0x80, one per filter, at least one", fix "check that the peer is an MQTT 3.1.1 server";
    MultiLevelWildcard = "MQTT-4.7.1-2", "MQTT 3.1.1 §4.7.1.2",
        says "# stands alone or after a slash, and last", fix "put # at the end of the filter, behind a slash";
    SingleLevelWildcard = "MQTT-4.7.1-3", "MQTT 3.1.1 §4.7.1.3",
        says "+ fills a whole level", fix "put + between slashes";
    EmptyTopic = "MQTT-4.7.3-1", "MQTT 3.1.1 §4.7.3",
        says "topic names and filters have at least one character", fix "name the topic";
    TextLength = "MQTT-4.7.3-3", "MQTT 3.1.1 §4.7.3",
        says "text is at most 65535 bytes long", fix "shorten the text; topics carry the property bag, too";
    PacketSize = "HUB-PACKET-SIZE", "IoT Hub quotas: 256 KB per message; error 413001",
        says "a packet is not larger than the largest message and its topic", fix "send at most 256 KB of payload; use file upload for more";

    // MQTT 3.1.1: order of packets
    ConnectFirst = "MQTT-3.1.0-1", "MQTT 3.1.1 §3.1",
        says "the client's first packet is CONNECT", fix "send CONNECT first; check that the client speaks MQTT over TLS on this port";
    ConnectTwice = "MQTT-3.1.0-2", "MQTT 3.1.1 §3.1",
        says "a client sends CONNECT once", fix "open a new connection to connect again";
    KeepAlive = "MQTT-3.1.2-24", "MQTT 3.1.1 §3.1.2.10; IoT Hub: at most 1767 s; error 404104",
        says "within one and a half times the keep alive, at most 1767 s, the device sends a packet", fix "send PINGREQ when nothing else was sent for one keep alive";
    ConnAckFirst = "MQTT-3.2.0-1", "MQTT 3.1.1 §3.2",
        says "the server's first packet is CONNACK", fix "check that the peer is an MQTT 3.1.1 server";
    ConnectRefused = "MQTT-3.2.2-5", "MQTT 3.1.1 §3.2.2.3",
        says "a CONNACK other than 0 ends the connection", fix "correct what the return code names: 1 protocol level, 2 client id, 3 try later, 4 and 5 credentials or identity";
    SubAckCount = "MQTT-3.8.4-5", "MQTT 3.1.1 §3.8.4",
        says "SUBACK has one return code per filter", fix "check that the peer is an MQTT 3.1.1 server";
    Direction = "MQTT-4.8.0-1", "MQTT 3.1.1 §4.8",
        says "a peer sends only packets of its own role", fix "check which side of the connection is the client";
    UnsolicitedAck = "MQTT-4.3.2-1", "MQTT 3.1.1 §4.3.2",
        says "an acknowledgement answers a packet that was sent", fix "acknowledge each packet once, with its own packet id";
    PingTimeout = "MQTT-3.1.2-23", "MQTT 3.1.1 §3.12",
        says "PINGREQ is answered by PINGRESP in reasonable time", fix "check the network path; the device connects again by itself";
    WebSocketFrames = "MQTT-6.0.0-1", "MQTT 3.1.1 §6",
        says "over WebSocket, MQTT travels in binary frames", fix "send binary frames";

    // The hub's dialect: connecting
    ConnectTime = "HUB-CONNECT-TIME", "IoT Hub MQTT 5 preview: 30 s",
        says "CONNECT arrives within 30 s", fix "send CONNECT as soon as TLS is up";
    ClientId = "HUB-CLIENT-ID", "IoT Hub MQTT: ClientId; error 401003",
        says "the client id is the device id, for a module device id/module id, and the same as in the user name", fix "set the client id to the id that the user name contains";
    Username = "HUB-USERNAME", "IoT Hub MQTT: Username; error 401003",
        says "the user name is {host}/{device id}[/{module id}]/?api-version={version}", fix "set the user name to {host}/{device id}/?api-version=2021-04-12";
    HostName = "HUB-HOST", "IoT Hub MQTT: Username; error 401003",
        says "the host in the user name is a name of this hub, and the one that the token was made for", fix "use the same host name in user name and token; give other names of this hub with --name";
    NoCredentials = "HUB-AUTH-NONE", "IoT Hub MQTT: Password; error 401003",
        says "a device shows a SAS token as password, or a client certificate that its identity knows", fix "send a SAS token: devicebound sas {device id}";
    SasMalformed = "HUB-SAS-FORM", "IoT Hub SAS tokens; error 401003",
        says "the password is SharedAccessSignature sr={resource}&sig={signature}&se={expiry}", fix "make a token with: devicebound sas {device id}";
    SasScope = "HUB-SAS-SCOPE", "IoT Hub SAS tokens; error 401003",
        says "sr covers {host}/devices/{device id}", fix "make the token for this device and host: devicebound sas {device id}";
    SasSignature = "HUB-SAS-SIG", "IoT Hub SAS tokens; error 401003",
        says "sig is the HMAC-SHA256 of sr as it stands in the token, a newline, and se, under a key of the identity", fix "use the device's primary or secondary key, decoded from base64, and sign the percent-encoded sr";
    SasExpired = "HUB-SAS-EXPIRED", "IoT Hub SAS tokens; error 401003",
        says "a token is good until se", fix "make a new token; if it is new, set the clock of the device";
    SasPolicy = "HUB-SAS-POLICY", "IoT Hub access policies; error 401003",
        says "the policy that skn names exists and has the right that is asked for", fix "use a policy with the right (iothubowner has all), or the device's own key without skn";
    SymmetricKey = "HUB-KEY", "IoT Hub SAS tokens",
        says "a symmetric key is base64 with its padding", fix "copy the whole key, the = at its end too";
    ConnectionString = "HUB-CONNECTION-STRING", "IoT Hub: connection strings",
        says "a connection string names the hub, the device or policy, and one credential", fix "copy it as a whole, from HostName to the end of the key";
    UnknownDevice = "HUB-DEVICE-UNKNOWN", "IoT Hub identity registry; error 404001",
        says "the identity is registered", fix "register it: devicebound device add {device id}";
    DeviceDisabled = "HUB-DEVICE-DISABLED", "IoT Hub identity registry; error 403012",
        says "the identity is enabled", fix "enable the device in the registry";
    DeviceRemoved = "HUB-DEVICE-REMOVED", "IoT Hub identity registry; error 404001",
        says "the identity exists as long as it is connected", fix "register the device again";
    Certificate = "HUB-X509", "IoT Hub X.509; error 401003",
        says "the client certificate is one whose thumbprint the identity holds", fix "register the certificate's SHA-256 or SHA-1 thumbprint with the device";
    CertificateChain = "HUB-X509-CHAIN", "IoT Hub X.509: certificate authority; error 401003",
        says "the client certificate is valid and leads to an authority that the hub trusts", fix "send the intermediate certificates, too, and let the hub trust the root: see devicebound cert";
    CertificateName = "HUB-X509-NAME", "IoT Hub X.509: certificate authority; error 401003",
        says "the common name of a client certificate of an authority is the device id, for a module device id/module id", fix "make a certificate whose subject is CN={device id}: see devicebound cert";
    CredentialGone = "HUB-CREDENTIAL-GONE", "IoT Hub identity registry; error 401003",
        says "a connection lasts as long as the registry holds the key or certificate that it proved itself with", fix "give the device its new key or certificate; change the secondary one first, to do so without a break";
    CertificateTime = "HUB-X509-TIME", "RFC 5280 §4.1.2.5; error 401003",
        says "a client certificate is used between its notBefore and its notAfter", fix "make a new certificate and register it with the device; if it is new, set the clock of the machine that made it";
    ProvisioningUsername = "HUB-USERNAME-DPS", "IoT Hub DPS MQTT: registration; error 401003",
        says "the user name is one for a hub, not for the Device Provisioning Service", fix "register with the provisioning service first, then connect to the hub that it assigns, as {host}/{device id}/?api-version=2021-04-12";
    WillTopic = "HUB-WILL-TOPIC", "IoT Hub MQTT: Will message",
        says "the will's topic is the device's own telemetry topic", fix "use devices/{device id}/messages/events/ as will topic";
    Takeover = "HUB-TAKEOVER", "IoT Hub MQTT: one connection per identity; error 400027",
        says "an identity has one connection; a new one ends the old one", fix "give each device an id of its own, and let only one program use it";
    TakeoverFight = "HUB-TAKEOVER-FIGHT", "IoT Hub MQTT: one connection per identity; error 400027",
        says "an identity has one connection; two clients that both come back throw each other out in turn", fix "two programs or devices use this id right now: stop one, or give it an id of its own";
    ThrottledConnect = "HUB-BUSY", "IoT Hub throttling; error 429001",
        says "the hub takes as many connections as it has room for, and as its tier and units allow in a second", fix "try again later, with growing delays";

    Throttled = "HUB-THROTTLED", "IoT Hub throttling; error 429001",
        says "what a hub's tier and units allow in a second is shared by all devices; above it answers come late, far above it the connection ends",
        fix "send less often or in larger messages, or run the hub with more units or without --tier";
    QuotaExceeded = "HUB-QUOTA", "IoT Hub quotas; error 403002",
        says "a hub's tier and units allow a number of messages a day, counted in blocks of 4 KB; when they are used up, connections end until 00:00 UTC",
        fix "wait for 00:00 UTC, or run the hub with more units or without --tier";
    InjectedFault = "HUB-FAULT", "Azure SDKs: end-to-end tests, AzIoTHub_FaultOperationType",
        says "somebody asked for this connection to be cut",
        fix "nothing to fix: devicebound fault, or a message with AzIoTHub_FaultOperationType, asked for it";

    // The hub's dialect: messages
    PublishQos2 = "HUB-D2C-QOS2", "IoT Hub MQTT: QoS 2 is not supported",
        says "a device publishes at QoS 0 or 1", fix "publish at QoS 1";
    Qos2Flow = "HUB-QOS2-FLOW", "IoT Hub MQTT: QoS 2 is not supported",
        says "PUBREC, PUBREL and PUBCOMP have no place here", fix "use QoS 0 or 1";
    ForeignIdentity = "HUB-TOPIC-IDENTITY", "IoT Hub MQTT: topics",
        says "a device publishes and subscribes under its own id only", fix "use the id that the device is connected with, to the letter";
    UnknownTopic = "HUB-TOPIC-UNKNOWN", "IoT Hub MQTT: topics",
        says "only the documented topics can be published to", fix "telemetry goes to devices/{device id}/messages/events/, twin and method traffic to $iothub/…";
    UnknownFilter = "HUB-FILTER-UNKNOWN", "IoT Hub MQTT: topic filters",
        says "only the documented filters can be subscribed", fix "subscribe devices/{device id}/messages/devicebound/#, $iothub/twin/res/#, $iothub/twin/PATCH/properties/desired/# or $iothub/methods/POST/#";
    PropertyBag = "HUB-BAG", "IoT Hub MQTT: property bag",
        says "a property bag is name=value pairs joined by &, names and values percent-encoded UTF-8", fix "percent-encode all but letters, digits and - . _ ~ in names and values: = is %3D, & is %26";
    MessageSize = "HUB-D2C-SIZE", "IoT Hub quotas: 256 KB per message; error 413001",
        says "a message is at most 262144 bytes", fix "split the message, or use file upload";
    MethodSize = "HUB-METHOD-SIZE", "IoT Hub quotas: 128 KB per direct method",
        says "the body of a direct method and of its answer is at most 131072 bytes", fix "send less, and the rest as telemetry";
    RequestId = "HUB-RID", "IoT Hub MQTT: $rid",
        says "a request ends in ?$rid={request id}, the id of 1 to 1024 bytes", fix "add ?$rid= and a short request id of your own";
    TopicParameter = "HUB-TOPIC-PARAM", "IoT Hub MQTT: topics",
        says "a status is a decimal integer, $version a number of up to 63 bits", fix "write numbers in decimal digits";
    TwinJson = "HUB-TWIN-JSON", "IoT Hub device twins: format; error 400004",
        says "a twin section and a patch of one are JSON objects", fix "send one JSON object, in UTF-8";
    TwinName = "HUB-TWIN-NAME", "IoT Hub device twins: format; error 400004",
        says "a name in a twin is 1 to 1024 bytes without control characters, dot, dollar, number sign and space", fix "rename the property; nest objects where the dot was";
    TwinValue = "HUB-TWIN-VALUE", "IoT Hub device twins: format; error 400004",
        says "a value in a twin is at most 4096 bytes of text, an integer within 2^52, and null only removes: it stands in no array, and in no document that replaces a section", fix "split long text, send large numbers as text, leave null out of arrays and of PUT";
    TwinDepth = "HUB-TWIN-DEPTH", "IoT Hub device twins: format; error 400004",
        says "a twin is nested at most 10 levels deep", fix "flatten the document";
    ApiVersion = "HUB-API-VERSION", "IoT Hub MQTT: Username; error 400004",
        says "a twin is asked for on a connection whose user name has an api-version", fix "set the user name to {host}/{device id}/?api-version=2021-04-12";
    TwinVersion = "HUB-TWIN-VERSION", "IoT Hub device twins: optimistic concurrency; error 412001",
        says "a patch with $version is for the version that the reported properties have", fix "read the twin again, and patch what it says then; or leave $version out";
    NotInTier = "HUB-TIER", "IoT Hub tiers; error 403010",
        says "a basic tier has no cloud-to-device messages, methods and twins", fix "run the hub with a standard tier: --tier S1";
    TwinSize = "HUB-TWIN-SIZE", "IoT Hub device twins: size; error 400004",
        says "a twin section is at most 32 KB, tags 8 KB", fix "keep large data elsewhere and its address in the twin";
    TooManyFilters = "HUB-FILTER-COUNT", "own limit, see Limits::filters_per_packet",
        says "a SUBSCRIBE or UNSUBSCRIBE carries a bounded number of filters", fix "subscribe the documented filters; there are fewer than ten";

    // What this hub takes with a warning, and refuses where it is strict
    BagSlash = "HUB-BAG-SLASH", "IoT Hub MQTT: property bag; azure-iot-sdk-c issue 1695",
        says "a slash in a property bag is percent-encoded; there are no topic levels below messages/events/", fix "write %2F for a slash in names and values, and properties in place of topic levels";
    MethodJson = "HUB-METHOD-JSON", "IoT Hub direct methods: payload",
        says "the body of a method answer is JSON, or empty", fix "answer with JSON: text stands in double quotes";
    KeepAliveRange = "HUB-KEEP-ALIVE-RANGE", "IoT Hub MQTT: keep alive",
        says "a connection ends after 1767 s of silence, whatever the keep alive, and 0 does not turn that off", fix "set the keep alive to 1177 s or less";
    ApiVersionUnknown = "HUB-API-VERSION-UNKNOWN", "IoT Hub MQTT: Username",
        says "the user name has an api-version that Azure has published", fix "end the user name in /?api-version=2021-04-12";
    SasEncoding = "HUB-SAS-ENCODING", "IoT Hub SAS tokens",
        says "sr and sig are percent-encoded in a token", fix "percent-encode all but letters, digits and - . _ ~ in sr and sig; what is signed is the encoded sr";
    SasExpiryRange = "HUB-SAS-SE", "IoT Hub SAS tokens",
        says "se is in seconds since 1970, before the year 10000", fix "write seconds, not milliseconds";
    ServerName = "HUB-SNI", "IoT Hub TLS: server name indication",
        says "the TLS client asks for the host name of the hub (SNI), the same as in the user name", fix "connect to the hub by its host name, and leave SNI on";
    RegistrationMember = "HUB-REGISTRATION-MEMBER", "IoT Hub identity registry: device identity properties",
        says "a registration has the documented members, in camelCase, and no others", fix "rename the member, or leave it out";

    // What comes to nothing, and is worth a word
    TwinUnheard = "HUB-TWIN-UNHEARD", "IoT Hub MQTT: twins",
        says "the answer to a twin request is sent to those who subscribed to it", fix "subscribe $iothub/twin/res/# before the first twin request";
    MethodUnknown = "HUB-METHOD-UNKNOWN", "IoT Hub MQTT: direct methods",
        says "a method is answered once, in time, with the $rid of its call", fix "copy $rid from the topic of the call, and answer before the caller's responseTimeoutInSeconds";
    SubscribeQos2 = "HUB-SUBSCRIBE-QOS2", "IoT Hub MQTT: QoS 2 is not supported",
        says "a subscription at QoS 2 is granted QoS 1", fix "subscribe at QoS 0 or 1";
    Retain = "HUB-RETAIN", "IoT Hub MQTT: retain",
        says "nothing is retained: RETAIN becomes a property of the message", fix "publish with RETAIN 0";

    // The Device Provisioning Service
    DpsUsername = "DPS-USERNAME", "IoT Hub DPS: MQTT",
        says "the user name is {id scope}/registrations/{registration id}/api-version={version}", fix "build it so, without a question mark; the SDKs do it";
    DpsIdScope = "DPS-ID-SCOPE", "IoT Hub DPS: terminology",
        says "the id scope is that of this instance of the service", fix "use the id scope that devicebound hub prints";
    DpsRegistrationId = "DPS-REGISTRATION-ID", "IoT Hub DPS: terminology",
        says "a registration id is 1 to 128 letters, digits and - . _ :, the last one a letter, a digit or -", fix "rename the device";
    DpsClientId = "DPS-CLIENT-ID", "IoT Hub DPS: MQTT",
        says "client id and user name have the same registration id", fix "use the registration id as client id";
    DpsNoCredentials = "DPS-CREDENTIALS", "IoT Hub DPS: attestation; error 401002",
        says "a device shows a SAS token as password, or a client certificate in TLS", fix "give the provisioning client the device's key or certificate";
    DpsSasMalformed = "DPS-SAS-FORM", "IoT Hub DPS: control access; error 401002",
        says "the password is SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=registration", fix "let the SDK make the token from the device's key";
    DpsSasScope = "DPS-SAS-SCOPE", "IoT Hub DPS: control access; error 401002",
        says "sr of the token is {id scope}/registrations/{registration id}", fix "make the token for this id scope and registration id";
    DpsSasSignature = "DPS-SAS-SIG", "IoT Hub DPS: symmetric key attestation; error 401002",
        says "the token is signed with a key of the enrollment; in a group with the key that is derived from the group's for this registration id",
        fix "take the key from devicebound enrollment show, or derive it: base64(HMAC-SHA256(group key, registration id as the device writes it))";
    DpsGroupKey = "DPS-GROUP-KEY", "IoT Hub DPS: symmetric key attestation; error 401002",
        says "a device signs with the key that is derived for it, not with the key of its group", fix "derive the device's key: base64(HMAC-SHA256(group key, registration id)); keep the group's key off devices";
    DpsSasExpired = "DPS-SAS-EXPIRED", "IoT Hub DPS: control access; error 401002",
        says "a token is good until se", fix "make a new token; if it is new, set the clock of the device";
    DpsSasPolicy = "DPS-SAS-POLICY", "IoT Hub DPS: control access; error 401002",
        says "skn of a device's token is registration, or not there", fix "sign with the device's key, and leave skn out";
    DpsUnknown = "DPS-ENROLLMENT-UNKNOWN", "IoT Hub DPS: enrollments; error 404201",
        says "an enrollment, or a group whose key or certificate the device has, lets the device in", fix "add one: devicebound enrollment add {registration id}, or devicebound enrollment-group add {group id}";
    DpsDisabled = "DPS-DISABLED", "IoT Hub DPS: enrollments",
        says "the enrollment of a device is enabled", fix "set provisioningStatus of the enrollment or group to enabled";
    DpsCertificate = "DPS-X509", "IoT Hub DPS: X.509 attestation; error 401002",
        says "the client certificate is the one of the enrollment, primary or secondary", fix "put the device's certificate into the enrollment, or give the device the one that is there";
    DpsCertificateChain = "DPS-X509-CHAIN", "IoT Hub DPS: X.509 attestation; error 401002",
        says "the certificates that a device sends lead from its own to the certificate of a group, each signed by the next and in its time", fix "send the intermediate certificates, too, behind the device's own";
    DpsCertificateName = "DPS-X509-NAME", "IoT Hub DPS: X.509 attestation; error 401002",
        says "the common name of the client certificate is the registration id", fix "make a certificate with CN={registration id}, or register with the name that stands in it";
    DpsAttestation = "DPS-ATTESTATION", "IoT Hub DPS: attestation; error 401002",
        says "a device proves itself by the mechanism of its enrollment", fix "use a key where the enrollment is symmetricKey, a certificate where it is x509";
    DpsTpm = "DPS-TPM", "own limit: TPM attestation is not offered",
        says "a device proves itself by a key or a certificate; TPM enrollments are kept and not served", fix "enroll the device with symmetricKey or x509";
    DpsTopic = "DPS-TOPIC", "IoT Hub DPS: MQTT",
        says "a device publishes $dps/registrations/PUT/iotdps-register/?$rid={rid} and $dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={id}", fix "use these topics; telemetry goes to the hub that the service assigns";
    DpsFilter = "DPS-FILTER", "IoT Hub DPS: MQTT",
        says "the one filter is $dps/registrations/res/#", fix "subscribe $dps/registrations/res/#";
    DpsOperation = "DPS-OPERATION", "IoT Hub DPS: MQTT; error 404203",
        says "a status is asked for with the operationId that the register was answered with", fix "take operationId from the answer to the register, or register again";
    DpsBody = "DPS-BODY", "IoT Hub DPS: device API; error 400004",
        says "the body of a register is a JSON object, or nothing", fix "send {\"registrationId\":\"…\"} in UTF-8";
    DpsBodySize = "DPS-BODY-SIZE", "IoT Hub DPS limits: 96 KB; error 413001",
        says "the body of a register is at most 98304 bytes", fix "send a smaller payload";
    DpsBodyId = "DPS-BODY-ID", "IoT Hub DPS: device API; error 400004",
        says "registrationId in the body is the one of the connection", fix "leave registrationId out, or send the client id";
    DpsAllocation = "DPS-ALLOCATION", "IoT Hub DPS: custom allocation; error 400207",
        says "the webhook of a custom allocation answers 200 with one of the linked hubs in time", fix "see what the webhook answered, and call it by hand";
    DpsNoHub = "DPS-HUB", "IoT Hub DPS: allocation; error 400208",
        says "the enrollment leads to a hub that is linked to the service", fix "name a linked hub in iotHubs of the enrollment, or leave iotHubs out";
    DpsRequestsOpen = "DPS-REQUESTS", "own limit, see provisioning::LinkLimits",
        says "a device waits for its answer before it asks again", fix "wait for the answer to the register";
    DpsIdle = "DPS-IDLE", "own limit, see provisioning::LinkLimits",
        says "a connection to the service is for a registration, and ends when none is made on it", fix "register, then connect to the hub that was assigned";
    DpsThrottled = "DPS-THROTTLED", "IoT Hub DPS limits; error 429001",
        says "a service takes a number of registrations in a minute", fix "wait for retry-after, and spread the fleet";

    // Certificates on request
    Csr = "CSR-FORM", "IoT Hub: certificate issuance; error 400040",
        says "csr is base64 of the DER of a PKCS #10 request, at most 8192 characters, without PEM lines, and its signature is good", fix "make it with openssl req -new -outform DER | base64 -w0, or a library";
    CsrName = "CSR-NAME", "IoT Hub: certificate issuance; error 400040",
        says "the common name of a certificate request is the registration id, at the hub the id of the device or the one in its certificate", fix "make the request with the subject CN={id}";
    CsrKey = "CSR-KEY", "IoT Hub: certificate issuance; error 400040",
        says "the key is elliptic, P-384 or P-256, or RSA of at least 2048 bits", fix "make a key: openssl ecparam -name secp384r1 -genkey";
    IssueBody = "HUB-CREDENTIAL-BODY", "IoT Hub: certificate renewal; error 400004",
        says "a request for a certificate is {\"id\":device id,\"csr\":base64,\"replace\":\"*\" or a request id}, and nothing else", fix "send id and csr; replace only to cancel an earlier request";
    IssueId = "HUB-CREDENTIAL-RID", "IoT Hub: certificate renewal; error 400004",
        says "$rid of a request for a certificate is 4 to 36 letters, digits and hyphens, no hyphen at an end", fix "use a UUID";
    IssueActive = "HUB-CREDENTIAL-ACTIVE", "IoT Hub: certificate renewal; error 409005",
        says "a device has one request for a certificate at a time", fix "wait for its answer, or send replace";
    IssueReplace = "HUB-CREDENTIAL-REPLACE", "IoT Hub: certificate renewal; error 412001",
        says "replace names a request that is open", fix "leave replace out";

    // Ends of a connection that break no rule
    Disconnect = "MQTT-3.14.4-2", "MQTT 3.1.1 §3.14",
        says "DISCONNECT ends a connection in good order", fix "nothing to fix";
    ConnectionLost = "HUB-CONNECTION-LOST", "MQTT 3.1.1 §3.1.2.5; error 404104",
        says "a connection that ends without DISCONNECT is lost, and its will is sent", fix "send DISCONNECT before closing";
    HubStopping = "HUB-STOPPING", "IoT Hub: service upgrade",
        says "the hub is stopping and closes its connections", fix "connect again";
    SlowReader = "HUB-SLOW-READER", "own limit, see hub::Limits::notifications",
        says "a device reads what is sent to it; the hub keeps a bounded number of notifications", fix "read from the connection, and read the twin again after connecting";
    StoreFailed = "HUB-STORE", "own rule: nothing is acknowledged before it is safe",
        says "the hub could not store what this connection sent", fix "free disk space; the device sends again by itself";

    // What a device holds against its hub
    ConnAckTime = "DEVICE-CONNACK-TIME", "own limit, see device::Timing::connack",
        says "CONNACK arrives in time", fix "check host, port and what sits between";
    AckTime = "DEVICE-ACK-TIME", "own limit, see device::Timing::request",
        says "SUBSCRIBE and UNSUBSCRIBE are acknowledged in time", fix "nothing to fix; the device connects again by itself";
    PubAckTime = "DEVICE-PUBACK-TIME", "own limit, see device::Timing::puback (C SDK)",
        says "telemetry is acknowledged in time", fix "nothing to fix; the device connects again by itself and sends it once more";
    DeviceBacklog = "DEVICE-BACKLOG", "own limit, see device::Limits::tx_max",
        says "a hub that sends reads, too", fix "check the network path; the device connects again by itself";
    DeliveriesOpen = "DEVICE-DELIVERIES", "own limit, see device::Limits::deliveries",
        says "an application completes cloud messages before the hub has sent more than it may hold", fix "complete deliveries sooner, or raise Limits::deliveries";
    TokenRenewal = "DEVICE-TOKEN-RENEWAL", "IoT Hub SAS tokens",
        says "a new SAS token takes a new connection, before the old one expires", fix "nothing to fix";
    ProvisioningAnswer = "DEVICE-DPS-TIME", "Azure SDKs: 30 s, see device::Timing::request",
        says "the service answers a register and a poll in time", fix "check the id scope and the service's log; the device asks again by itself";
    IssuedChain = "DEVICE-ISSUED-CHAIN", "IoT Hub: certificate issuance",
        says "issued certificates are base64 of DER, the device's own first", fix "check that the peer is the service that it seems to be";

    // What a device's application asks for and cannot have
    DeviceBounds = "DEVICE-BOUNDS", "own limit, see device::Limits and device::Timing",
        says "limits and times are not 0, and minima not above their maxima", fix "start from Limits::default() and Timing::default()";
    NotConnected = "DEVICE-OFFLINE", "own rule: what is never to be sent is not taken",
        says "QoS 0 messages need a connection, and requests one that is or will be", fix "wait for Connected; after disconnect, call connect first";
    OutboxFull = "DEVICE-OUTBOX", "own limit, see device::Limits",
        says "what waits to be sent is bounded", fix "wait for Acknowledged, or raise Limits::outbox_messages or outbox_bytes";
    OutboxSnapshot = "DEVICE-OUTBOX-SNAPSHOT", "own format, see device::RestoreError",
        says "an outbox is restored from what was saved, whole, for the same device", fix "write a snapshot to another file, sync that, and then rename it";
    RequestsOpen = "DEVICE-REQUESTS", "own limit, see device::Limits::requests",
        says "requests that wait for their answer are bounded", fix "wait for Answered or Failed";
    AnswerOnce = "DEVICE-ANSWER-ONCE", "IoT Hub MQTT: direct methods; MQTT 3.1.1 §4.3.2",
        says "a cloud message is completed once, a direct method is answered once, in time and on its own connection", fix "keep one Delivery or CallId for each action, and drop it after use";
}

/// The id.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
