//! `healthcheck`: asks the health listener of a running sidecar, for exec probes in an image without a shell.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::http;

pub(super) fn run(path: Option<&Path>, ready: bool) -> ExitCode {
    let loaded = match super::settings(path) {
        Ok(loaded) => loaded,
        // 78 would be a surprise in a probe, which knows 0 and 1.
        Err(_) => return ExitCode::from(1),
    };
    let route = if ready { "/readyz" } else { "/livez" };
    match http::get(loaded.config.health.listen, route, None) {
        Ok(answer) if answer.status == 200 => ExitCode::SUCCESS,
        Ok(answer) => fail(&format!("{route} answered {}: {}", answer.status, answer.body.trim())),
        Err(error) => fail(&format!("{route}: {error}")),
    }
}

fn fail(words: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "oomwatch: {words}");
    ExitCode::from(1)
}
