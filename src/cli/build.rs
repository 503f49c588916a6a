//! `ansatz build`: a trainer, one executable file with a run and its machine code.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use super::compiled::{self, ModelFile};
use super::tuning::Cache;
use super::{Failure, about, open};
use crate::artifact::{Artifact, Purpose, checksum, wanted};
use crate::console::findings::{quoted, shown};
use crate::cpu::code::{self, Options};
use crate::cpu::{Lowering, code::CodegenError};
use crate::kernel::Program;
use crate::machine::Level;
use crate::model::{self, Resolved};
use crate::pipeline;
use crate::runtime::checkpoint;
use crate::runtime::data::{self, DataError};
use crate::runtime::keep;
use crate::runtime::record::relative;
use crate::source::bytes_text;
use ansatz_trainer::contents::{self, Codes, Contents, WatchedSteps};

/// The program of trainers, packed; empty where this compiler was built for another system than its builder's.
const STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub"));

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelFile,
    /// The trainer's file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Code for this instruction set alone: avx512, avx2 or portable (by default for all three, chosen where it runs)
    #[arg(long, value_name = "LEVEL")]
    target_cpu: Option<String>,
    /// Put the files of the data in
    #[arg(long)]
    embed_data: bool,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let levels = levels(arguments.target_cpu.as_deref())?;
    let stub = stub()?;
    let training = compiled::training(&arguments.model.file, &arguments.model.set)?;
    let made = contents(&training, &arguments.output)?;
    let watched = watched(&training, &made.artifact);
    let codes = codes(&made, &watched, &levels)?;
    let data = arguments.embed_data.then(|| data::pack(&training.settings.data)).transpose();
    let data = data.map_err(Failure::of("the data cannot be read"))?;
    if data.as_ref().is_some_and(BTreeMap::is_empty) {
        return Err(Failure::Problem("`--embed-data`: the data item names no file that is there".into()));
    }
    let bytes = contents::trainer(&stub, &made, &watched, &codes, data.as_ref())?;
    write(&arguments.output, &bytes)?;
    let sizes = [stub.len(), bytes.len() - stub.len()].map(|bytes| bytes_text(bytes as u64));
    println!(
        "wrote {}: {}, {} of program, {} of run",
        shown(&arguments.output),
        bytes_text(bytes.len() as u64),
        sizes[0],
        sizes[1]
    );
    let call = if arguments.output.components().count() == 1 {
        Path::new(".").join(&arguments.output)
    } else {
        arguments.output.clone()
    };
    println!("next: {} train", quoted(&call));
    Ok(())
}

fn levels(asked: Option<&str>) -> Result<Vec<Level>, Failure> {
    let Some(name) = asked else { return Ok(Level::ALL.to_vec()) };
    let level = Level::parse(name);
    let words = || Failure::Problem(format!("no instruction set `{name}`: choose avx512, avx2 or portable"));
    Ok(vec![level.ok_or_else(words)?])
}

fn stub() -> Result<Vec<u8>, Failure> {
    let mut stub = Vec::new();
    flate2::read::DeflateDecoder::new(STUB).read_to_end(&mut stub).map_err(Failure::of("the packed trainer"))?;
    if stub.is_empty() {
        let words =
            "this ansatz was built on another system than it is for, and has no trainers; build it where it runs";
        return Err(Failure::Problem(words.into()));
    }
    Ok(stub)
}

/// The run with all steps that its data want; without data those for whole batches.
fn contents(training: &Resolved, output: &Path) -> Result<Contents, Failure> {
    let (settings, sources) = (&training.settings, &training.project.sources);
    let fields = open::unwrap(data::fields(&settings.data), sources)?;
    let dataset = match data::open(&settings.data, settings.seed) {
        Ok(dataset) => Some(dataset),
        Err(DataError::File { error, .. }) => {
            eprintln!("note: {error}");
            eprintln!("note: without data the trainer has steps for whole batches alone; give it `--drop-last`");
            None
        }
        Err(error) => return Err(open::report(&error.into_diagnostics(), sources).err().unwrap_or(Failure::Findings)),
    };
    open::report(&keep::findings(settings, dataset.as_ref()), sources)?;
    open::report(&model::warnings(training, &fields, dataset.as_ref().map(|data| data.train.len())), sources)?;
    let samples = dataset.as_ref().map_or([settings.batch; 3], data::Dataset::samples);
    let steps = steps(samples, settings.batch);
    let artifact = open::unwrap(pipeline::artifact(training, &fields, &steps, false, &Lowering::default()), sources)?;
    if let Some(dataset) = &dataset
        && let Err(error) = dataset.hold(&artifact.training.data, &artifact.ranges)
    {
        return Err(open::report(&error.into_diagnostics(), sources).err().unwrap_or(Failure::Findings));
    }
    let reading = open::unwrap(model::prediction(training, settings.batch, &fields), sources)?.reading;
    let folder = std::path::absolute(output).map_err(Failure::at(output))?;
    // Empty for a file in the current folder.
    let root = Path::new(".").join(&settings.data.root);
    let root = std::path::absolute(&root).map_err(Failure::at(&root))?;
    let library = sources.files().filter(|(id, _)| training.project.is_library(*id)).count();
    let own: Vec<&[u8]> = sources.files().skip(library).map(|(_, file)| file.text.as_bytes()).collect();
    Ok(Contents {
        data_root: relative(folder.parent().unwrap_or(Path::new("/")), &root),
        source: checksum(own.into_iter()),
        about: about::about(training, &fields),
        library,
        artifact,
        reading,
    })
}

/// Steps to train, to evaluate each split, also by single samples, and to predict.
fn steps(samples: [usize; 3], batch: usize) -> Vec<(Purpose, usize)> {
    let evaluated = samples.into_iter().flat_map(|samples| wanted::to_evaluate(samples, batch));
    let single = [batch, 1].map(|rows| (Purpose::Evaluate, rows));
    let all = wanted::to_train(samples, batch).into_iter().chain(evaluated).chain(wanted::to_predict(batch));
    wanted::each_once(all.chain(single))
}

/// Each training step opened up, where it can be.
fn watched(training: &Resolved, artifact: &Artifact) -> WatchedSteps {
    let trained = artifact.steps.keys().filter(|(purpose, _)| *purpose == Purpose::Train);
    let opened = trained.filter_map(|(_, rows)| {
        let (fields, persistent) = (&artifact.fields, &artifact.persistent);
        let watched = pipeline::watched(training, fields, *rows, persistent, &Lowering::default());
        Some((*rows, watched.ok()?))
    });
    opened.collect()
}

/// The code of all steps for each level.
fn codes(contents: &Contents, watched: &WatchedSteps, levels: &[Level]) -> Result<Vec<Codes>, Failure> {
    let steps: Vec<&Program> = contents.artifact.steps.values().map(|step| &step.program).collect();
    let watched: Vec<&Program> = watched.iter().map(|(_, watched)| &watched.step.program).collect();
    let cache = Cache::of_user();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let compile = |level: Level| -> Result<Codes, CodegenError> {
        let tuning = cache.as_ref().map(|cache| cache.load(level, threads)).unwrap_or_default();
        let options = Options { level, profile: false, tuning };
        let all = |programs: &[&Program]| programs.iter().map(|program| code::compile(program, &options)).collect();
        let of_steps: Result<_, _> = all(&steps);
        Ok(Codes { level, steps: of_steps?, watched: all(&watched)? })
    };
    let compiled: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = levels.iter().map(|level| scope.spawn(|| compile(*level))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a compiler's panic ends the process")).collect()
    });
    compiled.into_iter().map(|codes| Ok(codes?)).collect()
}

/// Writes an executable file.
fn write(path: &Path, bytes: &[u8]) -> super::Outcome {
    checkpoint::write_atomically(path, bytes).map_err(Failure::at(path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let found = std::fs::metadata(path).map_err(Failure::at(path))?.permissions();
        // Whoever may read it may run it.
        let mode = found.mode() | (found.mode() & 0o444) >> 2;
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(Failure::at(path))?;
    }
    Ok(())
}
