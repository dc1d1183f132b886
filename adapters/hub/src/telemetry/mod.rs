//! How a message is kept: what it says of its sender, and many of them in one block of bytes.

pub mod block;
pub mod line;
pub mod message;
