//! `version`: what this binary is, for a bug report.

/// Version, commit and target. The commit comes from `OOMWATCH_COMMIT` at build time; there is no git in an image build.
pub(super) fn text() -> String {
    let commit = option_env!("OOMWATCH_COMMIT").filter(|commit| !commit.is_empty()).unwrap_or("unknown");
    format!("oomwatch {}\ncommit {commit}\ntarget {}\n", env!("CARGO_PKG_VERSION"), target())
}

/// The parts of the target that can be told without a build script.
fn target() -> String {
    let env = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let link = if cfg!(target_feature = "crt-static") { "static" } else { "dynamic" };
    format!("{}-{}-{env} ({link})", std::env::consts::ARCH, std::env::consts::OS)
}
