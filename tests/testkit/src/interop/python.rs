//! Python programs in virtual environments under `target/`, made once for each set of requirements.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{INSTALL, Program, Site};

/// Where the scripts and the requirements are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop");

/// The sets of packages that the tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packages {
    /// Azure's device SDK, and paho 1.6 which it is made on.
    AzureAndPaho1,
    /// Azure's Event Hubs SDK, and the service SDK.
    AzureEvents,
    /// Azure's service SDK.
    AzureService,
    /// Paho 2.
    Paho2,
}

impl Packages {
    const fn requirements(self) -> &'static str {
        match self {
            Self::AzureAndPaho1 => "requirements-azure.txt",
            Self::AzureEvents => "requirements-azure-events.txt",
            Self::AzureService => "requirements-azure-service.txt",
            Self::Paho2 => "requirements-paho2.txt",
        }
    }
}

/// A Python that has the packages.
#[derive(Clone, Debug)]
pub struct Python {
    executable: PathBuf,
}

impl Python {
    /// The environment with these packages; it is made if it is not there yet, which needs pip's package index.
    ///
    /// # Panics
    /// When python3 or its venv is missing, with the line that installs it; when pip fails, with what it said.
    #[must_use]
    pub fn with(site: Site, packages: Packages) -> Self {
        let requirements = Path::new(FOLDER).join(packages.requirements());
        let text = fs::read_to_string(&requirements)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", requirements.display()));
        let mut hasher = DefaultHasher::new();
        // An environment is of no use to another Python than the one that made it.
        (text, version()).hash(&mut hasher);
        let folder = Path::new(site.scratch).join(format!("python-{:016x}", hasher.finish()));
        let _lock = lock(&folder.with_extension("lock"));
        let python = Self { executable: folder.join("bin").join("python") };
        // Written last: a folder without it is one whose making was cut short.
        let complete = folder.join("complete");
        if !complete.exists() {
            python.make(&folder, &requirements);
            fs::write(&complete, "")
                .unwrap_or_else(|error| panic!("cannot write {}: {error}", complete.display()));
        }
        python
    }

    /// Starts one of the scripts of `tests/interop`.
    #[must_use]
    pub fn start(&self, script: &str, arguments: &[&str]) -> Program {
        let mut command = Command::new(&self.executable);
        // Lines must come when they are printed; no __pycache__ beside the scripts.
        command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        Program::start(script, command.arg(Path::new(FOLDER).join(script)).args(arguments))
    }

    fn make(&self, folder: &Path, requirements: &Path) {
        run(
            Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder),
            &format!("Python's venv is needed; install it: {INSTALL}"),
        );
        run(
            Command::new(&self.executable)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
                .arg(requirements),
            "pip needs its package index: connect this machine, or point pip at a mirror (PIP_INDEX_URL)",
        );
    }
}

fn version() -> Vec<u8> {
    run(Command::new("python3").arg("--version"), &format!("python3 is needed; install it: {INSTALL}")).stdout
}

/// Runs a program to its end.
pub(super) fn run(command: &mut Command, advice: &str) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}. {advice}", command.get_program().display()));
    assert!(
        output.status.success(),
        "{command:?}: {}. {advice}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Waits until no other test, in this process or in another, has the lock; dropping the file gives it back.
pub(super) fn lock(path: &Path) -> File {
    let opened = File::create(path).and_then(|file| file.lock().map(|()| file));
    opened.unwrap_or_else(|error| panic!("cannot lock {}: {error}", path.display()))
}
