//! Plans of random graphs, interpreted, against the reference evaluator.

use ansatz::cpu::Lowering;
use ansatz::graph::{Feeds, Graph, Tensor, Update, Variable, evaluate};
use ansatz::kernel::interpret::{Arena, interpret};
use ansatz::kernel::print::print;
use ansatz::kernel::{Persistent, Role};
use ansatz::schedule::plan;

use crate::random_graphs::with_gradients;
use crate::support::lowered::small;
use crate::support::random_graph::RandomGraph;

const GRAPHS: u64 = 500;

/// Both sides compute in f64 and differ in the order of sums; 1e-9 of the largest element is a thousand roundings.
const TOLERANCE: f64 = 1e-9;

/// The first output or update in which the plan's results differ from the evaluator's.
fn difference(graph: &Graph, feeds: &Feeds, lowering: Lowering) -> Option<String> {
    let program = plan(graph, &Persistent::of(graph), &lowering);
    let mut arena = Arena::new(program.arena_bytes);
    let mut write = |role: Role, data: &[f64]| arena.write(program.find(&role).expect("declared"), data);
    feeds.params.iter().for_each(|(name, tensor)| write(Role::Param(name.clone()), &tensor.data));
    feeds.states.iter().for_each(|(name, tensor)| write(Role::State(name.clone()), &tensor.data));
    feeds.inputs.iter().for_each(|(name, tensor)| write(Role::Input(name.clone()), &tensor.data));
    for scalar in &graph.scalars {
        let value = feeds.scalars.get(&scalar.name).copied();
        write(Role::Scalar(scalar.name.clone()), &[value.unwrap_or_else(|| scalar.expr.evaluate(&feeds.clock))]);
    }
    interpret(&program, &mut arena, feeds.seed, feeds.clock.step);
    let expected = evaluate(graph, feeds);
    let outputs = expected.outputs.iter().map(|(name, tensor)| (Role::Output(name.clone()), tensor));
    let updates = expected.updates.iter().map(|(target, tensor)| {
        let role = match target {
            Variable::Param(id) => Role::Param(graph.params[id.0 as usize].name.clone()),
            Variable::State(id) => Role::State(graph.states[id.0 as usize].name.clone()),
        };
        (role, tensor)
    });
    for (role, tensor) in outputs.chain(updates) {
        let got = arena.read(program.find(&role).expect("declared"));
        if !is_close(&got, tensor) {
            return Some(format!("{role} is {got:?}, expected {:?}\n{}", tensor.data, print(&program)));
        }
    }
    None
}

fn is_close(got: &[f64], expected: &Tensor) -> bool {
    let scale = expected.data.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
    let close = |(x, y): (&f64, &f64)| (x - y).abs() <= TOLERANCE * scale || x == y || (x.is_nan() && y.is_nan());
    got.len() == expected.data.len() && got.iter().zip(&expected.data).all(close)
}

/// Gradient descent on every parameter, so that updates are part of the step.
fn with_descent(seed: u64) -> RandomGraph {
    let mut random = with_gradients(seed);
    for place in 0..random.params.len() {
        let name = format!("gradient{place}").into();
        let output = random.graph.outputs.iter().find(|output| output.name == name).expect("a gradient each");
        let (gradient, span) = (output.value, random.graph.value(output.value).span);
        let next = random.graph.binary(ansatz::graph::Binary::Sub, random.params[place], gradient, span);
        let target = Variable::Param(ansatz::graph::ParamId(place as u32));
        random.graph.updates.push(Update { target, value: next });
    }
    random
}

fn check(seed: u64, lowering: Lowering) {
    let RandomGraph { mut graph, feeds, .. } = with_descent(seed);
    if let Some(text) = difference(&graph, &feeds, lowering) {
        panic!("graph {seed} as built: {text}");
    }
    ansatz::passes::run(&mut graph);
    if let Some(text) = difference(&graph, &feeds, lowering) {
        panic!("graph {seed} after passes: {text}");
    }
}

#[test]
fn plans_of_random_steps_agree_with_the_evaluator() {
    (0..GRAPHS).for_each(|seed| check(seed, Lowering::default()));
}

#[test]
fn products_and_leaves_of_every_size_agree_with_the_evaluator() {
    for sides in [[1, 1, 1], [4, 1, 1]] {
        let lowering = small(sides, 4, 2);
        (0..GRAPHS).for_each(|seed| check(seed, lowering));
    }
}
