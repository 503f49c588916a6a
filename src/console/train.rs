//! `ansatz train`: train a model.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::findings::{self, quoted};
use crate::host::{Host, Processor};
use crate::interrupt::Interrupt;
use crate::kernel::report;
use crate::machine::limits::Limits;
use crate::options::Machine;
use crate::runtime::checkpoint::Note;
use crate::runtime::data::Preparation;
use crate::runtime::folder::RunFolder;
use crate::runtime::recipe::Recipe;
use crate::runtime::record::{self, Command, Init, Record, StepLog};
use crate::runtime::train::{self, Divergence, Ending, Loop, LoopError, Weights};
use crate::runtime::trainer::{NOT_A_NUMBER, Origin, Trainer};
use crate::runtime::{keep, memory};
use crate::session::{self, Measures, Session};
use crate::watch::Watch;
use crate::{Failure, roofline};

/// Bytes that threads, curves and reports take beside the steps of a run.
const BESIDE_STEPS: u64 = 64 << 20;

/// Options of `train`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Override a setting, such as `train.batch=64` or `optimizer.lr=0.01`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = session::pair)]
    pub set: Vec<(String, String)>,
    /// Passes over the training split
    #[arg(long, conflicts_with = "steps")]
    pub epochs: Option<f64>,
    /// Optimizer steps
    #[arg(long)]
    pub steps: Option<u64>,
    /// Seed of initialisation, shuffling, splits, augmentation and dropout
    #[arg(long)]
    pub seed: Option<u64>,
    /// Start from these weights
    #[arg(long, value_name = "SAFETENSORS")]
    pub init: Option<PathBuf>,
    /// Leave the short last batch of an epoch out
    #[arg(long)]
    pub drop_last: bool,
    /// Keep the order of the samples
    #[arg(long)]
    pub no_shuffle: bool,
    /// Write a JSON line for each step
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Add the norm of each parameter's gradient to the log
    #[arg(long, requires = "log")]
    pub log_grads: bool,
    /// Print the time of each kernel at the end
    #[arg(long)]
    pub profile: bool,
    /// Save and stop when this many steps are done; `resume` goes on
    #[arg(long, value_name = "STEPS")]
    pub stop_after: Option<u64>,
    /// The run folder (a new one below `runs/` by default)
    #[arg(long, value_name = "FOLDER")]
    pub run: Option<PathBuf>,
    /// The machine.
    #[command(flatten)]
    pub machine: Machine,
}

/// Trains the network of a model file.
///
/// # Errors
/// What is wrong with the file, its data or the run's folder; a signal.
pub fn run(host: &dyn Host, file: &Path, arguments: &Arguments) -> crate::Outcome {
    let interrupt = Interrupt::watch().map_err(Failure::of("signals cannot be watched"))?;
    under(host, file, arguments, &interrupt)
}

/// As [`run`], where signals are watched already.
///
/// # Errors
/// As [`run`].
pub fn under(host: &dyn Host, file: &Path, arguments: &Arguments, interrupt: &Interrupt) -> crate::Outcome {
    let overrides = overrides(arguments);
    let session = Session::open(host, file, &overrides)?;
    findings::report(&keep::findings(session.settings(), Some(&session.dataset)), session.sources())?;
    session.network.warn(&session.dataset)?;
    let measures = Measures { gradient_norms: arguments.log_grads, profile: arguments.profile };
    let mut trainer = session.trainer(&arguments.machine, measures)?;
    let mut init = None;
    if let Some(weights) = &arguments.init {
        let note = trainer.load_weights(weights)?;
        hold_words(&session.dataset.preparation, note.preparation.as_ref(), weights)?;
        init = Some(Init { path: record::absolute(weights)?, content: trainer.content()? });
    }
    if let Some(log) = &arguments.log {
        session.hold_apart("--log", log, &Vec::from_iter(&arguments.init))?;
        StepLog::hold(log)?;
    }
    let recipe = session.recipe(&trainer, arguments.no_shuffle)?;
    interrupt.begin();
    let folder = match &arguments.run {
        Some(folder) => RunFolder::for_new_run(folder, &format!("{} {}", host.call_resume(), quoted(folder)))?,
        None => {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            RunFolder::fresh(Path::new("runs"), &stem).map_err(session::elsewhere)?
        }
    };
    let command = Command::new(file, &folder.path, overrides, arguments.no_shuffle, init)?;
    let log = arguments.log.as_deref().map(StepLog::create).transpose()?;
    let mut record = Record::create(folder, &command)?;
    let (log_gradients, stop_after) = (arguments.log_grads, arguments.stop_after);
    let options = Options { recipe, log, log_gradients, stop_after, machine: arguments.machine.clone() };
    go(host, &session, &mut trainer, &mut record, &command, options, interrupt)?;
    if arguments.profile {
        let limits = match arguments.machine.processor(&*session.network)? {
            Processor::Cpu(level, threads) => Some(Limits::measure(level, threads)),
            // What a GPU can do is on its data sheet: `plan --roofline --gpu`.
            Processor::Cuda => None,
        };
        print!("{}", profile(&session, &trainer, limits.as_ref()));
    }
    Ok(())
}

/// Refuses weights that learned numbers where the data have words: nothing says which is which.
fn hold_words(own: &Preparation, before: Option<&Preparation>, weights: &Path) -> crate::Outcome {
    let Some(field) = before.and_then(|before| own.words_for_numbers(before)) else { return Ok(()) };
    Err(Failure::Problem(format!(
        "{}: `{}` was numbers in the run that made the weights, and the data have words (\"{}\", …); give the numbers \
         of the classes, from 0, as that run had them",
        weights.display(),
        field.name,
        field.words[0]
    )))
}

/// Milliseconds a full step for each kernel, the slowest first, with its arithmetic, its share of what the machine
/// can do, and its place in the model; then the kernels' part of the step.
fn profile(session: &Session, trainer: &Trainer, limits: Option<&Limits>) -> String {
    let report = report::report(trainer.program(), session.sources());
    let nanoseconds = trainer.profile();
    let total = nanoseconds.iter().sum::<u64>().max(1) as f64;
    let (steps, seconds) = trainer.full_steps();
    let full = steps.max(1) as f64;
    let mut order: Vec<usize> = (0..nanoseconds.len()).collect();
    order.sort_by_key(|kernel| std::cmp::Reverse(nanoseconds[*kernel]));
    let mut text =
        limits.map_or_else(String::new, |limits| format!("{}\n\n", roofline::machine("this machine", limits)));
    text.push_str(&format!("{:>9}  {:>5}  {:>7}  {:>7}  {:>7}  kernel\n", "ms", "%", "Gflop/s", "GB/s", "% limit"));
    for kernel in order {
        let (time, row) = (nanoseconds[kernel] as f64, &report.kernels[kernel]);
        let slices = row.slices.map_or(String::new(), |slices| format!("  in {slices} slices"));
        let rate = |amount: u64| amount as f64 * full / time.max(1.0);
        let share = limits.map_or("        ".to_string(), |limits| {
            let (least, bound) = roofline::least(limits, row);
            format!("{:>5.1} {}", 100.0 * least * full / (time.max(1.0) * 1e-6), &bound[..1])
        });
        text.push_str(&format!(
            "{:>9.4}  {:>5.1}  {:>7.1}  {:>7.1}  {share}  {kernel} {} {}  {}{slices}\n",
            time / full * 1e-6,
            100.0 * time / total,
            rate(row.flops),
            rate(row.bytes),
            row.name,
            row.shape,
            row.place
        ));
    }
    let (kernels, step) = (total * 1e-6 / full, seconds * 1e3 / full);
    let share = 100.0 * kernels / step.max(1e-9);
    text.push_str(&format!("kernels: {kernels:.4} ms of {step:.4} ms a step ({share:.1} %)\n"));
    text
}

fn overrides(arguments: &Arguments) -> Vec<(String, String)> {
    let mut overrides = arguments.set.clone();
    let mut set = |key: &str, value: String| overrides.push((key.to_string(), value));
    if let Some(epochs) = arguments.epochs {
        set("train.length", format!("{epochs} epochs"));
    }
    if let Some(steps) = arguments.steps {
        set("train.length", format!("{steps} steps"));
    }
    if arguments.drop_last {
        set("train.drop_last", "true".to_string());
    }
    if let Some(seed) = arguments.seed {
        set("train.seed", seed.to_string());
    }
    overrides
}

/// What `train` and `resume` tell the loop.
pub struct Options {
    /// What the run is made from.
    pub recipe: Recipe,
    /// A line a step.
    pub log: Option<StepLog>,
    /// Gradient norms in the log.
    pub log_gradients: bool,
    /// Stop when this many steps are done.
    pub stop_after: Option<u64>,
    /// The machine that it runs on.
    pub machine: Machine,
}

/// Trains to the end or to an interruption, and says where things are.
pub(crate) fn go(
    host: &dyn Host,
    session: &Session,
    trainer: &mut Trainer,
    record: &mut Record,
    command: &Command,
    options: Options,
    interrupt: &Interrupt,
) -> crate::Outcome {
    // What runs beside the steps asks in small pieces, whose refusal nothing could tell of.
    memory::check(BESIDE_STEPS, "what saves and tells of a run").map_err(Failure::Problem)?;
    let folder = record.folder.path.clone();
    let watch = Watch::begin(&folder, session, trainer, &options.machine);
    let platform = options.machine.processor(&*session.network)?.platform();
    let mut progress = session.progress(trainer);
    let mut settings = Loop {
        training: session.settings(),
        dataset: &session.dataset,
        note: Note {
            recipe: Some(options.recipe),
            preparation: Some(session.dataset.preparation.clone()),
            position: None,
        },
        record,
        log: options.log,
        log_gradients: options.log_gradients,
        no_shuffle: command.no_shuffle,
        init: command.init.as_ref().map(|init| init.path.clone()),
        watched: &|rows, persistent| session.watched(rows, persistent, platform),
        stop: interrupt.flag(),
        stop_after: options.stop_after,
    };
    let ending = train::run(trainer, &mut settings, &mut |event| progress.show(&event));
    progress.finish();
    interrupt.end();
    match ending {
        Ok(Ending::Complete(weights)) => finish(host, session, trainer, &watch, &folder, &weights),
        Ok(Ending::Stopped) => {
            println!("stopped after step {}; everything is saved", trainer.position().step);
            watch.stopped("stopped", trainer.position().step);
            println!("go on with: {} {}", host.call_resume(), quoted(&folder));
            interrupt.code().map_or(Ok(()), |code| Err(Failure::Signal(code)))
        }
        Err(LoopError::Diverged(found)) => {
            watch.stopped(&format!("{} is not finite at step {}", found.what, found.step), found.step);
            Err(diverged(host, session, &folder, &found))
        }
        Err(error) => Err(error.into()),
    }
}

/// What is not finite and why, what may help, and from where to go on.
fn diverged(host: &dyn Host, session: &Session, folder: &Path, found: &Divergence) -> Failure {
    let last = folder.join("last.safetensors");
    let way = match last.exists() {
        true => format!(
            "{0} is from before and finite: `{1} --init {0}` starts from its weights",
            quoted(&last),
            host.call("train", &session.path)
        ),
        false => "nothing was saved before".to_string(),
    };
    let reason = match &found.origin {
        Some(Origin { operation, advice, .. }) => format!("it comes from {operation}\n  {advice}"),
        None => {
            format!("where values grow, a smaller learning rate or `clip = 1.0` may help; {NOT_A_NUMBER}")
        }
    };
    let more = [&found.records, &found.tried].into_iter().flatten().map(|words| format!("  {words}\n"));
    let more: String = more.collect();
    Failure::Problem(format!("{} is not finite at step {}\n  {reason}\n{more}  {way}", found.what, found.step))
}

fn finish(
    host: &dyn Host,
    session: &Session,
    trainer: &mut Trainer,
    watch: &Watch,
    folder: &Path,
    weights: &Weights,
) -> crate::Outcome {
    match weights {
        Weights::Last => {}
        Weights::Best { figure, value, step } => {
            println!("best: {figure} {value:.4} after step {step}; what follows is of these weights");
        }
        Weights::NoBest { figure } => {
            println!("best: there are no weights with a finite {figure}; what follows is of the last weights");
        }
    }
    let step = trainer.position().step;
    let mut measured = None;
    if let Some((name, split)) = train::final_split(&session.dataset) {
        let figures = train::evaluate(trainer, split, session.settings().batch)?;
        println!("{name}: {}", crate::progress::figures(&figures));
        measured = Some((name, figures));
    }
    let report = watch.complete(session, step, weights, measured.as_ref().map(|(name, figures)| (*name, figures)));
    let weights = folder.join("weights.safetensors");
    println!("weights: {}   curve: {}", weights.display(), folder.join("loss.svg").display());
    if let Some(report) = report {
        println!("report: {}", report.display());
    }
    println!("next: {} --weights {}", host.call("eval", &session.path), quoted(&weights));
    Ok(())
}
