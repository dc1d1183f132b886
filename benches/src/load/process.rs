//! What a process costs, and where this one runs.

use std::fs;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use super::Failure;

/// How long a process may still be busy with what was, and how often to look.
const QUIET_WITHIN: Duration = Duration::from_secs(30);
const QUIET_LOOK: Duration = Duration::from_millis(200);
/// A process that takes no more than this of a look is quiet: timers, and threads that look around.
const QUIET: Duration = Duration::from_millis(2);

/// A process that is watched from outside.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
    clock: ClockId,
}

impl Process {
    /// The process `pid`.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(pid: u32) -> Result<Self, Failure> {
        let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?))
            .map_err(|error| format!("there is no process {pid}: {error}"))?;
        Ok(Self { pid, clock })
    }

    /// This process.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn own() -> Result<Self, Failure> {
        Self::new(std::process::id())
    }

    /// The CPU time that all its threads have taken, in user space and in the kernel.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        let spent = self.clock.now().map_err(|error| format!("process {} is gone: {error}", self.pid))?;
        Ok(spent.into())
    }

    /// The memory that it has in RAM, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident(&self) -> Result<u64, Failure> {
        // Exact, unlike `statm`, which lags by some pages per CPU.
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
        let kib = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
        let kib: u64 = kib.ok_or_else(|| format!("{path} has no Rss"))?.parse()?;
        Ok(kib * 1024)
    }

    /// Waits until it has nothing to do.
    ///
    /// # Errors
    /// When it never has.
    pub fn wait_until_quiet(&self) -> Result<(), Failure> {
        let looks = QUIET_WITHIN.as_millis() / QUIET_LOOK.as_millis();
        let mut before = self.cpu()?;
        for _ in 0..looks {
            std::thread::sleep(QUIET_LOOK);
            let now = self.cpu()?;
            if now - before <= QUIET {
                return Ok(());
            }
            before = now;
        }
        Err(format!("process {} is busy, though nothing is asked of it", self.pid).into())
    }
}

/// Binds this process, and whatever it starts, to one CPU.
///
/// # Errors
/// When there is no such CPU.
pub fn pin_to(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|error| format!("cannot run on CPU {cpu}: {error}"))?;
    Ok(())
}

/// Lets this process, and whatever it starts, have as many open sockets as the system allows.
///
/// # Errors
/// When that cannot be found out.
pub fn raise_file_limit() -> Result<(), Failure> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(())
}
