//! The programs of `models/`, from text to a whole training step.

use std::path::Path;

use ansatz::graph::{self, Graph, Op, ParamId, ValueId};
use ansatz::model::{Mode, Project, apply_optimizer, forward, training};
use ansatz::{grad, runtime, source::FileId};

fn load(path: &Path) -> (Project, FileId) {
    let (project, file, found) = Project::load(path, None, &|path| std::fs::read(path));
    assert!(found.is_empty(), "{}: {found:#?}", path.display());
    (project, file)
}

/// A whole training step: forward, gradients, optimizer.
fn step(project: &Project, file: FileId, batch: usize) -> Graph {
    let training = training(project, file, &[]).unwrap_or_else(|found| panic!("{found:#?}"));
    let fields = runtime::data::fields(&training.settings.data).unwrap_or_else(|found| panic!("{found:#?}"));
    let result = forward(&training, batch, Mode::Train, &fields).unwrap_or_else(|found| panic!("{found:#?}"));
    let mut graph = result.graph;
    let reads: Vec<(ParamId, ValueId)> = graph
        .values()
        .filter_map(|(id, value)| if let Op::Param(param) = value.op { Some((param, id)) } else { None })
        .collect();
    let wrt: Vec<ValueId> = reads.iter().map(|(_, id)| *id).collect();
    let gradients = grad::differentiate(&mut graph, result.loss, &wrt);
    let pairs: Vec<(ParamId, ValueId)> = reads.iter().map(|(param, _)| *param).zip(gradients).collect();
    apply_optimizer(&training, &mut graph, &pairs).unwrap_or_else(|found| panic!("{found:#?}"));
    graph::verify(&graph).expect("a valid step");
    forward(&training, batch, Mode::Eval, &fields).unwrap_or_else(|found| panic!("{found:#?}"));
    graph
}

#[test]
fn every_program_of_the_repository_becomes_a_step() {
    let mut count = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("models") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "ansatz") {
            let (project, file) = load(&path);
            let graph = step(&project, file, 4);
            assert_eq!(
                graph.updates.iter().filter(|update| matches!(update.target, graph::Variable::Param(_))).count(),
                graph.params.len()
            );
            count += 1;
        }
    }
    assert!(count >= 6);
}
