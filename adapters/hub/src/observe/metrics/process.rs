//! The numbers of this process, under the names that Prometheus's own clients use. On Linux, which tells them in `/proc`.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (name, help, value) in [
            ("resident_memory_bytes", "Resident memory", kibibytes(&status, "VmRSS:").map(|kib| kib * 1024)),
            ("virtual_memory_bytes", "Virtual memory", kibibytes(&status, "VmSize:").map(|kib| kib * 1024)),
            ("threads", "Threads", number(&status, "Threads:")),
            ("open_fds", "Open file descriptors", open_descriptors()),
        ] {
            // What this system does not tell is left out.
            if let Some(value) = value {
                encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    number(status, name).filter(|kib| *kib < u64::MAX / 1024)
}

/// The one that the folder is read by is among them.
fn open_descriptors() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_their_lines() {
        let status = "Name:\thub\nVmRSS:\t   1234 kB\nThreads:\t7\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1234));
        assert_eq!(number(status, "Threads:"), Some(7));
        assert_eq!(number(status, "VmSize:"), None);
    }
}
