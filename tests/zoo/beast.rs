//! The Go program of the zoo, built once for a test binary.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::support::root;

pub fn beast() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

/// Go leaves a file alone that is built already, so test binaries side by side do not disturb one another.
fn build() -> PathBuf {
    let out = root().join("target/zoo-beast");
    // Inside a can nothing is built: it was, before the can was made.
    if !crate::support::can::is_inside() {
        let mut go = Command::new("go");
        let status = go.args(["build", "-o"]).arg(&out).arg(".").current_dir(root().join("tests/zoo/go")).status();
        assert!(status.unwrap().success(), "go build of tests/zoo/go");
    }
    out
}
