//! The leaking worker: its source, embedded in this binary, and its build by the Go of this machine.
//!
//! The binary is kept in the user's cache under a name made from the source, so a second demo starts at once and a change of
//! the source builds anew.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// Every file of `demo/worker`.
const SOURCE: &[(&str, &str)] = &[
    ("go.mod", include_str!("../../../demo/worker/go.mod")),
    ("go.sum", include_str!("../../../demo/worker/go.sum")),
    ("main.go", include_str!("../../../demo/worker/main.go")),
    ("queue.go", include_str!("../../../demo/worker/queue.go")),
    ("handler.go", include_str!("../../../demo/worker/handler.go")),
];

/// From this version on, `go` can read our `go.mod` and fetch a newer toolchain by itself.
const OLDEST_GO: (u32, u32) = (1, 21);

const HOW_TO_GET_GO: &str = "The demo builds a real Go worker and needs Go 1.24 or newer.\n\
    Install it from https://go.dev/dl/ or, in a checkout, run ./dev/demo, which fetches it into the cache.";

/// Where builds are kept: the user's cache, or `fallback` where there is none. Never a shared folder such as `/tmp`, where
/// somebody else could have put a binary of that name.
pub fn cache_dir(variable: impl Fn(&str) -> Option<PathBuf>, fallback: &Path) -> PathBuf {
    let user = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    user.filter(|dir| dir.is_absolute()).unwrap_or_else(|| fallback.to_owned()).join("oomwatch")
}

/// The path of the built worker, building it first where it is not there.
///
/// # Errors
/// In words for the person at the terminal: no Go, a Go too old, or what the compiler said.
pub async fn build(cache: &Path, say: impl Fn(&str)) -> Result<PathBuf, String> {
    let dir = cache.join(format!("demo-{:016x}", fingerprint()));
    let binary = dir.join("worker");
    if binary.is_file() {
        return Ok(binary);
    }
    check_go().await?;
    write_source(&dir).map_err(|error| format!("write the worker's source to {}: {error}", dir.display()))?;
    say("building the leaking worker with Go (the first time also fetches asynq, miniredis and datadog-go) …");
    compile(&dir, &binary).await?;
    Ok(binary)
}

fn fingerprint() -> u64 {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    hasher.finish()
}

fn write_source(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    SOURCE.iter().try_for_each(|(name, text)| std::fs::write(dir.join(name), text))
}

async fn check_go() -> Result<(), String> {
    let output = Command::new("go").arg("version").stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| format!("cannot run go: {error}.\n{HOW_TO_GET_GO}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match go_version(&text) {
        Some(version) if version >= OLDEST_GO => Ok(()),
        Some((major, minor)) => Err(format!("go on the PATH is {major}.{minor}.\n{HOW_TO_GET_GO}")),
        None => Err(format!("`go version` says {:?}.\n{HOW_TO_GET_GO}", text.trim())),
    }
}

/// Major and minor of `go version go1.26.8 linux/amd64`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_whitespace().nth(2)?.strip_prefix("go")?;
    let mut parts = number.split(['.', 'r', 'b', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Builds beside the final name and renames, so that a build cut short, or a second demo, never leaves half a binary there.
/// `-trimpath` makes the file names in the profiles those of the module, not of somebody's cache.
async fn compile(dir: &Path, binary: &Path) -> Result<(), String> {
    let unfinished = dir.join(format!("worker.{}", std::process::id()));
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o"]).arg(&unfinished).arg(".");
    go.env("GOWORK", "off").current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
    let output = go.output().await.map_err(|error| format!("run go build: {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("go build failed ({}):\n{words}{HOW_TO_GET_GO}", output.status));
    }
    std::fs::rename(&unfinished, binary).map_err(|error| format!("keep {}: {error}", binary.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_tells_its_version_in_many_ways() {
        for (text, expected) in [
            ("go version go1.26.8 linux/amd64\n", Some((1, 26))),
            ("go version go1.19 linux/arm64", Some((1, 19))),
            ("go version go1.27rc1 linux/amd64", Some((1, 27))),
            ("go version devel +a1b2c3 linux/amd64", None),
            ("", None),
        ] {
            assert_eq!(go_version(text), expected, "{text}");
        }
    }

    #[test]
    fn cache_is_the_users_or_private() {
        let find = |xdg: Option<&str>, home: Option<&str>| {
            let pick = |name: &str| if name == "HOME" { home } else { xdg }.map(PathBuf::from);
            cache_dir(pick, Path::new("/private"))
        };
        assert_eq!(find(Some("/x"), Some("/h")), Path::new("/x/oomwatch"));
        assert_eq!(find(None, Some("/h")), Path::new("/h/.cache/oomwatch"));
        assert_eq!(find(None, None), Path::new("/private/oomwatch"));
        assert_eq!(find(Some("relative"), None), Path::new("/private/oomwatch"));
    }

    #[test]
    fn every_file_of_the_worker_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/worker");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".go") || name.starts_with("go."))
            .collect();
        let mut embedded: Vec<&str> = SOURCE.iter().map(|(name, _)| *name).collect();
        there.sort();
        embedded.sort_unstable();
        assert_eq!(embedded, there);
    }
}
