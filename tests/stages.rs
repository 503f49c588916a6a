//! What each stage of the compiler makes of one small training, as text.
//!
//! The model is a line through points: small enough that each snapshot can be read and checked by hand.
//! A changed snapshot is accepted by `cargo insta review`, never unread; under `CI=1` it fails.

use ansatz::cpu::Lowering;
use ansatz::diagnostics::Diagnostic;
use ansatz::kernel::Persistent;
use ansatz::model::{self, Mode, Project};
use ansatz::runtime::data;
use ansatz::schedule;
use ansatz::{grad, graph, kernel, pipeline};

const LINE: &str = "\
model Line {
  input x: [N, 3]
  return x -> fc: Linear(1)
}

data points {
  source = regression(samples = 8)
  x: f32[3]
  y: f32[1]
}

train Line on points {
  loss      = mse(y)
  optimizer = sgd(lr = 0.1, momentum = 0.9)
  schedule  = warmup(2 steps) -> cosine
  batch     = 4
  length    = 2 epochs
}
";

fn expect<T>(result: Result<T, Vec<Diagnostic>>) -> T {
    result.unwrap_or_else(|findings| panic!("{findings:?}"))
}

#[test]
fn a_line_through_points_at_every_stage() {
    let (project, file, findings) = Project::from_text("line.ansatz", LINE);
    assert!(findings.is_empty(), "{findings:?}");
    let training = expect(model::training(&project, file, &[]));
    let fields = expect(data::fields(&training.settings.data));

    let forward = expect(model::forward(&training, training.settings.batch, Mode::Train, &fields));
    insta::assert_snapshot!("graph", graph::print::print(&forward.graph, &project.sources));

    let mut gradient = forward.graph;
    gradient.updates.clear();
    gradient.outputs.retain(|output| output.name == graph::OutputName::Loss);
    pipeline::add_gradient_outputs(&mut gradient, forward.loss);
    ansatz::passes::run(&mut gradient);
    insta::assert_snapshot!("gradient", grad::print::equations(&gradient, &project.sources));

    let step = expect(pipeline::training_graph(&training, training.settings.batch, &fields, false));
    insta::assert_snapshot!("step", graph::print::print(&step, &project.sources));

    let program = schedule::plan(&step, &Persistent::of(&step), &Lowering::default());
    insta::assert_snapshot!("plan", kernel::report::report(&program, &project.sources).to_string());
    insta::assert_snapshot!("kernels", kernel::print::print(&program));
}
