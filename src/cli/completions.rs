//! `ansatz completions`: a completion script for a shell.

use clap::{Args, CommandFactory};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let mut command = super::Arguments::command();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "ansatz", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(())
}
