//! Runs of a world: many seeds, and what is left of a failure when all that is not needed is taken away.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::{Breach, Canary, Marks, Options, Seeded, World};

/// A run from one seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Steps before the faults stop.
    pub steps: u32,
    /// Identities; drawn where it is `None`.
    pub devices: Option<usize>,
    /// Steps in which nothing happens.
    pub skipped: BTreeSet<u32>,
    /// The rule that is broken on purpose.
    pub canary: Option<Canary>,
}

/// What a run that went well was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The hash of all that happened.
    pub hash: u64,
    /// How long the world lasted.
    pub elapsed: Duration,
    /// How long it took until all had come to rest.
    pub rest: Duration,
    /// What was reached.
    pub marks: Marks,
}

/// A run that went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run.
    pub run: Run,
    /// Steps that had begun.
    pub step: u32,
    /// What cannot be.
    pub breach: Breach,
    /// The lines of the trace, where they were kept.
    pub lines: Vec<String>,
}

impl Run {
    /// A run of 200 steps.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, steps: 200, ..Self::default() }
    }

    /// What the run is like.
    #[must_use]
    pub fn options(&self) -> Options {
        Options::draw(&mut Seeded::new(self.seed), self.devices)
    }

    /// Runs.
    ///
    /// # Errors
    /// [`Failure`], the first.
    pub fn go(&self) -> Result<Summary, Box<Failure>> {
        self.go_with(false)
    }

    /// Runs, and keeps the lines of the trace for `each`.
    ///
    /// # Errors
    /// [`Failure`], the first.
    pub fn go_aloud(&self, each: impl FnMut(&str)) -> Result<Summary, Box<Failure>> {
        let mut world =
            World::new(self.options(), Seeded::new(self.seed)).with_canary(self.canary).with_lines();
        let result = self.drive(&mut world);
        world.trace().lines().iter().map(String::as_str).for_each(each);
        result
    }

    fn go_with(&self, lines: bool) -> Result<Summary, Box<Failure>> {
        let mut world = World::new(self.options(), Seeded::new(self.seed)).with_canary(self.canary);
        if lines {
            world = world.with_lines();
        }
        self.drive(&mut world)
    }

    fn drive(&self, world: &mut World<'_>) -> Result<Summary, Box<Failure>> {
        let mut step = 0;
        let mut drive = || {
            while step < self.steps {
                step += 1;
                if self.skipped.contains(&(step - 1)) {
                    world.skip_step()?;
                } else {
                    world.step()?;
                }
            }
            world.heal()
        };
        match drive() {
            Ok(()) => Ok(Summary {
                hash: world.trace().hash(),
                elapsed: world.elapsed(),
                rest: world.rest(),
                marks: world.marks().clone(),
            }),
            Err(breach) => {
                let lines = world.trace().lines().to_vec();
                Err(Box::new(Failure { run: self.clone(), step, breach, lines }))
            }
        }
    }
}

impl Failure {
    /// The same kind of failure with as few steps as can be found by leaving out ever smaller groups of them, and its
    /// trace.
    #[must_use]
    pub fn shrunk(&self) -> Self {
        let mut best = self.clone();
        best.run.steps = best.run.steps.min(best.step);
        let mut group = best.run.steps;
        while group > 0 {
            let mut at = 0;
            while at < best.run.steps {
                let mut run = best.run.clone();
                let before = run.skipped.len();
                run.skipped.extend(at..(at + group).min(best.run.steps));
                if run.skipped.len() > before
                    && let Err(failure) = run.go()
                    && failure.breach.kind() == self.breach.kind()
                {
                    best = *failure;
                    best.run.steps = best.run.steps.min(best.step);
                }
                at += group;
            }
            group /= 2;
        }
        match best.run.go_with(true) {
            Err(failure) => *failure,
            Ok(_) => best,
        }
    }
}

impl Breach {
    /// The words of it, without the numbers, which a shorter run need not share.
    fn kind(&self) -> String {
        self.0.chars().filter(|char| !char.is_ascii_digit()).take(48).collect()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { seed, steps, devices, .. } = &self.run;
        writeln!(f, "step {}: {}", self.step, self.breach)?;
        write!(f, "replay: cargo run -p devicebound-world -- --seed {seed} --steps {steps}")?;
        devices.map_or(Ok(()), |devices| write!(f, " --devices {devices}"))
    }
}
