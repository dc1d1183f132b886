//! Whether devices should be sent to this hub.

use std::time::Duration;

use super::{Backend, Code, Error};
use crate::engine::core::Unready;

/// A worker that needs longer than this for an answer is not ready: a health check usually waits for a second to five.
const ANSWER_TIME: Duration = Duration::from_secs(1);

impl Backend {
    /// Whether devices should be sent here: every worker answers, and the store takes what they send. Nothing is written.
    ///
    /// # Errors
    /// 503 with what is the matter and what to do.
    pub async fn check_ready(&self) -> Result<(), Error> {
        let asked = self.engine.everywhere(|core, now| core.unready(now));
        let Ok(found) = tokio::time::timeout(ANSWER_TIME, asked).await else {
            let what = format!("a worker of the hub has not answered within {} s", ANSWER_TIME.as_secs());
            return Err(unavailable(what).with_fix("ask again; if it stays so, the machine is overloaded"));
        };
        match found.into_iter().flatten().next() {
            None => Ok(()),
            Some(Unready::Stopping) => Err(Error::stopping()),
            Some(Unready::StoreFailed) => Err(unavailable(
                "the store has failed, and nothing was stored since",
            )
            .with_fix("look at the disk of the state folder: space, quota, errors in the system's log")),
            Some(Unready::StoreSlow) => Err(unavailable("the store is slower than what devices send")
                .with_fix("use a faster disk, or send less")),
        }
    }
}

fn unavailable(what: impl Into<String>) -> Error {
    Error::new(Code::ServiceUnavailable, what.into())
}
