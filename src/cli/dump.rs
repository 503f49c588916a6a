//! `ansatz dump`: what a stage of the compiler made.

use clap::{Args, ValueEnum};

use super::compiled::ModelFile;
use super::outline::Outline;
use super::{Failure, open};
use crate::kernel::report;
use crate::kernel::{Persistent, Program};
use crate::{cpu, cuda, graph, model, pipeline, schedule, syntax};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The stage
    #[arg(long, value_enum)]
    stage: Stage,
    #[command(flatten)]
    model: ModelFile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The syntax tree, as JSON
    Ast,
    /// The settings of the `train` item
    Model,
    /// The forward graph
    Graph,
    /// The whole training step after differentiation and passes
    Grad,
    /// Buffers and kernels in order
    Schedule,
    /// The loop IR
    Kernel,
    /// Cranelift's input
    Clif,
    /// Machine code
    Asm,
    /// CUDA C, for a GPU
    Cuda,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    if arguments.stage == Stage::Ast {
        return ast(arguments);
    }
    let outline = Outline::open(&arguments.model)?;
    let (training, fields, sources) = (&outline.training, &outline.fields, outline.sources());
    if arguments.stage == Stage::Model {
        println!("{:#?}", training.settings);
        return Ok(());
    }
    if arguments.stage == Stage::Graph {
        let forward = model::forward(training, training.settings.batch, model::Mode::Train, fields);
        let forward = open::unwrap(forward, sources)?;
        print!("{}", graph::print::print(&forward.graph, sources));
        return Ok(());
    }
    let step = pipeline::training_graph(training, training.settings.batch, fields, false);
    let step = open::unwrap(step, sources)?;
    if arguments.stage == Stage::Grad {
        print!("{}", graph::print::print(&step, sources));
        return Ok(());
    }
    if arguments.stage == Stage::Cuda {
        let program = schedule::plan(&step, &Persistent::of(&step), &cuda::Lowering::default());
        print!("{}", cuda::code::text(&program, Some(sources))?.source);
        return Ok(());
    }
    let program = schedule::plan(&step, &Persistent::of(&step), &cpu::Lowering::default());
    let level = crate::machine::detect();
    let text = match arguments.stage {
        Stage::Schedule => report::report(&program, sources).to_string(),
        Stage::Kernel => crate::kernel::print::print(&program),
        Stage::Clif => machine(&program, |kernel| cpu::code::dump_clif(&program, kernel, level))?,
        Stage::Asm => machine(&program, |kernel| cpu::code::dump_asm(&program, kernel, level))?,
        Stage::Ast | Stage::Model | Stage::Graph | Stage::Grad | Stage::Cuda => unreachable!("handled above"),
    };
    print!("{text}");
    Ok(())
}

/// The text of every nest; products and copies are primitives.
fn machine(
    program: &Program,
    dump: impl Fn(usize) -> Result<Option<String>, cpu::code::CodegenError>,
) -> Result<String, Failure> {
    let mut text = String::new();
    for (index, kernel) in program.kernels.iter().enumerate() {
        let body = dump(index)?.unwrap_or_else(|| "(a primitive)\n".into());
        text.push_str(&format!("; kernel {index}: {}\n{body}\n", kernel.name));
    }
    Ok(text)
}

fn ast(arguments: &Arguments) -> super::Outcome {
    let text = open::text(&arguments.model.file)?;
    let mut sources = crate::source::SourceMap::default();
    let file = sources.add(arguments.model.file.display().to_string(), text.clone());
    let (tree, diagnostics) = syntax::parse(file, &text);
    println!("{}", serde_json::to_string_pretty(&tree)?);
    open::report(&diagnostics, &sources)
}
