//! Options about the machine.

use clap::Args;

use crate::Failure;
use crate::host::{Network, Platform, Processor};
use crate::machine::{self, Level};
use crate::runtime::recipe::Recipe;

/// Options about the machine; none of them changes results beyond rounding.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// Threads (all cores by default); results do not depend on it
    #[arg(long)]
    threads: Option<usize>,
    /// What steps run on: cpu, or cuda for a GPU of NVIDIA's (a run goes on where it began)
    #[arg(long, value_enum, value_name = "DEVICE", hide_possible_values = true)]
    device: Option<Platform>,
    /// Instruction set: avx512, avx2 or portable (the best of this machine, or `ANSATZ_CPU`)
    #[arg(long, value_name = "LEVEL")]
    cpu: Option<String>,
}

/// `ANSATZ_CPU`; empty it says nothing.
fn level_of_environment() -> Option<String> {
    std::env::var_os("ANSATZ_CPU").filter(|level| !level.is_empty()).map(|level| level.to_string_lossy().into_owned())
}

impl Machine {
    /// Threads to run on.
    pub fn threads(&self) -> usize {
        machine::threads(self.threads)
    }

    /// These options, with the device and the level that a run began at where none is asked for and this machine has it.
    pub(crate) fn at_level_of(&self, recipe: Option<&Recipe>, network: &dyn Network) -> Self {
        let was_gpu = recipe.is_some_and(|recipe| recipe.level.starts_with("cuda "));
        let goes_on_there = was_gpu && self.cpu.is_none() && network.admit(Platform::Cuda).is_ok();
        let platform = self.device.unwrap_or(if goes_on_there { Platform::Cuda } else { network.platform() });
        if platform == Platform::Cuda {
            return Self { device: Some(platform), ..self.clone() };
        }
        let asked = self.cpu.is_some() || level_of_environment().is_some();
        let level = recipe.and_then(|recipe| Level::parse(&recipe.level)).filter(|level| *level <= machine::detect());
        match level {
            Some(level) if !asked => Self { cpu: Some(level.to_string()), ..self.clone() },
            Some(_) | None => self.clone(),
        }
    }

    /// The kind of device asked for, or this machine's processor.
    pub fn platform(&self) -> Platform {
        self.device.unwrap_or_default()
    }

    /// What the steps of a network run on: what is asked for, or what it was made for.
    ///
    /// # Errors
    /// As [`Machine::level`].
    pub(crate) fn processor(&self, network: &dyn Network) -> Result<Processor, Failure> {
        let platform = self.device.unwrap_or(network.platform());
        network.admit(platform)?;
        match platform {
            Platform::Cpu => Ok(Processor::Cpu(self.level(network.levels())?, self.threads())),
            Platform::Cuda if self.cpu.is_some() => {
                Err(Failure::Problem("`--cpu` is about the processor, and `--device cuda` asks for a GPU".into()))
            }
            Platform::Cuda => Ok(Processor::Cuda),
        }
    }

    /// The level asked for, or the best of this machine among those that there is code for.
    ///
    /// # Errors
    /// A level that this machine or the code has not.
    pub fn level(&self, coded: &[Level]) -> Result<Level, Failure> {
        let asked = self.cpu.clone().or_else(level_of_environment);
        Ok(machine::choose(asked.as_deref(), coded)?)
    }
}
