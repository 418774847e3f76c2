//! `run`: the sidecar itself.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::Signal;

use super::{EX_CONFIG, logging, settings};
use crate::app::{self, Ended, Start};
use crate::sys;

/// Two, whatever the node has: without a CPU limit the runtime would take a thread for each of its cores.
const WORKERS: usize = 2;

pub fn run(path: Option<&Path>, end_with_parent: bool) -> ExitCode {
    if end_with_parent && let Err(fault) = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM) {
        return failed(&format!("ask to be ended with the parent: {fault}"));
    }
    let loaded = match settings(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let set_level = match logging::init(loaded.config.log.level, loaded.config.log.format) {
        Ok(set_level) => set_level,
        Err(fault) => return failed(&format!("set up the log: {fault}")),
    };
    sys::set_up_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        // Made on demand. A name server that hangs keeps a thread for each try, longer than the try itself: readings and files
        // must not stand behind them.
        .max_blocking_threads(16)
        .thread_name("oomwatch")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(fault) => return failed(&format!("start the runtime: {fault}")),
    };
    let ended = runtime.block_on(app::run(Start { loaded, path: path.map(Path::to_owned), set_level }));
    // A blocking read of /proc that hangs must not hold the exit back.
    runtime.shutdown_background();
    match ended {
        Ended::Drained | Ended::Cut => ExitCode::SUCCESS,
        Ended::TaskDied => ExitCode::FAILURE,
        Ended::Refused(faults) => {
            faults.iter().for_each(|fault| say(fault));
            ExitCode::from(EX_CONFIG)
        }
    }
}

fn failed(words: &str) -> ExitCode {
    say(words);
    ExitCode::FAILURE
}

fn say(words: &str) {
    let _closed = writeln!(std::io::stderr(), "oomwatch: {words}");
}
