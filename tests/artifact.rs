//! A run as an artifact: written to bytes, read back, and executed without the model file.

use std::collections::BTreeMap;
use std::path::Path;

use ansatz::artifact::{Artifact, Purpose};
use ansatz::cpu::Lowering;
use ansatz::cpu::code::{self, Options};
use ansatz::machine::Level;
use ansatz::model;
use ansatz::pipeline;
use ansatz::runtime::checkpoint;
use ansatz::runtime::data::{self, Dataset, Plan};
use ansatz::runtime::trainer::{Extent, Trainer};
use ansatz::workspace;

use crate::train::{MODEL, succeed};

/// The artifact of a file's run with settings as bytes, and the data.
fn artifact(path: &Path, settings: &[(String, String)]) -> (Vec<u8>, Dataset) {
    let (project, file, found) = workspace::project(path);
    assert!(found.is_empty(), "{found:#?}");
    let training = model::training(&project, file, settings).unwrap_or_else(|found| panic!("{found:#?}"));
    let dataset = data::open(&training.settings.data, training.settings.seed).expect("the data is there");
    let short = dataset.train.len() % training.settings.batch;
    let wanted = [(Purpose::Train, training.settings.batch), (Purpose::Train, short)];
    let wanted = if short == 0 { &wanted[..1] } else { &wanted };
    let made = pipeline::artifact(&training, &dataset.fields, wanted, false, &Lowering::default());
    (made.unwrap_or_else(|found| panic!("{found:#?}")).to_bytes().expect("all sizes are bound"), dataset)
}

/// All tensors after the run, by name.
fn trained(artifact: Artifact, dataset: &Dataset, level: Level, threads: usize) -> BTreeMap<String, Vec<u8>> {
    let (batch, seed) = (artifact.training.batch, artifact.training.seed);
    let extent = Extent::of(&artifact.training, dataset.train.len());
    let options = Options { level, profile: false, tuning: Default::default() };
    let device = Box::new(code::device(options, threads).expect("memory"));
    let mut trainer = Trainer::new(artifact, device, extent, threads, &[Purpose::Train]).expect("the steps load");
    for batch in dataset.train.batches(Plan::training(batch, seed), 0, extent.total_steps).expect("a thread") {
        if trainer.position().step.is_multiple_of(extent.steps_per_epoch) {
            trainer.reset_metrics();
        }
        trainer.step(&batch);
    }
    trainer.tensors(false).into_iter().map(|(name, tensor)| (name, tensor.bytes.into_owned())).collect()
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
    let (bytes, dataset) = artifact(&folder.path().join("net.ansatz"), &[]);
    std::fs::remove_file(folder.path().join("net.ansatz")).expect("removed");
    let read = || Artifact::from_bytes(&bytes).expect("an artifact");
    for level in Level::available() {
        let first = trained(read(), &dataset, level, 1);
        for threads in [2, 3, 7] {
            assert!(first == trained(read(), &dataset, level, threads), "{level} at {threads} threads");
        }
        std::fs::write(folder.path().join("net.ansatz"), MODEL).expect("written");
        assert!(first == by_command(folder.path(), "net.ansatz", level, &[]), "{level}");
    }
}

#[test]
fn artifacts_of_shipped_models_train_to_the_bits_of_the_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let level = Level::available().last().expect("portable at least");
    for file in ["models/digits.ansatz", "models/mnist_cnn.ansatz", "benches/models/gpt-tiny.ansatz"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (bytes, dataset) = artifact(&root.join(file), &[("train.length".into(), "5 steps".into())]);
        let own = trained(Artifact::from_bytes(&bytes).expect("an artifact"), &dataset, level, 3);
        let path = root.join(file);
        let theirs = by_command(folder.path(), path.to_str().expect("UTF-8"), level, &["--steps", "5"]);
        assert!(own == theirs, "{file}");
    }
}

#[test]
fn an_artifact_is_read_back_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("net.ansatz"), MODEL).expect("written");
    let (bytes, _) = artifact(&folder.path().join("net.ansatz"), &[]);
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
