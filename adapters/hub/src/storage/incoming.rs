//! A body on its way to the disk: a buffer of fixed size, whatever its length.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::NamedTempFile;

use super::UNFINISHED;
use super::fault::Fault;
use super::space::{Reserved, Space};
use crate::blocking_thread::BlockingThread;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 256 * 1024;

/// A file that grows. It goes away where it is dropped before it is whole.
#[derive(Debug)]
pub struct Incoming {
    thread: BlockingThread,
    /// `None` while it is written to, and after that failed.
    file: Option<NamedTempFile>,
    buffer: Vec<u8>,
    size: u64,
    reserved: Reserved,
}

/// A file that is whole and on the disk, and has no name yet.
#[derive(Debug)]
pub struct Whole {
    pub(super) file: NamedTempFile,
    pub(super) size: u64,
    pub(super) reserved: Reserved,
}

impl Whole {
    /// Bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }
}

impl Incoming {
    pub(super) async fn new(
        thread: BlockingThread,
        folder: PathBuf,
        space: &Arc<Space>,
    ) -> Result<Self, Fault> {
        let reserved = Reserved::new(space, 0)?;
        let made = move || tempfile::Builder::new().suffix(UNFINISHED).tempfile_in(folder);
        let file = thread.run(made).await.flatten().map_err(|error| Fault::of_disk(&error))?;
        Ok(Self { thread, file: Some(file), buffer: Vec::new(), size: 0, reserved })
    }

    /// Takes more of the body.
    ///
    /// # Errors
    /// 409 where there is no room, 500 where the disk fails.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.size = self.size.saturating_add(data.len() as u64);
        self.reserved.grow_to(self.size)?;
        self.buffer.extend_from_slice(data);
        if self.buffer.len() < BUFFER { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        let mut file = self.file.take().ok_or_else(|| Fault::of_disk(&std::io::Error::other("cut off")))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let write = move || {
            let written = file.write_all(&buffer);
            buffer.clear();
            written.map(|()| (file, buffer))
        };
        let written = self.thread.run(write).await.flatten();
        let (file, buffer) = written.map_err(|error| Fault::of_disk(&error))?;
        (self.file, self.buffer) = (Some(file), buffer);
        Ok(())
    }

    /// All of the body is there: makes it last.
    ///
    /// # Errors
    /// 500 where the disk fails.
    pub async fn finish(mut self) -> Result<Whole, Fault> {
        self.flush().await?;
        let Self { thread, file, size, reserved, .. } = self;
        let file = file.ok_or_else(|| Fault::of_disk(&std::io::Error::other("cut off")))?;
        let synced = thread.run(move || file.as_file().sync_all().map(|()| file)).await.flatten();
        let file = synced.map_err(|error| Fault::of_disk(&error))?;
        Ok(Whole { file, size, reserved })
    }
}
