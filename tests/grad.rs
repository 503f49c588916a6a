//! The gradient walk: sums over uses, parameters read twice, independence, the dot-product identity.

use ansatz::grad::differentiate;
use ansatz::graph::{Affine, Binary, Contract, DType, Feeds, Graph, Init, Op, Param, Tensor, Unary, ValueId};

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

/// ⟨u, Jv⟩ = ⟨Jᵀu, v⟩ for the linear ops, of which Jv is the op itself; the bound is 50 times the rounding of such sums.
#[test]
fn linear_ops_and_their_gradients_are_adjoint() {
    let mut random = Random::new(11);
    for (stride, dilation, pad) in [(1, 1, 0), (1, 1, 2), (2, 1, 1), (3, 2, 2), (1, 3, 1), (2, 3, 0)] {
        let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
        let mut tensor =
            |sizes: &[usize]| Tensor::new(sizes, (0..sizes.iter().product()).map(|_| random.real(-1.0, 1.0)).collect());
        let v = param(&mut graph, &mut feeds, "v", tensor(&[3, 2, 11]));
        let weight = param(&mut graph, &mut feeds, "w", tensor(&[5, 2, 3]));
        let positions = (11 + 2 * pad - dilation * 2 - 1) / stride + 1;
        let slide = Affine {
            terms: vec![(2, stride as i64), (4, dilation as i64)],
            offset: ansatz::dim::Dim::constant(-(pad as i64)),
        };
        let [n, o, i, c, k] = [0, 1, 2, 3, 4].map(Affine::index);
        let convolution = Contract {
            domain: dims(&[3, 5, positions, 2, 3]),
            operands: vec![vec![n.clone(), c.clone(), slide], vec![o.clone(), c, k]],
            output: vec![n, o, i],
        };
        let shape = dims(&[3, 5, positions]);
        let jv = graph.contract(convolution, &[v, weight], &shape, span());
        let u = param(&mut graph, &mut feeds, "u", tensor(&[3, 5, positions]));
        let product = graph.binary(Binary::Mul, u, jv, span());
        let root = graph.sum(product, &[0, 1, 2], span());
        let jtu = differentiate(&mut graph, root, &[v])[0];
        let left = tensor_value(&graph, &feeds, root).data[0];
        let right = dot(&tensor_value(&graph, &feeds, jtu), &feeds.params["v"]);
        assert!((left - right).abs() <= 1e-11 * left.abs().max(1.0), "{left} and {right}");
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
