//! Text against the vocabulary: what is read can be written, and is read again as the same.

use devicebound::iothub::sas::{Demand, Rights, SasToken, SymmetricKey, sign};
use devicebound::iothub::topic::{
    FromDevice, FromHub, cloud_message_topic, credential_response_topic, desired_patch_topic,
    issue_certificate_topic, method_request_topic, method_response_topic, telemetry_topic, twin_get_topic,
    twin_patch_topic, twin_response_topic,
};
use devicebound::iothub::{ConnectionString, Identity, PropertyBag, Subscription, Username, encode_property};
use devicebound::packet::{TopicFilter, TopicName};
use devicebound::time::UnixTime;
use std::borrow::Cow;
use std::time::Duration;

/// Text as topic name, topic filter and property bag, as a device and as a module read it.
///
/// # Panics
/// Where something is not read as it was written.
pub fn topic_and_bag(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(bag) = PropertyBag::parse(text) {
        bag_comes_back(bag);
    }
    let name = TopicName::new(text);
    let filter = TopicFilter::new(text);
    if let Ok(name) = name {
        assert!(filter.expect("a name is a filter").matches(name), "{name} matches itself");
    }
    for identity in identities() {
        if let Ok(message) = name.map(|name| FromDevice::parse(name, identity)) {
            message.iter().for_each(|message| from_device_comes_back(*message, identity));
        }
        if let Ok(message) = name.map(|name| FromHub::parse(name, identity)) {
            message.iter().for_each(|message| from_hub_comes_back(message, identity));
        }
        if let Ok(subscription) = filter.map(|filter| Subscription::of(filter, identity)) {
            subscription.iter().for_each(|&subscription| subscription_comes_back(subscription, identity));
        }
    }
}

fn identities() -> [Identity<'static>; 2] {
    [None, Some("modA")].map(|module_id| Identity::new("dev1", module_id).expect("they are ids"))
}

fn bag_comes_back(bag: PropertyBag<'_>) {
    let mut text = String::new();
    for (name, value) in bag.iter() {
        encode_property(&name, value.as_deref(), &mut text);
    }
    let again = PropertyBag::parse(&text).expect("what was encoded decodes");
    assert!(again.iter().eq(bag.iter()), "{text}");
}

fn from_device_comes_back(message: FromDevice<'_>, identity: Identity<'_>) {
    let mut text = String::new();
    match message {
        FromDevice::Telemetry(bag) => {
            let pairs: Vec<_> = bag.iter().collect();
            telemetry_topic(identity, borrow(&pairs), &mut text);
            let Ok(name) = TopicName::new(&text) else { return }; // longer than a topic, with all its escapes
            let FromDevice::Telemetry(again) = FromDevice::parse(name, identity).expect("it was built")
            else {
                unreachable!("{name} is telemetry");
            };
            return assert!(again.iter().eq(pairs), "{name}");
        }
        FromDevice::TwinGet { rid } => twin_get_topic(rid, &mut text),
        FromDevice::TwinPatch { rid, if_version } => twin_patch_topic(rid, if_version, &mut text),
        FromDevice::MethodResponse { status, rid } => method_response_topic(status, rid, &mut text),
        FromDevice::IssueCertificate { rid } => issue_certificate_topic(rid, &mut text),
    }
    let Ok(name) = TopicName::new(&text) else { return };
    assert_eq!(FromDevice::parse(name, identity), Ok(message));
}

fn from_hub_comes_back(message: &FromHub<'_>, identity: Identity<'_>) {
    let mut text = String::new();
    match message {
        FromHub::CloudMessage(bag) => {
            let pairs: Vec<_> = bag.iter().collect();
            cloud_message_topic(identity.device_id(), borrow(&pairs), &mut text);
            let Ok(name) = TopicName::new(&text) else { return };
            let FromHub::CloudMessage(again) = FromHub::parse(name, identity).expect("it was built") else {
                unreachable!("{name} is a cloud message");
            };
            return assert!(again.iter().eq(pairs), "{name}");
        }
        FromHub::ModuleInput { .. } => return, // the hub does not send any
        FromHub::TwinResponse { status, rid, version } => {
            twin_response_topic(*status, rid, *version, &mut text);
        }
        FromHub::DesiredPatch { version } => desired_patch_topic(*version, &mut text),
        FromHub::MethodRequest { method, rid } => method_request_topic(method, rid, &mut text),
        FromHub::CredentialResponse { status, rid } => credential_response_topic(*status, rid, &mut text),
    }
    let Ok(name) = TopicName::new(&text) else { return };
    assert_eq!(FromHub::parse(name, identity).as_ref(), Ok(message));
}

fn borrow<'a>(
    pairs: &'a [(Cow<'_, str>, Option<Cow<'_, str>>)],
) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
    pairs.iter().map(|(name, value)| (name.as_ref(), value.as_deref()))
}

fn subscription_comes_back(subscription: Subscription, identity: Identity<'_>) {
    let filter = subscription.filter(identity).expect("who is granted something can ask for it");
    let filter = TopicFilter::new(&filter).expect("documented filters are filters");
    assert_eq!(Subscription::of(filter, identity), Ok(subscription));
}

/// A client id, a line feed and a user name.
///
/// # Panics
/// Where a user name is not read as it was written.
pub fn user_name(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (client_id, text) = text.split_once('\n').unwrap_or(("dev1", text));
    let Ok(username) = Username::parse(text, client_id) else { return };
    assert_eq!(username.identity().to_string(), client_id);
    let (version, params) = (username.api_version(), username.params().collect::<Vec<_>>());
    let borrowed = params.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    let written = Username::build(username.host(), username.identity(), version.as_deref(), borrowed);
    let again = Username::parse(&written, client_id).expect("it was built");
    assert_eq!((again.host(), again.identity()), (username.host(), username.identity()));
    assert_eq!(again.api_version(), version, "{written}");
    assert!(again.params().eq(params), "{written}");
}

/// A SAS token: it opens nothing without the key, and one that says the same and is signed is read as the same.
///
/// # Panics
/// Where that is not so.
pub fn sas_token(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(token) = SasToken::parse(text) else { return };
    let key = SymmetricKey::from_bytes(b"a key that no seed was signed with");
    let (resource, expiry) = (token.resource(), token.expiry());
    let opens = |token: &SasToken<'_>| {
        let demand = Demand {
            target: &resource,
            keys: &[&key],
            right: Rights::NONE,
            now: UnixTime::default(),
            skew: Duration::ZERO,
        };
        token.verify(&demand, |_| None).is_ok()
    };
    assert!(!opens(&token), "nobody can sign without the key");
    let signed = sign(&resource, &key, expiry, token.key_name().as_deref());
    let again = SasToken::parse(&signed).expect("it was made");
    assert!(again.is_signed_with(&key), "{signed}");
    assert_eq!((again.resource(), again.key_name()), (token.resource(), token.key_name()), "{signed}");
    assert_eq!(again.expiry().as_secs(), expiry.as_secs(), "{signed}");
    // A policy's token needs the policy, which there is not.
    let may_open = again.key_name().is_none() && again.covers(&resource) && expiry > UnixTime::default();
    assert!(may_open || !opens(&again), "{signed}");
}

/// A connection string.
///
/// # Panics
/// Where it is not read as it was written, or shows what is secret.
pub fn connection_string(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(parsed) = ConnectionString::parse(text) else { return };
    let written = parsed.to_string();
    let again = ConnectionString::parse(&written).expect("it was written");
    assert_eq!(again.to_string(), written);
    assert_eq!(format!("{again:?}"), format!("{parsed:?}"));
    assert_eq!((again.kind(), again.identity()), (parsed.kind(), parsed.identity()));
}
