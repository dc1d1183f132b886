//! `devicebound completions` and `devicebound man`: what a shell and `man` want to know of the program.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::say;
use crate::Failure;

/// As the shell knows the program.
const NAME: &str = "devicebound";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell; what is printed goes where it looks for completions: devicebound completions bash > /etc/bash_completion.d/devicebound
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The folder for the pages: devicebound man /usr/local/share/man/man1
    folder: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs, mut program: Command) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, NAME, &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
}

pub(super) fn man(args: &ManArgs, program: Command) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let cause = format!("cannot write manual pages to {}: {error}", args.folder.display());
        Failure::new(cause, "name a folder that you may write to")
    };
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(program, &args.folder).map_err(failed)
}
