//! What the command line says.

use std::path::PathBuf;

/// How the hub is reached, and how long the thermostat runs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The file with the hub's authority, for a local hub: ca.pem in its state folder
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The hub's port, where it is not the usual one
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Seconds from one reading to the next
    #[arg(long, default_value_t = 5.0)]
    pub(crate) interval: f64,
    /// End when so many readings have arrived
    #[arg(long)]
    pub(crate) count: Option<u32>,
    /// Say nothing of what happens
    #[arg(long)]
    pub(crate) quiet: bool,
}
