//! Equations and expressions: what they compute, what they are lowered to, and what they refuse.

use std::collections::HashMap;

use crate::diagnostics::Diagnostic;
use crate::dim::{Compare, Dim};
use crate::graph::{self, DType, Feeds, Graph, Input, Op, Output, Tensor};
use crate::model::expander::{Expander, Meaning, Mode, Scope};
use crate::model::project::Project;
use crate::source::Span;
use crate::syntax::ast;

/// Runs statements on inputs of these shapes; the result is the graph with its output `result`.
fn expand(
    text: &str,
    inputs: &[(&str, DType, Vec<Dim>)],
    facts: &[(Compare, Dim, Dim)],
) -> Result<Graph, Vec<Diagnostic>> {
    let (project, file, found) = Project::from_text("test.ansatz", &format!("layer L {{\n{text}\n}}\n"));
    assert!(found.is_empty(), "{found:?}");
    let mut expander = Expander::new(&project, Mode::Train);
    for (relation, a, b) in facts {
        expander.facts.assume(*relation, a, b);
    }
    let mut scope = Scope::new(file, String::new());
    let span = Span::new(file, 0, 1);
    for (name, dtype, shape) in inputs {
        let input = Input { name: name.to_string(), shape: shape.clone(), dtype: *dtype, span };
        let value = expander.graph.input(input);
        scope.bind(&ast::Ident { name: name.to_string(), span }, Meaning::Tensor(value));
        for dim in shape {
            if let Some(name) = dim.as_var() {
                scope.bind(&ast::Ident { name: name.to_string(), span }, Meaning::Size(dim.clone()));
            }
        }
    }
    let ast::ItemKind::Definition(definition) = &project.tree(file).items[0].kind else { panic!("a layer") };
    let result = expander.statements(&mut scope, &definition.body);
    match result {
        Ok(Some(meaning)) if expander.diagnostics.is_empty() => {
            let value = expander.as_tensor(&meaning, DType::F32, &[], span).expect("a result");
            expander.graph.outputs.push(Output { name: "result".into(), value });
            graph::verify(&expander.graph).expect("the graph is valid");
            Ok(expander.graph)
        }
        _ => Err(expander.diagnostics),
    }
}

fn tensor(sizes: &[usize], data: &[f64]) -> Tensor {
    Tensor::new(sizes, data.to_vec())
}

fn ramp(sizes: &[usize]) -> Tensor {
    let count: usize = sizes.iter().product();
    Tensor::new(sizes, (0..count).map(|i| (i as f64 * 0.7).sin() + 0.1 * i as f64).collect())
}

/// Runs on numbers; names of integer inputs start with `i_`.
fn run(text: &str, inputs: &[(&str, Tensor)]) -> (Graph, Tensor) {
    let dtype = |name: &str| if name.starts_with("i_") { DType::I32 } else { DType::F32 };
    let declared: Vec<_> = inputs
        .iter()
        .map(|(name, tensor)| (*name, dtype(name), tensor.sizes.iter().map(|size| Dim::from(*size)).collect()))
        .collect();
    let graph = expand(text, &declared, &[]).unwrap_or_else(|found| panic!("{text}: {found:#?}"));
    let inputs: HashMap<String, Tensor> =
        inputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
    let evaluation = graph::evaluate(&graph, &Feeds { inputs, ..Feeds::default() });
    let result = evaluation.output("result").expect("an output").clone();
    (graph, result)
}

fn code(text: &str, inputs: &[(&str, &[&str])], facts: &[(Compare, Dim, Dim)]) -> Diagnostic {
    let dim = |text: &&str| text.parse::<i64>().map_or_else(|_| Dim::var(text), Dim::constant);
    let declared: Vec<_> =
        inputs.iter().map(|(name, dims)| (*name, DType::F32, dims.iter().map(dim).collect())).collect();
    let found = expand(text, &declared, facts).expect_err("the text has an error");
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().expect("one")
}

fn close(found: &Tensor, expected: &Tensor) {
    assert_eq!(found.sizes, expected.sizes);
    for (a, b) in found.data.iter().zip(&expected.data) {
        assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{found:?} against {expected:?}");
    }
}

fn contractions(graph: &Graph) -> Vec<usize> {
    graph.values().filter(|(_, value)| matches!(value.op, Op::Contract(_))).map(|(_, value)| value.args.len()).collect()
}

#[test]
fn a_matrix_product_is_one_contraction_of_its_operands() {
    let (x, w) = (ramp(&[2, 3]), ramp(&[4, 3]));
    let (graph, y) = run("y[n, o] = sum[k] x[n, k] * w[o, k]\nreturn y", &[("x", x.clone()), ("w", w.clone())]);
    let expected = (0..2).flat_map(|n| (0..4).map(move |o| (n, o)));
    let product = |(n, o): (usize, usize)| (0..3).map(|k| x.data[n * 3 + k] * w.data[o * 3 + k]).sum();
    close(&y, &tensor(&[2, 4], &expected.map(product).collect::<Vec<f64>>()));
    assert_eq!((graph.len(), contractions(&graph)), (3, vec![2]));
}

#[test]
fn a_padded_convolution_is_one_contraction_and_has_the_declared_shape() {
    let text = "y[n, o, i, j] = sum[c, u, v] (x[n, c, 2*i + u - 1, 2*j + v - 1] else 0) * w[o, c, u, v] : [1, 2, 2, 2]\nreturn y";
    let (x, w) = (ramp(&[1, 3, 4, 4]), ramp(&[2, 3, 3, 3]));
    let (graph, y) = run(text, &[("x", x.clone()), ("w", w.clone())]);
    let mut expected = Vec::new();
    for o in 0..2 {
        for i in 0..2i64 {
            for j in 0..2i64 {
                let mut sum = 0.0;
                for c in 0..3 {
                    for u in 0..3 {
                        for v in 0..3 {
                            let (h, k) = (2 * i + u - 1, 2 * j + v - 1);
                            if (0..4).contains(&h) && (0..4).contains(&k) {
                                sum += x.data[(c * 16 + h * 4 + k) as usize]
                                    * w.data[(o * 27 + c * 9 + u * 3 + v) as usize];
                            }
                        }
                    }
                }
                expected.push(sum);
            }
        }
    }
    close(&y, &tensor(&[1, 2, 2, 2], &expected));
    assert_eq!((graph.len(), contractions(&graph)), (3, vec![2]));
}

#[test]
fn attention_scores_mask_and_normalise() {
    let text = "s[i, j] = sum[d] q[i, d] * k[j, d] / sqrt(4)\n\
                a[i, j] = softmax[j] (s[i, j] if j <= i else -inf)\n\
                y[i, d] = sum[j] a[i, j] * v[j, d]\nreturn y";
    let (q, k, v) = (ramp(&[3, 4]), ramp(&[3, 4]), ramp(&[3, 4]));
    let (graph, y) = run(text, &[("q", q.clone()), ("k", k.clone()), ("v", v.clone())]);
    let mut expected = Vec::new();
    for i in 0..3 {
        let score = |j: usize| (0..4).map(|d| q.data[i * 4 + d] * k.data[j * 4 + d]).sum::<f64>() / 2.0;
        let weights: Vec<f64> = (0..=i).map(|j| score(j).exp()).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..4 {
            expected.push(weights.iter().enumerate().map(|(j, w)| w / total * v.data[j * 4 + d]).sum());
        }
    }
    close(&y, &tensor(&[3, 4], &expected));
    let products = contractions(&graph).into_iter().filter(|args| *args == 2).count();
    assert_eq!(products, 2, "the scale is applied after the product of queries and keys");
}

#[test]
fn cross_entropy_gathers_the_label_and_averages() {
    let text = "logp[n, c] = log_softmax[c] x[n, c]\nreturn mean[n] (-logp[n, i_label[n]])";
    let x = ramp(&[2, 3]);
    let (_, loss) = run(text, &[("x", x.clone()), ("i_label", tensor(&[2], &[2.0, 0.0]))]);
    let row = |n: usize, label: usize| {
        let total: f64 = (0..3).map(|c| x.data[n * 3 + c].exp()).sum();
        total.ln() - x.data[n * 3 + label]
    };
    close(&loss, &tensor(&[], &[(row(0, 2) + row(1, 0)) / 2.0]));
}

#[test]
fn an_accuracy_counts_equal_labels() {
    let text = "return mean[n] (argmax[c] x[n, c] == i_label[n])";
    let x = tensor(&[4, 2], &[1.0, 2.0, 3.0, 1.0, 0.0, 5.0, 2.0, 1.0]);
    let (_, value) = run(text, &[("x", x), ("i_label", tensor(&[4], &[1.0, 1.0, 1.0, 0.0]))]);
    close(&value, &tensor(&[], &[0.75]));
}

#[test]
fn reductions_follow_their_definitions() {
    let x = tensor(&[2, 3], &[1.0, -2.0, 3.0, 0.5, 4.0, -1.0]);
    for (text, expected) in [
        ("y[n] = max[k] x[n, k]", vec![3.0, 4.0]),
        ("y[n] = min[k] x[n, k]", vec![-2.0, -1.0]),
        ("y[n] = prod[k] x[n, k]", vec![-6.0, -2.0]),
        ("y[n] = mean[k] x[n, k]^2", vec![14.0 / 3.0, 17.25 / 3.0]),
        ("y[n] = argmin[k] x[n, k]", vec![1.0, 2.0]),
        ("y[n] = sum[k] (x[n, k] > 0)", vec![2.0, 2.0]),
        ("y[n] = sum[k] (2 * x[n, 0] + 0 * x[n, k])", vec![6.0, 3.0]),
        ("y[n] = sum[k, j] x[n, k] * x[n, j]", vec![4.0, 12.25]),
        ("y[k] = sum[n] x[n, k] / (n + 1)", vec![1.25, 0.0, 2.5]),
        ("y[k] = x[1, k] - x[0, k]", vec![-0.5, 6.0, -4.0]),
        ("y[k] = sum[n] x[n, k] * x[n, k] * x[n, k]", vec![1.125, 56.0, 26.0]),
        ("y[n] = x[n, 0] if n == 1 else 7", vec![7.0, 0.5]),
    ] {
        let (_, y) = run(&format!("{text}\nreturn y"), &[("x", x.clone())]);
        close(&y, &tensor(&[expected.len()], &expected));
    }
}

#[test]
fn a_guard_gives_its_value_out_of_range() {
    let x = tensor(&[3], &[1.0, 2.0, 3.0]);
    let (_, y) = run("y[i] = x[i - 1] else -inf : [4]\nreturn y", &[("x", x.clone())]);
    assert_eq!(y.data, [f64::NEG_INFINITY, 1.0, 2.0, 3.0]);
    let (_, y) = run("y[i] = x[2 - i] : [3]\nreturn y", &[("x", x.clone())]);
    assert_eq!(y.data, [3.0, 2.0, 1.0]);
    let (_, y) = run("y[i] = x[i / 2] : [6]\nreturn y", &[("x", x)]);
    assert_eq!(y.data, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
}

#[test]
fn plain_reads_in_order_reuse_the_value_and_transposed_ones_are_one_contraction() {
    let (graph, _) = run("y[i, j] = x[i, j]\nreturn y", &[("x", ramp(&[2, 3]))]);
    assert_eq!(graph.len(), 1);
    let (graph, y) = run("y[i, j] = x[j, i]\nreturn y", &[("x", tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]))]);
    assert_eq!((graph.len(), y.data), (2, vec![1.0, 3.0, 2.0, 4.0]));
}

#[test]
fn tensors_align_at_the_trailing_dim() {
    let (x, b) = (tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), tensor(&[2], &[10.0, 20.0]));
    let (_, y) = run("return 2 * x + b / 2 - 1", &[("x", x.clone()), ("b", b)]);
    assert_eq!(y.data, [6.0, 13.0, 10.0, 17.0]);
    let (_, y) = run("return x^3 * (x > 1) + max(x, 2) + x^-1", &[("x", x)]);
    close(&y, &tensor(&[2, 2], &[3.0, 10.5, 30.0 + 1.0 / 3.0, 68.25]));
}

#[test]
fn sizes_round_down_and_written_numbers_do_not() {
    let x = || ramp(&[5]);
    let ones = || tensor(&[5], &[1.0; 5]);
    let (_, y) = run("return range(7 - 4) * (1 / 4) + size(x, 0) / 2", &[("x", x())]);
    assert_eq!(y.data, [2.0, 2.25, 2.5]);
    let (_, y) = run("let C = size(x, 0)\nreturn x * (1 / C)", &[("x", ones())]);
    close(&y, &tensor(&[5], &[0.2; 5]));
    let (_, y) = run("return x * ((2 + 1) / 4) + (10 / size(x, 0))", &[("x", ones())]);
    close(&y, &tensor(&[5], &[2.75; 5]));
    let (_, y) = run("let C = size(x, 0)\ny[i] = x[i] * (1 / 2) + (1 / C) + 1 / (i + 1)\nreturn y", &[("x", ones())]);
    close(&y, &tensor(&[5], &[1.7, 1.2, 0.7 + 1.0 / 3.0, 0.95, 0.9]));
    let (_, y) = run("y[i] = x[i] + i / 2\nreturn y", &[("x", x())]);
    let data: Vec<f64> = (0..5).map(|i| x().data[i] + (i / 2) as f64).collect();
    close(&y, &tensor(&[5], &data));
    let graph = expand("return x * (1 / C)", &[("x", DType::F32, vec![Dim::var("C")])], &[]).expect("valid");
    let rounded = Dim::constant(1).floor_div(&Dim::var("C"));
    assert!(!graph.values().any(|(_, value)| matches!(&value.op, Op::Size(dim) if *dim == rounded)));
}

#[test]
fn a_tensor_of_a_symbolic_size_keeps_it() {
    let shape = vec![Dim::var("N"), Dim::var("C")];
    let graph = expand("y[n] = mean[c] x[n, c] / sqrt(C)\nreturn y", &[("x", DType::F32, shape)], &[]).expect("valid");
    let output = graph.outputs[0].value;
    assert_eq!(graph.shape(output), [Dim::var("N")]);
}

#[test]
fn unequal_sizes_are_refuted_with_both_places() {
    let found = code("return x + y", &[("x", &["N", "H"]), ("y", &["N", "W"])], &[]);
    assert_eq!((found.code, found.labels.len() >= 3), ("shape-mismatch", true));
    assert!(found.hints.iter().any(|hint| hint.contains("H = 1, W = 2")), "{found:?}");
    let found = code("y[n] = sum[k] a[n, k] * b[k]\nreturn y", &[("a", &["N", "K"]), ("b", &["L"])], &[]);
    assert_eq!(found.code, "shape-mismatch");
    let equal = [(Compare::Eq, Dim::var("H"), Dim::var("W"))];
    let dims = |name: &str| vec![Dim::var("N"), Dim::var(name)];
    let inputs = [("x", DType::F32, dims("H")), ("y", DType::F32, dims("W"))];
    expand("return x + y", &inputs, &equal).expect("equal by requirement");
}

#[test]
fn an_unknown_size_is_never_repeated() {
    let found = code(
        "return x + y",
        &[("x", &["N", "H"]), ("y", &["N", "K"])],
        &[(Compare::Le, Dim::var("K"), Dim::constant(1))],
    );
    assert_eq!(found.code, "shape-mismatch");
}

#[test]
fn reads_out_of_range_need_a_guard() {
    let found = code("y[i] = x[i + 1] : [H]\nreturn y", &[("x", &["H"])], &[]);
    assert_eq!(found.code, "index-out-of-range");
    let facts = [(Compare::Ge, Dim::var("H"), Dim::constant(2))];
    expand("y[i] = x[i + 1] : [H - 1]\nreturn y", &[("x", DType::F32, vec![Dim::var("H")])], &facts).expect("in range");
    let found = code("y[i, u] = x[2*i + u] : [(H + 1)/2, 3]\nreturn y", &[("x", &["H"])], &[]);
    assert_eq!(found.code, "index-out-of-range");
}

#[test]
fn an_index_without_a_range_is_an_error() {
    assert_eq!(code("y[i, j] = x[i]\nreturn y", &[("x", &["N"])], &[]).code, "unbound-index");
    assert_eq!(code("y[i] = sum[k] x[i + k] : [N]\nreturn y", &[("x", &["N"])], &[]).code, "unbound-index");
    assert_eq!(code("y[i] = softmax[q] x[i]\nreturn y", &[("x", &["N"])], &[]).code, "unbound-index");
    assert_eq!(code("y[i, i] = x[i]\nreturn y", &[("x", &["N"])], &[]).code, "duplicate-index");
    assert_eq!(code("y[i] = x[i, 0]\nreturn y", &[("x", &["N"])], &[]).code, "rank-mismatch");
    assert_eq!(code("y[i] = x[i] + x\nreturn y", &[("x", &["N"])], &[]).code, "missing-index");
}

#[test]
fn a_comparison_of_sizes_must_be_decided() {
    let found = code("return x if N == 3 else 2 * x", &[("x", &["N"])], &[]);
    assert_eq!(found.code, "undecided");
    assert!(found.hints[0].contains("require N == 3"), "{found:?}");
    let facts = [(Compare::Ge, Dim::var("N"), Dim::constant(4))];
    let graph =
        expand("return x if N == 3 else 2 * x", &[("x", DType::F32, vec![Dim::var("N")])], &facts).expect("decided");
    assert!(graph.values().any(|(_, value)| matches!(value.op, Op::Binary(_))));
}
