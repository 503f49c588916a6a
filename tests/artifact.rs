//! A run as an artifact: written to bytes, read back, and executed without the model file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use ansatz::artifact::{Artifact, Purpose};
use ansatz::cpu::Lowering;
use ansatz::cpu::code::{self, Options};
use ansatz::machine::Level;
use ansatz::model;
use ansatz::pipeline;
use ansatz::runtime::checkpoint;
use ansatz::runtime::data;
use ansatz::workspace;

use crate::train::{MODEL, succeed};

/// The artifact of a file's run with settings as bytes.
fn artifact(path: &Path, settings: &[(String, String)]) -> Vec<u8> {
    let (project, file, found) = workspace::project(path);
    assert!(found.is_empty(), "{found:#?}");
    let training = model::training(&project, file, settings).unwrap_or_else(|found| panic!("{found:#?}"));
    let dataset = data::open(&training.settings.data, training.settings.seed).expect("the data is there");
    let short = dataset.train.len() % training.settings.batch;
    let wanted = [(Purpose::Train, training.settings.batch), (Purpose::Train, short)];
    let wanted = if short == 0 { &wanted[..1] } else { &wanted };
    let made = pipeline::artifact(&training, &dataset.fields, wanted, false, &Lowering::default());
    made.unwrap_or_else(|found| panic!("{found:#?}")).to_bytes().expect("all sizes are bound")
}

/// The example that trains from bytes, as it stands: a filtered `cargo test` does not build examples.
fn program() -> PathBuf {
    let build = ["build", "--quiet", "--locked", "--example", "train"];
    let mut cargo = Command::new(env!("CARGO"));
    let built = cargo.args(build).current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts");
    assert!(built.success());
    let tests = std::env::current_exe().expect("a test's own path");
    let target = tests.ancestors().nth(3).expect("target, the profile, deps");
    target.join("debug/examples/train").with_extension(std::env::consts::EXE_EXTENSION)
}

/// All tensors after a run from bytes in a process that links no compiler, by name.
fn trained(folder: &Path, artifact: &[u8], level: Level, threads: usize) -> BTreeMap<String, Vec<u8>> {
    let program = program();
    let [file, output] = ["run.bin", "tensors.bin"].map(|name| folder.join(name));
    let options = Options { level, profile: false, tuning: Default::default() };
    let run = Artifact::from_bytes(artifact).expect("an artifact");
    let codes: Result<Vec<_>, _> = run.steps.values().map(|step| code::compile(&step.program, &options)).collect();
    let bytes = postcard::to_stdvec(&(artifact, codes.expect("the steps compile"))).expect("plain data");
    std::fs::write(&file, bytes).expect("written");
    let threads = threads.to_string();
    let mut command = Command::new(program);
    command.arg(&file).args([level.name(), &threads]).arg(&output).env_clear().current_dir("/");
    let ended = command.output().expect("the program starts");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    postcard::from_bytes(&std::fs::read(output).expect("what it wrote")).expect("tensors")
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
