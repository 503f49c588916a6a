//! `TRAINER info`: what a trainer is.

use clap::Args;

use crate::artifact::Purpose;
use crate::carried::Trainer;
use crate::console::{self, Outcome};
use crate::kernel::report;
use crate::settings::{DataEntry, Length, Literal, LiteralKind};
use crate::source::bytes_text;
use console::println;

/// The licences of what is linked.
const LICENCES: &str = include_str!("licences.txt");

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Arguments {
    /// The text of the model
    #[arg(long)]
    text: bool,
    /// Kernels and memory map of the training step
    #[arg(long)]
    plan: bool,
    /// Licences of the software inside
    #[arg(long)]
    licences: bool,
}

pub(crate) fn run(trainer: &Trainer, arguments: &Arguments) -> Outcome {
    let artifact = &trainer.contents.artifact;
    if arguments.licences {
        println!("{}", LICENCES.trim_end());
    } else if arguments.plan {
        let step = artifact.steps.get(&(Purpose::Train, artifact.training.batch));
        step.iter()
            .for_each(|step| println!("{}", report::report(&step.program, &artifact.sources).to_string().trim_end()));
    } else if arguments.text {
        for (_, file) in artifact.sources.files().skip(trainer.contents.library) {
            println!("# {}\n{}", file.name, file.text.trim_end());
        }
    } else {
        overview(trainer);
    }
    Ok(())
}

fn overview(trainer: &Trainer) {
    let (contents, training) = (&trainer.contents, &trainer.contents.artifact.training);
    println!("model     {}, {}", training.model, counted(trainer));
    println!("built by  ansatz {}", env!("CARGO_PKG_VERSION"));
    println!("source    {} (texts), {} (meaning)", contents.source, contents.artifact.meaning);
    println!("length    {}, batches of {}, seed {}", length(training.length), training.batch, training.seed);
    for (key, value) in &training.overrides {
        println!("setting   {key}={value}");
    }
    println!("data      {}", training.data.name);
    for field in &training.data.fields {
        let sizes: Vec<String> = field.sizes.iter().map(usize::to_string).collect();
        println!("  {}: {}[{}]", field.name, field.element, sizes.join(", "));
    }
    for DataEntry { key, value, .. } in &training.data.entries {
        println!("  {} = {}", key.join("."), text(value));
    }
    for (name, bytes) in trainer.carrier.sizes() {
        println!("{name:<24}{}", bytes_text(bytes));
    }
}

fn counted(trainer: &Trainer) -> String {
    let params = &trainer.contents.artifact.params;
    let count: usize = params.iter().map(|p| ansatz_program::dim::bound(&p.shape).iter().product::<usize>()).sum();
    format!("{} parameters", console::progress::count(count as f64))
}

fn length(length: Length) -> String {
    match length {
        Length::Epochs(epochs) => format!("{epochs} epochs"),
        Length::Steps(steps) => format!("{steps} steps"),
    }
}

/// A constant as a model file has it.
fn text(literal: &Literal) -> String {
    let listed = |parts: &[Literal], between: &str| parts.iter().map(text).collect::<Vec<_>>().join(between);
    match &literal.kind {
        LiteralKind::Number(value) => value.to_string(),
        LiteralKind::Text(value) => format!("{value:?}"),
        LiteralKind::Bool(value) => value.to_string(),
        LiteralKind::Name(value) => value.clone(),
        LiteralKind::List(parts) => format!("[{}]", listed(parts, ", ")),
        LiteralKind::Pipeline(parts) => listed(parts, " -> "),
        LiteralKind::Call { name, arguments } => {
            let argument = |(key, value): &(Option<String>, Literal)| match key {
                Some(key) => format!("{key} = {}", text(value)),
                None => text(value),
            };
            format!("{name}({})", arguments.iter().map(argument).collect::<Vec<_>>().join(", "))
        }
    }
}
