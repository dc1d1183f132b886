//! Routes: which endpoints a message goes to, and what it carries there.
//!
//! ```text
//!  message ─▶ routes of its source that are enabled ─▶ condition ─┬▶ true: to the endpoint, once however many routes name it
//!                                                                 └▶ false or undefined ─▶ by no route at all: the fallback
//!  endpoint ─▶ enrichments that name it ─▶ application properties
//! ```
//! The configuration has the shape of `routing` at Azure Resource Manager, which `az iot hub show` prints. The source is
//! Azure's documents: "IoT Hub message routing", "Message routing query syntax", "Message enrichments".

use serde_json::{Value, json};

pub(crate) use self::configuration::Routing;
pub(crate) use self::message::RoutedMessage;
pub(crate) use self::routes::Routes;
pub(crate) use self::source::Source;
use super::query::Condition;

mod archive;
mod batch;
mod configuration;
mod container;
mod enrichment;
mod event;
mod follower;
mod message;
mod pump;
mod routes;
mod source;
mod webhook;

/// The endpoint that every hub has, which Event Hubs clients read.
pub(crate) const BUILT_IN: &str = "events";

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    name: String,
    source: Source,
    condition: Condition,
    endpoint: String,
    is_enabled: bool,
}

/// What a message is to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes to the endpoint.
    Matches,
    /// The condition is false.
    Fails,
    /// The condition is neither true nor false, which counts as false.
    Undefined,
    /// The route is of another source.
    OtherSource,
    /// The route is off.
    Disabled,
    /// The fallback, of a message that another route matches, or that comes from no device.
    NotNeeded,
}

/// A route with what it says of a message.
#[derive(Debug)]
pub(crate) struct Judged<'r> {
    /// The route.
    pub(crate) route: &'r Route,
    /// Whether the message takes it.
    pub(crate) verdict: Verdict,
}

/// An endpoint that a message goes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivery<'r> {
    /// The name of the endpoint.
    pub(crate) endpoint: &'r str,
    /// The route by which it goes there; `None`: the hub has no routes.
    pub(crate) route: Option<&'r str>,
    /// The application properties that it gets for this endpoint.
    pub(crate) enrichments: Vec<(String, String)>,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) struct Decision<'r> {
    /// Every route, in the order of the configuration, the fallback last.
    pub(crate) judged: Vec<Judged<'r>>,
    /// Where it goes; nowhere is possible.
    pub(crate) deliveries: Vec<Delivery<'r>>,
}

impl Route {
    /// Its name; that of the fallback is `$fallback`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it leads.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn judge(&self, message: &RoutedMessage) -> Judged<'_> {
        let verdict = if !self.is_enabled {
            Verdict::Disabled
        } else if self.source != message.source() {
            Verdict::OtherSource
        } else {
            match self.condition.holds(message) {
                Some(true) => Verdict::Matches,
                Some(false) => Verdict::Fails,
                None => Verdict::Undefined,
            }
        };
        Judged { route: self, verdict }
    }
}

impl Routing {
    /// What becomes of a message at a hub of this name.
    pub(crate) fn decide(&self, message: &RoutedMessage, hub_name: &str) -> Decision<'_> {
        let mut judged: Vec<Judged<'_>> = self.routes.iter().map(|route| route.judge(message)).collect();
        let is_matched = judged.iter().any(|judged| judged.verdict == Verdict::Matches);
        if let Some(fallback) = &self.fallback {
            let is_needed = !is_matched && message.source() == Source::DeviceMessages;
            judged.push(if is_needed || !fallback.is_enabled {
                fallback.judge(message)
            } else {
                Judged { route: fallback, verdict: Verdict::NotNeeded }
            });
        }
        let mut to: Vec<(&str, Option<&str>)> = Vec::new();
        if self.routes.is_empty() && message.source() == Source::DeviceMessages {
            to.push((BUILT_IN, None));
        }
        for Judged { route, .. } in judged.iter().filter(|judged| judged.verdict == Verdict::Matches) {
            if to.iter().all(|(endpoint, _)| *endpoint != route.endpoint) {
                to.push((&route.endpoint, Some(&route.name)));
            }
        }
        let deliver = |(endpoint, route)| {
            let enrichments = self.enrichments.iter().filter(|enrichment| enrichment.is_for(endpoint));
            let enrichments = enrichments.map(|enrichment| enrichment.property(message, hub_name)).collect();
            Delivery { endpoint, route, enrichments }
        };
        let deliveries = to.into_iter().map(deliver).collect();
        Decision { judged, deliveries }
    }

    /// What surprises users of this configuration: that the built-in endpoint gets nothing any more, or not all.
    pub(crate) fn silenced(&self) -> Option<String> {
        let reaches = |route: &Route| {
            route.is_enabled && route.source == Source::DeviceMessages && route.endpoint == BUILT_IN
        };
        let falls_back = self.fallback.as_ref().is_some_and(|fallback| fallback.is_enabled);
        if self.routes.is_empty() || self.routes.iter().any(reaches) {
            return None;
        }
        Some(if falls_back {
            format!(
                "at Azure, device messages that a route matches do not reach the built-in endpoint; fix: add a route of {} to {BUILT_IN} if its readers want them all",
                Source::DeviceMessages
            )
        } else {
            format!(
                "at Azure, no device message reaches the built-in endpoint: there are routes, none of {} leads to {BUILT_IN}, and the fallback route is off; fix: enable it, or add such a route",
                Source::DeviceMessages
            )
        })
    }

    /// What this hub leaves out of this configuration.
    pub(super) fn left_out(&self) -> Vec<String> {
        let elsewhere = self.elsewhere.iter().map(|name| {
            format!("the endpoint {name} is not served here: this hub delivers to {BUILT_IN}, webhooks, and containers with the encoding json")
        });
        let is_empty = |route: &&Route| route.is_enabled && route.source != Source::DeviceMessages;
        let empty =
            self.routes.iter().filter(is_empty).map(|route| {
                format!("the route {} takes nothing: this hub has no {}", route.name, route.source)
            });
        elsewhere.chain(empty).collect()
    }
}

impl Judged<'_> {
    /// One line for each property that the condition reads: its value, or why there is none. Nothing where it was not asked.
    pub(crate) fn explained(&self, message: &RoutedMessage) -> Vec<String> {
        let line = |(property, value): &(String, Option<Value>)| match value {
            Some(value) => format!("{property} = {value}"),
            None => format!("{property} is undefined: {}", message.why_undefined(property)),
        };
        match self.verdict {
            Verdict::Matches | Verdict::Fails | Verdict::Undefined => {
                self.route.condition.readings(message).iter().map(line).collect()
            }
            Verdict::OtherSource | Verdict::Disabled | Verdict::NotNeeded => Vec::new(),
        }
    }
}

impl Verdict {
    /// In words.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::Fails => "false",
            Self::Undefined => "undefined, which counts as false",
            Self::OtherSource => "of another source",
            Self::Disabled => "disabled",
            Self::NotNeeded => "not needed",
        }
    }
}

impl Decision<'_> {
    /// As programs read it.
    pub(crate) fn to_json(&self, message: &RoutedMessage) -> Value {
        let judged = |judged: &Judged<'_>| {
            json!({
                "name": judged.route.name,
                "endpointName": judged.route.endpoint,
                "result": judged.verdict.as_str(),
                "details": judged.explained(message),
            })
        };
        let delivery = |delivery: &Delivery<'_>| {
            let enrichments: serde_json::Map<String, Value> = delivery
                .enrichments
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().into()))
                .collect();
            json!({"endpointName": delivery.endpoint, "route": delivery.route, "enrichments": enrichments})
        };
        json!({
            "routes": self.judged.iter().map(judged).collect::<Vec<_>>(),
            "deliveries": self.deliveries.iter().map(delivery).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests;
