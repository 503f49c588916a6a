//! Random graphs: gradients against difference quotients, passes against the graph as it was.

use ansatz::graph::{Feeds, Graph, Output, evaluate};

use crate::support::random_graph::{Contents, RandomGraph, random_graph};
use crate::support::{check_gradients, scalar_value};

/// How many random graphs each property is tried on.
const GRAPHS: u64 = 500;

#[test]
fn random_graphs_pass_the_verifier_and_give_finite_losses() {
    for seed in 0..GRAPHS {
        let RandomGraph { graph, feeds, loss, .. } = random_graph(seed, Contents::Everything);
        ansatz::graph::verify(&graph).unwrap_or_else(|message| panic!("graph {seed}: {message}"));
        assert!(scalar_value(&graph, &feeds, loss).is_finite(), "graph {seed}");
    }
}

#[test]
fn gradients_of_random_graphs_agree_with_differences() {
    for seed in 0..GRAPHS {
        let RandomGraph { graph, feeds, loss, params } = random_graph(seed, Contents::Differentiable);
        let check = std::panic::catch_unwind(|| check_gradients(&graph, &feeds, loss, &params, 1));
        assert!(check.is_ok(), "graph {seed}");
    }
}

/// A random graph whose outputs include the gradient by every parameter.
pub fn with_gradients(seed: u64) -> RandomGraph {
    let mut random = random_graph(seed, Contents::Everything);
    let gradients = ansatz::grad::differentiate(&mut random.graph, random.loss, &random.params);
    for (place, value) in gradients.into_iter().enumerate() {
        random.graph.outputs.push(Output { name: format!("gradient{place}"), value });
    }
    random
}

/// The passes reorder sums and products of a few thousand f64 terms: 1e-10 is a thousand times their rounding.
const PASS_TOLERANCE: f64 = 1e-10;

/// The first output or update in which two graphs differ.
fn difference(before: &Graph, after: &Graph, feeds: &Feeds) -> Option<String> {
    let (before, after) = (evaluate(before, feeds), evaluate(after, feeds));
    let outputs = before.outputs.iter().zip(&after.outputs).map(|(a, b)| (a.0.clone(), &a.1, &b.1));
    let updates = before.updates.iter().zip(&after.updates).map(|(a, b)| (format!("{:?}", a.0), &a.1, &b.1));
    for (name, a, b) in outputs.chain(updates) {
        let scale = a.data.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
        let close = |(x, y): (&f64, &f64)| (x - y).abs() <= PASS_TOLERANCE * scale || x == y;
        if a.sizes != b.sizes || !a.data.iter().zip(&b.data).all(close) {
            return Some(format!("{name}: {:?} became {:?}", a.data, b.data));
        }
    }
    None
}

#[test]
fn each_pass_keeps_the_meaning_of_random_graphs() {
    for seed in 0..GRAPHS {
        let RandomGraph { mut graph, feeds, .. } = with_gradients(seed);
        let before = graph.clone();
        for (name, pass) in ansatz::passes::PASSES {
            let last = graph.clone();
            pass(&mut graph);
            ansatz::graph::verify(&graph).unwrap_or_else(|message| panic!("graph {seed} after `{name}`: {message}"));
            if let Some(text) = difference(&last, &graph, &feeds) {
                panic!("graph {seed}: pass `{name}` changed {text}");
            }
        }
        assert!(graph.len() <= 2 * before.len(), "graph {seed} grew from {} to {}", before.len(), graph.len());
    }
}
