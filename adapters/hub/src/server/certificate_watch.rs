//! Certificates while the hub runs: the hub's own are renewed before they run out, the owner's are read again when their
//! files change, and a person is told 30 days before something has to be done by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::Failure;
use crate::blocking_thread::BlockingThread;
use crate::observe::view::View;
use crate::state::StateDir;
use crate::state::certs;
use crate::state::device_certs::DeviceAuthorities;
use crate::state::own_certificate::OwnCertificate;
use crate::transport::offer::Offer;

/// So often files and dates are looked at. By the wall clock: a certificate runs out by it, however it was set.
const LOOK: Duration = Duration::from_secs(5);
/// So often a person is told of the same thing.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// What is looked after.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The folder with the hub's own certificates.
    pub state: StateDir,
    /// The names that they are for.
    pub names: Vec<String>,
    /// The owner's.
    pub own: Vec<OwnCertificate>,
    /// Further authorities for devices.
    pub device_authorities: Vec<PathBuf>,
    /// Where it is told.
    pub view: View,
}

/// Looks after the certificates of a hub.
#[derive(Debug)]
pub struct CertificateWatch {
    watched: Watched,
    offer: Arc<Offer>,
    authorities: DeviceAuthorities,
    /// What the files of the authorities for devices held.
    seen: Option<[u8; 32]>,
    warnings: Vec<String>,
    /// When they were told last.
    told: Option<Instant>,
    thread: BlockingThread,
}

impl CertificateWatch {
    /// Loads all certificates, and makes what is missing of the hub's own.
    ///
    /// # Errors
    /// When one cannot be used: which, why, and the way out.
    pub fn start(watched: &Watched) -> Result<Self, Failure> {
        let mut watched = watched.clone();
        let made = certs::load_or_make_all(&watched.state, &watched.names)?;
        let mut warnings = Vec::from_iter(made.warning);
        let own = load_own(&mut watched.own, &mut warnings)?;
        let offer = Offer::new(own, made.servers)?;
        let authorities = DeviceAuthorities::load(&watched.state, &watched.device_authorities)?;
        warnings.extend(authorities.warnings());
        let seen = digest(&watched.device_authorities);
        let no_thread =
            |error| Failure::new(format!("cannot start threads: {error}"), "see the limits of this system");
        let thread = BlockingThread::start("certificates").map_err(no_thread)?;
        Ok(Self { watched, offer, authorities, seen, warnings, told: None, thread })
    }

    /// The server certificates.
    #[must_use]
    pub const fn offer(&self) -> &Arc<Offer> {
        &self.offer
    }

    /// The authorities for devices.
    #[must_use]
    pub const fn authorities(&self) -> &DeviceAuthorities {
        &self.authorities
    }

    /// Looks again and again, until it is dropped.
    pub async fn keep(mut self) {
        let thread = self.thread.clone();
        loop {
            self.remind();
            tokio::time::sleep(LOOK).await;
            let looked = thread.run(move || {
                self.look();
                self
            });
            // It does not come back if a look has panicked, which has said so.
            let Ok(back) = looked.await else { return };
            self = back;
        }
    }

    /// Takes what has changed, and renews what runs out. Blocks.
    fn look(&mut self) {
        let mut warnings = Vec::new();
        match certs::load_or_make_all(&self.watched.state, &self.watched.names) {
            Ok(made) => {
                warnings.extend(made.warning);
                if made.is_new {
                    let exchanged = self.offer.exchange_issued(made.servers);
                    self.tell(
                        "certificateRenewed",
                        exchanged,
                        "the hub's own server certificate was renewed",
                    );
                }
            }
            Err(failure) => warnings.push(failure.to_string()),
        }
        if self.watched.own.iter().any(OwnCertificate::has_changed) {
            let own = load_own(&mut self.watched.own, &mut warnings);
            let exchanged = own.and_then(|own| self.offer.exchange_own(own));
            let names: Vec<String> = self.watched.own.iter().map(OwnCertificate::name).collect();
            self.tell("certificateRenewed", exchanged, &format!("{} was read again", names.join(", ")));
        } else {
            warnings.extend(self.watched.own.iter().filter_map(OwnCertificate::warning));
        }
        let seen = digest(&self.watched.device_authorities);
        if seen.is_some() && seen != self.seen {
            self.seen = seen;
            let read = self.authorities.reload(&self.watched.state, &self.watched.device_authorities);
            self.tell("authoritiesRead", read, "the authorities for devices were read again");
        }
        warnings.extend(self.authorities.warnings());
        if warnings != self.warnings {
            self.warnings = warnings;
            self.told = None;
        }
    }

    fn tell(&self, event: &str, result: Result<(), Failure>, text: &str) {
        match result {
            Ok(()) => self.watched.view.note(event, text),
            Err(failure) => {
                let text = format!("{failure}; what was there before goes on");
                self.watched.view.note("certificateUnusable", &text);
            }
        }
    }

    /// Tells what a person has to do: at once, and then once a day.
    fn remind(&mut self) {
        if self.told.is_some_and(|told| told.elapsed() < REMIND) {
            return;
        }
        self.told = Some(Instant::now());
        for warning in &self.warnings {
            self.watched.view.note("certificateExpires", warning);
        }
    }
}

fn load_own(
    own: &mut [OwnCertificate],
    warnings: &mut Vec<String>,
) -> Result<Vec<certs::ServerCertificate>, Failure> {
    let loaded = own.iter_mut().map(OwnCertificate::load).collect::<Result<Vec<_>, _>>()?;
    warnings.extend(own.iter().filter_map(OwnCertificate::warning));
    Ok(loaded)
}

/// What files hold; `None` while one cannot be read.
fn digest(paths: &[PathBuf]) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(Sha256::digest(std::fs::read(path).ok()?));
    }
    Some(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;
    use crate::observe::view::Format;
    use crate::state::device_certs::{authority_path, self_signed};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    struct Folder {
        watched: Watched,
        lines: Receiver<String>,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    fn folder() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let (view, lines) = View::lines(Format::Text);
        let path = folder.path().to_path_buf();
        let state = StateDir::open(&path).unwrap();
        let watched =
            Watched { state, names: Vec::new(), own: Vec::new(), device_authorities: Vec::new(), view };
        Folder { watched, lines, path, _folder: folder }
    }

    impl Folder {
        fn start(&self) -> CertificateWatch {
            CertificateWatch::start(&self.watched).unwrap()
        }

        fn told(&self) -> String {
            self.lines.try_iter().collect::<Vec<_>>().join("\n")
        }

        fn write_own(&self, life: Duration) -> OwnCertificate {
            let made = self_signed("hub.example", life).unwrap();
            let [certificate, key] = ["own.pem", "own-key.pem"].map(|name| self.path.join(name));
            std::fs::write(&certificate, made.chain).unwrap();
            std::fs::write(&key, made.key).unwrap();
            OwnCertificate::new(certificate, key)
        }
    }

    #[test]
    fn the_hubs_own_certificate_is_renewed_while_it_runs() {
        let folder = folder();
        let mut watch = folder.start();
        watch.look();
        assert_eq!(folder.told(), "");
        certs::issue_for(&folder.watched.state, 29 * DAY);
        let old = folder.watched.state.read("server.pem").unwrap();
        watch.look();
        assert!(folder.told().contains("renewed"));
        assert_ne!(folder.watched.state.read("server.pem").unwrap(), old);
    }

    #[test]
    fn the_owners_certificate_is_read_again_when_its_files_change_and_kept_when_they_are_wrong() {
        let mut folder = folder();
        folder.watched.own = vec![folder.write_own(100 * DAY)];
        let mut watch = folder.start();
        watch.look();
        assert_eq!(folder.told(), "");
        drop(folder.write_own(100 * DAY));
        watch.look();
        assert!(folder.told().contains("own.pem was read again"));
        std::fs::write(folder.path.join("own-key.pem"), "no key").unwrap();
        watch.look();
        let told = folder.told();
        assert!(told.contains("holds no private key") && told.contains("goes on"), "{told}");
        watch.look();
        assert_eq!(folder.told(), "", "it is told once");
    }

    #[test]
    fn the_authorities_for_devices_are_read_again_when_their_files_change() {
        let (folder, other) = (folder(), folder());
        let mut watched = folder.watched.clone();
        let path = folder.path.join("further.pem");
        std::fs::copy(authority_path(&other.watched.state).unwrap(), &path).unwrap();
        watched.device_authorities = vec![path.clone()];
        let mut watch = CertificateWatch::start(&watched).unwrap();
        watch.look();
        assert_eq!(folder.told(), "");
        std::fs::copy(authority_path(&folder.watched.state).unwrap(), &path).unwrap();
        watch.look();
        assert!(folder.told().contains("read again"));
    }

    #[test]
    fn a_person_is_told_of_what_ends_soon_at_once_and_then_once_a_day() {
        let mut folder = folder();
        folder.watched.own = vec![folder.write_own(29 * DAY)];
        let mut watch = folder.start();
        watch.remind();
        assert!(folder.told().contains("own.pem is good until"));
        watch.look();
        watch.remind();
        assert_eq!(folder.told(), "");
        watch.told = Instant::now().checked_sub(REMIND);
        watch.remind();
        assert!(folder.told().contains("own.pem is good until"));
    }
}
