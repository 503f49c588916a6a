//! The programs of `models/`: they check without a finding, and a training step of each can be built.

use std::path::{Path, PathBuf};

use ansatz::model::check::{Hooks, check};
use ansatz::model::{Mode, Project, forward, training};
use ansatz::runtime::data;

fn programs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let entries = std::fs::read_dir(folder).expect("the folder of models is readable");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ansatz"));
    paths.sort();
    paths
}

fn load(path: &Path) -> (Project, ansatz::source::FileId) {
    let (project, file, found) = Project::load(path, None, &|path| std::fs::read(path));
    assert!(found.is_empty(), "{}: {found:#?}", path.display());
    (project, file)
}

#[test]
fn every_program_checks_without_a_finding() {
    assert!(programs().len() >= 6);
    // Memory is the schedule's to say; here only its assertion's form is checked.
    let hooks = Hooks { train_memory: Some(&|_, _, _| Ok(0)), ..Hooks::default() };
    for path in programs() {
        let (project, file) = load(&path);
        let found = check(&project, file, &hooks);
        assert!(found.is_empty(), "{}: {found:#?}", path.display());
    }
}

#[test]
fn the_data_of_every_program_flow_into_its_model_and_loss() {
    for path in programs() {
        let (project, file) = load(&path);
        let training = training(&project, file, &[]).unwrap_or_else(|found| panic!("{}: {found:#?}", path.display()));
        let fields =
            data::fields(&training.settings.data).unwrap_or_else(|found| panic!("{}: {found:#?}", path.display()));
        for mode in [Mode::Train, Mode::Eval] {
            let forward = forward(&training, training.settings.batch, mode, &fields);
            let forward = forward.unwrap_or_else(|found| panic!("{}: {found:#?}", path.display()));
            assert_eq!(forward.graph.sizes(forward.loss), [0usize; 0], "{}", path.display());
        }
    }
}

#[test]
fn every_program_is_short_and_says_its_command() {
    for path in programs() {
        let text = std::fs::read_to_string(&path).expect("readable");
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        assert!(text.lines().count() <= 60, "{name}");
        assert!(text.contains(&format!("ansatz train models/{name}")), "{name}");
    }
}
