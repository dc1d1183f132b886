//! The hub's own blob storage, so that a file upload needs no second program, port or certificate.
//!
//! ```text
//!              Put Block                         Put Block List
//!  (nothing) ─────────────▶ staged blocks ─────────────────────────▶ blob ──▶ gone: replaced, or too old
//!      │                        └──▶ gone: too old                    ▲
//!      └────────────────────────── Put Blob ──────────────────────────┘
//! ```
//!
//! A body goes to a file without a name of its own, is synchronised, and gets a random name. Then the store is told which
//! file the blob is: that is the moment from which on it is there, and the file that it was before goes. At start, files
//! that no document names are removed. No name that a client chose is ever a name in the file system.

pub mod blob;
pub mod fault;
pub mod incoming;
pub mod name;
pub mod sas;
pub mod space;
pub mod staged;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::UnixTime;

use self::blob::{Blob, PREFIX, Properties};
use self::fault::{Fault, FaultCode};
use self::incoming::{Incoming, Whole};
use self::name::BlobName;
use self::space::{Reserved, Space};
use self::staged::{BLOCKS_MAX, BlockId, Staged};
use crate::Failure;
use crate::blocking_thread::BlockingThread;
use crate::state::{Secrecy, StateDir, policies, sync_parent};

/// The account and the container of every URL, as in `https://localhost/devicebound/uploads/{device}/{name}`.
pub const ACCOUNT: &str = "devicebound";
/// See [`ACCOUNT`].
pub const CONTAINER: &str = "uploads";

const FOLDER: &str = "uploads";
const STAGED: &str = "staged";
const KEY_FILE: &str = "storage.key";
const UNFINISHED: &str = ".new";

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// All files together, in bytes.
    pub bytes: u64,
    /// How old a file may become.
    pub age: Duration,
}

/// 4 GiB; a week, as Azure keeps blocks that are in no blob (Put Block).
impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 4 * 1024 * 1024 * 1024, age: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// The storage of a hub.
#[derive(Debug)]
pub struct Storage {
    folder: PathBuf,
    thread: BlockingThread,
    key: SymmetricKey,
    space: Arc<Space>,
    age: Duration,
    blobs: Mutex<BTreeMap<BlobName, Arc<Blob>>>,
    staged: Mutex<Staged>,
}

impl Storage {
    /// The storage in a state folder, with the blobs that the store knows.
    ///
    /// # Errors
    /// When the folder or a document cannot be read, or no key can be made.
    pub fn open(state: &StateDir, documents: &[(String, String)], bounds: Bounds) -> Result<Self, Failure> {
        let folder = state.file(FOLDER);
        let failed = |error: io::Error| {
            let cause = format!("cannot use {}: {error}", folder.display());
            Failure::new(cause, "check the permissions of the state folder and the space on its disk")
        };
        make_folder(&folder.join(STAGED)).map_err(failed)?;
        let space = Arc::new(Space::new(bounds.bytes));
        let blobs = load_blobs(&folder, documents, &space)?;
        remove_others(&folder, &blobs).map_err(failed)?;
        let staged = staged::load(&folder.join(STAGED), &space).map_err(failed)?;
        let thread = BlockingThread::start("uploads").map_err(failed)?;
        let key = load_key(state)?;
        let (blobs, staged) = (Mutex::new(blobs), Mutex::new(staged));
        Ok(Self { folder, thread, key, space, age: bounds.age, blobs, staged })
    }

    /// The key of the signatures.
    #[must_use]
    pub const fn key(&self) -> &SymmetricKey {
        &self.key
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.space.used()
    }

    fn blobs(&self) -> MutexGuard<'_, BTreeMap<BlobName, Arc<Blob>>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn staged(&self) -> MutexGuard<'_, Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob of this name, unless it is too old.
    #[must_use]
    pub fn find(&self, name: &BlobName, now: UnixTime) -> Option<Arc<Blob>> {
        self.blobs().get(name).filter(|blob| now < blob.properties.modified.after(self.age)).cloned()
    }

    /// Begins to take a body.
    ///
    /// # Errors
    /// 409 where there is no room, 500 where the disk fails.
    pub async fn receive(&self) -> Result<Incoming, Fault> {
        Incoming::new(self.thread.clone(), self.folder.clone(), &self.space).await
    }

    /// Keeps a block for a list that will name it.
    ///
    /// # Errors
    /// 409 for one too many, 500 where the disk fails.
    pub async fn stage(
        &self,
        name: &BlobName,
        id: BlockId,
        block: Whole,
        now: UnixTime,
    ) -> Result<(), Fault> {
        let key = staged::folder_of(name);
        let is_full = self
            .staged()
            .get(&key)
            .is_some_and(|known| known.blocks.len() >= BLOCKS_MAX && !known.blocks.contains_key(&id));
        if is_full {
            let what = format!("{BLOCKS_MAX} blocks of this blob wait for their list");
            return Err(Fault::new(FaultCode::BlockCountExceedsLimit, what, "send larger blocks"));
        }
        let folder = self.folder.join(STAGED).join(&key);
        let path = staged::path_of(&folder, &id);
        let Whole { file, size, reserved } = block;
        self.on_disk(move || {
            make_folder(&folder)?;
            sync_parent(&folder)?;
            file.persist(&path)?;
            sync_parent(&path)
        })
        .await?;
        let mut staged = self.staged();
        let blocks = staged.entry(key).or_default();
        blocks.newest = now;
        blocks.blocks.insert(id, (size, reserved));
        Ok(())
    }

    /// Makes one file of the blocks of a list.
    ///
    /// # Errors
    /// 400 for a block that was not sent, 409 where there is no room, 500 where the disk fails.
    pub async fn join(&self, name: &BlobName, list: &[BlockId]) -> Result<Whole, Fault> {
        let key = staged::folder_of(name);
        let folder = self.folder.join(STAGED).join(&key);
        let files = {
            let staged = self.staged();
            let none = staged::Blocks::default();
            staged::files(&folder, staged.get(&key).unwrap_or(&none), list)?
        };
        let size = files.iter().map(|(_, size)| *size).sum();
        let reserved = Reserved::new(&self.space, size)?;
        let folder = self.folder.clone();
        let file = self.on_disk(move || {
            let mut file = tempfile::Builder::new().suffix(UNFINISHED).tempfile_in(folder)?;
            for (path, _) in files {
                io::copy(&mut File::open(path)?, &mut file)?;
            }
            file.as_file().sync_all()?;
            Ok(file)
        });
        Ok(Whole { file: file.await?, size, reserved })
    }

    /// Gives a file the name that it keeps. It is nobody's blob until it is [shown](Self::show), which comes after the
    /// store has its document.
    ///
    /// # Errors
    /// 500 where the disk fails.
    pub async fn place(&self, whole: Whole, content_type: String, now: UnixTime) -> Result<Blob, Fault> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Fault::of_disk(&io::Error::other(error)))?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.folder.join(&name);
        let Whole { file, size, reserved } = whole;
        self.on_disk(move || {
            file.persist(&path)?;
            sync_parent(&path)
        })
        .await?;
        let properties = Properties { size, modified: now, content_type, file: name };
        Ok(Blob { properties, _reserved: reserved })
    }

    /// From now on this is the blob of that name; its blocks, and the file that it was before, go.
    pub async fn show(&self, name: BlobName, blob: Blob) -> Arc<Blob> {
        let blob = Arc::new(blob);
        let staged = staged::folder_of(&name);
        let before = self.blobs().insert(name, Arc::clone(&blob));
        self.remove_staged(staged).await;
        if let Some(before) = before {
            self.remove_file(&before).await;
        }
        blob
    }

    /// Removes the file of a blob that is not shown, or not any more. Who reads it reads on.
    pub async fn remove_file(&self, blob: &Blob) {
        let path = self.folder.join(&blob.properties.file);
        // What cannot be removed is removed at the next start.
        let _ = self.on_disk(move || fs::remove_file(path)).await;
    }

    /// Names of blobs that are too old.
    #[must_use]
    pub fn too_old(&self, now: UnixTime) -> Vec<BlobName> {
        let is_old = |blob: &Blob| blob.properties.modified.after(self.age) <= now;
        self.blobs().iter().filter(|(_, blob)| is_old(blob)).map(|(name, _)| name.clone()).collect()
    }

    /// Removes blobs, once the store knows that they are gone, and blocks that are too old.
    pub async fn remove(&self, names: &[BlobName], now: UnixTime) {
        for name in names {
            let blob = self.blobs().remove(name);
            if let Some(blob) = blob {
                self.remove_file(&blob).await;
            }
        }
        let old = staged::too_old(&self.staged(), now, self.age);
        for folder in old {
            self.remove_staged(folder).await;
        }
    }

    async fn remove_staged(&self, folder: String) {
        let blocks = self.staged().remove(&folder);
        if blocks.is_some() {
            let path = self.folder.join(STAGED).join(folder);
            let _ = self.on_disk(move || fs::remove_dir_all(path)).await;
        }
    }

    /// Opens the file of a blob.
    ///
    /// # Errors
    /// 500 where the disk fails.
    pub async fn read(&self, blob: &Blob) -> Result<File, Fault> {
        let path = self.folder.join(&blob.properties.file);
        self.on_disk(move || File::open(path)).await
    }

    /// Does something where it may take its time.
    ///
    /// # Errors
    /// 500 where the disk fails.
    pub async fn on_disk<R: Send + 'static>(
        &self,
        act: impl FnOnce() -> io::Result<R> + Send + 'static,
    ) -> Result<R, Fault> {
        self.thread.run(act).await.flatten().map_err(|error| Fault::of_disk(&error))
    }
}

fn load_key(state: &StateDir) -> Result<SymmetricKey, Failure> {
    if let Some(text) = state.read(KEY_FILE)? {
        return policies::parse_key(text.trim()).ok_or_else(|| {
            let fix =
                "restore it, or remove it to have a new one made: uploads that are under way then begin anew";
            Failure::new(format!("{KEY_FILE} in the state folder holds no key"), fix)
        });
    }
    let key = policies::new_key()?;
    state.write(KEY_FILE, key.to_base64().as_bytes(), Secrecy::Secret)?;
    Ok(key)
}

fn load_blobs(
    folder: &Path,
    documents: &[(String, String)],
    space: &Arc<Space>,
) -> Result<BTreeMap<BlobName, Arc<Blob>>, Failure> {
    let mut blobs = BTreeMap::new();
    for (key, text) in documents {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let known = BlobName::new(name).ok().zip(Properties::of_document(text));
        let (name, properties) = known.ok_or_else(|| {
            Failure::new(
                format!("the document {key} in the store is no blob"),
                "restore the store from a backup",
            )
        })?;
        // One that was removed by hand is not there.
        if folder.join(&properties.file).is_file() {
            let _reserved = Reserved::existing(space, properties.size);
            blobs.insert(name, Arc::new(Blob { properties, _reserved }));
        }
    }
    Ok(blobs)
}

/// Removes the files of blobs that never were, or are not any more.
fn remove_others(folder: &Path, blobs: &BTreeMap<BlobName, Arc<Blob>>) -> io::Result<()> {
    let known: HashSet<&str> = blobs.values().map(|blob| blob.properties.file.as_str()).collect();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_known = entry.file_name().to_str().is_some_and(|name| known.contains(name));
        if entry.metadata()?.is_file() && !is_known {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A folder for its owner alone.
fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}
