//! `check`: reads the settings as a start would and tells every fault. Opens the files that settings name, and no socket.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Fault, Loaded};

pub(super) fn run(path: Option<&Path>, json: bool) -> ExitCode {
    let outcome = config::load(path, &config::environment());
    if json {
        let code = if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(super::EX_CONFIG) };
        super::print(&format!("{}\n", report(&outcome)));
        return code;
    }
    match outcome {
        Ok(loaded) => super::print(&format!("settings are fine ({})\n", file(&loaded).unwrap_or("no file".to_owned()))),
        Err(faults) => super::refuse(&faults),
    }
}

fn file(loaded: &Loaded) -> Option<String> {
    loaded.file.as_ref().map(|path| path.display().to_string())
}

/// `ok`, `file` (`null` when none was read or it is at fault) and `faults` [{`key`, `source`, `message`}].
fn report(outcome: &Result<Loaded, Vec<Fault>>) -> serde_json::Value {
    match outcome {
        Ok(loaded) => serde_json::json!({ "ok": true, "file": file(loaded), "faults": [] }),
        Err(faults) => serde_json::json!({ "ok": false, "file": null, "faults": faults }),
    }
}
