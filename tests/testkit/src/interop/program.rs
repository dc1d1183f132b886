//! A program that runs beside the test and is waited for by what it prints.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::{INSTALL, PATIENCE};

/// Where cargo puts an example of this package, for which it has no name at hand. `cargo test -p devicebound-suites` builds
/// them all; with `--test` it builds none.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap_or_else(|error| panic!("a test has a path: {error}"));
    let path = test.ancestors().nth(2).unwrap_or(&test).join("examples").join(name);
    let path = path.with_extension(env::consts::EXE_EXTENSION);
    assert!(
        path.exists(),
        "{} is missing; build it: cargo build -p devicebound-suites --examples",
        path.display()
    );
    path
}

/// A running program. Dropped, it is killed; while a test fails, it says what it had printed.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// All lines that were taken from `lines`.
    printed: Vec<String>,
}

impl Program {
    /// Starts `command`; `name` is what messages call it.
    ///
    /// # Panics
    /// When it cannot be started; for a tool that is missing, with the line that installs it.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            let program = command.get_program().display();
            panic!("cannot run {program}: {error}; if it is missing, install it: {INSTALL}")
        });
        let (sender, lines) = channel();
        forward(child.stdout.take(), sender.clone());
        forward(child.stderr.take(), sender);
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, stdin, lines, printed: Vec::new() }
    }

    /// Waits for the line that `wanted` finds something in; other lines pass by.
    ///
    /// # Panics
    /// When the program ends, or [`PATIENCE`] does, before that line came.
    pub fn expect<T>(&mut self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.line(deadline) {
                Ok(line) => {
                    if let Some(found) = wanted(&line) {
                        return found;
                    }
                }
                Err(why) => panic!("{}: {what} did not come: {why}", self.name),
            }
        }
    }

    /// Waits for a line that contains `text`.
    ///
    /// # Panics
    /// As [`expect`](Self::expect).
    pub fn expect_text(&mut self, text: &str) -> String {
        self.expect(&format!("`{text}`"), |line| line.contains(text).then(|| line.to_owned()))
    }

    /// Waits for a JSON line `{"event": event, ...}`.
    ///
    /// # Panics
    /// As [`expect`](Self::expect).
    pub fn expect_event(&mut self, event: &str) -> Value {
        self.expect(&format!("the event `{event}`"), |line| {
            serde_json::from_str::<Value>(line).ok().filter(|value| value["event"] == event)
        })
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// When the program does not read any more.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap_or_else(|| panic!("{}: its input was ended", self.name));
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{} does not read: {error}", self.name));
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Ends its standard input, takes what it still prints, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn finish(&mut self) -> ExitStatus {
        self.end().unwrap_or_else(|why| panic!("{} does not end: {why}", self.name))
    }

    /// As [`finish`](Self::finish), and the program must say that all went well.
    ///
    /// # Panics
    /// When it does not end, or ends with another code than 0.
    pub fn succeed(&mut self) {
        let status = self.finish();
        assert!(status.success(), "{}: {status}", self.name);
    }

    /// Kills it (SIGKILL), as a crash would.
    ///
    /// # Panics
    /// When the system does not let go of it.
    pub fn kill(&mut self) {
        self.stdin = None;
        // An error means that it has ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// All that it has printed, as far as it was waited for.
    #[must_use]
    pub fn printed(&self) -> &[String] {
        &self.printed
    }

    /// As [`finish`](Self::finish), for where a panic is out of place.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.line(deadline) {
                Ok(_) => {}
                Err(Silence::Ended) => return self.child.wait(),
                Err(why @ Silence::Patience) => return Err(io::Error::new(io::ErrorKind::TimedOut, why)),
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Silence> {
        let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        self.printed.push(line.clone());
        Ok(line)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            self.printed.extend(self.lines.try_iter());
            eprintln!("── {} had printed\n{}", self.name, self.printed.join("\n"));
        }
    }
}

/// Why no line came.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Silence {
    #[error("the program has ended")]
    Ended,
    #[error("{} seconds have passed", PATIENCE.as_secs())]
    Patience,
}

impl From<RecvTimeoutError> for Silence {
    fn from(error: RecvTimeoutError) -> Self {
        match error {
            RecvTimeoutError::Timeout => Self::Patience,
            RecvTimeoutError::Disconnected => Self::Ended,
        }
    }
}

/// Both outputs go into one stream of lines; the end of both is the end of the program.
fn forward(output: Option<impl Read + Send + 'static>, lines: Sender<String>) {
    let Some(output) = output else { return };
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            // Whoever waited may be gone.
            let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
}
