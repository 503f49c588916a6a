//! Every layer, function, loss and optimizer of the library on small sizes: gradients against difference quotients,
//! machine code at each level against the reference evaluator.

use std::collections::{BTreeMap, HashMap};

use ansatz::graph::{
    Binary, ClockReading, DType, Evaluation, Feeds, Graph, Init, Op, Output, Param, Tensor, Unary, ValueId, Variable,
    evaluate,
};
use ansatz::machine::Level;
use ansatz::machine::pool::Pool;
use ansatz::model::{Mode, Project, apply_optimizer, expand, forward, training};
use ansatz::settings::FieldInfo;

use crate::machine_code::compiled;
use crate::support::lowered::difference;
use crate::support::random_graph::Random;
use crate::support::{Case, check_gradients, dims, span};

/// A stage or loss under test: the lines of a model whose tensors are parameters.
pub const CASES: &[(&str, &str)] = &[
    ("relu", "param x: [3, 5] ~ zeros\n return x -> relu"),
    ("relu6", "param x: [3, 5] ~ zeros\n return relu6(6 * x)"),
    ("leaky_relu", "param x: [3, 5] ~ zeros\n return x -> leaky_relu(slope = 0.2)"),
    ("elu", "param x: [3, 5] ~ zeros\n return x -> elu(alpha = 0.7)"),
    ("selu", "param x: [3, 5] ~ zeros\n return x -> selu"),
    ("gelu", "param x: [3, 5] ~ zeros\n return x -> gelu"),
    ("gelu_tanh", "param x: [3, 5] ~ zeros\n return x -> gelu_tanh"),
    ("silu", "param x: [3, 5] ~ zeros\n return x -> silu"),
    ("softplus", "param x: [3, 5] ~ zeros\n return x -> softplus"),
    ("mish", "param x: [3, 5] ~ zeros\n return x -> mish"),
    ("hard_sigmoid", "param x: [3, 5] ~ zeros\n return hard_sigmoid(4 * x)"),
    ("hard_swish", "param x: [3, 5] ~ zeros\n return hard_swish(4 * x)"),
    ("softmax", "param x: [3, 5] ~ zeros\n return x -> softmax"),
    ("softmax", "param x: [2, 3, 1, 5] ~ zeros\n return x -> softmax"),
    ("log_softmax", "param x: [3, 5] ~ zeros\n return x -> log_softmax"),
    ("Linear", "param x: [3, 5] ~ zeros\n return x -> Linear(7)"),
    ("Linear", "param x: [3, 2, 5] ~ zeros\n return x -> Linear(1, bias = false)"),
    ("Embedding", "input ids: i32[2, 3]\n return ids -> Embedding(3, 5)"),
    ("Dropout", "param x: [3, 5] ~ zeros\n return x -> Dropout(0.4)"),
    ("BatchNorm", "param x: [3, 2, 5, 1] ~ zeros\n return x -> BatchNorm"),
    ("BatchNorm", "param x: [5, 3] ~ zeros\n return x -> BatchNorm(affine = false)"),
    ("LayerNorm", "param x: [3, 2, 5] ~ zeros\n return x -> LayerNorm"),
    ("RMSNorm", "param x: [3, 5] ~ zeros\n return x -> RMSNorm"),
    ("GroupNorm", "param x: [2, 6, 5] ~ zeros\n return x -> GroupNorm(3)"),
    ("Attention", "param x: [2, 3, 4] ~ zeros\n return x -> Attention(2)"),
    ("Attention", "param x: [2, 3, 4] ~ zeros\n return x -> Attention(2, causal = true)"),
    ("Attention", "param x: [2, 3, 4] ~ zeros\n return x -> Attention(1, bias = false)"),
    ("Projection", "param x: [2, 4] ~ zeros\n return x -> Projection"),
    ("Conv", "param x: [2, 3, 11] ~ zeros\n return x -> Conv(2, 3, stride = 2, pad = 1)"),
    ("Conv", "param x: [2, 3, 7, 5] ~ zeros\n return x -> Conv(2, 3, pad = 1, bias = false)"),
    ("Conv", "param x: [2, 4, 7, 5] ~ zeros\n return x -> Conv(6, 3, stride = 2, pad = 1, groups = 2)"),
    ("Conv", "param x: [1, 2, 9, 7] ~ zeros\n return x -> Conv(2, 3, dilation = 2)"),
    ("Conv", "param x: [1, 2, 7, 7] ~ zeros\n return x -> Conv(3, 1, stride = 2)"),
    ("Conv", "param x: [1, 2, 4, 5, 3] ~ zeros\n return x -> Conv(2, 2, stride = 1)"),
    ("max_pool", "param x: [2, 2, 8] ~ zeros\n return x -> max_pool(2)"),
    ("max_pool", "param x: [1, 2, 7, 7] ~ zeros\n return x -> max_pool(3, stride = 2, pad = 1)"),
    ("avg_pool", "param x: [2, 2, 9] ~ zeros\n return x -> avg_pool(3)"),
    ("avg_pool", "param x: [1, 2, 7, 5] ~ zeros\n return x -> avg_pool(3, stride = 2, pad = 1)"),
    ("adaptive_avg_pool", "param x: [2, 3, 4, 6] ~ zeros\n return x -> adaptive_avg_pool(2)"),
    ("adaptive_max_pool", "param x: [2, 3, 4, 6] ~ zeros\n return x -> adaptive_max_pool(2)"),
    ("cross_entropy", "param x: [4, 3] ~ zeros\n input label: i32[4]\n return cross_entropy(x, label)"),
    (
        "cross_entropy",
        "param x: [2, 4, 3] ~ zeros\n input label: i32[2, 4]\n return cross_entropy(x, label, smoothing = 0.1)",
    ),
    (
        "cross_entropy",
        "param x: [4, 3] ~ zeros\n input label: i32[4]\n return cross_entropy(x, label, weights = [1, 2, 0.5])",
    ),
    ("bce", "param x: [4, 1] ~ zeros\n input target: [4]\n return bce(x, target)"),
    ("mse", "param x: [4, 3] ~ zeros\n input target: [4, 3]\n return mse(x, target)"),
    ("l1", "param x: [4, 3] ~ zeros\n input target: [4, 3]\n return l1(x, target)"),
    ("huber", "param x: [4, 3] ~ zeros\n input target: [4, 3]\n return huber(x, target, delta = 0.5)"),
    ("kl", "param x: [4, 3] ~ zeros\n input target: [4, 3]\n return kl(x, target)"),
    ("split", "param x: [3, 6] ~ zeros\n a, b = split(x, 2)\n return a * (b + 1)"),
    (
        "split",
        "param x: [5, 4] ~ zeros\n a, b, c = split(x, [1, 3, 1], axis = 0)\n y[i] = sum[n] a[0, i] * b[n, i] + c[0, i]\n return y",
    ),
    ("slice", "param x: [3, 7] ~ zeros\n return slice(x, 2, 6) * slice(x, 0, 4)"),
    (
        "groups",
        "param x: [2, 6, 4] ~ zeros\n y = x -> [2, (3 2), 4]\n z[n, (d g), s..] = y[n, (g d), s..] * y[n, (0 d), s..]\n return z",
    ),
    ("packs", "param x: [2, 3, 4, 5] ~ zeros\n y[s.., n] = sum[c] x[n, c, s..] * x[n, 0, s..]\n return y"),
    (
        "patches",
        "param x: [2, 3, 4, 6] ~ zeros\n y[n, i.., (c u..)] = x[n, c, (i u)..] : [2, 2, 3, (3 2 2)]\n return y",
    ),
    (
        "ConvTranspose",
        "param x: [2, 3, 5] ~ zeros\n return x -> ConvTranspose(4, 3, stride = 2, pad = 1, output_pad = 1)",
    ),
    (
        "ConvTranspose",
        "param x: [1, 4, 3, 4] ~ zeros\n return x -> ConvTranspose(6, [3, 2], stride = [2, 1], dilation = [1, 2], groups = 2, bias = false)",
    ),
    ("places", "param x: [3, 5] ~ zeros\n y[n, 2*i + 1] = x[n, i] * x[n, i] : [3, 11]\n return y"),
    ("places", "param x: [3, 5] ~ zeros\n y[i + n] = x[n, i] : [7]\n return y"),
    ("gradient", "param x: [3, 4] ~ zeros\n s = sum[n, c] x[n, c] * x[n, c] * sin(x[n, c])\n return gradient(s, x)"),
    (
        "gradient",
        "param x: [3, 4] ~ zeros\n y = x -> Linear(5) -> tanh\n t = sum[n] logsumexp[o] y[n, o]\n return gradient(t, x)",
    ),
    ("places", "param x: [3, 5] ~ zeros\n y[n, (g o), g + o] = x[n, o] : [3, (1 5), 5]\n return y"),
];

/// Helpers of the library that the cases use through others.
const HELPERS: &[&str] = &["windows", "spread", "pooled", "rows", "difference", "labels_of"];

const OPTIMIZERS: &[&str] = &[
    "sgd(lr = 0.1)",
    "sgd(lr = 0.1, momentum = 0.9, nesterov = true, decay = 0.01)",
    "adam(lr = 0.01)",
    "adamw(lr = 0.01, decay = 0.1)",
    "rmsprop(lr = 0.01)",
    "rmsprop(lr = 0.01, momentum = 0.9, centered = true)",
    "adagrad(lr = 0.01, lr_decay = 0.1)",
    "lion(lr = 0.01, decay = 0.1)",
    "adam(lr = 0.01, amsgrad = true)",
    "adamax(lr = 0.01, decay = 0.01)",
    "adadelta(decay = 0.01)",
    "lars(lr = 0.1, decay = 0.01)",
    "lamb(lr = 0.01)",
];

/// f32 against f64 on these sizes: some hundred roundings of 6e-8, amplified at most some ten times.
const TOLERANCE: f64 = 5e-5;

fn report(found: &[ansatz::diagnostics::Diagnostic]) -> String {
    found.iter().map(|diagnostic| format!("{}: {}\n", diagnostic.code, diagnostic.message)).collect()
}

/// Numbers for everything that the graph reads, exact in f32: integers below `classes`, positive states, the rest
/// around 0.
pub fn feeds(graph: &Graph, classes: usize, random: &mut Random) -> Feeds {
    let mut feeds = Feeds { seed: 9, ..Feeds::default() };
    let sizes = |shape: &[ansatz::dim::Dim]| -> Vec<usize> {
        shape.iter().map(|dim| dim.as_const().expect("sizes are bound") as usize).collect()
    };
    let mut tensor = |sizes: &[usize], low: f64, high: f64| {
        Tensor::new(sizes, (0..sizes.iter().product()).map(|_| random.real(low, high)).collect())
    };
    for param in &graph.params {
        feeds.params.insert(param.name.clone(), tensor(&sizes(&param.shape), -1.5, 1.5));
    }
    for state in &graph.states {
        feeds.states.insert(state.name.clone(), tensor(&sizes(&state.shape), 0.5, 1.5));
    }
    for input in &graph.inputs {
        let mut fed = tensor(&sizes(&input.shape), 0.0, 1.0);
        if input.dtype == DType::I32 {
            fed.data.iter_mut().for_each(|x| *x = (*x * classes as f64).floor());
        }
        feeds.inputs.insert(input.name.clone(), fed);
    }
    feeds
}

/// A case with an uneven smooth loss over its result, feeds, and reads of all its parameters.
pub fn prepared(name: &str, body: &str) -> (Graph, Feeds, ValueId, Vec<ValueId>) {
    let text = format!("model M {{\n input unused: [1]\n {body}\n}}\n");
    let (project, file, found) = Project::from_text("case.ansatz", &text);
    assert!(found.is_empty(), "{name}: {}", report(&found));
    let (expanded, _) = expand(&project, file, "M", &[], Mode::Train, &BTreeMap::new())
        .unwrap_or_else(|found| panic!("{name}: {}", report(&found)));
    let mut graph = expanded.graph;
    let y = graph.outputs[0].value;
    let sizes = graph.sizes(y);
    let entry = Param { name: "factor".into(), shape: dims(&sizes), init: Init::Constant(1.0), span: span() };
    let factor = graph.param(entry);
    let product = graph.binary(Binary::Mul, y, factor, span());
    let bent = graph.unary(Unary::Sin, product, span());
    let axes: Vec<usize> = (0..sizes.len()).collect();
    let loss = graph.sum(bent, &axes, span());
    let feeds = feeds(&graph, 3, &mut Random::new(17));
    let params = graph.values().filter(|(_, value)| matches!(value.op, Op::Param(_))).map(|(id, _)| id).collect();
    (graph, feeds, loss, params)
}

#[test]
fn every_item_of_the_library_has_a_case() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/library");
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the library is a folder") {
        let text = std::fs::read_to_string(entry.expect("a folder entry").path()).expect("the library is text");
        for line in text.lines() {
            let Some((kind, rest)) = line.split_once(' ') else { continue };
            let name = rest.split(['(', ' ']).next().unwrap_or_default().to_string();
            let known = match kind {
                "layer" | "fn" | "loss" => {
                    HELPERS.contains(&name.as_str()) || CASES.iter().any(|(case, _)| *case == name)
                }
                "optimizer" => OPTIMIZERS.iter().any(|case| case.split('(').next() == Some(&name)),
                _ => true,
            };
            if !known {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn gradients_of_the_library_agree_with_differences() {
    for (name, body) in CASES {
        let (graph, feeds, loss, params) = prepared(name, body);
        let outcome = std::panic::catch_unwind(|| check_gradients(&graph, &feeds, loss, &params, 4));
        assert!(outcome.is_ok(), "{name}: {body}");
    }
}

/// Each layer, function and loss of the library with its gradients by all parameters.
pub fn gradients() -> Vec<Case> {
    let of_body = |(name, body): &(&str, &str)| {
        let (mut graph, feeds, loss, params) = prepared(name, body);
        graph.outputs.push(Output { name: "loss".into(), value: loss });
        let gradients = ansatz::grad::differentiate(&mut graph, loss, &params);
        for (place, value) in gradients.into_iter().enumerate() {
            graph.outputs.push(Output { name: format!("gradient{place}").into(), value });
        }
        ansatz::passes::run(&mut graph);
        Case { what: format!("{name}: {body}"), graph, feeds }
    };
    CASES.iter().map(of_body).collect()
}

#[test]
fn compiled_layers_agree_with_the_evaluator_at_each_level() {
    let pool = Pool::new(2);
    for Case { what, graph, feeds } in gradients() {
        let expected = evaluate(&graph, &feeds);
        for level in Level::available() {
            let actual = compiled(&graph, &feeds, level, &pool);
            assert_eq!(difference(&expected, &actual, TOLERANCE), None, "{what} at {level}");
        }
    }
}

/// A training step of a small network under this optimizer.
fn step(optimizer: &str) -> Graph {
    let text = format!(
        "model M {{\n  input x: [N, 5]\n  return x -> Linear(7) -> tanh -> Linear(3)\n}}\n\
         data d {{\n  source = csv(\"d.csv\")\n  x: f32[5]\n  label: class[3]\n}}\n\
         train M on d {{\n  loss = cross_entropy(label)\n  optimizer = {optimizer}\n  length = 5 steps\n}}\n"
    );
    let (project, file, found) = Project::from_text("step.ansatz", &text);
    assert!(found.is_empty(), "{optimizer}: {}", report(&found));
    let training = training(&project, file, &[]).unwrap_or_else(|found| panic!("{optimizer}: {}", report(&found)));
    let fields = [
        FieldInfo { name: "x".into(), sizes: vec![5], dtype: DType::F32, classes: None },
        FieldInfo { name: "label".into(), sizes: vec![], dtype: DType::I32, classes: Some(3) },
    ];
    let forward =
        forward(&training, 6, Mode::Train, &fields).unwrap_or_else(|found| panic!("{optimizer}: {}", report(&found)));
    let (mut graph, loss) = (forward.graph, forward.loss);
    let reads: Vec<_> = graph
        .values()
        .filter_map(|(id, value)| match value.op {
            Op::Param(param) => Some((param, id)),
            _ => None,
        })
        .collect();
    let wrt: Vec<ValueId> = reads.iter().map(|read| read.1).collect();
    let gradients = ansatz::grad::differentiate(&mut graph, loss, &wrt);
    let gradients: Vec<_> = reads.iter().map(|read| read.0).zip(gradients).collect();
    apply_optimizer(&training, &mut graph, &gradients)
        .unwrap_or_else(|found| panic!("{optimizer}: {}", report(&found)));
    ansatz::passes::run(&mut graph);
    graph
}

/// Five steps; the values after the last.
fn five_steps(graph: &Graph, mut feeds: Feeds, run: &dyn Fn(&Feeds) -> Evaluation) -> HashMap<String, Tensor> {
    for step in 1..=5 {
        feeds.clock.step = step;
        for (target, value) in run(&feeds).updates {
            match target {
                Variable::Param(id) => feeds.params.insert(graph.params[id.0 as usize].name.clone(), value),
                Variable::State(id) => feeds.states.insert(graph.states[id.0 as usize].name.clone(), value),
            };
        }
    }
    feeds.params.into_iter().chain(feeds.states).collect()
}

/// The first step of each optimizer.
pub fn optimizers() -> Vec<Case> {
    let of_optimizer = |optimizer: &&str| {
        let graph = step(optimizer);
        let mut feeds = feeds(&graph, 3, &mut Random::new(23));
        let starts: Vec<(String, f64)> = graph.states.iter().map(|state| (state.name.clone(), state.init)).collect();
        for (name, start) in starts {
            feeds.states.get_mut(&name).expect("every state is fed").data.fill(start);
        }
        feeds.clock = ClockReading { step: 1, total_steps: 5, steps_per_epoch: 5 };
        Case { what: optimizer.to_string(), graph, feeds }
    };
    OPTIMIZERS.iter().map(of_optimizer).collect()
}

#[test]
fn five_compiled_steps_of_each_optimizer_agree_with_the_evaluator() {
    let pool = Pool::new(1);
    for Case { what, graph, feeds } in optimizers() {
        let expected = five_steps(&graph, feeds.clone(), &|feeds| evaluate(&graph, feeds));
        for level in Level::available() {
            let actual = five_steps(&graph, feeds.clone(), &|feeds| compiled(&graph, feeds, level, &pool));
            for (name, tensor) in &expected {
                let close = tensor.data.iter().zip(&actual[name].data).all(|(a, b)| (a - b).abs() <= TOLERANCE);
                assert!(close, "{what} at {level}: `{name}` is {:?}, not {:?}", actual[name].data, tensor.data);
            }
        }
    }
}
