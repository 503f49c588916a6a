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

#[test]
fn the_examples_of_the_language_reference_are_in_the_language() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/language.md")).expect("the reference");
    let blocks: Vec<&str> = text.split("```\n").skip(1).step_by(2).collect();
    assert!(blocks.len() >= 7, "{} blocks", blocks.len());
    let words = ["use", "layer", "model", "loss", "train", "assert"];
    for block in &blocks {
        let is_item = words.iter().any(|word| block.starts_with(word));
        let whole = if is_item { block.to_string() } else { format!("layer L {{\n{block}}}\n") };
        let (_, found) = ansatz::syntax::parse(ansatz::source::FileId(0), &whole);
        assert!(found.is_empty(), "{block}{found:#?}");
    }
    // Layers are tried at several ranks.
    for (name, arguments) in [("Basic", "6"), ("Linear", "5"), ("GroupNorm", "3")] {
        let block = blocks.iter().find(|block| block.starts_with(&format!("layer {name}("))).expect("an example");
        for shape in ["[2, 6, 8, 8]", "[N, 6, 4]", "[N, 6]"].iter().take(if name == "Basic" { 1 } else { 3 }) {
            let whole = format!("{block}\nmodel M {{\n  input x: {shape}\n  return x -> {name}({arguments})\n}}\n");
            let (project, file, found) = Project::from_text("example.ansatz", &whole);
            assert!(found.is_empty(), "{whole}{found:#?}");
            let expanded = ansatz::model::expand(&project, file, "M", &[], Mode::Train, &Default::default());
            assert!(expanded.is_ok(), "{whole}{:#?}", expanded.err());
        }
    }
}
