//! Printed equations: read back and expanded, they give the values of the graph that they were printed from.

use std::collections::BTreeMap;

use ansatz::graph::{Feeds, Graph, Op, Output, OutputName, Tensor, evaluate};
use ansatz::model::{Expanded, Mode, Project, expand};
use ansatz::source::SourceMap;

use crate::support::random_graph::{Contents, RandomGraph, random_graph};

/// Expands a text with one model and bound sizes.
fn expanded(text: &str, model: &str) -> Expanded {
    let (project, file, found) = Project::from_text("printed.ansatz", text);
    let errors: Vec<_> = found.iter().filter(|diagnostic| diagnostic.is_error()).collect();
    assert!(errors.is_empty(), "{text}\n{errors:#?}");
    match expand(&project, file, model, &[], Mode::Train, &BTreeMap::new()) {
        Ok((expanded, _)) => expanded,
        Err(errors) => panic!("{text}\n{:#?}", errors.iter().find(|diagnostic| diagnostic.is_error())),
    }
}

/// The feeds of a graph under the names that its printed form declares.
fn as_inputs(graph: &Graph, feeds: &Feeds, printed: &Graph) -> Feeds {
    let plain = |name: &str| name.replace('.', "_");
    let mut inputs = BTreeMap::new();
    inputs.extend(graph.params.iter().map(|param| (plain(&param.name), feeds.params[&param.name].clone())));
    inputs.extend(graph.states.iter().map(|state| (plain(&state.name), feeds.states[&state.name].clone())));
    inputs.extend(graph.inputs.iter().map(|input| (plain(&input.name), feeds.inputs[&input.name].clone())));
    for scalar in &graph.scalars {
        inputs.insert(plain(&scalar.name), Tensor::full(&[], scalar.expr.evaluate(&feeds.clock)));
    }
    let read = printed.inputs.iter().map(|input| (input.name.clone(), inputs[&input.name].clone()));
    Feeds { inputs: read.collect(), ..feeds.clone() }
}

/// Prints a graph, reads it back and compares all outputs and updates in order.
fn check(graph: &Graph, feeds: &Feeds) {
    let text = ansatz::grad::print::equations(graph, &SourceMap::default());
    let printed = expanded(&text, "Equations").graph;
    let expected = evaluate(graph, feeds);
    let actual = evaluate(&printed, &as_inputs(graph, feeds, &printed));
    let expected: Vec<Tensor> = expected
        .outputs
        .into_iter()
        .map(|(_, tensor)| tensor)
        .chain(expected.updates.into_iter().map(|(_, tensor)| tensor))
        .collect();
    assert_eq!(expected.len(), actual.outputs.len(), "{text}");
    for (a, (name, b)) in expected.iter().zip(&actual.outputs) {
        assert_eq!(a.sizes, b.sizes, "`{name}` of\n{text}");
        let scale = a.data.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
        let close = a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() <= 1e-10 * scale || a == b);
        assert!(close, "`{name}` is {:?} instead of {:?} in\n{text}", b.data, a.data);
    }
}

#[test]
fn printed_gradients_read_back_as_the_same_values() {
    let mut tried = 0;
    for seed in 0..300 {
        let RandomGraph { mut graph, feeds, loss, params } = random_graph(seed, Contents::Everything);
        // A draw is fresh in every graph.
        if graph.values().any(|(_, value)| matches!(value.op, Op::Random { .. })) {
            continue;
        }
        let gradients = ansatz::grad::differentiate(&mut graph, loss, &params);
        for (param, value) in graph.params.clone().iter().zip(gradients) {
            graph.outputs.push(Output { name: OutputName::Gradient(param.name.clone()), value });
        }
        ansatz::passes::for_reading(&mut graph);
        let outcome = std::panic::catch_unwind(|| check(&graph, &feeds));
        assert!(outcome.is_ok(), "graph {seed}");
        tried += 1;
    }
    assert!(tried > 100, "only {tried} graphs have no random draws");
}

#[test]
fn the_gradient_of_a_linear_layer_reads_like_a_textbook() {
    let text = "model M {
  input x: [N, 5]
  param w: [3, 5] ~ zeros
  y[n, o] = sum[k] x[n, k] * w[o, k]
  z = tanh(y)
  loss[] = sum[n, o] z[n, o]
  return loss
}";
    let mut graph = expanded(text, "M").graph;
    let loss = graph.outputs[0].value;
    let (param, _) =
        graph.values().find(|(_, value)| matches!(value.op, Op::Param(_))).expect("the model has a parameter");
    let value = ansatz::grad::differentiate(&mut graph, loss, &[param])[0];
    graph.outputs.push(Output { name: OutputName::Gradient("w".into()), value });
    ansatz::passes::for_reading(&mut graph);
    let printed = ansatz::grad::print::equations(&graph, &SourceMap::default());
    assert_eq!(
        printed,
        "model Equations {
  input x: [N, 5]
  input w: [3, 5]
  t1[i, j] = sum[k] x[i, k] * w[j, k] : [N, 3]
  t2[i, j] = tanh(t1[i, j]) : [N, 3]
  loss[] = sum[i, j] t2[i, j]
  d_w[i, j] = sum[k] x[k, j] * (1 - t2[k, i] * t2[k, i]) : [3, 5]
  return loss, d_w
}
"
    );
}

/// Windows of a maximum give their indices no range by a plain read.
#[test]
fn gradients_of_pools_and_reductions_read_back() {
    for body in [
        "max_pool(2)",
        "max_pool(3, stride = 2, pad = 1)",
        "avg_pool(2)",
        "avg_pool(3, stride = 2, pad = 1)",
        "adaptive_max_pool(2)",
        "relu -> max_pool(2) -> max_pool(2)",
        "mean_over(H, W)",
        "softmax",
    ] {
        let text = format!(
            "model M {{\n  input x: [2, 3, 4, 4]\n  param w: [4] ~ zeros\n  \
             a[n, c, i, j] = x[n, c, i, j] * w[j]\n  y = a -> [N, C, H, W] -> {body} -> flatten\n  \
             loss[] = sum[n, k] y[n, k] * y[n, k]\n  return loss\n}}\n"
        );
        let mut graph = expanded(&text, "M").graph;
        let loss = graph.outputs[0].value;
        let reads = graph.values().find(|(_, value)| matches!(value.op, Op::Param(_)));
        let (param, _) = reads.expect("the model has a parameter");
        let value = ansatz::grad::differentiate(&mut graph, loss, &[param])[0];
        graph.outputs.push(Output { name: OutputName::Gradient("w".into()), value });
        ansatz::passes::for_reading(&mut graph);
        let values = |count: usize| (0..count).map(|i| ((i * 37 + 11) % 101) as f64 / 50.0 - 1.0).collect();
        let mut feeds = Feeds::default();
        feeds.inputs.insert("x".into(), Tensor::new(&[2, 3, 4, 4], values(96)));
        feeds.params.insert("w".into(), Tensor::new(&[4], vec![0.5, -1.5, 2.0, 0.75]));
        check(&graph, &feeds);
    }
}
