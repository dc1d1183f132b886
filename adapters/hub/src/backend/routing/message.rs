//! A message as the condition of a route sees it.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::source::Source;
use crate::backend::query::Row;

/// A message, with the twin of who sent it.
#[derive(Clone, Debug)]
pub(crate) struct RoutedMessage {
    source: Source,
    body: Body,
    properties: Vec<(String, String)>,
    system: Vec<(String, String)>,
    twin: Value,
}

/// What `$body` is.
#[derive(Clone, Debug)]
enum Body {
    Json(Value),
    /// With the reason and what to do.
    Undefined(String),
}

impl RoutedMessage {
    /// A message of this source. `body` is its text, `None` where it is none; the names of system properties are those of conditions, without the
    /// dollar sign; `twin` has `tags` and `properties`, or is null.
    pub(crate) fn new(
        source: Source,
        body: Option<&str>,
        properties: Vec<(String, String)>,
        system: Vec<(String, String)>,
        twin: Value,
    ) -> Self {
        let body = Body::read(body, &system);
        Self { source, body, properties, system, twin }
    }

    /// Where it comes from.
    pub(crate) const fn source(&self) -> Source {
        self.source
    }

    /// The body, where it is JSON and says so.
    pub(super) const fn json_body(&self) -> Option<&Value> {
        match &self.body {
            Body::Json(body) => Some(body),
            Body::Undefined(_) => None,
        }
    }

    /// A value of the twin; `None` for the whole twin, as for what is not there.
    pub(super) fn twin(&self, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let section = find(self.twin.as_object()?, first)?;
        rest.iter().try_fold(section, |value, name| value.get(name))
    }

    /// Why a property of a condition has no value, and what to do.
    pub(super) fn why_undefined(&self, property: &str) -> Cow<'_, str> {
        let is =
            |name: &str| property.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        match &self.body {
            Body::Undefined(why) if is("$body") => Cow::Borrowed(why),
            Body::Json(_) if is("$body") => {
                let is_whole = property.len() == "$body".len() || property.get(5..6) == Some("[");
                Cow::Borrowed(if is_whole {
                    "a member of the body must be named, such as $body.temperature"
                } else {
                    "the body has no such member; names are exact, case included"
                })
            }
            _ if is("$twin") => Cow::Borrowed(match self.twin {
                Value::Null => "the message comes without a twin",
                _ => "the twin has no such value; write $twin.tags.… or $twin.properties.desired|reported.…",
            }),
            _ if is("$") => {
                Cow::Borrowed("the message has neither a system property nor a property of this name")
            }
            _ => Cow::Borrowed("the message has no such application property"),
        }
    }
}

/// The text of a body in one of the encodings that conditions read; UTF-16 and UTF-32 are little-endian.
pub(super) fn decoded(body: &[u8], encoding: Option<&str>) -> Option<String> {
    let is = |name: &str| encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case(name));
    if is("utf-16") {
        let (units, rest) = body.as_chunks::<2>();
        let text =
            char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit))).collect::<Result<_, _>>();
        return text.ok().filter(|_| rest.is_empty());
    }
    if is("utf-32") {
        let (units, rest) = body.as_chunks::<4>();
        let text = units.iter().map(|unit| char::from_u32(u32::from_le_bytes(*unit))).collect();
        return if rest.is_empty() { text } else { None };
    }
    String::from_utf8(body.to_vec()).ok()
}

/// Azure reads names of properties in any case of letters.
fn named<'p>(properties: &'p [(String, String)], name: &str) -> Option<&'p str> {
    properties.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn find<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    object.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

impl Body {
    /// Azure looks into a body that says that it is JSON, in an encoding of Unicode.
    fn read(body: Option<&str>, system: &[(String, String)]) -> Self {
        const ENCODINGS: [&str; 3] = ["utf-8", "utf-16", "utf-32"];
        let (kind, encoding) = (named(system, "contentType"), named(system, "contentEncoding"));
        let wrong = |name: &str, found: Option<&str>, expected: &str| {
            let found = found.map_or("not there".to_owned(), |found| format!("`{}`", found.escape_debug()));
            Self::Undefined(format!("{name} is {found}; send {expected}"))
        };
        let is_json = |kind: &str| {
            kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        };
        if !kind.is_some_and(is_json) {
            return wrong("contentType", kind, "application/json, as $.ct in an MQTT topic");
        }
        let is_unicode = |encoding: &str| ENCODINGS.iter().any(|known| known.eq_ignore_ascii_case(encoding));
        if !encoding.is_some_and(is_unicode) {
            return wrong("contentEncoding", encoding, "utf-8, as $.ce in an MQTT topic");
        }
        let Some(body) = body else {
            return Self::Undefined("the body is no text in its contentEncoding".to_owned());
        };
        match serde_json::from_str(body) {
            Ok(json) => Self::Json(json),
            Err(error) => Self::Undefined(format!("the body is no JSON: {error}")),
        }
    }
}

impl Row for RoutedMessage {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let text = |text: &str| Cow::Owned(Value::String(text.to_owned()));
        let (first, rest) = path.split_first()?;
        if first.eq_ignore_ascii_case("$body") {
            let Body::Json(body) = &self.body else { return None };
            // `$body` alone is undefined.
            rest.first()?;
            return rest.iter().try_fold(body, |value, name| value.get(name)).map(Cow::Borrowed);
        }
        if first.eq_ignore_ascii_case("$twin") {
            return self.twin(rest).map(Cow::Borrowed);
        }
        let name = path.join(".");
        let Some(system) = name.strip_prefix('$') else { return named(&self.properties, &name).map(text) };
        let property = || named(&self.properties, system).or_else(|| named(&self.properties, &name));
        named(&self.system, system).or_else(property).map(text)
    }
}
