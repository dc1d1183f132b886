//! The vocabulary of IoT Hub: what is written is read back, and any text is read or refused.

use std::borrow::Cow;

use devicebound::iothub::sas::{SasToken, SymmetricKey, sign};
use devicebound::iothub::topic::{
    FromDevice, FromHub, cloud_message_topic, credential_response_topic, desired_patch_topic,
    issue_certificate_topic, method_request_topic, method_response_topic, telemetry_topic, twin_get_topic,
    twin_patch_topic, twin_response_topic,
};
use devicebound::iothub::{ConnectionString, Identity, PropertyBag, Subscription, Username, encode_property};
use devicebound::limits::REQUEST_ID_MAX;
use devicebound::packet::{TopicFilter, TopicName};
use devicebound::time::UnixTime;
use devicebound_testkit::fuzz::{connection_string, sas_token, topic_and_bag, user_name};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::cases;
use crate::text::{id, properties, spoilt, text};

/// Text that is not empty.
fn word() -> impl Strategy<Value = String> {
    text().prop_filter("not empty, and no longer than a topic when escaped", |text| {
        (1..2000).contains(&text.len())
    })
}

/// A request id as it stands in a topic, and what it says.
fn request_id() -> impl Strategy<Value = (String, String)> {
    let escaped = word().prop_map(|text| {
        let mut escaped = String::new();
        encode_property(&text, None, &mut escaped);
        (escaped, text)
    });
    escaped.prop_filter("no longer than a request id may be", |(escaped, _)| escaped.len() <= REQUEST_ID_MAX)
}

fn version() -> impl Strategy<Value = u64> {
    (0..=i64::MAX).prop_map(i64::unsigned_abs)
}

fn lent(properties: &[(String, Option<String>)]) -> impl Iterator<Item = (&str, Option<&str>)> {
    properties.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
}

fn owned(bag: PropertyBag<'_>) -> Vec<(String, Option<String>)> {
    bag.iter().map(|(name, value)| (name.into_owned(), value.map(Cow::into_owned))).collect()
}

fn name(topic: &str) -> TopicName<'_> {
    TopicName::new(topic).expect("what the library writes is a topic name")
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_property_bag_is_read_as_it_was_written(properties in properties()) {
        let mut bag = String::new();
        lent(&properties).for_each(|(name, value)| encode_property(name, value, &mut bag));
        prop_assert_eq!(owned(PropertyBag::parse(&bag).expect("it was written")), properties);
    }

    #[test]
    fn a_topic_with_a_bag_is_read_as_it_was_written(
        device_id in id(),
        module_id in of(id()),
        properties in properties(),
    ) {
        let identity = Identity::new(&device_id, module_id.as_deref()).expect("they are ids");
        let mut topic = String::new();
        telemetry_topic(identity, lent(&properties), &mut topic);
        match FromDevice::parse(name(&topic), identity) {
            Ok(FromDevice::Telemetry(bag)) => prop_assert_eq!(owned(bag), &properties[..]),
            other => prop_assert!(false, "{:?} of {}", other, topic),
        }
        let mut topic = String::new();
        cloud_message_topic(&device_id, lent(&properties), &mut topic);
        match FromHub::parse(name(&topic), Identity::new(&device_id, None).expect("it is an id")) {
            Ok(FromHub::CloudMessage(bag)) => prop_assert_eq!(owned(bag), properties),
            other => prop_assert!(false, "{:?} of {}", other, topic),
        }
    }

    #[test]
    fn a_request_of_a_device_is_read_as_it_was_written(
        (rid, said) in request_id(),
        wanted in of(version()),
        code in any::<i32>(),
    ) {
        let identity = Identity::new("dev", None).expect("it is an id");
        let mut topics = [String::new(), String::new(), String::new(), String::new()];
        twin_get_topic(&rid, &mut topics[0]);
        twin_patch_topic(&rid, wanted, &mut topics[1]);
        method_response_topic(code, &rid, &mut topics[2]);
        issue_certificate_topic(&rid, &mut topics[3]);
        for topic in &topics {
            let read = FromDevice::parse(name(topic), identity).expect("it was written");
            let read_rid = match read {
                FromDevice::TwinGet { rid } | FromDevice::IssueCertificate { rid } => rid,
                FromDevice::TwinPatch { rid, if_version } => {
                    prop_assert_eq!(if_version, wanted);
                    rid
                }
                FromDevice::MethodResponse { status, rid } => {
                    prop_assert_eq!(status, code);
                    rid
                }
                FromDevice::Telemetry(_) => panic!("{topic} is no telemetry"),
            };
            prop_assert_eq!((read_rid.as_str(), &*read_rid.decoded()), (&*rid, &*said));
        }
    }

    #[test]
    fn an_answer_of_the_hub_is_read_as_it_was_written(
        (rid, said) in request_id(),
        now in of(version()),
        code in any::<u16>(),
        called in word(),
    ) {
        let identity = Identity::new("dev", None).expect("it is an id");
        let mut topics = [String::new(), String::new(), String::new(), String::new()];
        twin_response_topic(code, &rid, now, &mut topics[0]);
        method_request_topic(&called, &rid, &mut topics[1]);
        desired_patch_topic(now.unwrap_or(0), &mut topics[2]);
        credential_response_topic(code, &rid, &mut topics[3]);
        for topic in &topics {
            let read = FromHub::parse(name(topic), identity).expect("it was written");
            let read_rid = match read {
                FromHub::TwinResponse { status, rid, version } => {
                    prop_assert_eq!((status, version), (code, now));
                    rid
                }
                FromHub::CredentialResponse { status, rid } => {
                    prop_assert_eq!(status, code);
                    rid
                }
                FromHub::MethodRequest { method, rid } => {
                    prop_assert_eq!(method, &*called);
                    rid
                }
                FromHub::DesiredPatch { version } => {
                    prop_assert_eq!(version, now.unwrap_or(0));
                    continue;
                }
                other => panic!("{topic} is no {other:?}"),
            };
            prop_assert_eq!((read_rid.as_str(), &*read_rid.decoded()), (&*rid, &*said));
        }
    }

    #[test]
    fn a_subscription_is_known_by_its_filter(device_id in id(), module_id in of(id())) {
        let identity = Identity::new(&device_id, module_id.as_deref()).expect("they are ids");
        for subscription in Subscription::ALL {
            if let Some(filter) = subscription.filter(identity) {
                let filter = TopicFilter::new(&filter).expect("what the library writes is a filter");
                prop_assert_eq!(Subscription::of(filter, identity), Ok(subscription));
            }
        }
    }

    #[test]
    fn a_user_name_is_read_as_it_was_written(
        host in word(),
        device_id in id(),
        module_id in of(id()),
        api_version in of(text()),
        params in vec((text(), text()), 0..3),
    ) {
        let host = host.replace('/', ".");
        prop_assume!(params.iter().all(|(name, _)| name != "api-version"));
        let identity = Identity::new(&device_id, module_id.as_deref()).expect("they are ids");
        let client_id = identity.to_string();
        let lent = params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let written = Username::build(&host, identity, api_version.as_deref(), lent);
        let read = Username::parse(&written, &client_id).expect("it was written");
        prop_assert_eq!((read.host(), read.identity()), (&*host, identity));
        prop_assert_eq!(read.api_version().map(Cow::into_owned), api_version);
        let read_params: Vec<_> =
            read.params().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        prop_assert_eq!(read_params, params);
    }

    #[test]
    fn a_token_is_read_as_it_was_signed_and_opens_with_its_key_alone(
        resource in word(),
        key in vec(any::<u8>(), 0..70),
        expiry in 0..u64::MAX / 1000,
        policy in of(word()),
    ) {
        let (key, other) = (SymmetricKey::from_bytes(&key), SymmetricKey::from_bytes(&[&key[..], b"x"].concat()));
        let written = sign(&resource, &key, UnixTime::from_secs(expiry), policy.as_deref());
        let token = SasToken::parse(&written).expect("it was written");
        prop_assert_eq!((&*token.resource(), token.expiry().as_secs()), (&*resource, expiry));
        prop_assert_eq!(token.key_name(), policy.map(Cow::Owned));
        prop_assert!(token.is_signed_with(&key) && !token.is_signed_with(&other));
    }

    #[test]
    fn a_connection_string_is_written_as_it_was_read(written in connection_strings()) {
        let read = ConnectionString::parse(&written).expect("its parts are good");
        prop_assert_eq!(read.to_string(), written);
    }
}

/// Connection strings of devices, modules and services, in the order in which they are written.
fn connection_strings() -> impl Strategy<Value = String> {
    // In a connection string, a semicolon ends the value.
    let id = || id().prop_map(|id| id.replace(';', "_"));
    let module = of(id()).prop_map(|id| id.map(|id| format!(";ModuleId={id}")).unwrap_or_default());
    let who = prop_oneof![
        (id(), module).prop_map(|(device_id, module)| format!(";DeviceId={device_id}{module}")),
        "[A-Za-z0-9_.@-]{1,12}".prop_map(|policy| format!(";SharedAccessKeyName={policy}")),
    ];
    let host = || "[A-Za-z0-9.-]{1,20}(:[0-9]{1,5})?";
    let key = vec(any::<u8>(), 1..40)
        .prop_map(|key| format!(";SharedAccessKey={}", SymmetricKey::from_bytes(&key).to_base64()));
    (host(), of(host()), who, key).prop_map(|(host, gateway, who, key)| {
        let gateway = gateway.map(|gateway| format!(";GatewayHostName={gateway}")).unwrap_or_default();
        format!("HostName={host}{gateway}{who}{key}")
    })
}

/// Text in which `/`, `&`, `=`, `%`, `$` and `?` are frequent, behind the start of something that is known.
fn nearly(starts: &'static [&'static str]) -> impl Strategy<Value = String> {
    let pieces = select(
        &[
            "/",
            "&",
            "=",
            "%",
            "%2",
            "%2F",
            "%ff",
            "$",
            "?",
            "?$rid=",
            "$version=",
            "1",
            "-1",
            "a",
            ";",
            "+",
            "\n",
            "é",
        ][..],
    );
    spoilt(
        (select(starts), vec(pieces, 0..12))
            .prop_map(|(start, pieces)| format!("{start}{}", pieces.concat())),
    )
}

const TOPICS: &[&str] = &[
    "",
    "devices/dev1/messages/events/",
    "devices/dev1/modules/modA/messages/events/",
    "devices/dev1/messages/devicebound/",
    "devices/dev1/modules/modA/inputs/in/",
    "$iothub/twin/GET/?$rid=",
    "$iothub/twin/PATCH/properties/reported/?$rid=",
    "$iothub/twin/PATCH/properties/desired/?$version=",
    "$iothub/twin/res/204/?$rid=",
    "$iothub/methods/POST/reboot/?$rid=",
    "$iothub/methods/res/200/?$rid=",
    "$iothub/methods/POST/#",
];
const USER_NAMES: &[&str] =
    &["", "dev1\nhub.example/dev1/?api-version=", "dev1/modA\nhub.example/dev1/modA/?api-version="];
const TOKENS: &[&str] =
    &["", "SharedAccessSignature sr=hub.example%2Fdevices%2Fdev1&sig=YQ%3D%3D&se=1700000000"];
const CONNECTION_STRINGS: &[&str] = &[
    "",
    "HostName=h;DeviceId=d;SharedAccessKey=Zm9v",
    "HostName=h;GatewayHostName=g;DeviceId=d;ModuleId=m;x509=true",
    "HostName=h;SharedAccessKeyName=p;SharedAccessSignature=SharedAccessSignature sr=h&sig=YQ==&se=1&skn=p",
];

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn any_text_is_a_topic_or_none(text in nearly(TOPICS)) {
        topic_and_bag(text.as_bytes());
    }

    #[test]
    fn any_text_is_a_user_name_or_none(text in nearly(USER_NAMES)) {
        user_name(text.as_bytes());
    }

    #[test]
    fn any_text_is_a_token_or_none(text in nearly(TOKENS)) {
        sas_token(text.as_bytes());
    }

    #[test]
    fn any_text_is_a_connection_string_or_none(text in nearly(CONNECTION_STRINGS)) {
        connection_string(text.as_bytes());
    }
}
