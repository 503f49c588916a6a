//! What each pass achieves; that it keeps the meaning is tried on random graphs.

use ansatz::dim::Dim;
use ansatz::graph::{
    Affine, Binary, Compare, Contract, DType, Feeds, Graph, Init, Op, Output, Param, Tensor, Unary, ValueId, evaluate,
};

use crate::support::random_graph::Random;
use crate::support::{dims, span};

/// A graph with parameters, simplified and compared with itself as it was.
struct Case {
    graph: Graph,
    feeds: Feeds,
    random: Random,
}

impl Case {
    fn new() -> Self {
        Self { graph: Graph::default(), feeds: Feeds::default(), random: Random::new(3) }
    }

    fn param(&mut self, sizes: &[usize]) -> ValueId {
        let name = format!("p{}", self.graph.params.len());
        let data = (0..sizes.iter().product()).map(|_| self.random.real(-1.0, 1.0)).collect();
        self.feeds.params.insert(name.clone(), Tensor::new(sizes, data));
        self.graph.param(Param { name, shape: dims(sizes), init: Init::Constant(0.0), span: span() })
    }

    fn constant(&mut self, value: f64, sizes: &[usize]) -> ValueId {
        self.graph.constant(value, &dims(sizes), DType::F32, span())
    }

    /// The graph with these results after all passes; the results must agree with those before.
    fn simplified(mut self, results: &[ValueId]) -> Graph {
        self.graph.outputs = results.iter().map(|&value| Output { name: format!("{value:?}").into(), value }).collect();
        let before = evaluate(&self.graph, &self.feeds);
        ansatz::passes::run(&mut self.graph);
        let after = evaluate(&self.graph, &self.feeds);
        for ((name, a), (_, b)) in before.outputs.iter().zip(&after.outputs) {
            let close = a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() <= 1e-12 * a.abs().max(1.0));
            assert!(a.sizes == b.sizes && close, "{name}: {:?} became {:?}", a.data, b.data);
        }
        self.graph
    }
}

fn contracts(graph: &Graph) -> Vec<(&Contract, &[Dim])> {
    let values = graph.values().filter_map(|(_, value)| {
        let Op::Contract(contract) = &value.op else { return None };
        Some((contract, value.shape.as_slice()))
    });
    values.collect()
}

fn count(graph: &Graph, op: &Op) -> usize {
    graph.values().filter(|(_, value)| value.op == *op).count()
}

fn points(contract: &Contract) -> i64 {
    contract.domain.iter().map(|dim| dim.as_const().expect("constant sizes")).product()
}

/// A convolution in one dim, `y[n, o, i] = Σ x[n, c, S*i + D*u - P] w[o, c, u]`.
fn convolution(case: &mut Case, width: usize, window: usize, [stride, dilation, pad]: [usize; 3]) -> [ValueId; 3] {
    let x = case.param(&[2, 3, width]);
    let weight = case.param(&[5, 3, window]);
    let positions = (width + 2 * pad - dilation * (window - 1) - 1) / stride + 1;
    let [n, o, i, c, u] = [0, 1, 2, 3, 4].map(Affine::index);
    let terms = vec![(2, stride as i64), (4, dilation as i64)];
    let slide = Affine { terms, offset: Dim::constant(-(pad as i64)) };
    let contract = Contract {
        domain: dims(&[2, 5, positions, 3, window]),
        operands: vec![vec![n.clone(), c.clone(), slide], vec![o.clone(), c, u]],
        output: vec![n, o, i],
    };
    [case.graph.contract(contract, &[x, weight], &dims(&[2, 5, positions]), span()), x, weight]
}

#[test]
fn gradients_of_convolutions_write_plainly_and_cost_at_most_their_windows() {
    let cases = [
        (32, 3, [1, 1, 1]),
        (32, 5, [1, 1, 0]),
        (17, 3, [1, 2, 2]),
        (32, 3, [2, 1, 1]),
        (32, 7, [2, 1, 3]),
        (17, 2, [2, 1, 0]),
        (32, 1, [2, 1, 0]),
        (33, 3, [3, 1, 0]),
        (31, 4, [4, 1, 2]),
    ];
    for (width, window, settings) in cases {
        let mut case = Case::new();
        let [y, x, weight] = convolution(&mut case, width, window, settings);
        let square = case.graph.binary(Binary::Mul, y, y, span());
        let loss = case.graph.sum(square, &[0, 1, 2], span());
        let gradients = ansatz::grad::differentiate(&mut case.graph, loss, &[x, weight]);
        let graph = case.simplified(&gradients);
        let forward =
            contracts(&graph).into_iter().map(|(contract, _)| points(contract)).next().expect("a convolution");
        for (contract, shape) in contracts(&graph) {
            let plain = |(affine, dim): (&Affine, &Dim)| match affine.as_index() {
                Some(index) => contract.domain[index] == *dim,
                None => *affine == Affine::constant(0) && *dim == Dim::constant(1),
            };
            let all = contract.output.iter().zip(shape).all(plain);
            assert!(all, "{settings:?}: {contract:?} writes at an affine index");
            assert!(points(contract) <= 2 * forward, "{settings:?}: {} points for {forward}", points(contract));
        }
    }
}

#[test]
fn gradients_that_are_the_same_at_all_places_are_summed_before_they_are_multiplied() {
    for settings in [[1, 1, 1], [1, 2, 2], [2, 1, 1], [3, 1, 0]] {
        let mut case = Case::new();
        let [y, x, weight] = convolution(&mut case, 64, 3, settings);
        let means = case.graph.sum(y, &[2], span());
        let square = case.graph.binary(Binary::Mul, means, means, span());
        let loss = case.graph.sum(square, &[0, 1], span());
        let gradients = ansatz::grad::differentiate(&mut case.graph, loss, &[x, weight]);
        let graph = case.simplified(&gradients);
        let output = |id: usize| graph.value(graph.outputs[id].value).clone();
        assert_eq!((output(0).shape, output(1).shape), (dims(&[2, 3, 64]), dims(&[5, 3, 3])));
        // All contractions but the convolution itself: windows of x without its 5 results, and the written result.
        let all: Vec<i64> = contracts(&graph).into_iter().map(|(contract, _)| points(contract)).collect();
        let forward = all.iter().max().expect("the convolution");
        let others: i64 = all.iter().sum::<i64>() - forward;
        assert!(others <= 5 * forward / 4, "{settings:?}: {all:?}");
        assert!(all.iter().filter(|points| *points * 2 > *forward).count() == 1, "{settings:?}: {all:?}");
    }
}

#[test]
fn a_result_that_repeats_is_summed_once() {
    // y[n, f, o] = Σ_k a[n, k] · b[o, k] for each f.
    let mut case = Case::new();
    let (a, b) = (case.param(&[6, 7]), case.param(&[5, 7]));
    let [n, f, o, k] = [0, 1, 2, 3].map(Affine::index);
    let contract = Contract {
        domain: dims(&[6, 9, 5, 7]),
        operands: vec![vec![n.clone(), k.clone()], vec![o.clone(), k]],
        output: vec![n, f, o],
    };
    let y = case.graph.contract(contract, &[a, b], &dims(&[6, 9, 5]), span());
    let graph = case.simplified(&[y]);
    let work: Vec<i64> = contracts(&graph).into_iter().map(|(contract, _)| points(contract)).collect();
    assert_eq!(work, [6 * 7 * 5, 6 * 9 * 5]);
}

#[test]
fn the_backward_half_reads_a_rectifiers_output() {
    let mut case = Case::new();
    let x = case.param(&[17]);
    let w = case.param(&[17]);
    let product = case.graph.binary(Binary::Mul, x, w, span());
    let zero = case.constant(0.0, &[17]);
    let positive = case.graph.compare(Compare::Gt, product, zero, span());
    let y = case.graph.select(positive, product, zero, span());
    let square = case.graph.binary(Binary::Mul, y, y, span());
    let loss = case.graph.sum(square, &[0], span());
    let gradient = ansatz::grad::differentiate(&mut case.graph, loss, &[x])[0];
    let graph = case.simplified(&[gradient]);
    let compared: Vec<&Op> = graph
        .values()
        .filter(|(_, value)| value.op == Op::Compare(Compare::Gt))
        .map(|(_, value)| &graph.value(value.args[0]).op)
        .collect();
    assert_eq!(compared, [&Op::Binary(Binary::Mul), &Op::Select]);
}

#[test]
fn a_rectifier_that_keeps_what_is_not_a_number_is_a_maximum_or_minimum() {
    for (compare, op) in [(Compare::Le, Binary::Max), (Compare::Ge, Binary::Min)] {
        let mut case = Case::new();
        let x = case.param(&[17]);
        let bound = case.constant(0.25, &[17]);
        let beyond = case.graph.compare(compare, x, bound, span());
        let y = case.graph.select(beyond, bound, x, span());
        let square = case.graph.binary(Binary::Mul, y, y, span());
        let loss = case.graph.sum(square, &[0], span());
        let gradient = ansatz::grad::differentiate(&mut case.graph, loss, &[x])[0];
        case.feeds.params.get_mut("p0").expect("a parameter").data[..2].copy_from_slice(&[0.25, 7.0]);
        let graph = case.simplified(&[y, gradient]);
        assert_eq!(count(&graph, &Op::Binary(op)), 1);
        let compared: Vec<&Op> = graph
            .values()
            .filter(|(_, value)| value.op == Op::Compare(compare))
            .map(|(_, value)| &graph.value(value.args[0]).op)
            .collect();
        assert_eq!(compared, [&Op::Binary(op)], "the backward half reads the output");
    }
}

#[test]
fn zero_times_what_may_be_infinite_stays_a_product() {
    let mut case = Case::new();
    let x = case.param(&[5]);
    let zero = case.constant(0.0, &[5]);
    let index = case.graph.index(0, &dims(&[5]), span());
    let index = case.graph.cast(index, DType::F32, span());
    let (kept, folded) =
        (case.graph.binary(Binary::Mul, x, zero, span()), case.graph.binary(Binary::Mul, index, zero, span()));
    let graph = case.simplified(&[kept, folded]);
    assert_eq!(count(&graph, &Op::Binary(Binary::Mul)), 1);
    assert_eq!(graph.value(graph.outputs[1].value).op, Op::Const(0.0));
}

#[test]
fn a_sum_of_a_broadcast_is_a_scaling() {
    let mut case = Case::new();
    let x = case.param(&[5]);
    let wide = case.graph.broadcast(x, &dims(&[7, 5]), &[1], span());
    let y = case.graph.sum(wide, &[0], span());
    let graph = case.simplified(&[y]);
    assert!(contracts(&graph).is_empty());
    assert_eq!(count(&graph, &Op::Const(7.0)), 1);
}

#[test]
fn a_product_reads_through_transpositions_broadcasts_and_pads() {
    let mut case = Case::new();
    let a = case.param(&[3, 5, 2]);
    let b = case.param(&[7, 5]);
    let turned = case.graph.transpose(a, &[2, 0, 1], span());
    let wide = case.graph.broadcast(b, &dims(&[2, 7, 5]), &[1, 2], span());
    let [g, m, n, k] = [0, 1, 2, 3].map(Affine::index);
    let contract = Contract {
        domain: dims(&[2, 3, 7, 5]),
        operands: vec![vec![g.clone(), m.clone(), k.clone()], vec![g.clone(), n.clone(), k]],
        output: vec![g, m, n],
    };
    let y = case.graph.contract(contract, &[turned, wide], &dims(&[2, 3, 7]), span());
    let graph = case.simplified(&[y]);
    assert_eq!(contracts(&graph).len(), 1);
}

#[test]
fn a_guard_that_the_source_does_not_imply_keeps_its_view() {
    // v repeats one element four times; reading v beyond its end gives 0, reading the element would not.
    let mut case = Case::new();
    let x = case.param(&[1]);
    let read = vec![Affine::constant(0)];
    let repeat = Contract { domain: dims(&[4]), operands: vec![read], output: vec![Affine::index(0)] };
    let v = case.graph.contract(repeat, &[x], &dims(&[4]), span());
    let beyond = vec![Affine { terms: vec![(0, 1)], offset: Dim::constant(2) }];
    let shift = Contract { domain: dims(&[4]), operands: vec![beyond], output: vec![Affine::index(0)] };
    let y = case.graph.contract(shift, &[v], &dims(&[4]), span());
    let graph = case.simplified(&[y]);
    assert_eq!(contracts(&graph).len(), 2);
}

#[test]
fn constants_leave_a_product() {
    let mut case = Case::new();
    let (a, b) = (case.param(&[3, 5]), case.param(&[5, 7]));
    let quarter = case.constant(0.25, &[3, 5]);
    let scaled = case.graph.binary(Binary::Mul, quarter, a, span());
    let negative = case.graph.unary(Unary::Neg, b, span());
    let contract = Contract {
        domain: dims(&[3, 7, 5]),
        operands: vec![vec![Affine::index(0), Affine::index(2)], vec![Affine::index(2), Affine::index(1)]],
        output: vec![Affine::index(0), Affine::index(1)],
    };
    let y = case.graph.contract(contract, &[scaled, negative], &dims(&[3, 7]), span());
    let graph = case.simplified(&[y]);
    assert_eq!(graph.len(), 5);
    assert_eq!(count(&graph, &Op::Const(-0.25)), 1);
}

#[test]
fn a_constant_operand_with_guarded_reads_stays() {
    // Ones read with padding count how many positions lie inside: not a constant.
    let mut case = Case::new();
    let ones = case.constant(1.0, &[4]);
    let slide = vec![Affine { terms: vec![(0, 1), (1, 1)], offset: Dim::constant(-1) }];
    let contract = Contract { domain: dims(&[4, 3]), operands: vec![slide], output: vec![Affine::index(0)] };
    let y = case.graph.contract(contract, &[ones], &dims(&[4]), span());
    assert_eq!(contracts(&case.simplified(&[y])).len(), 1);
}

#[test]
fn elementwise_work_happens_before_elements_are_repeated() {
    let mut case = Case::new();
    let (variance, x) = (case.param(&[3]), case.param(&[3, 17]));
    let positive = case.graph.unary(Unary::Exp, variance, span());
    let wide = case.graph.broadcast(positive, &dims(&[3, 17]), &[0], span());
    let tiny = case.constant(1e-5, &[3, 17]);
    let shifted = case.graph.binary(Binary::Add, wide, tiny, span());
    let root = case.graph.unary(Unary::Sqrt, shifted, span());
    let y = case.graph.binary(Binary::Div, x, root, span());
    let graph = case.simplified(&[y]);
    let wide = graph.values().filter(|(_, value)| value.shape == dims(&[3, 17])).count();
    // x, the repeated root and the quotient.
    assert_eq!(wide, 3);
}

#[test]
fn neutral_elements_and_double_signs_vanish() {
    let mut case = Case::new();
    let x = case.param(&[3]);
    let (zero, one) = (case.constant(0.0, &[3]), case.constant(1.0, &[3]));
    let sum = case.graph.binary(Binary::Add, zero, x, span());
    let product = case.graph.binary(Binary::Mul, one, sum, span());
    let negative = case.graph.unary(Unary::Neg, product, span());
    let positive = case.graph.unary(Unary::Neg, negative, span());
    let detached = case.graph.detach(positive, span());
    let power = case.graph.binary(Binary::Pow, detached, one, span());
    assert_eq!(case.simplified(&[power]).len(), 1);
}

#[test]
fn powers_with_small_exponents_are_products_and_roots() {
    for exponent in [2.0, 3.0, 0.5, -0.5, -1.0, -2.0] {
        let mut case = Case::new();
        let x = case.param(&[3]);
        let positive = case.graph.unary(Unary::Exp, x, span());
        let exponent = case.constant(exponent, &[3]);
        let y = case.graph.binary(Binary::Pow, positive, exponent, span());
        assert_eq!(count(&case.simplified(&[y]), &Op::Binary(Binary::Pow)), 0);
    }
}

#[test]
fn equal_values_are_computed_once_and_unused_ones_never() {
    let mut case = Case::new();
    let (a, b) = (case.param(&[3]), case.param(&[3]));
    let first = case.graph.binary(Binary::Mul, a, b, span());
    let second = case.graph.binary(Binary::Mul, b, a, span());
    case.graph.unary(Unary::Exp, second, span());
    let y = case.graph.binary(Binary::Sub, first, second, span());
    let graph = case.simplified(&[y]);
    assert_eq!(count(&graph, &Op::Binary(Binary::Mul)), 1);
    assert_eq!(count(&graph, &Op::Unary(Unary::Exp)), 0);
}

#[test]
fn a_transposed_product_is_a_product() {
    let mut case = Case::new();
    let (a, b) = (case.param(&[3, 5]), case.param(&[5, 7]));
    let contract = Contract {
        domain: dims(&[3, 7, 5]),
        operands: vec![vec![Affine::index(0), Affine::index(2)], vec![Affine::index(2), Affine::index(1)]],
        output: vec![Affine::index(0), Affine::index(1)],
    };
    let product = case.graph.contract(contract, &[a, b], &dims(&[3, 7]), span());
    let y = case.graph.transpose(product, &[1, 0], span());
    assert_eq!(contracts(&case.simplified(&[y])).len(), 1);
}

#[test]
fn symbolic_sizes_pass_through_all_passes() {
    let mut graph = Graph::default();
    let (n, c) = (Dim::var("N"), Dim::var("C"));
    let shape = [n.clone(), c.clone()];
    let x = graph.param(Param { name: "x".into(), shape: shape.to_vec(), init: Init::Constant(0.0), span: span() });
    let mean = graph.sum(x, &[1], span());
    let wide = graph.broadcast(mean, &shape, &[0], span());
    let centred = graph.binary(Binary::Sub, x, wide, span());
    let most = graph.reduce_max(centred, &[0, 1], span());
    let gradient = ansatz::grad::differentiate(&mut graph, most, &[x])[0];
    graph.outputs.push(Output { name: "gradient".into(), value: gradient });
    ansatz::passes::run(&mut graph);
    assert_eq!(graph.shape(graph.outputs[0].value), shape);
}

#[test]
fn a_quotient_by_repeated_elements_divides_before_they_are_repeated() {
    let mut case = Case::new();
    let (x, y) = (case.param(&[3, 17]), case.param(&[3]));
    let positive = case.graph.unary(Unary::Exp, y, span());
    let wide = case.graph.broadcast(positive, &dims(&[3, 17]), &[0], span());
    let quotient = case.graph.binary(Binary::Div, x, wide, span());
    let graph = case.simplified(&[quotient]);
    let divisions = graph.values().filter(|(_, value)| value.op == Op::Binary(Binary::Div));
    assert!(divisions.map(|(_, value)| value.shape.clone()).eq([dims(&[3])]));
}

#[test]
fn a_factor_that_a_sum_does_not_touch_leaves_it() {
    let mut case = Case::new();
    let (x, y) = (case.param(&[3, 17]), case.param(&[3]));
    let wide = case.graph.broadcast(y, &dims(&[3, 17]), &[0], span());
    let product = case.graph.binary(Binary::Mul, x, wide, span());
    let sum = case.graph.sum(product, &[1], span());
    let graph = case.simplified(&[sum]);
    let products = graph.values().filter(|(_, value)| value.op == Op::Binary(Binary::Mul));
    assert!(products.map(|(_, value)| value.shape.clone()).eq([dims(&[3])]));
}

#[test]
fn repeated_factors_and_constants_of_a_product_meet_before_they_are_repeated() {
    let mut case = Case::new();
    let (x, a, b) = (case.param(&[3, 17]), case.param(&[3]), case.param(&[3]));
    let shape = dims(&[3, 17]);
    let (a, b) = (case.graph.broadcast(a, &shape, &[0], span()), case.graph.broadcast(b, &shape, &[0], span()));
    let half = case.constant(0.5, &[3, 17]);
    let first = case.graph.binary(Binary::Mul, x, a, span());
    let second = case.graph.binary(Binary::Mul, first, half, span());
    let third = case.graph.binary(Binary::Mul, b, second, span());
    let graph = case.simplified(&[third]);
    let wide = graph.values().filter(|(_, value)| value.op == Op::Binary(Binary::Mul) && value.shape == shape);
    assert_eq!(wide.count(), 1);
}

#[test]
fn a_product_without_a_sum_is_elementwise() {
    let mut case = Case::new();
    let (a, b) = (case.param(&[3]), case.param(&[5, 3]));
    let contract = Contract {
        domain: dims(&[5, 3]),
        operands: vec![vec![Affine::index(1)], vec![Affine::index(0), Affine::index(1)]],
        output: vec![Affine::index(0), Affine::index(1)],
    };
    let y = case.graph.contract(contract, &[a, b], &dims(&[5, 3]), span());
    let graph = case.simplified(&[y]);
    assert_eq!(count(&graph, &Op::Binary(Binary::Mul)), 1);
    assert!(contracts(&graph).iter().all(|(contract, _)| contract.operands.len() == 1));
}
