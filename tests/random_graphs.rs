//! Random graphs: gradients against difference quotients.

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
