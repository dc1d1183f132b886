//! Azure's numbers of errors: what each means, and the rules here that end in it.

use devicebound::Rule;

/// An error of the real service (IoT Hub troubleshooting: error codes).
struct Error {
    number: u32,
    name: &'static str,
    means: &'static str,
    next: &'static str,
}

const fn error(number: u32, name: &'static str, means: &'static str, next: &'static str) -> Error {
    Error { number, name, means, next }
}

#[rustfmt::skip]
const ERRORS: [Error; 41] = [
    error(400_001, "InvalidProtocolVersion", "the request has no api-version, or one that is not known", "add ?api-version=2021-04-12 to the URL"),
    error(400_004, "ArgumentInvalid", "an argument of the request cannot be taken; the message names it", "correct what the message names"),
    error(400_027, "ConnectionForcefullyClosedOnNewConnection", "another client connected with the id of this device, which ended this connection", "let one program use an id; see HUB-TAKEOVER"),
    error(400_040, "BadCertificateRequest", "the certificate signing request cannot be taken", "see the rules below"),
    error(400_207, "CustomAllocationFailed", "the function that allocates devices failed, or gave no hub", "see what the webhook answers"),
    error(400_208, "NoHubToAssign", "the enrollment names no hub of this provisioning service", "link the hub, or take it out of the enrollment's list"),
    error(401_002, "IotHubUnauthorizedAccess", "the token of a back end is missing, expired, signed with another key, or its policy lacks the right", "make a token with a policy that has the right; set the clock"),
    error(401_003, "IoTHubUnauthorized", "a device could not prove who it is: token, key, certificate, user name or host", "see the rules below; the hub's view shows what came and what was expected"),
    error(403_002, "IoTHubQuotaExceeded", "the messages of the day are used up", "wait for 00:00 UTC, or add units"),
    error(403_003, "DeviceMaximumQueueSizeExceeded", "the queue of a device is too large; as JobQuotaExceeded: there are as many jobs as there may be", "let the device read its messages; cancel jobs that wait"),
    error(403_004, "DeviceMaximumQueueDepthExceeded", "50 cloud-to-device messages wait for the device", "let the device connect, subscribe and complete them, or purge the queue: devicebound c2d"),
    error(403_006, "DeviceMaximumActiveFileUploadLimitExceeded", "a device has 10 file uploads under way", "end each upload with its notification"),
    error(403_009, "InvalidMessageExpiryTime", "the expiry of a message is in the past, or too far ahead", "set iothub-expiry to a time within two days"),
    error(403_010, "OperationNotAllowedInCurrentTier", "the tier of the hub does not have this", "use a standard tier"),
    error(403_012, "DeviceDisabled", "the identity is disabled", "enable it: status \"enabled\""),
    error(403_800, "DeviceMaximumInflightMethodExceeded", "the device has too many direct methods under way", "wait for answers before calling again"),
    error(404_000, "ResourceNotFound", "there is no such path; as ConfigurationNotFound: no such configuration", "compare the URL with the REST reference"),
    error(404_001, "DeviceNotFound", "no device has this id", "register it: devicebound device add {device id}"),
    error(404_002, "JobNotFound", "there is no job of this id, or it ended more than 30 days ago", "list the jobs: GET /jobs/v2/query"),
    error(404_010, "ModuleNotFound", "the device has no module of this id", "register it"),
    error(404_103, "DeviceNotOnline", "the device is not connected, or has not subscribed to direct methods", "connect it and subscribe $iothub/methods/POST/#, or wait with connectTimeoutInSeconds"),
    error(404_104, "DeviceConnectionClosedRemotely", "the device ended its connection without DISCONNECT, or was silent for too long", "see the device's log and network; send PINGREQ in time"),
    error(404_201, "EnrollmentNotFound", "no enrollment lets the device in", "add one: devicebound enrollment add {registration id}"),
    error(404_203, "OperationNotFound", "the provisioning service knows no such operation", "take operationId from the answer to the register"),
    error(405_000, "MethodNotAllowed", "the path has no such HTTP method", "compare the request with the REST reference"),
    error(409_000, "JobAlreadyExists", "a job has this id already; as ConfigurationAlreadyExists: a configuration has it", "give each job an id of its own, such as a GUID; send If-Match to change a configuration"),
    error(409_001, "DeviceAlreadyExists", "a device has this id already", "send its etag in If-Match to change it"),
    error(409_002, "LinkCreationConflict", "a client opened the same AMQP link twice", "close the old link first"),
    error(409_301, "ModuleAlreadyExistsOnDevice", "a module has this id already", "send its etag in If-Match to change it"),
    error(409_005, "CredentialOperationActive", "another certificate is being issued for this device", "wait for its end, or replace it: see the rule"),
    error(412_001, "PreconditionFailed", "the ETag or version is not the current one", "read again, and change what it says then"),
    error(412_002, "DeviceMessageLockLost", "the lock of a message ran out before it was completed", "complete within 60 s, and once only"),
    error(413_001, "MessageTooLarge", "the message is larger than it may be", "send at most 256 KB from a device and 64 KB to one"),
    error(429_001, "ThrottlingException", "more in a second than tier and units allow", "try again later, with growing delays; add units"),
    error(500_001, "ServerError", "the service failed", "try again, with growing delays"),
    error(500_008, "GenericTimeout", "the service did not answer in time", "try again, with growing delays"),
    error(501_001, "NotImplemented", "the service does not do this", "see what is not there in the README"),
    error(503_001, "ServiceUnavailable", "the service cannot do it now", "try again, with growing delays"),
    error(503_003, "PartitionNotFound", "a partition is being moved", "try again, with growing delays"),
    error(504_101, "GatewayTimeout", "the device did not answer a direct method in time", "answer sooner, or raise responseTimeoutInSeconds"),
    error(429_002, "ThrottleBacklogLimitExceeded", "too many requests of the hub wait to be served", "send less often; add units"),
];

/// What a number means, and the rules that end in it; `None` where it is no number of Azure's that is known here.
pub(super) fn explain(typed: &str) -> Option<String> {
    let number: u32 = typed.trim().parse().ok().filter(|number| (400_000..600_000).contains(number))?;
    let error = ERRORS.iter().find(|error| error.number == number);
    let rules: Vec<Rule> = Rule::ALL.iter().copied().filter(|rule| ends_in(*rule, number)).collect();
    if error.is_none() && rules.is_empty() {
        return None;
    }
    let mut text = match error {
        Some(Error { number, name, means, next }) => {
            format!("{number} {name}\n  means  {means}\n  fix    {next}")
        }
        None => format!("{number}"),
    };
    if !rules.is_empty() {
        text.push_str("\n  rules that end in it; devicebound explain RULE tells more:");
    }
    for rule in rules {
        text.push_str(&format!("\n    {:22} {}", rule.id(), rule.says()));
    }
    Some(text)
}

/// The numbers that are known, next to the one that was typed.
pub(super) fn near(typed: &str) -> Vec<String> {
    let Ok(number) = typed.trim().parse::<u32>() else { return Vec::new() };
    let mut numbers = ERRORS.map(|error| error.number);
    numbers.sort_by_key(|known| known.abs_diff(number));
    numbers.iter().take(3).map(ToString::to_string).collect()
}

/// Whether the rule book names this number as a source of the rule.
fn ends_in(rule: Rule, number: u32) -> bool {
    rule.source().rsplit_once("error ").is_some_and(|(_, text)| text.parse() == Ok(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_azures_is_told_with_the_rules_that_end_in_it() {
        let text = explain("401003").unwrap();
        for part in ["IoTHubUnauthorized", "HUB-SAS-SIG", "HUB-SAS-EXPIRED", "fix"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(explain("123456"), None);
        assert_eq!(explain("HUB-SAS-SIG"), None);
        assert_eq!(near("401004").len(), 3);
    }

    #[test]
    fn every_number_that_a_rule_names_is_in_the_table() {
        for rule in Rule::ALL {
            let Some((_, number)) = rule.source().rsplit_once("error ") else { continue };
            let number: u32 = number.parse().expect("a number");
            assert!(ERRORS.iter().any(|error| error.number == number), "{rule} names {number}");
        }
    }
}
