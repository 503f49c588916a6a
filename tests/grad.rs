//! The gradient walk: sums over uses, parameters read twice, independence, the dot-product identity.

use ansatz::grad::differentiate;
use ansatz::graph::{
    Affine, Binary, Contract, DType, Feeds, Graph, Indirect, IndirectIndex, Init, Input, Op, Param, Tensor, Unary,
    ValueId,
};

use crate::support::random_graph::Random;
use crate::support::{check_gradients, dims, dot, span, tensor_value};

fn param(graph: &mut Graph, feeds: &mut Feeds, name: &str, tensor: Tensor) -> ValueId {
    let shape = dims(&tensor.sizes);
    feeds.params.insert(name.into(), tensor);
    graph.param(Param { name: name.into(), shape, init: Init::Constant(0.0), span: span() })
}

#[test]
fn the_gradient_sums_over_all_uses() {
    let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
    let x = param(&mut graph, &mut feeds, "x", Tensor::new(&[], vec![3.0]));
    let square = graph.binary(Binary::Mul, x, x, span());
    let cube = graph.binary(Binary::Mul, square, x, span());
    let gradient = differentiate(&mut graph, cube, &[x])[0];
    assert_eq!(tensor_value(&graph, &feeds, gradient).data, [27.0]);
}

#[test]
fn all_reads_of_a_parameter_count_as_that_parameter() {
    let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
    let first = param(&mut graph, &mut feeds, "x", Tensor::new(&[], vec![3.0]));
    let Op::Param(id) = graph.value(first).op else { unreachable!("a parameter reads a parameter") };
    let second = graph.read_param(id, span());
    let y = graph.binary(Binary::Mul, first, second, span());
    let gradients = differentiate(&mut graph, y, &[first, second]);
    assert_eq!(tensor_value(&graph, &feeds, gradients[0]).data, [6.0]);
    assert_eq!(tensor_value(&graph, &feeds, gradients[1]).data, [6.0]);
}

#[test]
fn the_gradient_by_something_independent_is_zero() {
    let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
    let x = param(&mut graph, &mut feeds, "x", Tensor::full(&[], 3.0));
    let other = param(&mut graph, &mut feeds, "other", Tensor::full(&[2, 3], 1.0));
    let stopped = graph.detach(x, span());
    let y = graph.unary(Unary::Exp, stopped, span());
    let gradients = differentiate(&mut graph, y, &[x, other]);
    assert_eq!(tensor_value(&graph, &feeds, gradients[0]), Tensor::full(&[], 0.0));
    assert_eq!(tensor_value(&graph, &feeds, gradients[1]), Tensor::full(&[2, 3], 0.0));
}

#[test]
fn the_gradient_by_an_inner_value_stops_at_it_and_goes_on_below() {
    let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
    let x = param(&mut graph, &mut feeds, "x", Tensor::full(&[], 2.0));
    let square = graph.binary(Binary::Mul, x, x, span());
    let y = graph.binary(Binary::Mul, square, square, span());
    let gradients = differentiate(&mut graph, y, &[square, x]);
    assert_eq!(tensor_value(&graph, &feeds, gradients[0]).data, [8.0]);
    assert_eq!(tensor_value(&graph, &feeds, gradients[1]).data, [32.0]);
}

#[test]
fn gradients_can_be_differentiated_again() {
    let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
    let x = param(&mut graph, &mut feeds, "x", Tensor::full(&[], 0.5));
    let y = graph.unary(Unary::Tanh, x, span());
    let first = differentiate(&mut graph, y, &[x])[0];
    check_gradients(&graph, &feeds, first, &[x], 1);
}

fn random_tensor(random: &mut Random, sizes: &[usize]) -> Tensor {
    Tensor::new(sizes, (0..sizes.iter().product()).map(|_| random.real(-1.0, 1.0)).collect())
}

/// ⟨u, Jv⟩ = ⟨Jᵀu, v⟩ where `jv` is linear in the parameter `v`, so that Jv is its value; the bound is 50 times the
/// rounding of such sums.
fn assert_adjoint(mut graph: Graph, mut feeds: Feeds, random: &mut Random, v: ValueId, jv: ValueId) {
    let sizes = graph.sizes(jv);
    let u = param(&mut graph, &mut feeds, "u", random_tensor(random, &sizes));
    let product = graph.binary(Binary::Mul, u, jv, span());
    let root = graph.sum(product, &(0..sizes.len()).collect::<Vec<_>>(), span());
    let jtu = differentiate(&mut graph, root, &[v])[0];
    let left = tensor_value(&graph, &feeds, root).data[0];
    let right = dot(&tensor_value(&graph, &feeds, jtu), &feeds.params["v"]);
    assert!(left.abs() > 1e-6, "the sum says something: {left}");
    assert!((left - right).abs() <= 1e-11 * left.abs().max(1.0), "{left} and {right}");
}

fn slide(position: usize, tap: usize, [stride, dilation, pad]: [usize; 3]) -> Affine {
    let terms = vec![(position, stride as i64), (tap, dilation as i64)];
    Affine { terms, offset: ansatz::dim::Dim::constant(-(pad as i64)) }
}

#[test]
fn convolutions_and_their_gradients_are_adjoint() {
    let mut random = Random::new(11);
    for [stride, dilation, pad] in [[1, 1, 0], [1, 1, 2], [2, 1, 1], [3, 2, 2], [1, 3, 1], [2, 3, 0]] {
        let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
        let v = param(&mut graph, &mut feeds, "v", random_tensor(&mut random, &[3, 2, 11]));
        let weight = param(&mut graph, &mut feeds, "w", random_tensor(&mut random, &[5, 2, 3]));
        let positions = (11 + 2 * pad - dilation * 2 - 1) / stride + 1;
        let [n, o, i, c, k] = [0, 1, 2, 3, 4].map(Affine::index);
        let convolution = Contract {
            domain: dims(&[3, 5, positions, 2, 3]),
            operands: vec![vec![n.clone(), c.clone(), slide(2, 4, [stride, dilation, pad])], vec![o.clone(), c, k]],
            output: vec![n, o, i],
        };
        let jv = graph.contract(convolution, &[v, weight], &dims(&[3, 5, positions]), span());
        assert_adjoint(graph, feeds, &mut random, v, jv);
    }
}

/// Windows that touch, overlap, leave gaps, and reach over the edge.
#[test]
fn sums_over_windows_and_their_gradients_are_adjoint() {
    let mut random = Random::new(12);
    for [window, stride, pad] in [[2, 2, 0], [3, 2, 1], [3, 1, 0], [2, 3, 0], [5, 2, 2]] {
        let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
        let v = param(&mut graph, &mut feeds, "v", random_tensor(&mut random, &[2, 3, 7, 9]));
        let [height, width] = [7, 9].map(|side| (side + 2 * pad - window) / stride + 1);
        let rows = slide(2, 4, [stride, 1, pad]);
        let columns = slide(3, 5, [stride, 1, pad]);
        let [n, c, i, j] = [0, 1, 2, 3].map(Affine::index);
        let pool = Contract {
            domain: dims(&[2, 3, height, width, window, window]),
            operands: vec![vec![n.clone(), c.clone(), rows, columns]],
            output: vec![n, c, i, j],
        };
        let jv = graph.contract(pool, &[v], &dims(&[2, 3, height, width]), span());
        assert_adjoint(graph, feeds, &mut random, v, jv);
    }
}

/// Rows that are read twice, never, and outside the table.
#[test]
fn gathers_and_scatters_are_adjoint_to_their_gradients() {
    let mut random = Random::new(13);
    let by_row = |domain: &[usize]| Indirect {
        domain: dims(domain),
        index: vec![
            IndirectIndex::Tensor { arg: 1, access: vec![Affine::index(0)] },
            IndirectIndex::Affine(Affine::index(1)),
        ],
    };
    let start = || {
        let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
        feeds.inputs.insert("rows".into(), Tensor::new(&[6], vec![2.0, 0.0, 2.0, -1.0, 4.0, 3.0]));
        let rows = graph.input(Input { name: "rows".into(), shape: dims(&[6]), dtype: DType::I32, span: span() });
        (graph, feeds, rows)
    };
    let (mut graph, mut feeds, rows) = start();
    let v = param(&mut graph, &mut feeds, "v", random_tensor(&mut random, &[4, 3]));
    let gathered = graph.gather(by_row(&[6, 3]), &[v, rows], span());
    assert_adjoint(graph, feeds, &mut random, v, gathered);
    let (mut graph, mut feeds, rows) = start();
    let v = param(&mut graph, &mut feeds, "v", random_tensor(&mut random, &[6, 3]));
    let scattered = graph.scatter(by_row(&[6, 3]), &[v, rows], &dims(&[4, 3]), span());
    assert_adjoint(graph, feeds, &mut random, v, scattered);
}

#[test]
fn moves_and_sums_of_elements_are_adjoint_to_their_gradients() {
    type Move = fn(&mut Graph, ValueId) -> ValueId;
    let moves: [Move; 5] = [
        |graph, v| graph.transpose(v, &[2, 0, 1], span()),
        |graph, v| graph.reshape(v, &dims(&[6, 4]), span()),
        |graph, v| graph.broadcast(v, &dims(&[2, 5, 3, 4]), &[0, 2, 3], span()),
        |graph, v| graph.sum(v, &[0, 2], span()),
        |graph, v| graph.unary(Unary::Neg, v, span()),
    ];
    let mut random = Random::new(14);
    for moved in moves {
        let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
        let v = param(&mut graph, &mut feeds, "v", random_tensor(&mut random, &[2, 3, 4]));
        let jv = moved(&mut graph, v);
        assert_adjoint(graph, feeds, &mut random, v, jv);
    }
}

#[test]
fn integers_and_truth_values_pass_no_gradient() {
    let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
    let x = param(&mut graph, &mut feeds, "x", Tensor::full(&[2], 2.5));
    let whole = graph.cast(x, DType::I32, span());
    let back = graph.cast(whole, DType::F32, span());
    let y = graph.sum(back, &[0], span());
    let gradient = differentiate(&mut graph, y, &[x])[0];
    assert_eq!(tensor_value(&graph, &feeds, gradient).data, [0.0, 0.0]);
}
