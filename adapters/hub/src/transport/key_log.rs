//! The secrets of TLS sessions in a file (`SSLKEYLOGFILE`), so that a capture of them can be read. For debugging alone.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustls::{KeyLog, ServerConfig};
use tracing::{error, warn};

use crate::Failure;

/// The variable that browsers, curl and the SDKs of many languages know.
pub const VARIABLE: &str = "SSLKEYLOGFILE";

/// A file that gets the secrets of each session: a line each, in the format that Wireshark and `devicebound explain` read.
#[derive(Debug)]
pub struct KeyLogFile {
    file: Mutex<File>,
    path: PathBuf,
    has_failed: AtomicBool,
}

impl KeyLogFile {
    /// The file that was named, else the one that the environment names; `None` where neither does.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn asked_for(named: Option<&Path>) -> Result<Option<Self>, Failure> {
        let of_environment = || std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let Some(path) = named.map(Path::to_owned).or_else(of_environment) else { return Ok(None) };
        let file = Self::open(&path)?;
        warn!(event = "keyLog", "{}", file.warning());
        Ok(Some(file))
    }

    /// Opens the file to add to it. A new one can be read by its owner alone.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| {
            Failure::new(
                format!("cannot write session secrets to {}: {error}", path.display()),
                format!("name a file that can be written with --key-log, or unset {VARIABLE}"),
            )
        })?;
        Ok(Self { file: Mutex::new(file), path: path.to_owned(), has_failed: AtomicBool::new(false) })
    }

    /// The same configuration, with the secrets of each session written here.
    #[must_use]
    pub fn attach(self, config: &ServerConfig) -> Arc<ServerConfig> {
        let mut config = config.clone();
        config.key_log = Arc::new(self);
        Arc::new(config)
    }

    /// What has to be said as long as this file is written.
    #[must_use]
    pub fn warning(&self) -> String {
        format!(
            "WARNING: the keys of every TLS session are written to {}.\n         Who can read that file can read all traffic, tokens and keys included.\n         For debugging alone: leave out --key-log, or unset {VARIABLE}.",
            self.path.display()
        )
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let written = self.file.lock().map(|mut file| file.write_all(line.as_bytes()));
        // The connection goes on; that its secrets are missing is said once.
        if !matches!(written, Ok(Ok(()))) && !self.has_failed.swap(true, Ordering::Relaxed) {
            error!(event = "keyLogFailed", "cannot write session secrets to {}", self.path.display());
        }
    }
}
