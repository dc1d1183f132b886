//! Where the story is told: lines of the story, and between them what the hub's live view shows.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use devicebound_blocking::Tls;

use super::super::hub::Ready;
use super::REPORT;
use super::backend::Backend;
use crate::Failure;
use crate::cli::say;

/// How long anything may take that should happen at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A pause between two looks at something that cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(super) struct Stage {
    pub(super) backend: Backend,
    lines: Receiver<String>,
    ca: Vec<u8>,
    port: u16,
    proved: usize,
    begun: Instant,
}

impl Stage {
    pub(super) fn new(lines: Receiver<String>, ready: &Ready) -> Result<Self, Failure> {
        let ca = std::fs::read(&ready.ca)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", ready.ca.display()), REPORT))?;
        let backend = Backend::connect(ready)?;
        Ok(Self { backend, lines, ca, port: ready.mqtt.port(), proved: 0, begun: Instant::now() })
    }

    /// TLS to this hub, trusting its authority alone.
    pub(super) fn tls(&self) -> Result<Tls, Failure> {
        let tls = Tls::with_authorities(&self.ca)
            .map_err(|error| Failure::new(format!("the hub's CA cannot be used: {error}"), REPORT))?;
        Ok(tls.with_port(self.port))
    }

    pub(super) fn chapter(&mut self, title: &str) {
        self.show();
        say(format_args!("\n━━ {title}"));
    }

    /// A row of the dialect begins.
    pub(super) fn row(&mut self, title: &str) {
        self.show();
        say(format_args!("\n── {title}"));
    }

    /// What somebody does.
    pub(super) fn say(&mut self, text: &str) {
        self.show();
        say(format_args!("   {text}"));
    }

    /// What was seen to have happened.
    pub(super) fn proved(&mut self, text: &str) {
        self.show();
        say(format_args!(" ✓ {text}"));
        self.proved += 1;
    }

    /// Fails unless it is so.
    pub(super) fn prove(&mut self, holds: bool, text: &str) -> Result<(), Failure> {
        self.show();
        if !holds {
            return Err(Failure::new(format!("this did not happen: {text}"), REPORT));
        }
        self.proved(text);
        Ok(())
    }

    /// Waits until the hub's live view shows a line with this text.
    pub(super) fn see(&mut self, text: &str) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .map_err(|_| Failure::new(format!("the hub did not show: {text}"), REPORT))?;
            print(&line);
            if line.contains(text) {
                return Ok(());
            }
        }
    }

    /// Looks again and again until there is something.
    pub(super) fn look<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Backend) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(found) = look(&self.backend)? {
                return Ok(found);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.show();
        Err(Failure::new(format!("this did not happen: {what}"), REPORT))
    }

    pub(super) fn finish(&mut self) {
        self.show();
        let seconds = self.begun.elapsed().as_secs_f32();
        say(format_args!("\nAll of it happened: {} things seen in {seconds:.1} s.", self.proved));
        say("Run a hub of your own: devicebound hub (or: cargo run --release -- hub)");
    }

    /// Prints what the hub has shown since.
    fn show(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            print(&line);
        }
    }
}

fn print(line: &str) {
    for line in line.lines() {
        say(format_args!("     │ {line}"));
    }
}
