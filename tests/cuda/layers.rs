//! Layers with gradients on the shim against the reference evaluator, at sizes at which products have several tiles.

use std::collections::BTreeMap;

use ansatz::cuda::Lowering;
use ansatz::cuda::code::text;
use ansatz::graph::{ClockReading, DType, Feeds, Graph, Op, Output, Precision, Tensor, ValueId, evaluate};
use ansatz::kernel::Persistent;
use ansatz::model::{Mode, Project, expand};
use ansatz::schedule::plan;

use super::graphs::on_device;
use super::shim;
use crate::support::Case;
use crate::support::lowered::difference;
use crate::support::random_graph::Random;
use crate::support::span;
use crate::{levels, library};

/// f32 against f64, in sums of a few thousand terms.
const TOLERANCE: f64 = 1e-4;
/// As on the CPU: some thousand roundings of 6e-8.
const LIBRARY_TOLERANCE: f64 = 2e-4;

/// The shape of the input and the stages that it flows through.
const CASES: [(&str, &str); 10] = [
    ("[19, 5, 487]", "Conv(41, 7, stride = 2, pad = 3) -> relu -> Conv(20, 3, pad = 4, dilation = 4)"),
    ("[4, 3, 33, 29]", "Conv(33, 5, stride = 2, pad = 2) -> BatchNorm -> relu -> max_pool(2)"),
    ("[2, 6, 9, 10, 11]", "Conv(7, 3, pad = 1, groups = 1)"),
    ("[3, 8, 17, 19]", "Conv(16, 3, pad = 1, groups = 4) -> relu"),
    ("[70, 130]", "Linear(300) -> gelu -> Linear(37)"),
    ("[3, 50, 24]", "LayerNorm -> Attention(4, causal = true)"),
    ("[3, 700]", "softmax"),
    ("[600, 40]", "BatchNorm -> tanh"),
    ("[5, 9, 64]", "GroupNorm(3) -> sigmoid"),
    ("i32[4, 40]", "Embedding(19, 70)"),
];

/// The sum of the squares of a model's results weighted by place, and its gradients by all parameters and the input.
fn step(shape: &str, stages: &str, seed: u64) -> Result<(Graph, Feeds), String> {
    let text = format!("model M {{\n  input x: {shape}\n  return x -> {stages}\n}}\n");
    let (project, file, found) = Project::from_text("layer.ansatz", &text);
    if !found.is_empty() {
        return Err(format!("{found:#?}"));
    }
    let expanded = expand(&project, file, "M", &[], Mode::Train, &BTreeMap::new());
    let mut graph = expanded.map_err(|found| format!("{found:#?}"))?.0.graph;
    let output = graph.outputs[0].value;
    let weights: Vec<ValueId> =
        graph.values().filter(|(_, value)| matches!(value.op, Op::Param(_))).map(|(id, _)| id).collect();
    let square = graph.binary(ansatz::graph::Binary::Mul, output, output, span());
    let axes: Vec<usize> = (0..graph.value(square).shape.len()).collect();
    let loss = graph.sum(square, &axes, span());
    graph.outputs.push(Output { name: "loss".into(), value: loss });
    for (place, value) in ansatz::grad::differentiate(&mut graph, loss, &weights).into_iter().enumerate() {
        graph.outputs.push(Output { name: format!("gradient{place}").into(), value });
    }
    let mut random = Random::new(seed);
    let mut feeds =
        Feeds { seed, clock: ClockReading { step: 1, total_steps: 2, steps_per_epoch: 1 }, ..Feeds::default() };
    let mut tensor = |sizes: &[usize]| {
        Tensor::new(sizes, (0..sizes.iter().product()).map(|_| f64::from(random.real(-0.5, 0.5) as f32)).collect())
    };
    for param in &graph.params {
        feeds.params.insert(param.name.clone(), tensor(&ansatz::dim::bound(&param.shape)));
    }
    for input in &graph.inputs {
        let mut values = tensor(&ansatz::dim::bound(&input.shape));
        if input.dtype == DType::I32 {
            // Rows of the table, some often and some never, in no order.
            values.data.iter_mut().for_each(|value| *value = ((*value + 0.5) * 17.0).floor());
        }
        feeds.inputs.insert(input.name.clone(), values);
    }
    for state in &graph.states {
        let sizes = ansatz::dim::bound(&state.shape);
        feeds.states.insert(state.name.clone(), Tensor::full(&sizes, state.init));
    }
    Ok((graph, feeds))
}

/// The first difference of a case on the shim from the evaluator's values.
fn differs(number: usize, precision: Precision, tolerance: f64) -> Option<String> {
    let (shape, stages) = CASES[number];
    let (mut graph, feeds) = step(shape, stages, number as u64).unwrap_or_else(|found| panic!("{stages}: {found}"));
    let expected = evaluate(&graph, &feeds);
    ansatz::passes::run(&mut graph);
    graph.precision = precision;
    let found = on_device(&graph, &feeds, &Lowering::default());
    difference(&expected, &found, tolerance).map(|difference| format!("{shape} -> {stages}: {difference}"))
}

#[test]
fn layers_and_their_gradients_have_the_evaluators_values() {
    let _device = shim::open();
    let wrong: Vec<String> =
        (0..CASES.len()).filter_map(|number| differs(number, Precision::Strict, TOLERANCE)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn tensor_cores_err_by_the_rounding_of_their_factors_and_no_more() {
    let _device = shim::open();
    // Factors are off by at most 2⁻¹² or 2⁻⁹ of themselves; gradients go through two or three products, and where a rectifier's
    // argument is near 0 its rounding decides. Found: up to 2.5e-3 and 9.4e-3. Batch norms cancel most of a gradient: none here.
    for (precision, least, most) in [(Precision::Tf32, 1e-5, 5e-3), (Precision::Bf16, 1e-4, 2e-2)] {
        for number in [0, 4, 5] {
            assert_eq!(differs(number, precision, most), None, "{precision:?}");
            assert_ne!(differs(number, precision, least), None, "{precision:?} rounds nothing");
        }
    }
}

#[test]
fn rows_of_a_table_look_for_what_is_added_to_them() {
    let text_of = |stages: &str| {
        let (mut graph, _) = step("i32[4, 40]", stages, 1).expect("a model");
        ansatz::passes::run(&mut graph);
        let program = plan(&graph, &Persistent::of(&graph), &Lowering::default());
        text(&program, None).expect("a text").source
    };
    let calls = |text: &str| text.matches("hits = ballot(").count();
    assert_eq!(calls(&text_of("Embedding(19, 70)")), 1);
    // Too many looks: a thread a column adds what comes, in order.
    assert_eq!(calls(&text_of("Embedding(20_000_000, 2)")), 0);
}

#[test]
fn a_product_that_is_not_finite_is_noticed() {
    let _device = shim::open();
    let (mut graph, mut feeds) = step("[40, 50]", "Linear(60, bias = false)", 1).expect("a model");
    graph.outputs.truncate(1);
    ansatz::passes::run(&mut graph);
    for (value, is_finite) in [(1e15, true), (1e25, false)] {
        feeds.inputs.values_mut().chain(feeds.params.values_mut()).for_each(|tensor| tensor.data.fill(value));
        // What the device tells is held against the results there.
        let found = on_device(&graph, &feeds, &Lowering::default());
        assert_eq!(found.outputs[0].1.data.iter().all(|value| value.is_finite()), is_finite);
    }
}

#[test]
fn a_kernel_of_more_buffers_than_arguments_runs() {
    let _device = shim::open();
    // Small results, of which a nest makes as many as it has room for.
    let results: Vec<String> = (0..600).map(|number| format!("y{number}")).collect();
    let equations: Vec<String> = results.iter().enumerate().map(|(n, y)| format!("  {y}[n] = x[n] * {n}.5")).collect();
    let text = format!("model M {{\n  input x: [7]\n{}\n  return {}\n}}\n", equations.join("\n"), results.join(", "));
    let (project, file, found) = Project::from_text("many.ansatz", &text);
    assert!(found.is_empty(), "{found:#?}");
    let mut graph = expand(&project, file, "M", &[], Mode::Train, &BTreeMap::new()).expect("a model").0.graph;
    ansatz::passes::run(&mut graph);
    let mut feeds = Feeds::default();
    feeds.inputs.insert("x".into(), Tensor::new(&[7], (0..7).map(f64::from).collect()));
    let program = plan(&graph, &Persistent::of(&graph), &Lowering::default());
    let most = program.kernels.iter().map(|kernel| kernel.buffers().len()).max();
    assert!(most > Some(128), "a kernel has many: {most:?}");
    let found = on_device(&graph, &feeds, &Lowering::default());
    assert_eq!(difference(&evaluate(&graph, &feeds), &found, TOLERANCE), None);
}

#[test]
fn the_librarys_items_and_their_gradients_have_the_evaluators_values() {
    let _device = shim::open();
    let cases = [levels::tasks(), levels::layers(), library::gradients(), library::optimizers()];
    let wrong = |Case { what, graph, feeds }: Case| {
        let found = on_device(&graph, &feeds, &Lowering::default());
        difference(&evaluate(&graph, &feeds), &found, LIBRARY_TOLERANCE)
            .map(|difference| format!("{what}: {difference}"))
    };
    let wrong: Vec<String> = cases.into_iter().flatten().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
