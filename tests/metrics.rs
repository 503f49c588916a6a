//! Metrics over many batches: what f32 sums lose is kept.

use std::collections::HashMap;

use ansatz::cpu::Lowering;
use ansatz::cpu::code::{self, Options};
use ansatz::cpu::run::Arena;
use ansatz::device::StepInput;
use ansatz::graph::{DType, Feeds, StateKind, Tensor, evaluate};
use ansatz::kernel::{Persistent, Role};
use ansatz::machine::Level;
use ansatz::machine::pool::Pool;
use ansatz::model::{Project, training};
use ansatz::pipeline::evaluation_graph;
use ansatz::schedule::plan;
use ansatz::settings::FieldInfo;

use crate::support::random_graph::Random;

/// The figure of a metric of `x` and `target` over batches at a level; `batch` fills both for each step.
fn figure(
    metric: &str,
    shape: Shape,
    steps: usize,
    level: Level,
    batch: &dyn Fn(usize, &mut [f32], &mut Target),
) -> f64 {
    let Shape { rows, columns, class } = shape;
    let (target, loss) = if class {
        (format!("class[{columns}]"), "cross_entropy(target)")
    } else {
        (format!("f32[{columns}]"), "mse(target)")
    };
    let text = format!(
        "model M {{\n  input x: [N, {columns}]\n  return x\n}}\n\
         data d {{\n  source = csv(\"d.csv\")\n  x: f32[{columns}]\n  target: {target}\n}}\n\
         train M on d {{\n  loss = {loss}\n  optimizer = sgd\n  batch = {rows}\n  length = 1 epochs\n  metrics = {metric}\n}}\n"
    );
    let (project, file, found) = Project::from_text("metric.ansatz", &text);
    assert!(found.is_empty(), "{metric}: {found:#?}");
    let training = training(&project, file, &[]).unwrap_or_else(|found| panic!("{metric}: {found:#?}"));
    let (sizes, dtype) = if class { (vec![], DType::I32) } else { (vec![columns], DType::F32) };
    let fields = [
        FieldInfo { name: "x".into(), sizes: vec![columns], dtype: DType::F32, classes: None },
        FieldInfo { name: "target".into(), sizes, dtype, classes: class.then_some(columns) },
    ];
    let graph = evaluation_graph(&training, rows, &fields).unwrap_or_else(|found| panic!("{found:#?}"));
    let program = plan(&graph, &Persistent::of(&graph), &Lowering::default());
    let options = Options { level, profile: false, tuning: Default::default() };
    let executable = code::load(&program, &options).expect("the program compiles");
    let (mut arena, pool) = (Arena::new(&program).expect("memory"), Pool::new(1));
    let place = |role: &Role| program.find(role).expect("declared").clone();
    let (x, target) = (place(&Role::Input("x".into())), place(&Role::Input("target".into())));
    let mut values = vec![0.0; rows * columns];
    let mut targets = if class { Target::Classes(vec![0; rows]) } else { Target::Numbers(vec![0.0; rows * columns]) };
    for step in 0..steps {
        batch(step, &mut values, &mut targets);
        arena.f32_mut(&x).copy_from_slice(&values);
        match &targets {
            Target::Classes(classes) => arena.i32_mut(&target).copy_from_slice(classes),
            Target::Numbers(numbers) => arena.f32_mut(&target).copy_from_slice(numbers),
        }
        executable.run(&mut arena, &pool, StepInput { seed: 0, step: 1 });
    }
    let sums = graph.states.iter().filter(|state| state.kind == StateKind::Metric).map(|state| {
        let buffer = place(&Role::State(state.name.clone()));
        let data = arena.f32(&buffer).iter().map(|x| f64::from(*x)).collect();
        (state.name.clone(), Tensor::new(&buffer.sizes, data))
    });
    let feeds = Feeds { inputs: sums.collect::<HashMap<_, _>>(), ..Feeds::default() };
    let finish = training.settings.metrics[0].finish.as_ref().expect("a metric of sums");
    evaluate(finish, &feeds).output("value").expect("a value").data[0]
}

/// Of a batch.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    columns: usize,
    class: bool,
}

enum Target {
    Classes(Vec<i32>),
    Numbers(Vec<f32>),
}

#[test]
fn counts_beyond_what_f32_can_count_are_exact() {
    // 20,971,520 samples, above 2²⁴; one of each batch is wrong.
    let (rows, steps) = (1 << 16, 320);
    let shape = Shape { rows, columns: 2, class: true };
    let fill = |_step: usize, x: &mut [f32], target: &mut Target| {
        let Target::Classes(classes) = target else { panic!("classes") };
        for (row, class) in x.chunks_mut(2).zip(classes) {
            (row[0], row[1], *class) = (1.0, 0.0, 0);
        }
        x[1] = 2.0;
    };
    let share = 1.0 - 1.0 / rows as f64;
    for metric in ["accuracy", "top(1)", "recall(micro)", "recall"] {
        let found = figure(metric, shape, steps, Level::Portable, &fill);
        let expected = if metric == "recall" { share / 2.0 } else { share };
        assert!((found - expected).abs() < 1e-15, "{metric} is {found}, not {expected}");
    }
    let hits = figure("confusion", shape, steps, Level::Portable, &fill);
    assert_eq!(hits, ((rows - 1) * steps) as f64);
}

#[test]
fn sums_that_cancel_or_have_many_terms_keep_their_digits_at_each_level() {
    let shape = Shape { rows: 50, columns: 1, class: false };
    let steps = 20_000;
    let sample = |step: usize, row: usize| {
        let noise = |salt: u64| Random::new((step * shape.rows + row) as u64 * 2 + salt).real(-1.0, 1.0);
        let target = (1000.0 + 0.1 * noise(0)) as f32;
        (target, (f64::from(target) + 0.03 * noise(1)) as f32)
    };
    let fill = |step: usize, x: &mut [f32], target: &mut Target| {
        let Target::Numbers(numbers) = target else { panic!("numbers") };
        for (row, (x, target)) in x.iter_mut().zip(numbers).enumerate() {
            (*target, *x) = sample(step, row);
        }
    };
    for (metric, steps) in [("r2", 400), ("rmse", steps)] {
        let (mut error, mut total, mut squares, mut count) = (0.0, 0.0, 0.0, 0.0);
        for (target, x) in
            (0..steps).flat_map(|step| (0..shape.rows).map(move |row| (step, row))).map(|(s, r)| sample(s, r))
        {
            let (centred, difference) = (f64::from(target) - 1000.0, f64::from(x) - f64::from(target));
            error += difference * difference;
            total += centred;
            squares += centred * centred;
            count += 1.0;
        }
        let expected: f64 =
            if metric == "r2" { 1.0 - error / (squares - total * total / count) } else { f64::sqrt(error / count) };
        for level in Level::available() {
            let found = figure(metric, shape, steps, level, &fill);
            let wrong = (found - expected).abs() / expected;
            assert!(wrong < 1e-6, "{metric} at {level} is {found}, not {expected}");
        }
    }
}

#[test]
fn sums_that_are_infinite_or_not_a_number_stay_so() {
    let shape = Shape { rows: 4, columns: 1, class: false };
    for (bad, finite) in [(f32::INFINITY, false), (f32::NAN, false), (3.0, true)] {
        let fill = |step: usize, x: &mut [f32], target: &mut Target| {
            let Target::Numbers(numbers) = target else { panic!("numbers") };
            numbers.fill(1.0);
            x.fill(2.0);
            if step == 1 {
                x[2] = bad;
            }
        };
        let found = figure("rmse", shape, 3, Level::Portable, &fill);
        assert_eq!(found.is_finite(), finite, "rmse with {bad} is {found}");
        assert!(found.is_nan() == bad.is_nan(), "rmse with {bad} is {found}");
    }
}
