//! `ansatz plan`: kernels and memory map of a training step.

use clap::Args;

use super::Failure;
use super::compiled::ModelFile;
use super::outline::Outline;
use crate::console::options::Machine;
use crate::console::{Platform, roofline};
use crate::cuda::code::text;
use crate::cuda::limits::{SHEETS, Sheet};
use crate::cuda::nvrtc::Nvrtc;
use crate::cuda::run::{Action, Arch, Kind, Launch};
use crate::cuda::usage::{Usage, usage};
use crate::kernel::Program;
use crate::kernel::report::{self, Report};
use crate::machine::Level;
use crate::machine::limits::Limits;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelFile,
    /// Plan inference instead of training
    #[arg(long)]
    inference: bool,
    /// Measure this machine for a moment (of a GPU: take its data sheet), and print the least time of each kernel on it
    #[arg(long)]
    roofline: bool,
    /// With `--device cuda`: the GPU to plan for, a100, h100, h200, b200, l4 or rtx4090
    #[arg(long, value_name = "NAME", default_value = "h100")]
    gpu: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let platform = arguments.machine.platform();
    let gpu = Sheet::find(&arguments.gpu).ok_or_else(|| {
        let known = SHEETS.map(|gpu| gpu.name).join(", ");
        Failure::Problem(format!("no data sheet of a GPU `{}`: {known}", arguments.gpu))
    })?;
    let outline = Outline::open(&arguments.model)?;
    let program = outline.program(arguments.inference, platform)?;
    let report = report::report(&program, outline.sources());
    let launches = match platform {
        Platform::Cpu => None,
        Platform::Cuda if arguments.roofline && !arguments.json => None,
        Platform::Cuda => Some(launches(&program, gpu.arch())?),
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&Plan { report: &report, launches: launches.as_deref() })?);
        return Ok(());
    }
    if arguments.roofline {
        let (name, limits) = match platform {
            Platform::Cpu => {
                let limits = Limits::measure(arguments.machine.level(&Level::ALL)?, arguments.machine.threads());
                ("this machine".to_string(), limits)
            }
            Platform::Cuda => (format!("{}, by its data sheet", gpu.name), gpu.limits(program.precision)),
        };
        print!("{}", roofline::table(&report, &name, &limits));
        return Ok(());
    }
    print!("{report}");
    if let Some(launches) = launches {
        print!("{}", table(&launches, &report, gpu.arch()));
    }
    Ok(())
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Plan<'r> {
    #[serde(flatten)]
    report: &'r Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    launches: Option<&'r [Launched]>,
}

/// What a kernel becomes on a GPU.
#[derive(serde::Serialize)]
struct Launched {
    /// The function, of which several kernels may be launches; none for what the driver does itself.
    function: Option<usize>,
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    /// Where NVRTC is at hand.
    usage: Option<Usage>,
}

/// Each kernel's launch, in order.
fn launches(program: &Program, arch: Arch) -> Result<Vec<Launched>, Failure> {
    let text = text(program, None)?;
    let compiled = Nvrtc::open().and_then(|nvrtc| nvrtc.compile(&text.source, arch, Kind::Cubin));
    let usages = match compiled {
        Ok(compiled) => usage(&compiled.log, text.functions),
        Err(error) => {
            eprintln!("note: registers are not known: {error}");
            None
        }
    };
    let launched = |action: &Action| match action {
        Action::Launch(Launch { function, blocks, threads, shared_bytes, .. }) => Launched {
            function: Some(*function),
            blocks: *blocks,
            threads: *threads,
            shared_bytes: *shared_bytes,
            usage: usages.as_ref().map(|usages| usages[*function]),
        },
        Action::Zero { .. } | Action::Copy { .. } => {
            Launched { function: None, blocks: 0, threads: 0, shared_bytes: 0, usage: None }
        }
    };
    Ok(text.actions.iter().map(launched).collect())
}

/// A line for each launch.
fn table(launches: &[Launched], report: &Report, arch: Arch) -> String {
    let mut text = format!(
        "\nfor {arch}:\n{:>4}  {:>8}  {:>9}  {:>7}  {:>9}  {:>9}  {:>7}  kernel\n",
        "", "function", "blocks", "threads", "shared B", "registers", "spilled"
    );
    for (number, (launch, kernel)) in launches.iter().zip(&report.kernels).enumerate() {
        let Launched { blocks, threads, shared_bytes, .. } = launch;
        let function = launch.function.map_or("-".to_string(), |function| format!("k{function}"));
        let usage =
            |of: fn(&Usage) -> u32| launch.usage.as_ref().map_or("-".to_string(), |usage| of(usage).to_string());
        let (registers, spilled) = (usage(|usage| usage.registers), usage(|usage| usage.spilled_bytes));
        text.push_str(&format!(
            "{number:>4}  {function:>8}  {blocks:>9}  {threads:>7}  {shared_bytes:>9}  {registers:>9}  {spilled:>7}  \
             {} {}\n",
            kernel.name, kernel.place
        ));
    }
    text
}
