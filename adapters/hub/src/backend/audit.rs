//! An operation runs to its end and leaves an event, whatever becomes of its caller.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::access::Caller;
use super::{Backend, Error, detached};
use crate::observe::operations::{self, Standing};

/// Longest text of a caller that an event repeats, in characters; what is longer is cut.
const TEXT_MAX: usize = 256;
/// Longest message of an error in an event, in characters: a query or a path may be repeated in it.
const MESSAGE_MAX: usize = 1024;

/// How a back end asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The service API.
    #[default]
    Https,
    /// AMQP 1.0.
    Amqp,
}

/// What an operation is about, as its event tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// How it was asked.
    pub protocol: Protocol,
    /// The category of the documents, and what is done; `None`: no event.
    pub kind: Option<(&'static str, &'static str)>,
    /// The device; empty where it is about none.
    pub device_id: String,
    /// The module.
    pub module_id: Option<String>,
    /// What the caller calls itself.
    pub user_agent: Option<String>,
    /// Length of the body, in bytes, where it was said.
    pub size: Option<u64>,
}

/// The caller's side of an operation: ready when the caller is gone.
#[derive(Debug)]
pub struct Gone(oneshot::Receiver<Infallible>);

impl Gone {
    /// Waits until nobody waits for the operation any more.
    pub async fn wait(&mut self) {
        // Nothing is ever sent: it ends when the sender is dropped.
        let _ = (&mut self.0).await;
    }
}

/// What became of an operation.
#[derive(Debug)]
pub struct Outcome<R, E = Error> {
    /// Who asked, as far as that was proved.
    pub caller: Option<Caller>,
    /// Whether the caller was let in.
    pub is_admitted: bool,
    /// The answer, with the status that it has in HTTP.
    pub result: Result<(u16, R), E>,
}

impl<R, E> Outcome<R, E> {
    /// What became of what a caller was let in for, with the status that the answer has in HTTP.
    pub fn of(caller: Caller, result: Result<(u16, R), E>) -> Self {
        Self { caller: Some(caller), is_admitted: true, result }
    }

    /// The caller was not let in.
    pub fn refused(policy: Option<String>, error: E) -> Self {
        let caller = policy.map(|policy| Caller { policy: Some(policy), expiry: None });
        Self { caller, is_admitted: false, result: Err(error) }
    }
}

impl Backend {
    /// Runs an operation to its end, and tells the operations log of its outcome. A caller that drops the future neither
    /// ends the operation nor keeps the event from being told; the operation hears of it by [`Gone`].
    ///
    /// # Errors
    /// What the operation says; 503001 where the hub ends first.
    pub async fn audited<R, E, F>(
        self: &Arc<Self>,
        subject: Subject,
        operation: impl FnOnce(Gone) -> F,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: AsRef<Error> + From<Error> + Send + 'static,
        F: Future<Output = Outcome<R, E>> + Send + 'static,
    {
        let (_waits, gone) = oneshot::channel();
        let operation = operation(Gone(gone));
        let own = Arc::clone(self);
        let told = async move {
            let began = Instant::now();
            let Outcome { caller, is_admitted, result } = operation.await;
            let status =
                result.as_ref().map_or_else(|error| error.as_ref().code().status(), |(status, _)| *status);
            if let Some((category, operation)) = subject.kind {
                let error = result.as_ref().err().map(AsRef::as_ref);
                let message = error.map(|error| (error.code().number(), error.to_string()));
                own.engine.operations.requested(&operations::Request {
                    protocol: match subject.protocol {
                        Protocol::Https => "Https",
                        Protocol::Amqp => "Amqp",
                    },
                    category,
                    operation,
                    device_id: cut(&subject.device_id),
                    module_id: subject.module_id.as_deref().map(cut),
                    status,
                    error: message.as_ref().map(|(number, message)| (*number, cut_at(message, MESSAGE_MAX))),
                    duration: began.elapsed(),
                    policy: caller.as_ref().and_then(|caller| caller.policy.as_deref()),
                    user_agent: subject.user_agent.as_deref().map(cut),
                    size: subject.size,
                    standing: if is_admitted { Standing::Known } else { Standing::Stranger },
                });
            }
            result.map(|(_, answer)| answer)
        };
        detached(told).await.unwrap_or_else(|error| Err(error.into()))
    }
}

fn cut(text: &str) -> &str {
    cut_at(text, TEXT_MAX)
}

/// The first characters of a text.
fn cut_at(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}
