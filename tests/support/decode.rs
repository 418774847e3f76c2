//! Datadog's own generated Go types as the reader of our bodies: `tests/decode`, built into `target/`.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use oomwatch::datadog::Endpoint;
use serde_json::Value;

/// The decoder's binary, or why there is none.
pub fn decoder() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("decode");
    let built =
        Command::new("go").arg("build").arg("-o").arg(&binary).arg(".").current_dir(root.join("tests/decode")).output();
    match built {
        Err(error) => Err(format!("go cannot be run: {error}")),
        Ok(output) if output.status.success() => Ok(binary),
        Ok(output) => panic!("go build of tests/decode failed: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

pub fn decode(decoder: &Path, bodies: &[(Endpoint, &[u8])]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = bodies
        .iter()
        .enumerate()
        .map(|(n, (endpoint, body))| {
            let file =
                dir.path().join(format!("{n}.{}", if *endpoint == Endpoint::Series { "series" } else { "sketches" }));
            std::fs::write(&file, body).unwrap();
            file
        })
        .collect();
    let output = Command::new(decoder).args(&files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
