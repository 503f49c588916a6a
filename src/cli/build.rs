//! `ansatz build`: a trainer, one executable file with a run and its machine code; or the run as an object for C programs.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::compiled::{self, ModelFile};
use super::images::Images;
use super::tuning::Cache;
use super::{Failure, about, object, open};
use crate::artifact::{Artifact, Purpose, checksum, wanted};
use crate::console::Platform;
use crate::console::findings::{quoted, shown};
use crate::console::outputs::hold_apart;
use crate::cpu::code::CodegenError;
use crate::cpu::code::{self, Options};
use crate::cuda::compile::Compiler;
use crate::device::DeviceError;
use crate::kernel::Program;
use crate::machine::Level;
use crate::model::{self, Resolved};
use crate::pipeline;
use crate::runtime::checkpoint;
use crate::runtime::data::{self, DataError};
use crate::runtime::keep;
use crate::runtime::record::relative;
use crate::schedule::Backend;
use crate::source::bytes_text;
use ansatz_trainer::contents::{self, Coded, Codes, Contents, GpuCodes, WatchedSteps};

/// The program of trainers, packed; empty where this compiler was built for another system than its builder's.
const STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub"));

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelFile,
    /// The trainer's file, or the object's
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What to write: `trainer`, an executable file; `obj`, an object and a header for programs in C and other languages
    #[arg(long, value_enum, value_name = "KIND", default_value = "trainer", hide_possible_values = true)]
    emit: Emit,
    /// Code for this instruction set alone: avx512, avx2 or portable (by default for all three, chosen where it runs)
    #[arg(long, value_name = "LEVEL")]
    target_cpu: Option<String>,
    /// What it runs on: cpu, or cuda for GPUs of NVIDIA's
    #[arg(long, value_enum, value_name = "DEVICE", default_value = "cpu", hide_possible_values = true)]
    device: Platform,
    /// Put the files of the data in
    #[arg(long)]
    embed_data: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    Trainer,
    Obj,
}

/// The interface of the library that runs objects.
const HEADER: &str = include_str!("../c/ansatz.h");

/// The library that runs objects, as `cargo build --release -p ansatz-c` leaves it beside the compiler.
const LIBRARY: &str = "libansatz_c.a";

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let levels = levels(arguments.target_cpu.as_deref())?;
    let is_trainer = arguments.emit == Emit::Trainer;
    if arguments.device == Platform::Cuda && (arguments.target_cpu.is_some() || !is_trainer) {
        return Err(Failure::Problem("`--device cuda` is for trainers, and goes with no `--target-cpu`".into()));
    }
    if arguments.embed_data && !is_trainer {
        return Err(Failure::Problem(
            "`--embed-data` is for trainers: the program around an object brings the data".into(),
        ));
    }
    let stub = if is_trainer { stub()? } else { Vec::new() };
    let training = compiled::training(&arguments.model.file, &arguments.model.set)?;
    let read = [vec![arguments.model.file.clone()], compiled::files(&training.project)].concat();
    for output in outputs(arguments) {
        hold_apart("--output", &output, &read, Some(&training.settings.data))?;
    }
    let backend = compiled::backend(arguments.device);
    let made = contents(&training, &arguments.output, &*backend)?;
    let watched = watched(&training, &made.artifact, &*backend);
    let coded = match arguments.device {
        Platform::Cpu => Coded::Cpu(codes(&made, &watched, &levels)?),
        Platform::Cuda => Coded::Cuda(gpu_codes(&made, &watched)?),
    };
    let data = arguments.embed_data.then(|| data::pack(&training.settings.data)).transpose();
    let data = data.map_err(Failure::of("the data cannot be read"))?;
    if data.as_ref().is_some_and(BTreeMap::is_empty) {
        let words = match data::is_made_up(&training.settings.data) {
            true => "the data are made up, and there is nothing to put in; leave it out",
            false => "the data item names no file that is there",
        };
        return Err(Failure::Problem(format!("`--embed-data`: {words}")));
    }
    let bytes = contents::trainer(&stub, &made, &watched, &coded, data.as_ref())?;
    if is_trainer {
        write_trainer(&arguments.output, &bytes, stub.len())
    } else {
        write_object(arguments, &made, &bytes)
    }
}

/// Writes a trainer, of which so many bytes are the program.
fn write_trainer(path: &Path, bytes: &[u8], program: usize) -> super::Outcome {
    write(path, bytes)?;
    let [all, program, run] = [bytes.len(), program, bytes.len() - program].map(|bytes| bytes_text(bytes as u64));
    println!("wrote {}: {all}, {program} of program, {run} of run", shown(path));
    let call = if path.components().count() == 1 { Path::new(".").join(path) } else { path.to_path_buf() };
    println!("next: {} train", quoted(&call));
    Ok(())
}

/// Writes an object, its header, and what both need of this compiler.
fn write_object(arguments: &Arguments, made: &Contents, contents: &[u8]) -> super::Outcome {
    let path = of_object(&arguments.output);
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = object::name(&stem);
    // The interface has this name: its header would take the place of the object's.
    if name.eq_ignore_ascii_case("ansatz") {
        let words = format!("{} would have the header of the interface, ansatz.h; choose another name", shown(&path));
        return Err(Failure::Problem(words));
    }
    let file = arguments.model.file.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes =
        object::object(&name, contents).map_err(|error| Failure::Problem(format!("{}: {error}", shown(&path))))?;
    let written = |path: &Path, bytes: &[u8]| -> super::Outcome {
        checkpoint::write_atomically(path, bytes).map_err(Failure::at(path))?;
        println!("wrote {}: {}", shown(path), bytes_text(bytes.len() as u64));
        Ok(())
    };
    written(&path, &bytes)?;
    written(&path.with_extension("h"), object::header(&name, &file, &made.artifact).as_bytes())?;
    written(&path.with_file_name("ansatz.h"), HEADER.as_bytes())?;
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(LIBRARY));
    match beside.and_then(|library| std::fs::read(library).ok()) {
        Some(library) => {
            written(&path.with_file_name(LIBRARY), &library)?;
            let [path, library] = [&path, &path.with_file_name(LIBRARY)].map(|path| quoted(path));
            println!("next: cc YOUR.c {path} {library} -lm -lpthread -ldl");
        }
        None => println!("next: build the library it needs, {LIBRARY}: cargo build --release -p ansatz-c"),
    }
    Ok(())
}

/// What is written, but for the interface and its library.
fn outputs(arguments: &Arguments) -> Vec<PathBuf> {
    match arguments.emit {
        Emit::Trainer => vec![arguments.output.clone()],
        Emit::Obj => {
            let path = of_object(&arguments.output);
            vec![path.with_extension("h"), path]
        }
    }
}

/// The object's file.
fn of_object(output: &Path) -> PathBuf {
    if output.extension().is_some_and(|end| end == "o") { output.to_path_buf() } else { with_ending(output, "o") }
}

/// The path with one more ending.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
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
fn contents(training: &Resolved, output: &Path, backend: &dyn Backend) -> Result<Contents, Failure> {
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
    let artifact = open::unwrap(pipeline::artifact(training, &fields, &steps, false, backend), sources)?;
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
fn watched(training: &Resolved, artifact: &Artifact, backend: &dyn Backend) -> WatchedSteps {
    let trained = artifact.steps.keys().filter(|(purpose, _)| *purpose == Purpose::Train);
    let opened = trained.filter_map(|(_, rows)| {
        let (fields, persistent) = (&artifact.fields, &artifact.persistent);
        let watched = pipeline::watched(training, fields, *rows, persistent, backend);
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

/// The code of all steps for GPUs of several architectures, and for later ones.
fn gpu_codes(contents: &Contents, watched: &WatchedSteps) -> Result<GpuCodes, Failure> {
    let compiler = Compiler::new(Images::of_user())?;
    let targets = compiler.targets()?;
    let steps: Vec<&Program> = contents.artifact.steps.values().map(|step| &step.program).collect();
    let watched: Vec<&Program> = watched.iter().map(|(_, watched)| &watched.step.program).collect();
    let all = |programs: &[&Program]| programs.iter().map(|program| compiler.compile(program, &targets)).collect();
    let of_steps: Result<_, DeviceError> = all(&steps);
    Ok(GpuCodes { steps: of_steps?, watched: all(&watched)? })
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
