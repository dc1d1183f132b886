//! What is told to people and machines: the live view, the event log, operations monitoring and metrics.

mod amqp;
pub(crate) mod amqp_client;
pub mod event_log;
pub mod metrics;
pub(crate) mod observers;
pub mod operations;
pub(crate) mod printable;
mod repeats;
mod takeovers;
pub mod view;
pub(crate) mod wording;
