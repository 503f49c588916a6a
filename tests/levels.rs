//! Whole tasks at each level: the steps of training, evaluation and prediction that `pipeline` makes of every layer, loss
//! and metric of the library, as machine code against the reference evaluator.

use std::collections::BTreeMap;

use ansatz::graph::{DType, Feeds, Graph, evaluate};
use ansatz::machine::Level;
use ansatz::machine::pool::Pool;
use ansatz::model::{Mode, Project, Resolved, expand, training};
use ansatz::pipeline::{evaluation_graph, prediction_graph, training_graph};
use ansatz::settings::FieldInfo;

use crate::library::{self, CASES};
use crate::machine_code::compiled;
use crate::support::Case;
use crate::support::lowered::difference;
use crate::support::random_graph::Random;

/// Samples of a batch: no multiple of a vector, so that rows lie at addresses of any alignment.
const BATCH: usize = 7;
/// f32 against f64 through two layers: some thousand roundings of 6e-8.
const TOLERANCE: f64 = 2e-4;

/// A task under test: what its loss and metrics read.
struct Task {
    /// Sizes of a sample's target.
    target: &'static [usize],
    /// The target is one of so many classes.
    classes: Option<usize>,
    /// The model behind its first layer.
    model: &'static str,
    losses: &'static [&'static str],
    metrics: &'static [&'static str],
}

const TASKS: &[Task] = &[
    Task {
        target: &[],
        classes: Some(11),
        model: "Linear(11)",
        losses: &["cross_entropy(target)", "cross_entropy(target, smoothing = 0.1)"],
        metrics: &[
            "accuracy",
            "top(3)",
            "recall",
            "recall(micro)",
            "precision",
            "precision(micro)",
            "f1",
            "f1(micro)",
            "confusion",
            "perplexity",
        ],
    },
    Task {
        target: &[5],
        classes: Some(11),
        model: "Linear(55) -> reshape([size(x, 0), 5, 11])",
        losses: &["cross_entropy(target)"],
        metrics: &["accuracy", "top(2)", "top(5)", "recall", "precision", "f1", "confusion", "perplexity"],
    },
    Task {
        target: &[3],
        classes: None,
        model: "Linear(3)",
        losses: &["mse(target)", "l1(target)", "huber(target)", "bce(target)", "kl(target)"],
        metrics: &["mae", "rmse", "r2"],
    },
];

impl Task {
    fn fields(&self) -> Vec<FieldInfo> {
        let dtype = if self.classes.is_some() { DType::I32 } else { DType::F32 };
        let classes = self.classes.filter(|_| self.target.is_empty());
        vec![
            FieldInfo { name: "x".into(), sizes: vec![9], dtype: DType::F32, classes: None },
            FieldInfo { name: "target".into(), sizes: self.target.to_vec(), dtype, classes },
        ]
    }

    /// A project with the task's `train` item.
    fn text(&self, loss: &str, metric: &str) -> String {
        let target = match (self.classes, self.target) {
            (Some(classes), []) => format!("class[{classes}]"),
            (Some(_), sizes) => format!("i32{sizes:?}"),
            (None, sizes) => format!("f32{sizes:?}"),
        };
        format!(
            "model M {{\n  input x: [N, 9]\n  return x -> Linear(13) -> relu -> {}\n}}\n\
             data d {{\n  source = csv(\"d.csv\")\n  x: f32[9]\n  target: {target}\n}}\n\
             train M on d {{\n  loss = {loss}\n  optimizer = sgd\n  batch = {BATCH}\n  length = 5 steps\n  \
             metrics = {metric}\n}}\n",
            self.model
        )
    }
}

/// Numbers for everything that the graph reads; states are counts.
fn feeds(graph: &Graph, classes: Option<usize>) -> Feeds {
    let mut feeds = library::feeds(graph, classes.unwrap_or(3), &mut Random::new(31));
    feeds.states.values_mut().for_each(|counts| counts.data.fill(2.0));
    feeds
}

type Step = fn(&Resolved, &[FieldInfo]) -> Graph;

/// What `pipeline` makes of a `train` item, by name.
const STEPS: [(&str, Step); 3] = [
    ("training", |training, fields| {
        training_graph(training, BATCH, fields, true).unwrap_or_else(|found| panic!("{found:#?}"))
    }),
    ("evaluation", |training, fields| {
        evaluation_graph(training, BATCH, fields).unwrap_or_else(|found| panic!("{found:#?}"))
    }),
    ("prediction", |training, fields| {
        prediction_graph(training, BATCH, fields).unwrap_or_else(|found| panic!("{found:#?}"))
    }),
];

/// Training, evaluation and prediction with each loss and each metric of the library.
pub fn tasks() -> Vec<Case> {
    let mut cases = Vec::new();
    for task in TASKS {
        let with = task.losses.iter().map(|loss| (*loss, task.metrics[0]));
        for (loss, metric) in with.chain(task.metrics.iter().map(|metric| (task.losses[0], *metric))) {
            let (project, file, found) = Project::from_text("task.ansatz", &task.text(loss, metric));
            assert!(found.is_empty(), "{loss}, {metric}: {found:#?}");
            let training = training(&project, file, &[]).unwrap_or_else(|found| panic!("{loss}, {metric}: {found:#?}"));
            for (name, step) in STEPS {
                let graph = step(&training, &task.fields());
                let (what, feeds) = (format!("{loss} with {metric} in {name}"), feeds(&graph, task.classes));
                cases.push(Case { what, graph, feeds });
            }
        }
    }
    cases
}

/// Each layer and function of the library in evaluation.
pub fn layers() -> Vec<Case> {
    let of_body = |(name, body): &(&str, &str)| {
        let text = format!("model M {{\n input unused: [1]\n {body}\n}}\n");
        let (project, file, found) = Project::from_text("case.ansatz", &text);
        assert!(found.is_empty(), "{name}: {found:#?}");
        let (expanded, _) = expand(&project, file, "M", &[], Mode::Eval, &BTreeMap::new())
            .unwrap_or_else(|found| panic!("{name}: {found:#?}"));
        let mut graph = expanded.graph;
        ansatz::passes::run(&mut graph);
        let feeds = feeds(&graph, Some(3));
        Case { what: format!("{name}: {body}"), graph, feeds }
    };
    CASES.iter().map(of_body).collect()
}

/// The steps at each level against the evaluator.
fn check(cases: Vec<Case>) {
    let pool = Pool::new(1);
    for Case { what, graph, feeds } in cases {
        let expected = evaluate(&graph, &feeds);
        for level in Level::available() {
            let actual = compiled(&graph, &feeds, level, &pool);
            assert_eq!(difference(&expected, &actual, TOLERANCE), None, "{what} at {level}");
        }
    }
}

#[test]
fn losses_and_metrics_run_in_training_evaluation_and_prediction_at_each_level() {
    check(tasks());
}

#[test]
fn layers_run_in_evaluation_at_each_level() {
    check(layers());
}

#[test]
fn every_loss_and_metric_of_the_library_is_tried() {
    let words = |items: &[&'static str]| -> Vec<&str> {
        items.iter().map(|item| item.split('(').next().unwrap_or_default()).collect()
    };
    let tried: Vec<&str> = TASKS.iter().flat_map(|task| words(&[task.losses, task.metrics].concat())).collect();
    for name in ["losses", "metrics"] {
        let path = format!("{}/src/library/{name}.ansatz", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the library is text");
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("loss ").or_else(|| line.strip_prefix("metric ")) else { continue };
            let item = rest.split(['(', ' ']).next().unwrap_or_default();
            assert!(tried.contains(&item), "no task tries `{item}`");
        }
    }
}
