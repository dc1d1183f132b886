//! The hub as a process that is killed.

use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a hub may take until it says that it is ready, before it counts as one that does not start.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A hub that was started. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    ready: Receiver<String>,
    started: Instant,
}

impl Process {
    /// Starts `program hub` on a state folder and on ports that are free. What it complains about goes to standard error.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub(super) fn start(program: &Path, state: &Path) -> io::Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(["hub", "--json", "--listen", "127.0.0.1", "--port", "0", "--https-port", "0", "--state"])
            .arg(state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let (sender, ready) = channel();
        if let Some(stdout) = child.stdout.take() {
            // Ends with the hub. What comes after the first line is dropped, so that the hub does not wait for a reader.
            thread::spawn(move || {
                let (mut stdout, mut line) = (BufReader::new(stdout), String::new());
                if stdout.read_line(&mut line).is_ok_and(|length| length > 0) {
                    let _ = sender.send(line);
                }
                io::copy(&mut stdout, &mut io::sink())
            });
        }
        Ok(Self { child, ready, started })
    }

    /// Waits until it is ready. Gives what it says then, and how long it took.
    ///
    /// # Errors
    /// When it ends, or does not become ready.
    pub(super) fn ready(&self) -> io::Result<(Value, Duration)> {
        let line = self.ready.recv_timeout(START_PATIENCE);
        let elapsed = self.started.elapsed();
        let line = line.map_err(|why| io::Error::other(format!("not ready after {elapsed:.1?}: {why}")))?;
        Ok((serde_json::from_str(&line)?, elapsed))
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended before by itself.
    pub(super) fn kill(mut self) -> io::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(io::Error::other(format!("the hub had ended: {status}")));
        }
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Asks it to stop (SIGTERM) and waits for its end. Gives how long that took.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(super) fn stop(mut self) -> io::Result<(ExitStatus, Duration)> {
        let asked = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        Ok((status, asked.elapsed()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
