//! `doctor`: looks at what the sidecar needs, in place, and prints a line for each thing: ok, warn or fail, with what to do.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use super::http;
use crate::app::{Finding, State, examine};
use crate::config;

pub(super) fn run(path: Option<&Path>, json: bool) -> ExitCode {
    let findings = match config::load(path, &config::environment()) {
        Ok(loaded) => match look(&loaded.config) {
            Ok(findings) => findings,
            Err(fault) => vec![Finding::new(State::Fail, "doctor", format!("start the runtime: {fault}"), "")],
        },
        Err(faults) => faults
            .iter()
            .map(|fault| Finding::new(State::Fail, "settings", fault.to_string(), "oomwatch check tells them alone"))
            .collect(),
    };
    let fine = findings.iter().all(|it| it.state != State::Fail);
    super::print(&if json { as_json(fine, &findings) } else { as_text(&findings) });
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn look(config: &config::Config) -> std::io::Result<Vec<Finding>> {
    let running = http::get(config.health.listen, "/livez", None).is_ok_and(|answer| answer.status == 200);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(examine(config, running)))
}

fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let _ = writeln!(text, "{finding}");
    }
    let count = |state| findings.iter().filter(|it| it.state == state).count();
    let _ = writeln!(text, "{} fail, {} warn, {} ok", count(State::Fail), count(State::Warn), count(State::Ok));
    text
}

/// `ok` and `findings` [{`state`, `what`, `why`, `fix`}].
fn as_json(fine: bool, findings: &[Finding]) -> String {
    format!("{}\n", serde_json::json!({ "ok": fine, "findings": findings }))
}
