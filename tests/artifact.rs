//! A run as an artifact: written to bytes, read back, and executed without the model file.

use std::path::Path;

use ansatz::artifact::{Artifact, Purpose, wanted};
use ansatz::cpu::Lowering;
use ansatz::cpu::code::{self, Options};
use ansatz::machine;
use ansatz::model;
use ansatz::pipeline;
use ansatz::runtime::data::{self, Dataset, Plan};
use ansatz::runtime::train;
use ansatz::runtime::trainer::{Extent, Trainer};
use ansatz::workspace;

use crate::train::MODEL;

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
            trainer.step(&batch).expect("a CPU");
        });
    };
    let mut whole = trainer(made);
    steps(&mut whole, 0, 8);
    let mut begun = trainer(read());
    steps(&mut begun, 0, 5);
    let mut resumed = trainer(read());
    let position = begun.position().clone();
    resumed.restore(Path::new("begun"), begun.tensors(false).expect("a CPU"), position).expect("the same tensors");
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
