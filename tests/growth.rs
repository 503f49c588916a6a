//! Time and size of what is made from a model grow with the model, not with the paths through it.
//!
//! Each model is built with n and with 2n of its parts. Counted are the nodes of the program: a compiler that walks a
//! graph as a tree, or computes shared values at each reader, makes them grow faster than the model. The steps of the
//! schedule's own searches are counted beside it (`schedule/tests.rs`).

use std::path::Path;
use std::time::{Duration, Instant};

use ansatz::cpu::Lowering;
use ansatz::kernel::{Nest, Persistent, Program};
use ansatz::model::Project;
use ansatz::source::FileId;
use ansatz::{model, pipeline, runtime, schedule, workspace};

/// A whole model file around the body of a model whose input is `x`.
fn file(layers: &str, sizes: &str, body: &str, train: &str) -> String {
    format!(
        "{layers}\nmodel M {{\n  input x: [N, {sizes}]\n{body}}}\n\
         data noise {{\n  source = random(samples = 16)\n  x: f32[{sizes}]\n  label: class[8]\n}}\n\
         train M on noise {{\n  loss = cross_entropy(label)\n  batch = 8\n  length = 3 steps\n{train}}}\n"
    )
}

fn pipeline_of(layers: &str, stages: &str) -> String {
    let body = format!("  return x -> Linear(16) -> {stages} -> Linear(8)\n");
    file(layers, "16", &body, "  optimizer = sgd(lr = 0.01)\n")
}

fn deep_chain(count: usize) -> String {
    pipeline_of("", &format!("repeat({count}) chain(Linear(16), relu)"))
}

/// All gradients meet in one norm, and all updates wait for it.
fn clipped_chain(count: usize) -> String {
    let body = format!("  return x -> repeat({count}) chain(Linear(16), relu) -> Linear(8)\n");
    file("", "16", &body, "  optimizer = adam(lr = 0.01)\n  clip = 1.0\n")
}

fn residual_blocks(count: usize) -> String {
    pipeline_of("", &format!("repeat({count}) residual {{ LayerNorm -> Linear(16) -> gelu -> Linear(16) }}"))
}

fn activations(count: usize) -> String {
    pipeline_of("", &format!("repeat({count}) silu"))
}

/// `y = x * x`, again and again: 2^count factors as a tree.
fn squares(count: usize) -> String {
    let layer = "layer Square {\n  input a: [N, C]\n  return a * a\n}\n";
    pipeline_of(layer, &format!("repeat({count}) Square"))
}

/// An explicit integrator: each step reads its state four times.
fn integrator(count: usize) -> String {
    let layer = "layer Step {\n  input u: [N, C]\n  return u - 0.1 * sin(u) + 0.01 * u * tanh(u)\n}\n";
    pipeline_of(layer, &format!("repeat({count}) Step"))
}

/// A stencil: the places that an element depends on overlap, their tree doubles and more with each step.
fn stencil(count: usize) -> String {
    let layer = "layer Blur {\n  input a: [N, S]\n  b[n, s] = (a[n, s - 1] else 0) + 0.5 * a[n, s] + (a[n, s + 1] else 0) : [N, S]\n  \
                 return b\n}\n";
    pipeline_of(layer, &format!("repeat({count}) Blur"))
}

/// The forward recursion of connectionist temporal classification.
fn recursion(count: usize) -> String {
    let layer = "layer Step {\n  input a: [N, S]\n  input e: [N, S]\n  \
                 b[n, s] = log(exp(a[n, s]) + exp(a[n, s - 1] else -1000) + exp(a[n, s - 2] else -1000)) + e[n, s] : [N, S]\n  \
                 return b\n}\n";
    let mut body = "  a0[n, s] = x[n, 0, s]\n".to_string();
    for step in 0..count {
        body += &format!("  e{step}[n, s] = x[n, {step}, s]\n  a{} = Step()(a{step}, e{step})\n", step + 1);
    }
    body += &format!("  return a{count} -> Linear(8)\n");
    file(layer, &format!("{count}, 16"), &body, "  optimizer = sgd(lr = 0.01)\n")
}

/// One cell of long short-term memory for all steps; its state is [N, 2, H].
fn unrolled_lstm(count: usize) -> String {
    let layer = "layer Cell(H) {\n  input x: [N, C]\n  input s: [N, K, J]\n  \
                 param wi: [4, H, C] ~ normal(0, 0.1)\n  param wh: [4, H, H] ~ normal(0, 0.1)\n  param b: [4, H] ~ zeros\n  \
                 g[n, k, j] = (sum[a] x[n, a] * wi[k, j, a]) + (sum[a] s[n, 0, a] * wh[k, j, a]) + b[k, j]\n  \
                 d[n, j] = sigmoid(g[n, 1, j]) * s[n, 1, j] + sigmoid(g[n, 0, j]) * tanh(g[n, 3, j])\n  \
                 h[n, j] = sigmoid(g[n, 2, j]) * tanh(d[n, j])\n  \
                 y[n, k, j] = h[n, j] if k == 0 else d[n, j] : [N, 2, H]\n  return y\n}\n";
    let mut body = "  cell = Cell(16)\n  s0[n, k, j] = 0 * x[n, 0, 0] : [N, 2, 16]\n".to_string();
    for step in 0..count {
        body += &format!("  x{step}[n, c] = x[n, {step}, c]\n  s{} = cell(x{step}, s{step})\n", step + 1);
    }
    body += &format!("  h[n, j] = s{count}[n, 0, j]\n  return h -> Linear(8)\n");
    file(layer, &format!("{count}, 4"), &body, "  optimizer = adam(lr = 0.01)\n")
}

/// Gated recurrent units through `repeat`: what is left of the sequence flows along behind the state.
fn repeated_gru(count: usize) -> String {
    let layer = "layer Step(C, H) {\n  input s: [N, L]\n  require L >= C + H\n  \
                 param wi: [3, H, C] ~ normal(0, 0.1)\n  param wh: [3, H, H] ~ normal(0, 0.1)\n  \
                 x[n, a] = s[n, a + H] : [N, C]\n  h[n, j] = s[n, H - 1 - j] : [N, H]\n  \
                 gi[n, k, j] = sum[a] x[n, a] * wi[k, j, a]\n  gh[n, k, j] = sum[a] h[n, a] * wh[k, j, a]\n  \
                 r[n, j] = sigmoid(gi[n, 0, j] + gh[n, 0, j])\n  z[n, j] = sigmoid(gi[n, 1, j] + gh[n, 1, j])\n  \
                 v[n, j] = tanh(gi[n, 2, j] + r[n, j] * gh[n, 2, j])\n  \
                 q[n, j] = (1 - z[n, j]) * v[n, j] + z[n, j] * h[n, j]\n  \
                 y[n, l] = (q[n, H - 1 - l] else 0) if l < H else s[n, l + C] : [N, L - C]\n  return y\n}\n";
    let body = format!(
        "  s[n, l] = (x[n, l - 8] else 0) : [N, {}]\n  return s -> repeat({count}) Step(2, 8) -> Linear(8)\n",
        2 * count + 8
    );
    file(layer, &(2 * count).to_string(), &body, "  optimizer = sgd(lr = 0.01)\n")
}

/// A sum of many terms that all read the same input.
fn wide_sum(count: usize) -> String {
    let mut body = "  z = x -> Linear(16)\n  s0 = z\n".to_string();
    for term in 0..count {
        body += &format!("  s{} = s{term} + tanh(z * {term}.5)\n", term + 1);
    }
    body += &format!("  return s{count} -> Linear(8)\n");
    file("", "16", &body, "  optimizer = sgd(lr = 0.01)\n")
}

/// Branches side by side, each put before those so far.
fn concatenation(count: usize) -> String {
    let mut body = "  c0 = x -> Linear(4) -> relu\n".to_string();
    for part in 0..count {
        body += &format!(
            "  b{part} = x -> Linear(4) -> relu\n  c{}[n, j] = (b{part}[n, 3 - j] else 0) if j < 4 else (c{part}[n, j - 4] else 0) : [N, {}]\n",
            part + 1,
            4 * part + 8
        );
    }
    body += &format!("  return c{count} -> Linear(8)\n");
    file("", "16", &body, "  optimizer = sgd(lr = 0.01)\n")
}

fn load(text: &str) -> (Project, FileId) {
    let read = |_: &Path| Ok(text.as_bytes().to_vec());
    let (project, file, found) = Project::load(Path::new("m.ansatz"), None, &read);
    assert!(found.is_empty(), "{found:#?}");
    (project, file)
}

fn step(text: &str) -> Program {
    let (project, file) = load(text);
    let training = model::training(&project, file, &[]).unwrap_or_else(|found| panic!("{found:#?}"));
    let fields = runtime::data::fields(&training.settings.data).unwrap_or_else(|found| panic!("{found:#?}"));
    let graph = pipeline::training_graph(&training, training.settings.batch, &fields, false);
    let graph = graph.unwrap_or_else(|found| panic!("{found:#?}"));
    schedule::plan(&graph, &Persistent::of(&graph), &Lowering::default())
}

/// Nodes of all phases, and the kernels.
fn size(program: &Program) -> usize {
    let nodes = |nest: &Nest| nest.phases.iter().map(|phase| phase.nodes.len()).sum();
    program.kernels.iter().map(|kernel| kernel.kind.nest().map_or(1, nodes)).sum()
}

/// Twice as many parts make at most this many times the nodes.
const GROWTH: f64 = 2.4;
/// What a loaded machine needs for none of these models: an exponential walk takes longer than the age of anything.
const PATIENCE: Duration = Duration::from_secs(120);

fn grows_linearly(make: fn(usize) -> String, count: usize) {
    let start = Instant::now();
    let [small, large] = [count, 2 * count].map(|count| size(&step(&make(count))));
    assert!(large as f64 <= GROWTH * small as f64, "{small} nodes of {count} parts, {large} of twice as many");
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[test]
fn deep_networks() {
    grows_linearly(deep_chain, 24);
    grows_linearly(clipped_chain, 24);
    grows_linearly(residual_blocks, 8);
}

#[test]
fn values_with_several_readers() {
    grows_linearly(activations, 40);
    grows_linearly(squares, 40);
    grows_linearly(integrator, 20);
}

#[test]
fn shifted_reads() {
    grows_linearly(stencil, 30);
    grows_linearly(recursion, 15);
    grows_linearly(repeated_gru, 8);
}

#[test]
fn unrolled_cells() {
    grows_linearly(unrolled_lstm, 12);
}

#[test]
fn many_parts_of_one_value() {
    grows_linearly(wide_sum, 60);
    grows_linearly(concatenation, 8);
}

#[test]
fn the_adversarial_models_pass_check() {
    let makes =
        [activations, squares, integrator, stencil, recursion, unrolled_lstm, repeated_gru, wide_sum, concatenation];
    for make in makes {
        let (project, file) = load(&make(12));
        let found = workspace::check::check(&project, file, &Lowering::default());
        assert!(found.is_empty(), "{found:#?}");
    }
}
