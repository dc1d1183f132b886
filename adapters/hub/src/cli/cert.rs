//! `devicebound cert`: client certificates, so that nobody has to call openssl.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use devicebound::iothub::Identity;

use super::{parse_duration, say, state_flag};
use crate::Failure;
use crate::cli::snippets::shell_quoted;
use crate::state::StateDir;
use crate::state::device_certs::{self, DeviceCertificate};

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Print where the certificate of the hub's own authority for devices is; makes it where it is missing
    Ca {
        #[command(flatten)]
        folder: Folder,
    },
    /// Make a certificate for a device, or for a module as DEVICE/MODULE, and print how to register and use it
    Device(DeviceArgs),
}

/// The state folder of a hub, which need not run.
#[derive(Debug, Args)]
pub(super) struct Folder {
    /// The state folder of the hub
    #[arg(long, value_name = "DIR", env = "DEVICEBOUND_STATE")]
    state: Option<PathBuf>,
}

impl Folder {
    fn path(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(StateDir::default_path)
    }

    fn open(&self) -> Result<StateDir, Failure> {
        StateDir::open(&self.path())
    }
}

#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    /// The device id, or DEVICE/MODULE: the certificate's common name
    id: String,
    /// Signed by nobody: the registry then holds its thumbprint
    #[arg(long)]
    self_signed: bool,
    /// How long it is good
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "365d")]
    life: Duration,
    /// The folder for the two files
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// The host name in the connection string
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    host: String,
    #[command(flatten)]
    folder: Folder,
}

pub(super) fn run(command: CertCommand) -> Result<(), Failure> {
    match command {
        CertCommand::Ca { folder } => {
            say(device_certs::authority_path(&folder.open()?)?.display());
            Ok(())
        }
        CertCommand::Device(args) => make(&args),
    }
}

fn make(args: &DeviceArgs) -> Result<(), Failure> {
    let identity = Identity::from_client_id(&args.id).map_err(|error| {
        Failure::new(
            format!("`{}` is no id: {error}", args.id),
            "use the id that the device is registered with",
        )
    })?;
    let certificate = if args.self_signed {
        device_certs::self_signed(&args.id, args.life)?
    } else {
        device_certs::issue(&args.folder.open()?, &args.id, args.life)?
    };
    let (certificate_path, key_path) = write(args, &certificate)?;
    let (sha1, sha256) = &certificate.thumbprints;
    let add = format!("devicebound device add{} {}", state_flag(&args.folder.path()), shell_quoted(&args.id));
    let register = if args.self_signed {
        format!("{add} --thumbprint {sha256}")
    } else {
        format!("{add} --certificate-authority")
    };
    let module = identity.module_id().map(|module| format!("ModuleId={module};")).unwrap_or_default();
    say(format_args!("certificate        {}", certificate_path.display()));
    say(format_args!("private key        {}", key_path.display()));
    say(format_args!("SHA-1 thumbprint   {sha1}"));
    say(format_args!("SHA-256 thumbprint {sha256}"));
    say(format_args!("register it        {register}"));
    say(format_args!(
        "connection string  HostName={};DeviceId={};{module}x509=true",
        args.host,
        identity.device_id()
    ));
    Ok(())
}

/// Writes both files; none of an earlier certificate is overwritten, as its device may still need it.
fn write(args: &DeviceArgs, certificate: &DeviceCertificate) -> Result<(PathBuf, PathBuf), Failure> {
    // An id may contain what a file name may not.
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = args.id.chars().map(safe).collect();
    let paths = (args.out.join(format!("{name}.pem")), args.out.join(format!("{name}.key")));
    // The key first: a certificate without its key is of no use.
    create(&paths.1, &certificate.key, 0o600)?;
    create(&paths.0, &certificate.chain, 0o644)?;
    Ok(paths)
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        Failure::new(
            format!("cannot write {}: {error}", path.display()),
            "name another folder: --out DIR, or move the file that is there away",
        )
    })
}
