//! A device and a hub joined by a byte pipe, under virtual time: what each situation leads to on both sides.

mod connection;
mod deliveries;
mod editions;
mod faults;
mod identity;
mod last_words;
mod messages;
mod record_parts;
mod refusals;
mod requests;
mod service;
mod sessions;
mod statements;
mod tiers;
mod warnings;
