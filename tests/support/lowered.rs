//! Steps run through the schedule, as evaluations.

use ansatz::cpu::Lowering;
use ansatz::graph::{Evaluation, Feeds, Graph, Tensor, Variable};
use ansatz::kernel::interpret::{Arena, interpret};
use ansatz::kernel::{Buffer, Persistent, Role};
use ansatz::schedule::{Products, Target, plan};

/// A lowering that makes of small graphs what the usual one makes of large ones: `work` is divided, products have sides of
/// at least `sides` and leaves of `leaf` summands, and two slices are a group.
pub fn small(sides: [usize; 3], work: usize, leaf: usize) -> Lowering {
    let Lowering { target, tile, .. } = Lowering::default();
    let products = Products { least: 1, sides, leaf, ..target.products };
    Lowering { target: Target { small_work: work, products, ..target }, tile, slices: 2 }
}

/// What each declared buffer holds before the step.
pub fn fed(graph: &Graph, feeds: &Feeds) -> Vec<(Role, Vec<f64>)> {
    let params =
        graph.params.iter().map(|param| (Role::Param(param.name.clone()), feeds.params[&param.name].data.clone()));
    let states =
        graph.states.iter().map(|state| (Role::State(state.name.clone()), feeds.states[&state.name].data.clone()));
    let inputs =
        graph.inputs.iter().map(|input| (Role::Input(input.name.clone()), feeds.inputs[&input.name].data.clone()));
    let scalars = graph.scalars.iter().map(|scalar| {
        let given = feeds.scalars.get(&scalar.name).copied();
        (Role::Scalar(scalar.name.clone()), vec![given.unwrap_or_else(|| scalar.expr.evaluate(&feeds.clock))])
    });
    params.chain(states).chain(inputs).chain(scalars).collect()
}

/// Outputs and updates, read by buffer after the step.
pub fn collected(graph: &Graph, read: impl Fn(&Role) -> (Vec<usize>, Vec<f64>)) -> Evaluation {
    let tensor = |role: Role| {
        let (sizes, data) = read(&role);
        Tensor::new(&sizes, data)
    };
    let outputs = graph.outputs.iter().map(|output| (output.name.clone(), tensor(Role::Output(output.name.clone()))));
    let place = |target: Variable| match target {
        Variable::Param(id) => Role::Param(graph.params[id.0 as usize].name.clone()),
        Variable::State(id) => Role::State(graph.states[id.0 as usize].name.clone()),
    };
    let updates = graph.updates.iter().map(|update| (update.target, tensor(place(update.target))));
    Evaluation { outputs: outputs.collect(), updates: updates.collect() }
}

/// The step planned, and its loops interpreted in f64.
pub fn interpreted(graph: &Graph, feeds: &Feeds) -> Evaluation {
    let program = plan(graph, &Persistent::of(graph), &Lowering::default());
    let buffer = |role: &Role| -> &Buffer { program.find(role).unwrap_or_else(|| panic!("no buffer `{role}`")) };
    let mut arena = Arena::new(program.arena_bytes);
    for (role, data) in fed(graph, feeds) {
        arena.write(buffer(&role), &data);
    }
    interpret(&program, &mut arena, feeds.seed, feeds.clock.step);
    collected(graph, |role| (buffer(role).sizes.clone(), arena.read(buffer(role))))
}

/// The first output or update of `actual` that differs from `expected` by more than `tolerance`, relative to the
/// largest element of the tensor or 1.
pub fn difference(expected: &Evaluation, actual: &Evaluation, tolerance: f64) -> Option<String> {
    let outputs = expected.outputs.iter().zip(&actual.outputs).map(|(a, b)| (a.0.to_string(), &a.1, &b.1));
    let updates = expected.updates.iter().zip(&actual.updates).map(|(a, b)| (format!("{:?}", a.0), &a.1, &b.1));
    for (name, a, b) in outputs.chain(updates) {
        let scale = a.data.iter().filter(|x| x.is_finite()).fold(1.0, |scale: f64, x| scale.max(x.abs()));
        let close = |(x, y): (&f64, &f64)| (x - y).abs() <= tolerance * scale || x == y || (x.is_nan() && y.is_nan());
        if a.sizes != b.sizes {
            return Some(format!("`{name}` has sizes {:?} instead of {:?}", b.sizes, a.sizes));
        }
        if let Some(place) = a.data.iter().zip(&b.data).position(|pair| !close(pair)) {
            return Some(format!("`{name}`[{place}] is {} instead of {}", b.data[place], a.data[place]));
        }
    }
    None
}
