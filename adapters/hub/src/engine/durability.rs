//! Durability in types: a change of what the store keeps is a value that has to be committed, and a commit is a value that
//! has to be waited for. To forget either is a warning of the compiler, which CI denies.
//!
//! ```text
//! Commit ─┐
//! register├─▶ Change ── Core::commit_durably ──▶ Safe ── await ──▶ true: it may be answered for
//! remove ─┘
//! ```

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use devicebound::hub::{Commit, DeviceKey};
use tokio::sync::oneshot;

/// A change of what the store keeps of a device.
#[derive(Debug)]
#[must_use = "it is not durable before `Core::commit_durably`"]
pub enum Change {
    /// The record is another one now.
    Record(DeviceKey),
    /// The record of this client id is gone.
    Removal(String),
}

impl From<Commit> for Change {
    fn from(commit: Commit) -> Self {
        Self::Record(commit.device)
    }
}

/// Becomes true when all that it stands for is safe, and false when that failed.
#[derive(Debug)]
#[must_use = "nothing may be answered for before it is safe"]
pub struct Safe(oneshot::Receiver<bool>);

impl Safe {
    pub(super) const fn heard_by(receiver: oneshot::Receiver<bool>) -> Self {
        Self(receiver)
    }
}

impl Future for Safe {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        // A hub that has ended has not said that it is safe.
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).unwrap_or(false))
    }
}
