//! B: abuse by a device that was accepted.

mod floods;
mod messages;
mod requests;
mod text;

pub(crate) use floods::{flood, pings, subscriptions};
pub(crate) use messages::{deaf, full_mailbox, packet_ids, strange_ids};
pub(crate) use requests::method_answers;
pub(crate) use text::{documents, topics};

use crate::ground::CACHE;
use crate::report::Kib;

/// A connection that is idle may take so much, TLS included.
const IDLE: Kib = Kib(32);
/// An allocator keeps some pages more at one time than at another.
const PAGES: Kib = Kib::mib(2);
/// What "flat" means for the memory of a process: no more than what the store's cache takes as it fills.
const FLAT: Kib = CACHE.plus(PAGES.0);
