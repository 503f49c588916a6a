//! The `ansatz` command.

fn main() -> std::process::ExitCode {
    ansatz::cli::main()
}
