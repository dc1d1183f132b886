//! The signals that end the hub.

use crate::Failure;

/// Completes at SIGTERM or SIGINT.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot listen for signals: {error}"), "start again");
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Where files may not grow without end (`ulimit -f`), a write fails as on a full disk. Unless somebody listens, the
        // signal ends the program.
        drop(signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(failed)?);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    {
        let _ = failed;
        Ok(async {
            // Without a way to hear of it there is nothing to wait for.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
        })
    }
}
