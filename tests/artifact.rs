//! A run as an artifact: written to bytes, read back, and executed without the model file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ansatz::artifact::{Artifact, Purpose, wanted};
use ansatz::cpu::Lowering;
use ansatz::cpu::code::{self, Options};
use ansatz::machine::{self, Level};
use ansatz::model;
use ansatz::pipeline;
use ansatz::runtime::checkpoint;
use ansatz::runtime::data::{self, Dataset, Plan};
use ansatz::runtime::train;
use ansatz::runtime::trainer::{Extent, Trainer};
use ansatz::workspace;

use crate::indices::{DATA as TOKENS, model as model_of_tokens, table};
use crate::train::{MODEL, succeed};

/// The artifact of a file's run with settings as bytes.
fn artifact(path: &Path, settings: &[(String, String)]) -> Vec<u8> {
    let (project, file, found) = workspace::project(path);
    assert!(found.is_empty(), "{found:#?}");
    let training = model::training(&project, file, settings).unwrap_or_else(|found| panic!("{found:#?}"));
    let dataset = data::open(&training.settings.data, training.settings.seed).expect("the data is there");
    let wanted = wanted::to_train([dataset.train.len(), 0, 0], training.settings.batch);
    let made = pipeline::artifact(&training, &dataset.fields, &wanted, false, &Lowering::default());
    made.unwrap_or_else(|found| panic!("{found:#?}")).to_bytes().expect("all sizes are bound")
}

/// The example that trains from bytes, as it stands: a filtered `cargo test` does not build examples.
fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let tests = std::env::current_exe().expect("a test's own path");
        let target = tests.ancestors().nth(3).expect("target, the profile, deps");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--example", "train", "--target-dir"]).arg(target);
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts").success());
        target.join("debug/examples/train").with_extension(std::env::consts::EXE_EXTENSION)
    })
}

/// A run from bytes in a process that links no compiler: all tensors by name, or what it says.
fn run(folder: &Path, artifact: &[u8], level: Level, threads: usize) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let [file, output] = ["run.bin", "tensors.bin"].map(|name| folder.join(name));
    let options = Options { level, profile: false, tuning: Default::default() };
    let run = Artifact::from_bytes(artifact).expect("an artifact");
    let codes: Result<Vec<_>, _> = run.steps.values().map(|step| code::compile(&step.program, &options)).collect();
    let bytes = postcard::to_stdvec(&(artifact, codes.expect("the steps compile"))).expect("plain data");
    std::fs::write(&file, bytes).expect("written");
    let mut command = Command::new(program());
    command.arg(&file).args([level.name(), &threads.to_string()]).arg(&output).env_clear().current_dir("/");
    let ended = command.output().expect("the program starts");
    if !ended.status.success() {
        return Err(String::from_utf8_lossy(&ended.stderr).into_owned());
    }
    Ok(postcard::from_bytes(&std::fs::read(output).expect("what it wrote")).expect("tensors"))
}

/// As [`run`], of a run that succeeds.
fn trained(folder: &Path, artifact: &[u8], level: Level, threads: usize) -> BTreeMap<String, Vec<u8>> {
    run(folder, artifact, level, threads).unwrap_or_else(|words| panic!("{words}"))
}

/// The same as `ansatz train` in a process of its own writes it.
fn by_command(folder: &Path, file: &str, level: Level, options: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let run = format!("run-{level}-{}", options.len());
    let arguments = [&["train", file, "--run", &run, "--cpu", level.name(), "--threads", "2"], options].concat();
    succeed(folder, &arguments);
    let (tensors, _) = checkpoint::load(&folder.join(run).join("last.safetensors")).expect("a checkpoint");
    tensors.into_iter().map(|(name, tensor)| (name, tensor.bytes.into_owned())).collect()
}

#[test]
fn an_artifact_that_is_read_back_trains_to_the_bits_of_the_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("net.ansatz"), MODEL).expect("written");
    let bytes = artifact(&folder.path().join("net.ansatz"), &[]);
    std::fs::remove_file(folder.path().join("net.ansatz")).expect("removed");
    for level in Level::available() {
        let first = trained(folder.path(), &bytes, level, 1);
        for threads in [2, 3, 7] {
            assert!(first == trained(folder.path(), &bytes, level, threads), "{level} at {threads} threads");
        }
        std::fs::write(folder.path().join("net.ansatz"), MODEL).expect("written");
        assert!(first == by_command(folder.path(), "net.ansatz", level, &[]), "{level}");
        std::fs::remove_file(folder.path().join("net.ansatz")).expect("removed");
    }
}

#[test]
fn artifacts_of_shipped_models_train_to_the_bits_of_the_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["models/digits.ansatz", "models/mnist_cnn.ansatz", "benches/models/gpt-tiny.ansatz"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bytes = artifact(&root.join(file), &[("train.length".into(), "3 steps".into())]);
        let path = root.join(file);
        for level in Level::available() {
            let theirs = by_command(folder.path(), path.to_str().expect("UTF-8"), level, &["--steps", "3"]);
            for threads in [1, 2, 3, 7] {
                let own = trained(folder.path(), &bytes, level, threads);
                assert!(own == theirs, "{file} with {level} at {threads} threads");
            }
        }
    }
}

#[test]
fn a_run_from_bytes_holds_the_data_to_the_reads_of_its_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let table = |token: i64| std::fs::write(folder.path().join("d.csv"), table(token, 1)).expect("written");
    let file = folder.path().join("m.ansatz");
    std::fs::write(&file, model_of_tokens(TOKENS, "cross_entropy(label)", "accuracy")).expect("written");
    table(9);
    let bytes = artifact(&file, &[]);
    let level = machine::detect();
    assert!(run(folder.path(), &bytes, level, 1).is_ok());
    table(10);
    let words = run(folder.path(), &bytes, level, 1).expect_err("a token outside the table");
    assert!(words.contains("`ids` is 10, but the model reads at 0 to 9"), "{words}");
}

/// Loss and metrics of the test split, and the outputs of its first samples.
fn figures(trainer: &mut Trainer, dataset: &Dataset) -> String {
    let test = dataset.test.clone();
    let evaluated = train::evaluate(trainer, &test, trainer.artifact().training.batch).expect("it evaluates");
    let rows = Trainer::prediction_rows(&trainer.artifact().training);
    let batch = test.batches(Plan::evaluation(rows), 0, 1).expect("a thread").next().expect("a batch");
    trainer.load_steps(Purpose::Predict).expect("it loads");
    let outputs = trainer.predict(&batch).expect("numbers");
    let outputs = outputs.iter().map(|output| (&output.name, &output.values));
    format!("{} {:?} {:?}", evaluated.loss.to_bits(), evaluated.metrics, outputs.collect::<Vec<_>>())
}

#[test]
fn an_artifact_that_is_read_back_resumes_evaluates_and_predicts_to_the_same_bits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("net.ansatz"), MODEL).expect("written");
    let (project, file, _) = workspace::project(&folder.path().join("net.ansatz"));
    let resolved = model::training(&project, file, &[]).unwrap_or_else(|found| panic!("{found:#?}"));
    let settings = &resolved.settings;
    let dataset = data::open(&settings.data, settings.seed).expect("the data is there");
    let mut wanted = wanted::to_train(dataset.samples(), settings.batch);
    wanted.extend(wanted::to_predict(settings.batch));
    let made = pipeline::artifact(&resolved, &dataset.fields, &wanted, false, &Lowering::default());
    let made = made.unwrap_or_else(|found| panic!("{found:#?}"));
    let bytes = made.to_bytes().expect("all sizes are bound");
    let extent = Extent::of(settings, dataset.train.len());
    let trainer = |artifact: Artifact| {
        let options = Options { level: machine::detect(), profile: false, tuning: Default::default() };
        let device = Box::new(code::device(options, 2).expect("memory"));
        Trainer::new(artifact, device, extent, 2, &[Purpose::Train]).expect("the steps load")
    };
    let read = || Artifact::from_bytes(&bytes).expect("an artifact");
    let steps = |trainer: &mut Trainer, from: u64, to: u64| {
        let plan = Plan::training(settings.batch, settings.seed);
        dataset.train.batches(plan, from, to).expect("a thread").for_each(|batch| {
            trainer.step(&batch);
        });
    };
    let mut whole = trainer(made);
    steps(&mut whole, 0, 8);
    let mut begun = trainer(read());
    steps(&mut begun, 0, 5);
    let mut resumed = trainer(read());
    let position = begun.position().clone();
    resumed.restore(Path::new("begun"), begun.tensors(false), position).expect("the same tensors");
    steps(&mut resumed, 5, 8);
    assert!(resumed.tensors(false) == whole.tensors(false));
    assert_eq!(figures(&mut resumed, &dataset), figures(&mut whole, &dataset));
}

#[test]
fn an_artifact_is_read_back_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("net.ansatz"), MODEL).expect("written");
    let bytes = artifact(&folder.path().join("net.ansatz"), &[]);
    let again = Artifact::from_bytes(&bytes).expect("an artifact").to_bytes().expect("all sizes are bound");
    assert!(again == bytes);
    for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        assert!(Artifact::from_bytes(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    for place in (0..bytes.len()).step_by(101).chain(0..40) {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(Artifact::from_bytes(&changed).is_err(), "byte {place} changed");
    }
}
