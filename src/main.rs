//! The binary: hands the arguments to the commands and turns their outcome into an exit code.

fn main() -> std::process::ExitCode {
    oomwatch::cli::main()
}
