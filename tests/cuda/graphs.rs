//! Random graphs on the shim against the reference evaluator.

use ansatz::cuda::{Lowering, compile};
use ansatz::device::{Device, StepInput};
use ansatz::graph::{DType, Evaluation, Feeds, Graph, evaluate};
use ansatz::kernel::{Buffer, Persistent, Role};
use ansatz::schedule::plan;

use super::shim;
use crate::random_graphs::with_gradients;
use crate::support::lowered::{collected, difference, fed};

/// Nothing is kept.
pub struct Anew;

impl compile::Made for Anew {
    fn find(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn keep(&self, _: &[&str], _: &[u8]) {}
}

/// As on the CPU: f32 against f64.
const TOLERANCE: f64 = 2e-3;

/// The step on the shim's device.
pub fn on_device(graph: &Graph, feeds: &Feeds, lowering: &Lowering) -> Evaluation {
    let program = plan(graph, &Persistent::of(graph), lowering);
    let mut device = compile::device(false, Anew).expect("the shim is a device");
    let loaded = device.load(&program).expect("the shim loads it");
    let buffer = |role: &Role| -> &Buffer { program.find(role).unwrap_or_else(|| panic!("no buffer `{role}`")) };
    for (role, data) in fed(graph, feeds) {
        let buffer = buffer(&role);
        let bytes: Vec<u8> = match buffer.dtype {
            DType::F32 => data.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            DType::I32 => data.iter().flat_map(|x| (*x as i32).to_le_bytes()).collect(),
            DType::Bool => data.iter().map(|x| u8::from(*x != 0.0)).collect(),
        };
        device.write_bytes(buffer, &bytes).expect("written");
    }
    let noticed = device.run(loaded, StepInput { seed: feeds.seed, step: feeds.clock.step }).expect("the shim runs it");
    let found = collected(graph, |role| {
        let buffer = buffer(role);
        let bytes = device.read_bytes(buffer).expect("read");
        let words = || bytes.as_chunks::<4>().0.iter();
        let data = match buffer.dtype {
            DType::F32 => words().map(|word| f64::from(f32::from_le_bytes(*word))).collect(),
            DType::I32 => words().map(|word| f64::from(i32::from_le_bytes(*word))).collect(),
            DType::Bool => bytes.iter().map(|byte| f64::from(*byte)).collect(),
        };
        (buffer.sizes.clone(), data)
    });
    let results = found.outputs.iter().map(|(_, tensor)| tensor).chain(found.updates.iter().map(|(_, tensor)| tensor));
    let is_finite = results.into_iter().all(|tensor| tensor.data.iter().all(|value| value.is_finite()));
    assert_eq!(noticed, !is_finite, "the device tells whether a result is not finite");
    found
}

#[test]
fn random_graphs_have_the_evaluators_values() {
    let _device = shim::open();
    for seed in 0..40 {
        let random = with_gradients(seed);
        let (mut graph, feeds) = (random.graph, &random.feeds);
        let expected = evaluate(&graph, feeds);
        ansatz::passes::run(&mut graph);
        let found = on_device(&graph, feeds, &Lowering::default());
        if let Some(difference) = difference(&expected, &found, TOLERANCE) {
            panic!("seed {seed}: {difference}");
        }
    }
}
