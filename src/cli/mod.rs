//! The commands. Each is one short file.

pub mod demo;
pub mod profile;
pub mod replay;

/// Runs the command named by the arguments of this process.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
