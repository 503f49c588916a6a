//! What is not a number stays so: values and slopes at kinks, at the infinities and at NaN, in the evaluator, in the loop IR
//! and in machine code at each level.

use std::collections::BTreeMap;

use ansatz::graph::{Evaluation, Feeds, Graph, Op, Output, Tensor, ValueId, evaluate};
use ansatz::machine::Level;
use ansatz::machine::pool::Pool;
use ansatz::model::{Mode, Project, expand};

use crate::library::{CASES, prepared};
use crate::machine_code::compiled;
use crate::support::lowered::interpreted;
use crate::support::span;

/// PyTorch's own slope of `hard_sigmoid` is a sixth in f32.
const EVALUATED: f64 = 1e-7;
/// f32, through functions that err by a few units in the last place.
const COMPILED: f64 = 4e-6;

/// Written by `tests/layers/kinks.py`.
#[derive(serde::Deserialize)]
struct Reference {
    points: Vec<String>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    stage: String,
    values: Vec<String>,
    /// None for the last point, NaN.
    slopes: Vec<String>,
}

fn numbers(texts: &[String]) -> Vec<f64> {
    texts.iter().map(|text| text.parse().expect("the reference holds numbers")).collect()
}

fn same(found: &[f64], expected: &[f64], tolerance: f64) -> bool {
    let close =
        |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * b.abs().max(1.0);
    found.iter().zip(expected).all(close)
}

/// Every way in which a graph is computed, by name.
fn all_ways(graph: &Graph, feeds: &Feeds, pool: &Pool) -> Vec<(String, Evaluation)> {
    let mut passed = graph.clone();
    ansatz::passes::run(&mut passed);
    let mut ways = vec![
        ("the evaluator".to_string(), evaluate(graph, feeds)),
        ("the evaluator after the passes".to_string(), evaluate(&passed, feeds)),
        ("the interpreter".to_string(), interpreted(&passed, feeds)),
    ];
    ways.extend(Level::available().map(|level| (level.to_string(), compiled(&passed, feeds, level, pool))));
    ways
}

fn add_gradients(graph: &mut Graph, loss: ValueId, params: &[ValueId]) {
    for (place, value) in ansatz::grad::differentiate(graph, loss, params).into_iter().enumerate() {
        graph.outputs.push(Output { name: format!("gradient{place}").into(), value });
    }
}

#[test]
fn activations_have_pytorchs_values_and_slopes_at_kinks_and_beyond() {
    let reference: Reference = serde_json::from_str(include_str!("layers/kinks.json")).expect("the reference is JSON");
    let points = numbers(&reference.points);
    let pool = Pool::new(1);
    assert!(reference.cases.len() >= 17);
    for Case { stage, values, slopes } in &reference.cases {
        // Twice and a bit, so that points lie in vectors and behind them.
        let data: Vec<f64> = points.iter().cycle().take(2 * points.len() + 5).copied().collect();
        let text =
            format!("model M {{\n input unused: [1]\n param x: [{}] ~ zeros\n return x -> {stage}\n}}\n", data.len());
        let (project, file, found) = Project::from_text("kinks.ansatz", &text);
        assert!(found.is_empty(), "{stage}: {found:#?}");
        let (expanded, _) = expand(&project, file, "M", &[], Mode::Train, &BTreeMap::new())
            .unwrap_or_else(|found| panic!("{stage}: {found:#?}"));
        let mut graph = expanded.graph;
        graph.outputs[0].name = "y".into();
        let loss = graph.sum(graph.outputs[0].value, &[0], span());
        let x: Vec<ValueId> = graph.values().filter(|(_, v)| matches!(v.op, Op::Param(_))).map(|(id, _)| id).collect();
        add_gradients(&mut graph, loss, &x);
        let mut feeds = Feeds::default();
        feeds.inputs.insert("unused".into(), Tensor::full(&[1], 0.0));
        feeds.params.insert("x".into(), Tensor::new(&[data.len()], data));
        for (way, result) in all_ways(&graph, &feeds, &pool) {
            let tolerance = if way.starts_with("the") { EVALUATED } else { COMPILED };
            for (name, expected) in [("y", numbers(values)), ("gradient0", numbers(slopes))] {
                for found in result.output(name).expect("declared").data.chunks(points.len()) {
                    let agree = same(found, &expected, tolerance);
                    assert!(agree, "{name} of {stage} by {way} at {points:?} is {found:?}, not {expected:?}");
                }
            }
        }
    }
}

#[test]
fn one_element_that_is_not_a_number_makes_every_loss_so() {
    let pool = Pool::new(2);
    for (name, body) in CASES {
        let (mut graph, mut feeds, loss, params) = prepared(name, body);
        // A mask may hide the element; an index is no number that could be NaN.
        let Some(x) = feeds.params.get_mut("x").filter(|_| *name != "Dropout") else { continue };
        x.data[0] = f64::NAN;
        graph.outputs.push(Output { name: "loss".into(), value: loss });
        add_gradients(&mut graph, loss, &params);
        for (way, result) in all_ways(&graph, &feeds, &pool) {
            let value = result.output("loss").expect("declared").data[0];
            assert!(value.is_nan(), "the loss behind {name} is {value} by {way}: {body}");
            let gradients = result.outputs.iter().filter(|(name, _)| name.to_string().starts_with("gradient"));
            let lost = gradients.filter(|(_, gradient)| gradient.data.iter().all(|x| x.is_finite())).count();
            assert_eq!(lost, 0, "gradients behind {name} are finite by {way}: {body}");
        }
    }
}

/// Expressions that make an infinity or NaN of the finite `x[i]`, of which one is -1, one 0 and one 1e30; the last ones of a
/// number that is a constant when code is made, and of sums.
const EXCEPTIONAL: &[&str] = &[
    "log(x[i])",
    "sqrt(x[i])",
    "1 / x[i]",
    "x[i] / (x[i] - x[i])",
    "exp(x[i])",
    "x[i] ^ 0.5",
    "x[i] ^ 2",
    "x[i] * x[i]",
    "log(x[i]) if x[i] < 2 else 0",
    "x[i] + 1 / (0 * f32(i))",
    "x[i] + (sum[j] x[j] * x[j])",
    "sum[j] x[i] * x[j]",
];

#[test]
fn what_numbers_make_infinite_or_nan_is_noticed_by_machine_code_at_each_level() {
    let pools = [Pool::new(1), Pool::new(3)];
    for (expression, count) in EXCEPTIONAL.iter().flat_map(|expression| [3, 21, 3000].map(|count| (expression, count)))
    {
        let text = format!(
            "model M {{\n input unused: [1]\n param x: [{count}] ~ zeros\n y[i] = {expression}\n return y\n}}\n"
        );
        let (project, file, found) = Project::from_text("made.ansatz", &text);
        assert!(found.is_empty(), "{expression}: {found:#?}");
        let (expanded, _) = expand(&project, file, "M", &[], Mode::Train, &BTreeMap::new())
            .unwrap_or_else(|found| panic!("{expression}: {found:#?}"));
        let mut graph = expanded.graph;
        ansatz::passes::run(&mut graph);
        let mut data: Vec<f64> = (0..count).map(|i| 1.0 + i as f64 / count as f64).collect();
        (data[count - 1], data[count - 2], data[0]) = (-1.0, 0.0, 1e30);
        let mut feeds = Feeds::default();
        feeds.inputs.insert("unused".into(), Tensor::full(&[1], 0.0));
        feeds.params.insert("x".into(), Tensor::new(&[count], data));
        for (level, pool) in Level::available().flat_map(|level| pools.iter().map(move |pool| (level, pool))) {
            // This asserts that the run says so.
            let result = compiled(&graph, &feeds, level, pool);
            let is_made = result.outputs[0].1.data.iter().any(|value| !value.is_finite());
            assert!(is_made, "{expression} of {count} at {level} is finite: nothing is tested");
        }
    }
}

#[test]
fn arg_max_and_top_see_what_is_not_a_number() {
    let pool = Pool::new(1);
    for columns in [3, 9, 40] {
        let text = format!(
            "model M {{\n input unused: [1]\n param x: [4, {columns}] ~ zeros\n place[n] = f32(argmax[c] x[n, c])\n \
             least[n] = f32(argmin[c] x[n, c])\n high[n] = max[c] x[n, c]\n low[n] = min[c] x[n, c]\n \
             return place, least, high, low\n}}\n"
        );
        let (project, file, found) = Project::from_text("places.ansatz", &text);
        assert!(found.is_empty(), "{found:#?}");
        let (expanded, _) =
            expand(&project, file, "M", &[], Mode::Eval, &BTreeMap::new()).unwrap_or_else(|found| panic!("{found:#?}"));
        for place in 0..columns {
            let mut data: Vec<f64> = (0..4 * columns).map(|i| (i as f64).sin()).collect();
            data[place] = f64::NAN;
            data[columns + place] = f64::NAN;
            data[2 * columns - 1] = f64::NAN;
            data[2 * columns..3 * columns].fill(f64::NEG_INFINITY);
            data[2 * columns + place] = f64::NAN;
            data[3 * columns] = f64::INFINITY;
            data[3 * columns + place] = f64::NAN;
            let mut feeds = Feeds::default();
            feeds.inputs.insert("unused".into(), Tensor::full(&[1], 0.0));
            feeds.params.insert("x".into(), Tensor::new(&[4, columns], data));
            for (way, result) in all_ways(&expanded.graph, &feeds, &pool) {
                for name in ["place", "least"] {
                    let found = &result.output(name).expect("declared").data;
                    assert_eq!(*found, vec![place as f64; 4], "{name} of {columns} by {way}");
                }
                for name in ["high", "low"] {
                    let found = &result.output(name).expect("declared").data;
                    assert!(
                        found.iter().all(|x| x.is_nan()),
                        "{name} of {columns} by {way} with NaN at {place}: {found:?}"
                    );
                }
            }
        }
    }
}
