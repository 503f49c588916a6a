//! The training language: settings, losses, optimizers, schedules and metrics against their formulas.

use std::collections::HashMap;

use super::{Forward, Resolved, apply_optimizer, forward, training};
use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{self, ClockReading, DType, Feeds, Graph, Init, Input, Param, ParamId, Tensor, Variable};
use crate::model::expander::Mode;
use crate::model::project::Project;
use crate::settings::Direction;
use crate::settings::{FieldInfo, Interval, Length, SplitName};
use crate::source::Span;

/// A classifier of two features into three classes with these lines in its `train` item.
fn program(lines: &str) -> String {
    format!(
        "model M(classes = 3) {{\n  input x: [N, 2]\n  param w: [2, classes] ~ normal(0, 1)\n  y[n, c] = sum[k] x[n, k] * w[k, c]\n  return y\n}}\n\
         data d {{\n  source = csv(\"d.csv\")\n  x: f32[2]\n  label: class[3]\n  prepare.x = scale(1 / 255) -> rotate(-10 deg)\n}}\n\
         train M on d {{\n{lines}\n}}\n"
    )
}

fn lines(optimizer: &str, extra: &str) -> String {
    program(&format!("  loss = cross_entropy(label)\n  optimizer = {optimizer}\n  length = 10 epochs\n{extra}"))
}

fn read(text: &str, overrides: &[(&str, &str)]) -> Result<Resolved, Vec<Diagnostic>> {
    let (project, file, found) = Project::from_text("test.ansatz", text);
    assert!(found.is_empty(), "{found:#?}");
    let overrides: Vec<(String, String)> = overrides.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    training(&project, file, &overrides)
}

fn good(text: &str, overrides: &[(&str, &str)]) -> Resolved {
    read(text, overrides).unwrap_or_else(|found| panic!("{found:#?}"))
}

fn codes(text: &str, overrides: &[(&str, &str)]) -> Vec<String> {
    let read = read(text, overrides);
    let found = read.expect_err("the text has an error");
    found.into_iter().map(|d| format!("{}: {} {:?}", d.code, d.message, d.hints)).collect()
}

fn fields() -> Vec<FieldInfo> {
    vec![
        FieldInfo { name: "x".into(), sizes: vec![2], dtype: DType::F32, classes: None },
        FieldInfo { name: "label".into(), sizes: vec![], dtype: DType::I32, classes: Some(3) },
    ]
}

fn expanded(text: &str, mode: Mode, batch: usize) -> Forward {
    let training = good(text, &[]);
    forward(&training, batch, mode, &fields()).unwrap_or_else(|found| panic!("{found:#?}"))
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{found} against {expected}");
}

const X: [f64; 8] = [1.0, 0.5, -1.0, 2.0, 0.0, 1.0, 2.0, -0.5];
const W: [f64; 6] = [0.3, -0.2, 0.5, 0.1, 0.4, -0.6];
const LABEL: [f64; 4] = [2.0, 1.0, 1.0, 0.0];

fn feeds() -> Feeds {
    Feeds {
        inputs: HashMap::from([
            ("x".into(), Tensor::new(&[4, 2], X.to_vec())),
            ("label".into(), Tensor::new(&[4], LABEL.to_vec())),
        ]),
        params: HashMap::from([("w".into(), Tensor::new(&[2, 3], W.to_vec()))]),
        ..Feeds::default()
    }
}

fn logits() -> Vec<[f64; 3]> {
    (0..4).map(|n| std::array::from_fn(|c| X[2 * n] * W[c] + X[2 * n + 1] * W[3 + c])).collect()
}

fn log_softmax(row: &[f64; 3]) -> [f64; 3] {
    let total = row.iter().map(|x| x.exp()).sum::<f64>().ln();
    row.map(|x| x - total)
}

fn output(text: &str, name: &str) -> f64 {
    let step = expanded(text, Mode::Train, 4);
    graph::evaluate(&step.graph, &feeds()).output(name).unwrap_or_else(|| panic!("no {name}")).data[0]
}

#[test]
fn a_train_item_is_read_with_its_data() {
    let text = lines(
        "sgd(lr = 0.1)",
        "  batch = 64\n  clip = 1.0\n  metrics = accuracy, top(2)\n  keep = best(valid.top(2)), last(3)\n  save = 500 steps, 0.5 minutes",
    );
    let training = good(&text, &[]);
    assert_eq!((training.settings.model.as_str(), training.settings.batch, training.settings.seed), ("M", 64, 0));
    assert_eq!((training.settings.length, training.settings.clip), (Length::Epochs(10.0), Some(1.0)));
    let best = training.settings.keep.best.as_ref().expect("asked for");
    assert_eq!((best.split, best.figure.as_str(), best.direction), (SplitName::Valid, "top(2)", Direction::Higher));
    assert_eq!(training.settings.keep.last, 3);
    assert_eq!(training.settings.save, [Interval::Steps(500), Interval::Minutes(0.5)]);
    let names: Vec<_> = training.settings.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["accuracy", "top(2)"]);
    assert_eq!(training.settings.data.fields.len(), 2);
    let pipeline = format!("{:?}", training.settings.data.entries[1]);
    assert!(pipeline.contains("0.00392156862745098") && pipeline.contains("-0.17453292519943295"), "{pipeline}");
}

#[test]
fn settings_of_the_command_line_replace_lines_and_arguments() {
    let text = lines("sgd(lr = 0.1)", "");
    let training = good(
        &text,
        &[
            ("train.batch", "8"),
            ("seed", "7"),
            ("train.length", "5 steps"),
            ("optimizer.lr", "0.01"),
            ("model.classes", "4"),
        ],
    );
    assert_eq!((training.settings.batch, training.settings.seed, training.settings.length), (8, 7, Length::Steps(5)));
    let mut graph = Graph::default();
    apply_optimizer(&training, &mut graph, &[]).expect("valid");
    assert_eq!(graph.scalars[0].expr.evaluate(&clock(1)), 0.01);
    let found = forward(&training, 8, Mode::Train, &fields()).expect_err("four logits for three classes");
    assert_eq!(found[0].code, "data-mismatch");
    let training = good(&lines("sgd(0.1, 0.9)", ""), &[("optimizer.momentum", "0")]);
    let mut graph = Graph::default();
    apply_optimizer(&training, &mut graph, &[]).expect("an argument by position is replaced");
    assert!(codes(&text, &[("train.bach", "8")])[0].contains("did you mean `train.batch`?"));
    assert!(codes(&text, &[("train.batch", "8 +")])[0].starts_with("bad-setting"));
}

#[test]
fn misspelled_and_missing_keys_are_errors() {
    assert!(codes(&lines("sgd", "  bach = 3"), &[])[0].contains("did you mean `batch`?"));
    assert_eq!(codes(&program("  batch = 3"), &[]).len(), 3);
    assert!(codes(&lines("sgd", "  batch = 0.5"), &[])[0].starts_with("bad-value"));
    assert!(codes(&lines("sgd", "  metrics = acuracy"), &[])[0].contains("did you mean `accuracy`?"));
    assert!(codes(&lines("sgd", "  save = 5"), &[])[0].starts_with("bad-value"));
    assert!(codes(&lines("sgd", "  keep = best(valid.accuracy)"), &[])[0].starts_with("unknown-name"));
    assert!(codes(&lines("sgd", "  length = 3 epochs"), &[])[0].starts_with("duplicate-name"));
    assert!(codes("fn f(x) = x\n", &[])[0].starts_with("no-training"));
    let found = codes(
        &program(
            "  loss = cross_entropy(labl)\n  optimizer = adam(beta3 = 1)\n  length = 1 epoch\n  metrics = recall(makro)",
        ),
        &[],
    );
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn losses_follow_their_formulas() {
    let rows: Vec<[f64; 3]> = logits().iter().map(log_softmax).collect();
    let nll = |n: usize| -rows[n][LABEL[n] as usize];
    close(output(&lines("sgd", ""), "loss"), (0..4).map(nll).sum::<f64>() / 4.0);
    let smooth = program("  loss = cross_entropy(label, smoothing = 0.1)\n  optimizer = sgd\n  length = 1 epochs");
    let spread = |n: usize| -rows[n].iter().sum::<f64>() / 3.0;
    close(output(&smooth, "loss"), (0..4).map(|n| 0.9 * nll(n) + 0.1 * spread(n)).sum::<f64>() / 4.0);
    let weighted =
        program("  loss = cross_entropy(label, weights = [1, 2, 0.5])\n  optimizer = sgd\n  length = 1 epochs");
    let weight = [1.0, 2.0, 0.5];
    let total: f64 = (0..4).map(|n| weight[LABEL[n] as usize]).sum();
    close(output(&weighted, "loss"), (0..4).map(|n| weight[LABEL[n] as usize] * nll(n)).sum::<f64>() / total);
    let both = program("  loss = cross_entropy(y, label) + 0.5 * mse(y, y)\n  optimizer = sgd\n  length = 1 epochs");
    close(output(&both, "loss"), (0..4).map(nll).sum::<f64>() / 4.0);
}

#[test]
fn regression_losses_follow_their_formulas() {
    for (loss, formula) in [
        ("mse", (|d: f64| d * d) as fn(f64) -> f64),
        ("l1", |d| d.abs()),
        ("huber", |d| if d.abs() <= 1.0 { d * d / 2.0 } else { d.abs() - 0.5 }),
    ] {
        let text = program(&format!("  loss = {loss}(y, 2 * y + 1)\n  optimizer = sgd\n  length = 1 epochs"));
        let expected: f64 = logits().iter().flatten().map(|y| formula(y - (2.0 * y + 1.0))).sum::<f64>() / 12.0;
        close(output(&text, "loss"), expected);
    }
    let text = program("  loss = bce(y, y * 0 + 0.25)\n  optimizer = sgd\n  length = 1 epochs");
    let bce = |z: f64| -(0.25 * (1.0 / (1.0 + (-z).exp())).ln() + 0.75 * (1.0 / (1.0 + z.exp())).ln());
    close(output(&text, "loss"), logits().iter().flatten().map(|z| bce(*z)).sum::<f64>() / 12.0);
    let text = program("  loss = kl(y, y * 0 + 1 / 3)\n  optimizer = sgd\n  length = 1 epochs");
    let kl = |row: &[f64; 3]| log_softmax(row).iter().map(|q| ((1.0f64 / 3.0).ln() - q) / 3.0).sum::<f64>();
    close(output(&text, "loss"), logits().iter().map(kl).sum::<f64>() / 4.0);
}

#[test]
fn a_loss_that_is_not_one_number_is_refused() {
    let training = good(&program("  loss = 2 * y\n  optimizer = sgd\n  length = 1 epochs"), &[]);
    assert_eq!(forward(&training, 4, Mode::Train, &fields()).expect_err("a tensor")[0].code, "bad-loss");
}

#[test]
fn fields_must_fit_the_inputs() {
    let training = good(&lines("sgd", ""), &[]);
    let mut wide = fields();
    wide[0].sizes = vec![3];
    assert_eq!(forward(&training, 4, Mode::Train, &wide).expect_err("three features")[0].code, "data-mismatch");
    let found = forward(&training, 4, Mode::Train, &fields()[1..]).expect_err("no field");
    assert_eq!(found[0].code, "data-mismatch");
    let mut few = fields();
    few[1].classes = Some(10);
    let found = forward(&training, 4, Mode::Train, &few).expect_err("ten classes");
    assert!(found[0].message.contains("`label` has 10 classes"), "{found:#?}");
}

fn metric(extra: &str, name: &str) -> f64 {
    let text = lines("sgd", &format!("  metrics = {extra}"));
    let training = good(&text, &[]);
    let step = forward(&training, 4, Mode::Eval, &fields()).unwrap_or_else(|found| panic!("{found:#?}"));
    let mut feeds = feeds();
    for state in &step.graph.states {
        let sizes: Vec<usize> = state.shape.iter().map(|d| d.as_const().expect("bound") as usize).collect();
        feeds.states.insert(state.name.clone(), Tensor::full(&sizes, state.init));
    }
    let evaluation = graph::evaluate(&step.graph, &feeds);
    let spec = training.settings.metrics.iter().find(|metric| metric.name == name).expect("a metric");
    match &spec.finish {
        None => evaluation.output(&format!("metric:{name}")).expect("an output").data[0],
        Some(finish) => {
            let inputs = finish.inputs.iter().map(|input| {
                let id = step.graph.states.iter().position(|state| state.name == input.name).expect("a state");
                let update =
                    evaluation.updates.iter().find(|(target, _)| *target == Variable::State(graph::StateId(id as u32)));
                (input.name.clone(), update.expect("an update").1.clone())
            });
            let feeds = Feeds { inputs: inputs.collect(), ..Feeds::default() };
            graph::evaluate(finish, &feeds).output("value").expect("a value").data[0]
        }
    }
}

#[test]
fn metrics_follow_their_definitions() {
    // Argmax of the rows: 2 or 1, …; computed here by hand from the logits.
    let rows = logits();
    let predicted: Vec<usize> =
        rows.iter().map(|row| (0..3).fold(0, |best, c| if row[c] > row[best] { c } else { best })).collect();
    let label: Vec<usize> = LABEL.iter().map(|x| *x as usize).collect();
    let hits = |c: usize| (0..4).filter(|n| predicted[*n] == c && label[*n] == c).count() as f64;
    let seen = |c: usize| label.iter().filter(|l| **l == c).count() as f64;
    let found = |c: usize| predicted.iter().filter(|p| **p == c).count() as f64;
    let occurring: Vec<usize> = (0..3).filter(|c| seen(*c) + found(*c) > 0.0).collect();
    let mean = |f: &dyn Fn(usize) -> f64| occurring.iter().map(|c| f(*c)).sum::<f64>() / occurring.len() as f64;
    let all_hits: f64 = (0..3).map(hits).sum();
    close(metric("accuracy", "accuracy"), all_hits / 4.0);
    close(metric("top(1)", "top(1)"), all_hits / 4.0);
    close(metric("top(3)", "top(3)"), 1.0);
    close(metric("recall(macro)", "recall(macro)"), mean(&|c| hits(c) / seen(c).max(1.0)));
    close(metric("recall(micro)", "recall(micro)"), all_hits / 4.0);
    close(metric("precision", "precision"), mean(&|c| hits(c) / found(c).max(1.0)));
    close(metric("f1", "f1"), mean(&|c| 2.0 * hits(c) / (seen(c) + found(c)).max(1.0)));
    let nll = (0..4).map(|n| -log_softmax(&rows[n])[label[n]]).sum::<f64>() / 4.0;
    close(metric("perplexity", "perplexity"), nll.exp());
    close(metric("confusion", "confusion"), (0..4).filter(|n| predicted[*n] == 0 && label[*n] == 0).count() as f64);
}

fn clock(step: u64) -> ClockReading {
    ClockReading { step: step as _, total_steps: 100 as _, steps_per_epoch: 10 as _ }
}

/// One parameter of two elements under `optimizer`, for some steps with gradients of our choice.
fn optimized(optimizer: &str, schedule: &str, steps: u64) -> Vec<f64> {
    let extra = if schedule.is_empty() { String::new() } else { format!("  schedule = {schedule}") };
    let training = good(&lines(optimizer, &extra), &[]);
    let span = Span::new(training.item.file, 0, 0);
    let shape = vec![Dim::constant(2)];
    let mut graph = Graph::default();
    graph.param(Param { name: "w".into(), shape: shape.clone(), init: Init::Constant(0.0), span });
    let gradient = graph.input(Input { name: "g".into(), shape, dtype: DType::F32, span });
    apply_optimizer(&training, &mut graph, &[(ParamId(0), gradient)]).unwrap_or_else(|found| panic!("{found:#?}"));
    let mut feeds =
        Feeds { params: HashMap::from([("w".into(), Tensor::new(&[2], vec![1.0, -2.0]))]), ..Feeds::default() };
    for state in &graph.states {
        feeds.states.insert(state.name.clone(), Tensor::full(&[2], state.init));
    }
    for step in 1..=steps {
        feeds.clock = clock(step);
        feeds.inputs.insert("g".into(), Tensor::new(&[2], gradient_at(step).to_vec()));
        for (target, value) in graph::evaluate(&graph, &feeds).updates {
            match target {
                Variable::Param(_) => feeds.params.insert("w".into(), value),
                Variable::State(id) => feeds.states.insert(graph.states[id.0 as usize].name.clone(), value),
            };
        }
    }
    feeds.params["w"].data.clone()
}

fn gradient_at(step: u64) -> [f64; 2] {
    [(step as f64).sin(), 0.5 * (step as f64).cos() - 0.1]
}

/// Runs a rule on one element: `(parameter, gradient, step)` to the parameter, with states in the closure.
fn reference(steps: u64, make: impl Fn() -> Box<dyn FnMut(f64, f64, f64) -> f64>) -> Vec<f64> {
    (0..2)
        .map(|element| {
            let mut rule = make();
            (1..=steps).fold([1.0, -2.0][element], |p, step| rule(p, gradient_at(step)[element], step as f64))
        })
        .collect()
}

fn same(optimizer: &str, make: impl Fn() -> Box<dyn FnMut(f64, f64, f64) -> f64>) {
    let found = optimized(optimizer, "", 7);
    for (a, b) in found.iter().zip(reference(7, make)) {
        assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()), "{optimizer}: {a} against {b}");
    }
}

#[test]
fn sgd_follows_pytorch() {
    same("sgd(lr = 0.1)", || Box::new(|p, g, _| p - 0.1 * g));
    same("sgd(lr = 0.1, momentum = 0.9, decay = 0.01)", || {
        let mut b = 0.0;
        Box::new(move |p, g, _| {
            b = 0.9 * b + g + 0.01 * p;
            p - 0.1 * b
        })
    });
    same("sgd(lr = 0.1, momentum = 0.9, nesterov = true)", || {
        let mut b = 0.0;
        Box::new(move |p, g, _| {
            b = 0.9 * b + g;
            p - 0.1 * (g + 0.9 * b)
        })
    });
}

#[test]
fn adam_and_adamw_follow_pytorch() {
    let adam = |decay: f64, decoupled: bool| {
        move || -> Box<dyn FnMut(f64, f64, f64) -> f64> {
            let (mut m, mut v) = (0.0, 0.0);
            Box::new(move |p: f64, g: f64, t: f64| {
                let p = if decoupled { p * (1.0 - 0.01 * decay) } else { p };
                let g = if decoupled { g } else { g + decay * p };
                m = 0.9 * m + (1.0 - 0.9) * g;
                v = 0.999 * v + (1.0 - 0.999) * g * g;
                let (first, second) = (1.0 - 0.9f64.powf(t), 1.0 - 0.999f64.powf(t));
                p - 0.01 / first * m / (v.sqrt() / second.sqrt() + 1e-8)
            })
        }
    };
    same("adam(lr = 0.01)", adam(0.0, false));
    same("adam(lr = 0.01, decay = 0.1)", adam(0.1, false));
    same("adamw(lr = 0.01, decay = 0.1)", adam(0.1, true));
}

#[test]
fn rmsprop_adagrad_and_lion_follow_their_rules() {
    same("rmsprop(lr = 0.01, momentum = 0.5, centered = true)", || {
        let (mut s, mut a, mut b) = (0.0, 0.0, 0.0);
        Box::new(move |p, g, _| {
            s = 0.99 * s + (1.0 - 0.99) * g * g;
            a = 0.99 * a + (1.0 - 0.99) * g;
            b = 0.5 * b + g / ((s - a * a).sqrt() + 1e-8);
            p - 0.01 * b
        })
    });
    same("adagrad(lr = 0.1, lr_decay = 0.01)", || {
        let mut s = 0.0;
        Box::new(move |p, g, t| {
            s += g * g;
            p - 0.1 / (1.0 + (t - 1.0) * 0.01) * g / (s.sqrt() + 1e-10)
        })
    });
    same("lion(lr = 0.01, decay = 0.1)", || {
        let mut m = 0.0;
        Box::new(move |p: f64, g: f64, _| {
            let u: f64 = 0.9 * m + (1.0 - 0.9) * g;
            m = 0.99 * m + (1.0 - 0.99) * g;
            p * (1.0 - 0.01 * 0.1)
                - 0.01
                    * if u > 0.0 {
                        1.0
                    } else if u < 0.0 {
                        -1.0
                    } else {
                        0.0
                    }
        })
    });
}

#[test]
fn a_plain_optimizer_keeps_no_state() {
    let training = good(&lines("sgd(lr = 0.1)", ""), &[]);
    let span = Span::new(training.item.file, 0, 0);
    let mut graph = Graph::default();
    graph.param(Param { name: "w".into(), shape: vec![Dim::constant(2)], init: Init::Constant(0.0), span });
    let gradient = graph.constant(1.0, &[Dim::constant(2)], DType::F32, span);
    apply_optimizer(&training, &mut graph, &[(ParamId(0), gradient)]).expect("valid");
    assert!(graph.states.is_empty());
    assert_eq!(graph.updates.len(), 1);
}

/// The factor at optimizer step `step` of 100, ten of them an epoch.
fn factor(schedule: &str, step: u64) -> f64 {
    let training = good(&lines("sgd(lr = 1)", &format!("  schedule = {schedule}")), &[]);
    let mut graph = Graph::default();
    apply_optimizer(&training, &mut graph, &[]).unwrap_or_else(|found| panic!("{found:#?}"));
    assert_eq!(graph.scalars[0].name, "lr");
    graph.scalars[0].expr.evaluate(&clock(step))
}

#[test]
fn schedules_use_the_steps_completed_before() {
    let pi = std::f64::consts::PI;
    let both = "warmup(20 steps) -> cosine(to = 0.1)";
    close(factor(both, 1), 0.0);
    close(factor(both, 11), 0.5);
    close(factor(both, 21), 1.0);
    close(factor(both, 61), 0.1 + 0.9 * (1.0 + (pi * 0.5).cos()) / 2.0);
    close(factor(both, 101), 0.1);
    close(factor("step(3 epochs)", 30), 1.0);
    close(factor("step(3 epochs)", 31), 0.1);
    close(factor("multi_step([2 epochs, 50 steps], gamma = 0.5)", 20), 1.0);
    close(factor("multi_step([2 epochs, 50 steps], gamma = 0.5)", 21), 0.5);
    close(factor("multi_step([2 epochs, 50 steps], gamma = 0.5)", 51), 0.25);
    close(factor("exponential(0.9)", 35), 0.9f64.powi(3));
    close(factor("linear(to = 0.5)", 51), 0.75);
    close(factor("constant(0.3)", 51), 0.3);
    close(factor("constant(0.3, length = 1 epoch) -> linear", 10), 0.3);
    close(factor("constant(0.3, length = 1 epoch) -> linear", 56), 0.5);
    let training = good(&lines("sgd(lr = 1)", "  schedule = cosine -> linear"), &[]);
    let found = apply_optimizer(&training, &mut Graph::default(), &[]).expect_err("two rests");
    assert_eq!(found[0].code, "missing-argument");
}

#[test]
fn a_schedule_scales_the_step() {
    let found = optimized("sgd(lr = 0.1)", "linear", 3);
    let expected = reference(3, || Box::new(|p, g, t| p - 0.1 * (1.0 - (t - 1.0) / 100.0) * g));
    for (a, b) in found.iter().zip(expected) {
        close(*a, b);
    }
}

#[test]
fn definitions_of_the_file_take_the_place_of_the_librarys() {
    let own =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/training.ansatz")).expect("text");
    let lines = program(
        "  loss = cross_entropy(label, smoothing = 0.1)\n  optimizer = adamw(lr = 0.01)\n  schedule = cosine(to = 0.1)\n  length = 3 epochs\n  metrics = accuracy",
    );
    let step = expanded(&format!("{own}\n{lines}"), Mode::Train, 4);
    let rows: Vec<[f64; 3]> = logits().iter().map(log_softmax).collect();
    let expected: f64 =
        (0..4).map(|n| -0.9 * rows[n][LABEL[n] as usize] - 0.1 * rows[n].iter().sum::<f64>() / 3.0).sum::<f64>() / 4.0;
    close(graph::evaluate(&step.graph, &feeds()).output("loss").expect("a loss").data[0], expected);
}

#[test]
fn several_outputs_are_visible_in_the_loss() {
    let text = "model Auto {\n  input x: [N, 4]\n  code = x -> Linear(2)\n  rebuilt = code -> Linear(4)\n  logits = code -> Linear(3)\n  return logits, rebuilt\n}\n\
                data d {\n  source = csv(\"d.csv\")\n  x: f32[4]\n  label: class[3]\n}\n\
                train Auto on d {\n  loss = cross_entropy(logits, label) + 0.1 * mse(rebuilt, x)\n  optimizer = adam\n  length = 2 epochs\n  metrics = mae(rebuilt, x), rmse(rebuilt, x), r2(rebuilt, x)\n}\n";
    let training = good(text, &[]);
    let fields = vec![
        FieldInfo { name: "x".into(), sizes: vec![4], dtype: DType::F32, classes: None },
        FieldInfo { name: "label".into(), sizes: vec![], dtype: DType::I32, classes: Some(3) },
    ];
    let step = forward(&training, 5, Mode::Train, &fields).unwrap_or_else(|found| panic!("{found:#?}"));
    let names: Vec<_> = step.graph.outputs.iter().map(|output| output.name.to_string()).collect();
    assert_eq!(names, ["logits", "rebuilt", "metric:mae(rebuilt, x)", "loss"]);
    let states: Vec<_> = step.graph.states.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(states[..2], ["rmse(rebuilt, x).total", "rmse(rebuilt, x).count"]);
}

#[test]
fn language_models_have_a_label_for_each_place() {
    let gpt = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/gpt.ansatz")).expect("text");
    let text = format!(
        "{gpt}\ndata d {{\n  source = csv(\"d.csv\")\n  tokens: i32[8]\n  next: i32[8]\n}}\n\
         train Gpt(V = 30, T = 8, C = 12, depth = 2, heads = 3) on d {{\n  loss = cross_entropy(next)\n  optimizer = adamw(lr = 1e-3)\n  length = 10 steps\n  metrics = accuracy, perplexity\n}}\n"
    );
    let training = good(&text, &[]);
    let field = |name: &str| FieldInfo { name: name.into(), sizes: vec![8], dtype: DType::I32, classes: None };
    let fields = [field("tokens"), field("next")];
    for mode in [Mode::Train, Mode::Eval] {
        let step = forward(&training, 2, mode, &fields).unwrap_or_else(|found| panic!("{found:#?}"));
        assert_eq!(step.graph.shape(step.loss), []);
    }
}
