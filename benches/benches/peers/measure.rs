//! Time and allocations of contenders that take turns, so that what disturbs the machine disturbs all of them.

use std::time::{Duration, Instant};

use devicebound_world::allocations::allocations;

/// What one batch cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    time: Duration,
    allocations: usize,
}

/// Measures `batch` and nothing else.
pub(crate) fn sample(batch: impl FnOnce()) -> Sample {
    let mut time = Duration::ZERO;
    let allocations = allocations(|| {
        let start = Instant::now();
        batch();
        time = start.elapsed();
    });
    Sample { time, allocations: allocations.blocks }
}

/// One that deals with the same packets as its rivals.
pub(crate) struct Contender<'w> {
    /// Runs a batch, and measures the part of it that counts.
    pub(crate) batch: Box<dyn FnMut() -> Sample + 'w>,
}

impl<'w> Contender<'w> {
    pub(crate) fn new(batch: impl FnMut() -> Sample + 'w) -> Self {
        Self { batch: Box::new(batch) }
    }
}

/// What a packet costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Median over the rounds, in nanoseconds.
    pub(crate) nanoseconds: f64,
    /// Mean of all batches but those of the first round, in which buffers grow.
    pub(crate) allocations: f64,
}

/// How long each contender's turn is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
}

impl Plan {
    /// Rounds enough for steady medians: some minutes for everything.
    pub(crate) const MEASURE: Self = Self { rounds: 51, turn: Duration::from_micros(600) };
    /// Everything runs, and nothing is measured.
    pub(crate) const TRY: Self = Self { rounds: 2, turn: Duration::ZERO };

    /// Lets the contenders take turns, each round beginning with another one, and gives what a packet costs each.
    pub(crate) fn run(self, packets: usize, contenders: &mut [Contender<'_>]) -> Vec<Cost> {
        let mut times = vec![Vec::new(); contenders.len()];
        let mut allocations = vec![0.0; contenders.len()];
        for round in 0..self.rounds {
            for turn in 0..contenders.len() {
                let index = (round + turn) % contenders.len();
                let (time, allocated) = self.turn(&mut contenders[index].batch);
                if round > 0 {
                    times[index].push(time / packets as f64);
                    allocations[index] += allocated / packets as f64 / (self.rounds - 1) as f64;
                }
            }
        }
        let costs = times.into_iter().zip(allocations);
        costs.map(|(times, allocations)| Cost { nanoseconds: median(times), allocations }).collect()
    }

    /// Mean time, in nanoseconds, and mean number of allocations of the batches of one turn.
    fn turn(self, batch: &mut dyn FnMut() -> Sample) -> (f64, f64) {
        let start = Instant::now();
        let (mut batches, mut time, mut allocations) = (0_u32, Duration::ZERO, 0);
        while batches == 0 || start.elapsed() < self.turn {
            let clock = sample(|| {}).time;
            let sample = batch();
            time += sample.time.saturating_sub(clock);
            allocations += sample.allocations;
            batches += 1;
        }
        (time.as_secs_f64() * 1e9 / f64::from(batches), allocations as f64 / f64::from(batches))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
