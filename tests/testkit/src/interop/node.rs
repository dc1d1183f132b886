//! Node programs, with their packages in a folder under `target/`, made once.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::python::{lock, run};
use super::{INSTALL, Program, Site};

/// Where the scripts are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop");
/// Which packages they use.
const PACKAGES: &str = include_str!("../../../interop/azure-node/package.json");

/// A folder that has the packages.
#[derive(Clone, Debug)]
pub struct Node {
    folder: PathBuf,
}

impl Node {
    /// Azure's SDKs; they are installed if they are not there yet, which needs npm's registry.
    ///
    /// # Panics
    /// When node or npm is missing, with the line that installs it; when npm fails, with what it said.
    #[must_use]
    pub fn with_azure(site: Site) -> Self {
        let advice = format!("node is needed; install it: {INSTALL}");
        let version = run(Command::new("node").arg("--version"), &advice).stdout;
        let mut hasher = DefaultHasher::new();
        (PACKAGES, version).hash(&mut hasher);
        let folder = Path::new(site.scratch).join(format!("node-{:016x}", hasher.finish()));
        let _lock = lock(&folder.with_extension("lock"));
        // Written last: a folder without it is one whose making was cut short.
        let complete = folder.join("complete");
        if !complete.exists() {
            let write = |path: &Path, text: &str| {
                fs::write(path, text)
                    .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
            };
            fs::create_dir_all(&folder)
                .unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
            write(&folder.join("package.json"), PACKAGES);
            run(
                Command::new("npm")
                    .args(["install", "--silent", "--no-fund", "--no-audit"])
                    .current_dir(&folder),
                &format!(
                    "npm needs its registry: connect this machine, or name a mirror; where npm is missing: {INSTALL}"
                ),
            );
            write(&complete, "");
        }
        Self { folder }
    }

    /// Starts one of the scripts of `tests/interop`, which trusts this CA.
    #[must_use]
    pub fn start(&self, script: &str, ca: &str, arguments: &[&str]) -> Program {
        let mut command = Command::new("node");
        command.env("NODE_EXTRA_CA_CERTS", ca).current_dir(&self.folder);
        Program::start(script, command.arg(Path::new(FOLDER).join(script)).args(arguments))
    }
}
