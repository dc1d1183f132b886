//! An action that borrows nothing.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Action, Answer, CloudMessage, Delivery, MethodCall, Twin};
use super::{CallId, RequestId};
use crate::iothub::PropertyBag;
use crate::time::Instant;

/// A copy of an [`Action`], to be handed to another task or kept: it borrows nothing.
///
/// ```
/// use devicebound::device::{Action, OwnedAction, Twin};
///
/// let received = br#"{"desired":{"$version":1}}"#.to_vec();
/// let action = Action::Twin(Twin { version: 1, document: &received });
/// let owned = OwnedAction::from(&action);
/// let task = std::thread::spawn(move || format!("{}", owned.action()));
/// assert_eq!(task.join().unwrap(), action.to_string());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedAction(Owned);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Deliver {
        input: Option<String>,
        properties: String,
        payload: Vec<u8>,
        dup: bool,
        delivery: Delivery,
    },
    Twin {
        version: u64,
        document: Vec<u8>,
    },
    Invoke {
        id: CallId,
        name: String,
        payload: Vec<u8>,
        due: Instant,
    },
    Answered {
        request: RequestId,
        status: u16,
        version: Option<u64>,
        body: Vec<u8>,
    },
    /// Those that borrow nothing anyway.
    Other(Action<'static>),
}

impl OwnedAction {
    /// The action.
    #[must_use]
    pub fn action(&self) -> Action<'_> {
        match &self.0 {
            Owned::Deliver { input, properties, payload, dup, delivery } => {
                let message = CloudMessage {
                    input: input.as_deref().map(Into::into),
                    // It was one before it was copied.
                    properties: PropertyBag::parse(properties).unwrap_or(PropertyBag::EMPTY),
                    payload,
                    dup: *dup,
                };
                Action::Deliver(message, *delivery)
            }
            &Owned::Twin { version, ref document } => Action::Twin(Twin { version, document }),
            Owned::Invoke { id, name, payload, due } => {
                Action::Invoke(MethodCall { id: *id, name: name.as_str().into(), payload, due: *due })
            }
            &Owned::Answered { request, status, version, ref body } => {
                Action::Answered(Answer { request, status, version, body })
            }
            Owned::Other(action) => action.clone(),
        }
    }
}

impl From<&Action<'_>> for OwnedAction {
    fn from(action: &Action<'_>) -> Self {
        Self(match action {
            Action::Deliver(CloudMessage { input, properties, payload, dup }, delivery) => Owned::Deliver {
                input: input.as_deref().map(str::to_owned),
                properties: properties.as_str().to_owned(),
                payload: payload.to_vec(),
                dup: *dup,
                delivery: *delivery,
            },
            &Action::Twin(Twin { version, document }) => Owned::Twin { version, document: document.to_vec() },
            Action::Invoke(MethodCall { id, name, payload, due }) => Owned::Invoke {
                id: *id,
                name: name.as_ref().to_owned(),
                payload: payload.to_vec(),
                due: *due,
            },
            &Action::Answered(Answer { request, status, version, body }) => {
                Owned::Answered { request, status, version, body: body.to_vec() }
            }
            Action::Desired { version, patch } => {
                Owned::Other(Action::Desired { version: *version, patch: patch.to_vec().into() })
            }
            &Action::Wait(wait) => Owned::Other(Action::Wait(wait)),
            Action::Handled => Owned::Other(Action::Handled),
            &Action::Connected { session_present } => Owned::Other(Action::Connected { session_present }),
            &Action::Subscribed(subscription) => Owned::Other(Action::Subscribed(subscription)),
            &Action::SubscriptionRefused(subscription) => {
                Owned::Other(Action::SubscriptionRefused(subscription))
            }
            &Action::Unsubscribed(subscription) => Owned::Other(Action::Unsubscribed(subscription)),
            &Action::Failed(request, failure) => Owned::Other(Action::Failed(request, failure)),
            &Action::Acknowledged(ticket) => Owned::Other(Action::Acknowledged(ticket)),
            #[cfg(feature = "provisioning")]
            Action::CertificateDue => Owned::Other(Action::CertificateDue),
            #[cfg(feature = "provisioning")]
            Action::CertificateIssued(chain) => Owned::Other(Action::CertificateIssued(chain.clone())),
            #[cfg(feature = "provisioning")]
            Action::CertificateFailed(failure) => Owned::Other(Action::CertificateFailed(failure.clone())),
            &Action::TokenExpires { after } => Owned::Other(Action::TokenExpires { after }),
            &Action::Dropped(ticket, reason) => Owned::Other(Action::Dropped(ticket, reason)),
        })
    }
}
