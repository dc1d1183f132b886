//! Cloud-to-device messages: `POST /devices/{id}/messages/deviceBound` and `DELETE /devices/{id}/commands`.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use devicebound::hub::{CloudMessage, FeedbackRequest};
use devicebound::iothub::PropertyBag;
use devicebound::time::UnixTime;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::call::header;
use super::{ApiError, Call, Shared};
use crate::backend::Error;
use crate::clock::time_of;

/// Application properties come in headers with this prefix. HTTP knows no case in header names, so they arrive in lower
/// case; the query parameter `properties` takes a property bag, which keeps the case.
pub(super) const PROPERTY: &str = "iothub-app-";

pub(super) async fn send(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let id = call.client_id()?;
    let body = call.body().await?;
    let message =
        CloudMessage { to: Some(call.path()), ..message(&call.parts.headers, call.raw_query(), &body)? };
    backend.send_cloud_message(&id, message).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn purge(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let id = call.client_id()?;
    let purged = backend.purge(&id).await?;
    let body = json!({"deviceId": id.device_id(), "moduleId": null, "totalMessagesPurged": purged});
    Ok(Json(body).into_response())
}

fn message(headers: &HeaderMap, query: &str, body: &[u8]) -> Result<CloudMessage, Error> {
    let text = |name| header(headers, name).map(str::to_owned);
    let ack = header(headers, "iothub-ack").map(|ack| {
        FeedbackRequest::parse(ack)
            .ok_or_else(|| Error::invalid("iothub-ack is none, positive, negative or full"))
    });
    Ok(CloudMessage {
        message_id: text("iothub-messageid"),
        to: None,
        correlation_id: text("iothub-correlationid"),
        user_id: text("iothub-userid"),
        content_type: text("iothub-contenttype"),
        content_encoding: text("iothub-contentencoding"),
        expiry: header(headers, "iothub-expiry").map(expiry).transpose()?,
        ack: ack.transpose()?,
        properties: properties(headers, query)?,
        payload: body.to_vec(),
    })
}

fn properties(headers: &HeaderMap, query: &str) -> Result<Vec<(String, Option<String>)>, Error> {
    let mut properties = Vec::new();
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix(PROPERTY) {
            let value = std::str::from_utf8(value.as_bytes())
                .map_err(|_| Error::invalid("a property is not UTF-8"))?;
            properties.push((name.to_owned(), Some(value.to_owned())));
        }
    }
    let bag = query.split('&').find_map(|pair| pair.strip_prefix("properties="));
    if let Some(bag) = bag.filter(|bag| !bag.is_empty()) {
        let bag =
            percent_decode_str(bag).decode_utf8().map_err(|_| Error::invalid("the query is not UTF-8"))?;
        let bag = PropertyBag::parse(&bag).map_err(|rule| Error::invalid(rule.says()))?;
        properties.extend(
            bag.iter().map(|(name, value)| (name.into_owned(), value.map(|value| value.into_owned()))),
        );
    }
    Ok(properties)
}

fn expiry(text: &str) -> Result<UnixTime, Error> {
    time_of(text).ok_or_else(|| Error::invalid("iothub-expiry is a time such as 2030-01-31T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn headers_and_query_make_a_message() {
        let headers = headers(&[
            ("iothub-app-alert", "high"),
            ("iothub-messageid", "m1"),
            ("iothub-ack", "Full"),
            ("iothub-expiry", "2023-11-14T22:13:20Z"),
        ]);
        let query = "api-version=2021-04-12&properties=Case%3D%25C3%25BC%26bare";
        let message = message(&headers, query, b"hello").unwrap();
        assert_eq!(message.message_id.as_deref(), Some("m1"));
        assert_eq!(message.ack, Some(FeedbackRequest::Full));
        assert_eq!(message.expiry, Some(UnixTime::from_secs(1_700_000_000)));
        let expected = [("alert", Some("high")), ("Case", Some("ü")), ("bare", None)];
        assert_eq!(
            message.properties,
            expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
        );
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        assert!(message(&headers(&[("iothub-ack", "maybe")]), "", b"").is_err());
        assert!(message(&headers(&[("iothub-expiry", "tomorrow")]), "", b"").is_err());
        assert!(message(&headers(&[]), "properties=a%3D%25FF", b"").is_err());
    }
}
