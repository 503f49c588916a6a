//! Machine code against the reference evaluator: the same random graphs, in f32 and on several threads.

use ansatz::cpu::Lowering;
use ansatz::cpu::code::{self, Options};
use ansatz::cpu::run::Arena;
use ansatz::device::StepInput;
use ansatz::graph::{DType, Evaluation, Feeds, Graph, Op, evaluate};
use ansatz::kernel::Persistent;
use ansatz::machine::Level;
use ansatz::machine::pool::Pool;
use ansatz::schedule::plan;

use crate::random_graphs::with_gradients;
use crate::support::lowered::{collected, difference, fed};
use crate::support::random_graph::RandomGraph;

/// How many random graphs are tried.
const GRAPHS: u64 = 120;
/// f32 with gradients through exponentials and divisions; wrong code is off by far more.
const TOLERANCE: f64 = 2e-3;

/// The step planned, compiled and run.
pub fn compiled(graph: &Graph, feeds: &Feeds, level: Level, pool: &Pool) -> Evaluation {
    compiled_within(graph, feeds, level, pool, Lowering::default())
}

/// The same with another lowering.
pub fn compiled_within(graph: &Graph, feeds: &Feeds, level: Level, pool: &Pool, lowering: Lowering) -> Evaluation {
    let program = plan(graph, &Persistent::of(graph), &lowering);
    let executable = code::load(&program, &Options { level, profile: false, tuning: Default::default() })
        .expect("the program compiles");
    let mut arena = Arena::new(&program).expect("memory");
    for (role, data) in fed(graph, feeds) {
        let buffer = program.find(&role).expect("declared");
        match buffer.dtype {
            DType::F32 => arena.f32_mut(buffer).iter_mut().zip(&data).for_each(|(to, from)| *to = *from as f32),
            DType::I32 => arena.i32_mut(buffer).iter_mut().zip(&data).for_each(|(to, from)| *to = *from as i32),
            DType::Bool => arena.bool_mut(buffer).iter_mut().zip(&data).for_each(|(to, from)| *to = *from as u8),
        }
    }
    let noticed = executable.run(&mut arena, pool, StepInput { seed: feeds.seed, step: feeds.clock.step });
    let found = collected(graph, |role| {
        let buffer = program.find(role).expect("declared");
        let data = match buffer.dtype {
            DType::F32 => arena.f32(buffer).iter().map(|x| f64::from(*x)).collect(),
            DType::I32 => arena.i32(buffer).iter().map(|x| f64::from(*x)).collect(),
            DType::Bool => arena.bool(buffer).iter().map(|x| f64::from(*x)).collect(),
        };
        (buffer.sizes.clone(), data)
    });
    let is_finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
    let is_fed_finite = fed(graph, feeds).iter().all(|(_, data)| is_finite(data))
        && graph.values().all(|(_, value)| !matches!(value.op, Op::Const(number) if !number.is_finite()));
    let results = found.outputs.iter().map(|(_, tensor)| tensor).chain(found.updates.iter().map(|(_, tensor)| tensor));
    if is_fed_finite && !results.into_iter().all(|tensor| is_finite(&tensor.data)) {
        assert!(noticed, "at {level}, numbers give what is not finite, and the run does not say so");
    }
    found
}

#[test]
fn compiled_random_graphs_agree_with_the_evaluator() {
    let (one, three) = (Pool::new(1), Pool::new(3));
    let levels: Vec<Level> = Level::available().collect();
    for seed in 0..GRAPHS {
        let RandomGraph { mut graph, feeds, .. } = with_gradients(seed);
        let expected = evaluate(&graph, &feeds);
        ansatz::passes::run(&mut graph);
        let level = levels[seed as usize % levels.len()];
        let actual = compiled(&graph, &feeds, level, &one);
        assert_eq!(difference(&expected, &actual, TOLERANCE), None, "graph {seed}, {level}");
        let threaded = compiled(&graph, &feeds, level, &three);
        assert_eq!(difference(&actual, &threaded, 0.0), None, "graph {seed}, {level}, three threads");
    }
}
