//! How a message is kept: what it says of its sender, and many of them in one block of bytes.

pub mod block;
mod bytes;
pub mod line;
pub mod message;
pub mod sender;
