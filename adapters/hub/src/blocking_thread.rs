//! Threads for what blocks, so that no task waits for a disk.
//!
//! They are started with the hub, as all of its threads are: where the system has none left to give, what runs goes on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A way to a thread that does one thing after the other. It ends with the last of them.
// Unbounded: whoever sends a job waits for what comes of it.
#[derive(Clone, Debug)]
pub(crate) struct BlockingThread(mpsc::Sender<Job>);

impl BlockingThread {
    /// Starts a thread of this name.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            for job in todo {
                // One that panics has said so, and whoever waits for it hears of it.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Self(jobs))
    }

    /// Does something there.
    ///
    /// # Errors
    /// When it panicked.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        act: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        let (done, result) = oneshot::channel();
        let job = move || {
            // Whoever asked may have hung up.
            if !done.is_closed() {
                let _ = done.send(act());
            }
        };
        let ended = |_| io::Error::other("its thread has ended");
        self.0.send(Box::new(job)).map_err(ended)?;
        result.await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_is_an_error_and_the_next_is_done_all_the_same() {
        let aside = BlockingThread::start("aside").unwrap();
        assert!(aside.run(|| assert!(thread::panicking(), "on purpose")).await.is_err());
        assert_eq!(
            aside.run(|| thread::current().name().map(str::to_owned)).await.unwrap().unwrap(),
            "aside"
        );
    }
}
