//! The hub as a whole: on pipes, on sockets, over its service API, as a program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod capture;
mod client;
mod common;
mod configurations;
mod connection;
mod consumer_groups;
mod corpus;
mod device_http;
mod doubt;
mod feedback;
mod files;
mod health;
mod jobs;
mod looking;
mod program;
mod registry;
mod rest;
mod rights;
mod routing;
mod service;
mod sockets;
mod tls_capture;
mod told;
mod tolerance;
mod vanishing;
