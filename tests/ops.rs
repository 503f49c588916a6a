//! Each core op: its gradient against difference quotients, in every coordinate direction that random ones span.

use ansatz::graph::{
    Affine, Binary, Compare, Contract, DType, Feeds, Graph, Indirect, IndirectIndex, Init, Input, Param, Tensor, Unary,
    ValueId,
};

use crate::support::random_graph::Random;
use crate::support::{check_gradients, dims, span};

/// A graph under construction with two parameters `a` and `b` of `sizes` and elements in `low..high`.
struct Bench {
    graph: Graph,
    feeds: Feeds,
    params: Vec<ValueId>,
    random: Random,
}

impl Bench {
    fn new() -> Self {
        let (graph, feeds) = (Graph::default(), Feeds::default());
        Self { graph, feeds, params: Vec::new(), random: Random::new(5) }
    }

    fn param(&mut self, sizes: &[usize], low: f64, high: f64) -> ValueId {
        let name = format!("p{}", self.params.len());
        let data = (0..sizes.iter().product()).map(|_| self.random.real(low, high)).collect();
        self.feeds.params.insert(name.clone(), Tensor::new(sizes, data));
        let param = Param { name, shape: dims(sizes), init: Init::Constant(0.0), span: span() };
        self.params.push(self.graph.param(param));
        self.params[self.params.len() - 1]
    }

    fn indices(&mut self, name: &str, data: &[f64]) -> ValueId {
        self.feeds.inputs.insert(name.into(), Tensor::new(&[data.len()], data.to_vec()));
        self.graph.input(Input { name: name.into(), shape: dims(&[data.len()]), dtype: DType::I32, span: span() })
    }

    /// Checks the gradient of a smooth, uneven function of `y`.
    fn check(mut self, y: ValueId) {
        let sizes = self.graph.sizes(y);
        let weight = self.param(&sizes, 0.5, 1.5);
        let weighted = self.graph.binary(Binary::Mul, y, weight, span());
        let bent = self.graph.unary(Unary::Sin, weighted, span());
        let axes: Vec<usize> = (0..sizes.len()).collect();
        let loss = self.graph.sum(bent, &axes, span());
        check_gradients(&self.graph, &self.feeds, loss, &self.params, 12);
    }
}

#[test]
fn unary_gradients_agree_with_differences() {
    let cases = [
        (Unary::Neg, -2.0, 2.0),
        (Unary::Abs, -2.0, 2.0),
        (Unary::Exp, -2.0, 2.0),
        (Unary::Log, 0.2, 3.0),
        (Unary::Sqrt, 0.2, 3.0),
        (Unary::Sin, -3.0, 3.0),
        (Unary::Cos, -3.0, 3.0),
        (Unary::Tanh, -2.0, 2.0),
        (Unary::Sigmoid, -4.0, 4.0),
        (Unary::Erf, -2.0, 2.0),
        (Unary::Floor, -3.0, 3.0),
    ];
    for (op, low, high) in cases {
        let mut bench = Bench::new();
        let x = bench.param(&[3, 5], low, high);
        let y = bench.graph.unary(op, x, span());
        bench.check(y);
    }
}

#[test]
fn binary_gradients_agree_with_differences() {
    let cases = [
        (Binary::Add, -2.0, 2.0),
        (Binary::Sub, -2.0, 2.0),
        (Binary::Mul, -2.0, 2.0),
        (Binary::Div, 0.5, 2.0),
        (Binary::Rem, 0.5, 2.0),
        (Binary::Pow, 0.5, 2.0),
        (Binary::Max, -2.0, 2.0),
        (Binary::Min, -2.0, 2.0),
    ];
    for (op, low, high) in cases {
        let mut bench = Bench::new();
        let a = bench.param(&[3, 5], low, high);
        let b = bench.param(&[3, 5], low, high);
        let y = bench.graph.binary(op, a, b, span());
        bench.check(y);
    }
}

#[test]
fn a_power_with_a_constant_exponent_has_a_gradient_at_and_below_zero() {
    for exponent in [0.0, 1.0, 2.0, 3.0] {
        let mut bench = Bench::new();
        let a = bench.param(&[7], -1.0, 1.0);
        bench.feeds.params.get_mut("p0").expect("declared above").data[3] = 0.0;
        let b = bench.graph.constant(exponent, &dims(&[7]), DType::F32, span());
        let y = bench.graph.binary(Binary::Pow, a, b, span());
        bench.check(y);
    }
}

#[test]
fn select_passes_the_gradient_to_the_chosen_side() {
    let mut bench = Bench::new();
    let (a, b) = (bench.param(&[17], -1.0, 1.0), bench.param(&[17], -1.0, 1.0));
    let c = bench.param(&[17], -1.0, 1.0);
    let condition = bench.graph.compare(Compare::Lt, c, a, span());
    let y = bench.graph.select(condition, a, b, span());
    bench.check(y);
}

#[test]
fn reshape_sum_broadcast_and_transpose_gradients_agree_with_differences() {
    let mut bench = Bench::new();
    let x = bench.param(&[2, 3, 5], -1.0, 1.0);
    let turned = bench.graph.transpose(x, &[2, 0, 1], span());
    let flat = bench.graph.reshape(turned, &dims(&[10, 3]), span());
    let row = bench.graph.sum(flat, &[0], span());
    let wide = bench.graph.broadcast(row, &dims(&[3, 7]), &[0], span());
    bench.check(wide);
}

#[test]
fn maximum_gradients_agree_with_differences_over_any_axes() {
    for axes in [vec![], vec![0], vec![1], vec![2], vec![0, 2], vec![1, 2], vec![0, 1, 2]] {
        let mut bench = Bench::new();
        let x = bench.param(&[2, 3, 5], -1.0, 1.0);
        let y = bench.graph.reduce_max(x, &axes, span());
        bench.check(y);
    }
}

#[test]
fn the_gradient_of_a_maximum_goes_to_the_first_of_equals() {
    let mut bench = Bench::new();
    let x = bench.param(&[2, 2], 0.0, 1.0);
    bench.feeds.params.insert("p0".into(), Tensor::new(&[2, 2], vec![1.0, 4.0, 4.0, 2.0]));
    let y = bench.graph.reduce_max(x, &[0, 1], span());
    let gradient = ansatz::grad::differentiate(&mut bench.graph, y, &[x])[0];
    assert_eq!(crate::support::tensor_value(&bench.graph, &bench.feeds, gradient).data, [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn gather_and_scatter_gradients_agree_with_differences() {
    let mut bench = Bench::new();
    let x = bench.param(&[5, 3], -1.0, 1.0);
    let rows = bench.indices("rows", &[4.0, 0.0, 4.0, -1.0, 5.0, 2.0, 2.0]);
    let by_row =
        vec![IndirectIndex::Tensor { arg: 1, access: vec![Affine::index(0)] }, IndirectIndex::Affine(Affine::index(1))];
    let picked = bench.graph.gather(Indirect { domain: dims(&[7, 3]), index: by_row.clone() }, &[x, rows], span());
    let targets = bench.indices("targets", &[1.0, 1.0, 0.0, 2.0, 0.0, 3.0, -2.0]);
    let indirect = Indirect { domain: dims(&[7, 3]), index: by_row };
    let y = bench.graph.scatter(indirect, &[picked, targets], &dims(&[3, 3]), span());
    bench.check(y);
}

/// `y[n, g, o, i] = Σ x[n, g, c, S*i + D*u - P] w[g, o, c, u]` and its transpose, over strides, dilations and pads.
#[test]
fn convolution_gradients_agree_with_differences() {
    for (stride, dilation, pad) in [(1, 1, 0), (1, 1, 1), (2, 1, 1), (3, 1, 0), (2, 2, 2), (1, 3, 2)] {
        for transposed in [false, true] {
            let mut bench = Bench::new();
            let positions = (9 + 2 * pad - dilation * 2 - 1) / stride + 1;
            let weight = bench.param(&[2, 3, 2, 3], -1.0, 1.0);
            let [n, g, o, i, c, u] = [0, 1, 2, 3, 4, 5].map(Affine::index);
            let slide = Affine {
                terms: vec![(3, stride as i64), (5, dilation as i64)],
                offset: ansatz::dim::Dim::constant(-(pad as i64)),
            };
            let domain = dims(&[2, 2, 3, positions, 2, 3]);
            let weights = vec![g.clone(), o.clone(), c.clone(), u];
            let (wide, narrow) = (vec![n.clone(), g.clone(), c, slide], vec![n, g, o, i]);
            let (wide_sizes, narrow_sizes) = ([2, 2, 2, 9], [2, 2, 3, positions]);
            let (read, output, from, to) = match transposed {
                false => (wide, narrow, wide_sizes, narrow_sizes),
                true => (narrow, wide, narrow_sizes, wide_sizes),
            };
            let x = bench.param(&from, -1.0, 1.0);
            let contract = Contract { domain, operands: vec![read, weights], output };
            let y = bench.graph.contract(contract, &[x, weight], &dims(&to), span());
            bench.check(y);
        }
    }
}
