//! MQTT 3.1.1.

mod text;

pub use text::{TopicFilter, TopicName};
