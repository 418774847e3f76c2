//! Says what could not be read of the app, why, and the line that mends it.

use std::path::Path;

use crate::pipeline::{Degraded, Observation};
use crate::source::cgroup::Unreachable;
use crate::source::process::Status;

/// What is said of the limit when there is none but the machine's memory.
pub(super) const NO_LIMIT: &str = "the machine's memory: the app has no limit of its own";

const SHARE: &str = "spec.template.spec: {shareProcessNamespace: true}";

const LIMIT: &str = "on the oomwatch container: env: [{name: APP_MEMORY_LIMIT, valueFrom: {resourceFieldRef: {containerName: \
                     APP-CONTAINER, resource: limits.memory}}}]; the app's container needs resources: {limits: {memory: …}}";

/// What is missing now. `found` is the target's identity and what became of its cgroup; `none` says why there is no target.
pub(super) fn list(
    proc: &Path,
    found: Option<(Status, Option<Unreachable>)>,
    none: &str,
    observation: &Observation,
) -> Vec<Degraded> {
    let Some((status, cgroup)) = found else { return vec![no_target(proc, none)] };
    let mut list = Vec::new();
    if cgroup == Some(Unreachable::Denied) {
        list.push(denied(status));
    }
    if observation.reading.limit_bytes.is_none() || observation.limit_source == NO_LIMIT {
        list.push(say(
            "memory limit",
            "no limit below the machine's memory could be read: growth is held against the whole machine, and told late",
            LIMIT,
        ));
    }
    if observation.reading.memory_bytes.is_none() && observation.rss_bytes.is_none() {
        list.push(say("memory", "neither status nor statm of the app can be read", "mount /proc without hidepid"));
    }
    if observation.census.clients.is_none() {
        list.push(say(
            "StatsD clients",
            "/proc/net/udp cannot be read, so live clients are not counted",
            "set watch.proc to a mounted /proc",
        ));
    }
    list
}

fn say(what: &str, why: &str, fix: &str) -> Degraded {
    Degraded { what: what.to_owned(), why: why.to_owned(), fix: fix.to_owned() }
}

fn no_target(proc: &Path, none: &str) -> Degraded {
    if proc.join("self").exists() {
        return say("the app's process", none, &format!("{SHARE}; or set watch.name or watch.cmdline"));
    }
    let why = format!("there is no process file system at {}", proc.display());
    say("the app's process", &why, "set watch.proc to where it is mounted")
}

fn denied(status: Status) -> Degraded {
    let (own_uid, own_gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let (uid, gid) = (status.uid.unwrap_or(0), status.gid.unwrap_or(0));
    let what = "the app's cgroup";
    if (own_uid, own_gid) == (uid, gid) {
        let why = format!("the app runs as {uid}:{gid} like the sidecar, but the kernel holds it for undumpable");
        return say(what, &why, "make the app's binary readable by its own user: COPY --chmod=0555 in its Dockerfile");
    }
    let why = format!(
        "the sidecar runs as {own_uid}:{own_gid} and the app as {uid}:{gid}: memory is taken from status instead, and a freeze at \
         the limit is told by faults and silence alone"
    );
    let fix = format!("on the oomwatch container: securityContext: {{runAsUser: {uid}, runAsGroup: {gid}}}");
    say(what, &why, &fix)
}
