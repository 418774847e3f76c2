//! `oomwatch profile pull`: one profile from an app's pprof endpoint into a file, by the sidecar's own puller and its bounds.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::pipeline::{ProfileKind, Pulled};
use crate::source::puller::{Puller, Settings};

/// As the endpoint names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// As it stands after the last collection.
    Heap,
    /// After a forced collection.
    HeapGc,
    /// Every goroutine by its stack.
    Goroutine,
    /// Goroutines that can never go on, where the app serves them.
    Goroutineleak,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the app serves net/http/pprof; else profile.url of the settings. The bearer token goes to the latter only.
    #[arg(long)]
    pub url: Option<String>,
    /// What to pull.
    #[arg(value_enum, default_value = "heap")]
    pub kind: Kind,
    /// Where to write it, "-" for standard output; else KIND.pb.gz, which must not exist.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Pulls and writes; 0, or 2 with words.
pub fn run(args: &Args, path: Option<&Path>, out: &mut dyn Write, errors: &mut dyn Write) -> ExitCode {
    let settings = match &args.url {
        Some(url) => by_hand(url),
        None => match super::settings(path) {
            Ok(loaded) => Settings {
                url: loaded.config.profile.url.base(),
                allow_hosts: loaded.config.profile.allow_hosts.clone(),
                bearer: loaded.config.secrets.profile_bearer.as_ref().map(|it| it.expose().to_owned()),
            },
            Err(code) => return code,
        },
    };
    match pull(&settings, args.kind).and_then(|profile| write(args, &profile, out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            // Nobody is left to be told when standard error is gone.
            let _ = writeln!(errors, "oomwatch profile pull: {words}");
            ExitCode::from(2)
        }
    }
}

/// Whoever names a host on the command line allows it; what no host may be stays refused.
fn by_hand(url: &str) -> Settings {
    let host = url.parse::<hyper::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Settings { url: url.to_owned(), allow_hosts: vec![host], bearer: None }
}

fn pull(settings: &Settings, kind: Kind) -> Result<bytes::Bytes, String> {
    let puller = Puller::new(settings)?;
    let kind = match kind {
        Kind::Heap => ProfileKind::Heap,
        Kind::HeapGc => ProfileKind::HeapAfterGc,
        Kind::Goroutine => ProfileKind::Goroutine,
        Kind::Goroutineleak => ProfileKind::GoroutineLeak,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("start a runtime: {error}"))?;
    match runtime.block_on(puller.pull(kind)).map_err(|failed| failed.words)? {
        Pulled::Profile(bytes) => Ok(bytes),
        Pulled::Index(_) | Pulled::Dump(_) => Err("the endpoint gave its index page".to_owned()),
    }
}

fn write(args: &Args, profile: &[u8], out: &mut dyn Write) -> Result<(), String> {
    let Some(path) = &args.output else { return write_new(args.kind, profile, out) };
    if path.as_os_str() == "-" {
        return out.write_all(profile).and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"));
    }
    std::fs::write(path, profile).map_err(|error| format!("{}: {error}", path.display()))?;
    tell(path, profile, out);
    Ok(())
}

/// The name was not given, so no file may be lost to it.
fn write_new(kind: Kind, profile: &[u8], out: &mut dyn Write) -> Result<(), String> {
    let name = match kind {
        Kind::Heap => "heap.pb.gz",
        Kind::HeapGc => "heap-gc.pb.gz",
        Kind::Goroutine => "goroutine.pb.gz",
        Kind::Goroutineleak => "goroutineleak.pb.gz",
    };
    let file = OpenOptions::new().write(true).create_new(true).open(name);
    file.and_then(|mut file| file.write_all(profile)).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{name} is there already: name another file with -o"),
        _ => format!("{name}: {error}"),
    })?;
    tell(Path::new(name), profile, out);
    Ok(())
}

fn tell(path: &Path, profile: &[u8], out: &mut dyn Write) {
    // A reader that has gone away (`| head`) is no failure.
    let _ = writeln!(out, "{} bytes in {}", profile.len(), path.display());
}
