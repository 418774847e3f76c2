//! The commands, each in one short file, and the arguments they share.
//!
//! A command returns its exit code; nothing here ends the process, so destructors and the drain always run. Output is plain text
//! without colour, which is what `NO_COLOR` asks for and what logs want.

mod check;
mod config;
mod demo;
mod doctor;
mod healthcheck;
mod http;
mod logging;
pub mod manifest;
mod plain;
pub mod profile;
pub mod pull;
pub mod replay;
mod run;
mod top;
mod version;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ColorChoice, Parser, Subcommand};

use crate::config::{Fault, Loaded};

/// sysexits.h's EX_CONFIG: a crash loop with it is readable without the logs.
pub const EX_CONFIG: u8 = 78;

#[derive(Debug, Parser)]
#[command(name = "oomwatch", version, about = env!("CARGO_PKG_DESCRIPTION"), color = ColorChoice::Never)]
struct Cli {
    /// Settings file; else OOMWATCH_CONFIG, /etc/oomwatch/sidecar.toml, ./sidecar.toml, the defaults.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the settings only, without network: tells everything that is wrong at once (exit 78).
    Check {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// The settings in force, or their schema.
    #[command(subcommand)]
    Config(config::Command),
    /// Look, in place, at what the sidecar needs: target, rights, limit, pprof, output, folders, ports (exit 1 on a fail).
    Doctor {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Ask a running sidecar whether it lives; for exec probes, the image has no shell.
    Healthcheck {
        /// Ask whether it is ready instead.
        #[arg(long)]
        ready: bool,
    },
    /// Print the patch that adds the sidecar to a Deployment.
    Manifest(manifest::Args),
    /// Show a real leak being named: no account and no cluster needed, Go is.
    Demo(demo::Demo),
    /// Look into profiles, offline; or pull one.
    #[command(subcommand)]
    Profile(profile::Command),
    /// Run the detector over recorded readings and print what it would have said, as CSV.
    Replay {
        /// Files as `/api/readings?format=csv` gives them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// The sidecar itself; what happens without a command.
    Run {
        /// Be ended with the process that started this one, however that one ends. For the demo.
        #[arg(long, hide = true)]
        end_with_parent: bool,
    },
    /// The busiest metric names of a running sidecar, live.
    Top(top::Args),
    /// Version, commit and target.
    Version,
}

/// Runs the command named by the arguments of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let path = cli.config.as_deref();
    match cli.command {
        Some(Command::Check { json }) => check::run(path, json),
        Some(Command::Config(command)) => config::run(command, path),
        Some(Command::Doctor { json }) => doctor::run(path, json),
        Some(Command::Healthcheck { ready }) => healthcheck::run(path, ready),
        Some(Command::Manifest(args)) => print(&manifest::patch(&args)),
        Some(Command::Version) => print(&version::text()),
        Some(Command::Demo(demo)) => demo.run(),
        Some(Command::Profile(command)) => profile::run(&command, path),
        Some(Command::Replay { files }) => replay::command(&files),
        Some(Command::Run { end_with_parent }) => run::run(path, end_with_parent),
        Some(Command::Top(args)) => top::run(path, &args),
        None => run::run(path, false),
    }
}

/// Help and version are asked for and go to standard output; a mistake goes to standard error and ends with 2.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told when the terminal is gone.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

/// Writes to standard output. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

/// The settings of this process, or exit code 78 after telling every fault on standard error.
///
/// # Errors
/// The exit code.
pub fn settings(path: Option<&std::path::Path>) -> Result<Loaded, ExitCode> {
    crate::config::load(path, &crate::config::environment()).map_err(|faults| refuse(&faults))
}

fn refuse(faults: &[Fault]) -> ExitCode {
    let mut err = std::io::stderr().lock();
    for fault in faults {
        let _ = writeln!(err, "{fault}");
    }
    let s = if faults.len() == 1 { "" } else { "s" };
    let _ = writeln!(err, "oomwatch: {} bad setting{s}; nothing was started", faults.len());
    ExitCode::from(EX_CONFIG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
