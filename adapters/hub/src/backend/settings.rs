//! What the hub was started with.

use serde_json::{Value, json};

use super::Backend;

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody has set it.
    Default,
    /// The configuration file.
    File,
    /// A variable of the environment.
    Environment,
    /// The command line.
    Flag,
}

/// One setting that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The flag without its dashes.
    pub key: String,
    /// As they would be on the command line; none where it is not set.
    pub values: Vec<String>,
    /// Where they come from.
    pub source: Source,
}

impl Source {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
}

impl Setting {
    /// `{"key", "values", "source"}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"key": self.key, "values": self.values, "source": self.source.name()})
    }
}

impl Backend {
    /// What the hub was started with, in the order of its flags.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }
}
