//! Random graphs: gradients against difference quotients, passes against the graph as it was, the schedule and the
//! machine code against the reference evaluator.

use ansatz::graph::{Output, evaluate};

use crate::support::lowered::{difference, interpreted};
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
        random.graph.outputs.push(Output { name: format!("gradient{place}").into(), value });
    }
    random
}

/// The passes reorder sums and products of a few thousand f64 terms: 1e-10 is a thousand times their rounding.
const PASS_TOLERANCE: f64 = 1e-10;

#[test]
fn each_pass_keeps_the_meaning_of_random_graphs() {
    for seed in 0..GRAPHS {
        let RandomGraph { mut graph, feeds, .. } = with_gradients(seed);
        let before = graph.clone();
        for (name, pass) in ansatz::passes::PASSES {
            let last = graph.clone();
            pass(&mut graph);
            ansatz::graph::verify(&graph).unwrap_or_else(|message| panic!("graph {seed} after `{name}`: {message}"));
            let change = difference(&evaluate(&last, &feeds), &evaluate(&graph, &feeds), PASS_TOLERANCE);
            assert_eq!(change, None, "graph {seed} after `{name}`");
        }
        assert!(graph.len() <= 2 * before.len(), "graph {seed} grew from {} to {}", before.len(), graph.len());
    }
}

/// The interpreter computes in f64, in another order.
const INTERPRETER_TOLERANCE: f64 = 1e-10;

#[test]
fn planned_loops_agree_with_the_evaluator() {
    for seed in 0..GRAPHS {
        let RandomGraph { mut graph, feeds, .. } = with_gradients(seed);
        let expected = evaluate(&graph, &feeds);
        // As it is for every fourth, since passes remove ops that the schedule must know too.
        if seed % 4 != 0 {
            ansatz::passes::run(&mut graph);
        }
        let outcome = std::panic::catch_unwind(|| interpreted(&graph, &feeds));
        let actual = outcome.unwrap_or_else(|_| panic!("graph {seed} cannot be planned"));
        assert_eq!(difference(&expected, &actual, INTERPRETER_TOLERANCE), None, "graph {seed}");
    }
}
