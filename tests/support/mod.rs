//! What several test modules share.

pub mod lowered;
pub mod random_graph;

use ansatz::dim::Dim;
use ansatz::graph::{Feeds, Graph, Op, Output, Tensor, ValueId, evaluate};
use ansatz::source::{FileId, Span};

/// The place of values that stem from no file.
pub fn span() -> Span {
    Span::new(FileId(u32::MAX), 0, 0)
}

/// Constant dims.
pub fn dims(sizes: &[usize]) -> Vec<Dim> {
    sizes.iter().map(|&size| Dim::constant(size as i64)).collect()
}

/// The value of a rank-0 F32 value under these feeds.
pub fn scalar_value(graph: &Graph, feeds: &Feeds, value: ValueId) -> f64 {
    tensor_value(graph, feeds, value).data[0]
}

/// The value of any value under these feeds.
pub fn tensor_value(graph: &Graph, feeds: &Feeds, value: ValueId) -> Tensor {
    let mut graph = graph.clone();
    graph.updates.clear();
    graph.outputs = vec![Output { name: "probe".into(), value }];
    evaluate(&graph, feeds).output("probe").expect("declared above").clone()
}

/// The inner product of two tensors.
pub fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum()
}

/// The largest permitted error of a derivative, relative to max(1, |derivative|). The four-point central difference
/// below errs by h⁴ in the fifth derivative and by ε/h in rounding: at h = 1e-4 both are below 1e-10.
pub const DERIVATIVE_TOLERANCE: f64 = 1e-7;

/// Checks `gradient` (the gradient of `loss` by parameter read `param`) along `direction`.
///
/// Three step sizes are tried, since a kink may lie within the first: a wrong gradient fits none of them.
pub fn check_directional(
    graph: &Graph,
    feeds: &Feeds,
    loss: ValueId,
    param: ValueId,
    gradient: &Tensor,
    direction: &Tensor,
) {
    let Op::Param(id) = graph.value(param).op else { panic!("%{} is not a parameter", param.0) };
    let name = &graph.params[id.0 as usize].name;
    let expected = dot(gradient, direction);
    let at = |t: f64| {
        let mut feeds = feeds.clone();
        let tensor = feeds.params.get_mut(name).expect("every parameter is fed");
        tensor.data.iter_mut().zip(&direction.data).for_each(|(x, d)| *x += t * d);
        scalar_value(graph, &feeds, loss)
    };
    let quotients: Vec<f64> = [1e-4, 1e-5, 1e-6]
        .iter()
        .map(|&h| (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h))
        .collect();
    let scale = expected.abs().max(1.0);
    assert!(
        quotients.iter().any(|quotient| (quotient - expected).abs() <= DERIVATIVE_TOLERANCE * scale),
        "the derivative along a direction of `{name}` is {expected}, differences give {quotients:?}"
    );
}

/// Checks the gradient of `loss` by each of `params`, along `directions` random directions each.
pub fn check_gradients(graph: &Graph, feeds: &Feeds, loss: ValueId, params: &[ValueId], directions: usize) {
    let mut extended = graph.clone();
    let gradients = ansatz::grad::differentiate(&mut extended, loss, params);
    ansatz::graph::verify(&extended).expect("differentiation keeps the graph valid");
    let mut random = random_graph::Random::new(0x5eed);
    for (&param, &gradient) in params.iter().zip(&gradients) {
        let gradient = tensor_value(&extended, feeds, gradient);
        for _ in 0..directions {
            let data = gradient.data.iter().map(|_| random.real(-1.0, 1.0)).collect();
            check_directional(graph, feeds, loss, param, &gradient, &Tensor::new(&gradient.sizes, data));
        }
    }
}

/// A step under test.
pub struct Case {
    pub what: String,
    /// Simplified.
    pub graph: Graph,
    pub feeds: Feeds,
}
