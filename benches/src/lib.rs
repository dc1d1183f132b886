//! What the benches share: the workloads, and a way to time them that gives the time of one packet; and load for servers.

#[cfg(feature = "load")]
pub mod load;
pub mod workloads;

use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion};

/// Criterion as all benches use it: enough samples for a steady median, and all benches in a few minutes.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// Times `batch`, which deals with `packets` packets, so that what criterion shows is the time of one packet.
pub fn time_per_packet(bencher: &mut Bencher<'_>, packets: usize, mut batch: impl FnMut()) {
    time_part_per_packet(bencher, packets, || {
        let start = Instant::now();
        batch();
        start.elapsed()
    });
}

/// As [`time_per_packet`], where `batch` times itself, for it does more than is to be measured. A reading of the clock
/// costs some 20 ns.
pub fn time_part_per_packet(bencher: &mut Bencher<'_>, packets: usize, mut batch: impl FnMut() -> Duration) {
    bencher.iter_custom(|iterations| {
        let batches = iterations.div_ceil(packets as u64);
        let spent: Duration = (0..batches).map(|_| batch()).sum();
        spent.mul_f64(iterations as f64 / (batches as f64 * packets as f64))
    });
}
