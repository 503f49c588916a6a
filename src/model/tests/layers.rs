//! The library's layers against PyTorch's, in f64, by the graph evaluator.
//!
//! `tests/layers/reference.py` writes the expected numbers and says how inputs and weights are filled.

use std::collections::{BTreeMap, HashMap};

use super::super::{Mode, expand};
use super::project;
use crate::graph::evaluate::{Feeds, Tensor, evaluate};
use crate::graph::{Graph, Variable};

/// Both sides compute in f64; what remains is the order of sums.
const TOLERANCE: f64 = 1e-12;

#[derive(serde::Deserialize)]
struct Case {
    stage: String,
    shape: Vec<usize>,
    train: bool,
    output: Vec<usize>,
    values: Vec<f64>,
    states: BTreeMap<String, Vec<f64>>,
    weights: BTreeMap<String, Vec<usize>>,
}

fn filled(sizes: &[usize], formula: impl Fn(f64) -> f64) -> Tensor {
    let count: usize = sizes.iter().product();
    Tensor::new(sizes, (0..count).map(|i| formula(i as f64)).collect())
}

fn constant(shape: &[crate::dim::Dim]) -> Vec<usize> {
    shape.iter().map(|dim| dim.as_const().expect("sizes are numbers") as usize).collect()
}

/// Names, below the stage's, and shapes of all that a checkpoint of the layer holds.
fn weights(graph: &Graph) -> BTreeMap<String, Vec<usize>> {
    let params = graph.params.iter().map(|param| (&param.name, &param.shape));
    let all = params.chain(graph.states.iter().map(|state| (&state.name, &state.shape)));
    all.map(|(name, shape)| (name.trim_start_matches("layer.").to_owned(), constant(shape))).collect()
}

fn feeds(graph: &Graph, case: &Case) -> Feeds {
    let own = |name: &str| name.rsplit('.').next().expect("a name has a last part").to_owned();
    let params = graph.params.iter().map(|param| {
        let phase = (own(&param.name).bytes().map(u64::from).sum::<u64>() % 10) as f64;
        (param.name.clone(), filled(&constant(&param.shape), |i| 0.5 * (0.7 * i + phase).cos()))
    });
    let states = graph.states.iter().map(|state| {
        let is_mean = own(&state.name) == "running_mean";
        (state.name.clone(), filled(&constant(&state.shape), |i| if is_mean { 0.1 * i } else { 1.0 + 0.1 * i }))
    });
    Feeds {
        params: params.collect(),
        states: states.collect(),
        inputs: HashMap::from([("x".to_owned(), filled(&case.shape, |i| (1.3 * i + 0.5).sin()))]),
        ..Feeds::default()
    }
}

fn largest_difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn library_layers_agree_with_pytorch() {
    let text = include_str!("../../../tests/layers/reference.json");
    let cases: Vec<Case> = serde_json::from_str(text).expect("the reference is JSON");
    assert!(cases.len() >= 40);
    for case in cases {
        let dims: Vec<String> = case.shape.iter().map(usize::to_string).collect();
        let model = format!("model M {{\n  input x: [{}]\n  return x -> layer: {}\n}}\n", dims.join(", "), case.stage);
        let (project, file) = project(&model);
        let mode = if case.train { Mode::Train } else { Mode::Eval };
        let expanded = expand(&project, file, "M", &[], mode, &BTreeMap::new());
        let graph = expanded.unwrap_or_else(|errors| panic!("{}: {errors:#?}", case.stage)).0.graph;
        assert_eq!(weights(&graph), case.weights, "{}", case.stage);
        let result = evaluate(&graph, &feeds(&graph, &case));
        let output = result.output("output").expect("the model has an output");
        assert_eq!(output.sizes, case.output, "{}", case.stage);
        let difference = largest_difference(&output.data, &case.values);
        assert!(difference < TOLERANCE, "{} on {:?}: {difference:e}", case.stage, case.shape);
        assert_eq!(result.updates.len(), case.states.len(), "{}", case.stage);
        for (target, value) in &result.updates {
            let Variable::State(id) = target else { panic!("a layer updates its states") };
            let name = graph.states[id.0 as usize].name.rsplit('.').next().expect("a name has a last part");
            let difference = largest_difference(&value.data, &case.states[name]);
            assert!(difference < TOLERANCE, "{} {name}: {difference:e}", case.stage);
        }
    }
}

#[test]
fn each_convolution_is_one_contraction_of_two_operands() {
    for stage in ["Conv(4, 3, pad = 1)", "Conv(4, 3, stride = 2)", "Conv(4, 3, pad = 1, groups = 2)"] {
        let expanded = super::good(&format!("model M {{\n  input x: [N, 2, 9, 9]\n  return x -> {stage}\n}}\n"));
        let products = expanded
            .graph
            .values()
            .filter(|(_, value)| matches!(value.op, crate::graph::Op::Contract(_)) && value.args.len() == 2);
        assert_eq!(products.count(), 1, "{stage}");
    }
}

#[test]
fn dropout_scales_what_it_keeps() {
    let text = "model M {\n  input x: [1000]\n  return x -> Dropout(0.25)\n}\n";
    let expanded = super::bound(text, &[], Mode::Train);
    let feeds = Feeds { inputs: HashMap::from([("x".to_owned(), Tensor::full(&[1000], 3.0))]), ..Feeds::default() };
    let output = evaluate(&expanded.graph, &feeds).output("output").expect("an output").clone();
    assert!(output.data.iter().all(|value| *value == 0.0 || (*value - 4.0).abs() < 1e-9));
    let kept = output.data.iter().filter(|value| **value != 0.0).count();
    // 750 expected; five standard deviations are 68.
    assert!((682..=818).contains(&kept), "{kept} of 1000 kept");
}

#[test]
fn values_of_library_layers_point_at_their_use() {
    let text = "model M {\n  input x: [N, 4]\n  return x -> Linear(3)\n}\n";
    let (project, file) = project(text);
    let expanded = expand(&project, file, "M", &[], Mode::Eval, &BTreeMap::new()).expect("expands").0;
    for (_, value) in expanded.graph.values() {
        assert_eq!(value.span.file, file);
    }
}
