//! Options about the machine.

use clap::Args;

use crate::Failure;
use crate::machine::{self, Level};
use crate::runtime::recipe::Recipe;

/// Options about the machine; none of them changes results beyond rounding.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// Threads (all cores by default); results do not depend on it
    #[arg(long)]
    threads: Option<usize>,
    /// Instruction set: avx512, avx2 or portable (the best of this machine, or `ANSATZ_CPU`)
    #[arg(long, value_name = "LEVEL")]
    cpu: Option<String>,
}

impl Machine {
    /// Threads to run on.
    pub fn threads(&self) -> usize {
        machine::threads(self.threads)
    }

    /// These options, with the level that a run began at where none is asked for and this machine has it.
    pub(crate) fn at_level_of(&self, recipe: Option<&Recipe>) -> Self {
        let asked = self.cpu.is_some() || std::env::var_os("ANSATZ_CPU").is_some();
        let level = recipe.and_then(|recipe| Level::parse(&recipe.level)).filter(|level| *level <= machine::detect());
        match level {
            Some(level) if !asked => Self { threads: self.threads, cpu: Some(level.to_string()) },
            Some(_) | None => self.clone(),
        }
    }

    /// The level asked for, or the best of this machine among those that there is code for.
    ///
    /// # Errors
    /// A level that this machine or the code has not.
    pub fn level(&self, coded: &[Level]) -> Result<Level, Failure> {
        let asked = self.cpu.clone().or_else(|| std::env::var("ANSATZ_CPU").ok());
        Ok(machine::choose(asked.as_deref(), coded)?)
    }
}
