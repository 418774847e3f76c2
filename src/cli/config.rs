//! `config show` and `config schema`: what is in force and where it came from, and what could be.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Command {
    /// Every setting with its value and where it came from; secrets are masked.
    Show,
    /// JSON schema of sidecar.toml, for editors.
    Schema,
}

pub(super) fn run(command: Command, path: Option<&Path>) -> ExitCode {
    match command {
        Command::Show => super::settings(path).map_or_else(|code| code, |loaded| super::print(&loaded.show())),
        Command::Schema => super::print(&format!("{:#}\n", crate::config::schema())),
    }
}
