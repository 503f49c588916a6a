//! The reference evaluator: the meaning of the ops, slow and in f64, written without the lowering code.
//!
//! Input: a graph with bound sizes and a feed for each entry. Output: outputs and updates.
//! Representation: F32 as f64, I32 as exact integers in f64, Bool as 0 or 1.

use std::collections::HashMap;

use super::scalar::{ClockReading, binary, binary_integer, compare, exceeds, truth, unary};
use super::{
    Access, Affine, Contract, DType, Graph, Indirect, IndirectIndex, Op, OutputName, Unary, Value, ValueId, Variable,
    philox,
};
use crate::dim;

/// A row-major tensor of f64.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Tensor {
    /// Its sizes.
    pub sizes: Vec<usize>,
    /// Its elements.
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor of these sizes and elements.
    ///
    /// # Panics
    /// When the count of elements is not the product of the sizes.
    pub fn new(sizes: &[usize], data: Vec<f64>) -> Self {
        assert_eq!(sizes.iter().product::<usize>(), data.len(), "element count of {sizes:?}");
        Self { sizes: sizes.to_vec(), data }
    }

    /// A tensor of equal elements.
    pub fn full(sizes: &[usize], value: f64) -> Self {
        Self { sizes: sizes.to_vec(), data: vec![value; sizes.iter().product()] }
    }

    /// Position of an index in `data`; none out of range.
    fn position(&self, index: impl IntoIterator<Item = i64>) -> Option<usize> {
        let mut position = 0;
        for (size, index) in self.sizes.iter().zip(index) {
            let index = usize::try_from(index).ok().filter(|index| index < size)?;
            position = position * size + index;
        }
        Some(position)
    }

    /// The element at an index; 0 out of range.
    fn read(&self, index: impl IntoIterator<Item = i64>) -> f64 {
        self.position(index).map_or(0.0, |position| self.data[position])
    }
}

/// What a step reads.
#[derive(Clone, Debug)]
pub struct Feeds {
    /// Inputs by name.
    pub inputs: HashMap<String, Tensor>,
    /// Parameters by name.
    pub params: HashMap<String, Tensor>,
    /// States by name.
    pub states: HashMap<String, Tensor>,
    /// Host scalars by name; those absent are computed from their formula.
    pub scalars: HashMap<String, f64>,
    /// The clock for host scalars; its step also numbers the draws of [`Op::Random`].
    pub clock: ClockReading,
    /// Keys the draws of [`Op::Random`].
    pub seed: u64,
}

impl Default for Feeds {
    fn default() -> Self {
        Self {
            inputs: HashMap::new(),
            params: HashMap::new(),
            states: HashMap::new(),
            scalars: HashMap::new(),
            clock: ClockReading { step: 1, total_steps: 1, steps_per_epoch: 1 },
            seed: 0,
        }
    }
}

/// What a step gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Outputs in the graph's order.
    pub outputs: Vec<(OutputName, Tensor)>,
    /// Updates in the graph's order.
    pub updates: Vec<(Variable, Tensor)>,
}

impl Evaluation {
    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|(output, _)| output.to_string() == name).map(|(_, tensor)| tensor)
    }
}

/// Evaluates a step.
///
/// # Panics
/// Where a feed is missing or of another size, or a dim is symbolic: a bug of the caller.
pub fn evaluate(graph: &Graph, feeds: &Feeds) -> Evaluation {
    let values = evaluate_values(graph, feeds);
    let at = |id: ValueId| values[id.0 as usize].clone();
    Evaluation {
        outputs: graph.outputs.iter().map(|output| (output.name.clone(), at(output.value))).collect(),
        updates: graph.updates.iter().map(|update| (update.target, at(update.value))).collect(),
    }
}

/// Every value of the graph, in order.
///
/// # Panics
/// As [`evaluate`].
pub fn evaluate_values(graph: &Graph, feeds: &Feeds) -> Vec<Tensor> {
    let mut values: Vec<Tensor> = Vec::with_capacity(graph.len());
    for (id, value) in graph.values() {
        let args: Vec<&Tensor> = value.args.iter().map(|arg| &values[arg.0 as usize]).collect();
        let tensor = evaluate_value(graph, value, &graph.sizes(id), &args, feeds);
        values.push(tensor);
    }
    values
}

fn evaluate_value(graph: &Graph, value: &Value, sizes: &[usize], args: &[&Tensor], feeds: &Feeds) -> Tensor {
    let count = sizes.iter().product::<usize>();
    match &value.op {
        Op::Input(id) => fed(&feeds.inputs, &graph.inputs[id.0 as usize].name, sizes),
        Op::Param(id) => fed(&feeds.params, &graph.params[id.0 as usize].name, sizes),
        Op::State(id) => fed(&feeds.states, &graph.states[id.0 as usize].name, sizes),
        Op::Scalar(id) => {
            let scalar = &graph.scalars[id.0 as usize];
            let given = feeds.scalars.get(&scalar.name).copied();
            Tensor::full(sizes, given.unwrap_or_else(|| scalar.expr.evaluate(&feeds.clock)))
        }
        Op::Const(number) => Tensor::full(sizes, convert(*number, DType::F32, value.dtype)),
        Op::Size(dim) => Tensor::full(sizes, dim.as_const().expect("sizes are bound before evaluation") as f64),
        Op::Index { axis } => Tensor::new(sizes, points(sizes).map(|point| point[*axis] as f64).collect()),
        Op::Random { stream } => {
            let draw = |element| f64::from(philox::uniform(feeds.seed, feeds.clock.step, *stream, element as u64));
            Tensor::new(sizes, (0..count).map(draw).collect())
        }
        Op::Unary(op) => {
            let apply = |&x: &f64| match (op, value.dtype) {
                (Unary::Neg, DType::I32) => f64::from((x as i32).wrapping_neg()),
                (Unary::Abs, DType::I32) => f64::from((x as i32).wrapping_abs()),
                (op, _) => unary(*op, x),
            };
            Tensor::new(sizes, args[0].data.iter().map(apply).collect())
        }
        Op::Binary(op) => {
            let apply = |(&a, &b): (&f64, &f64)| match value.dtype {
                DType::I32 => f64::from(binary_integer(*op, a as i32, b as i32)),
                DType::F32 | DType::Bool => binary(*op, a, b),
            };
            Tensor::new(sizes, args[0].data.iter().zip(&args[1].data).map(apply).collect())
        }
        Op::Compare(op) => {
            let apply = |(&a, &b): (&f64, &f64)| truth(compare(*op, a, b));
            Tensor::new(sizes, args[0].data.iter().zip(&args[1].data).map(apply).collect())
        }
        Op::Select => {
            let choose = |i: usize| if args[0].data[i] != 0.0 { args[1].data[i] } else { args[2].data[i] };
            Tensor::new(sizes, (0..count).map(choose).collect())
        }
        Op::Cast => {
            let from = graph.value(value.args[0]).dtype;
            Tensor::new(sizes, args[0].data.iter().map(|&x| convert(x, from, value.dtype)).collect())
        }
        Op::Detach | Op::Reshape => Tensor::new(sizes, args[0].data.clone()),
        Op::Contract(contract) => contracted(contract, sizes, args),
        Op::ReduceMax { axes } => first_maxima(args[0], axes, sizes, value.dtype).0,
        Op::ArgMax { axes } => first_maxima(args[0], axes, sizes, value.dtype).1,
        Op::Gather(indirect) => {
            let domain = dim::bound(&indirect.domain);
            Tensor::new(sizes, points(&domain).map(|d| args[0].read(address(indirect, args, &d))).collect())
        }
        Op::Scatter(indirect) => {
            let mut out = Tensor::full(sizes, 0.0);
            for (source, d) in points(&dim::bound(&indirect.domain)).enumerate() {
                if let Some(position) = out.position(address(indirect, args, &d)) {
                    out.data[position] += args[0].data[source];
                }
            }
            out
        }
    }
}

fn fed(feeds: &HashMap<String, Tensor>, name: &str, sizes: &[usize]) -> Tensor {
    let tensor = feeds.get(name).unwrap_or_else(|| panic!("no feed for `{name}`"));
    assert_eq!(tensor.sizes, sizes, "sizes of the feed for `{name}`");
    tensor.clone()
}

/// F32 → I32 truncates and saturates, not-a-number is 0; number → Bool is `≠ 0`.
fn convert(x: f64, from: DType, to: DType) -> f64 {
    match (from, to) {
        (DType::F32, DType::I32) => f64::from(x as i32),
        (_, DType::Bool) => truth(x != 0.0),
        (DType::F32 | DType::I32 | DType::Bool, DType::F32) | (DType::I32 | DType::Bool, DType::I32) => x,
    }
}

/// All points of a domain in row-major order.
fn points(sizes: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let sizes = sizes.to_vec();
    let count: usize = sizes.iter().product();
    (0..count).map(move |number| {
        let mut rest = number;
        let mut point = vec![0; sizes.len()];
        for (axis, &size) in sizes.iter().enumerate().rev() {
            point[axis] = rest % size;
            rest /= size;
        }
        point
    })
}

fn affine(affine: &Affine, d: &[usize]) -> i64 {
    let offset = affine.offset.as_const().expect("sizes are bound before evaluation");
    affine.terms.iter().map(|&(index, coefficient)| coefficient * d[index] as i64).sum::<i64>() + offset
}

fn access<'a>(access: &'a Access, d: &'a [usize]) -> impl Iterator<Item = i64> + 'a {
    access.iter().map(move |entry| affine(entry, d))
}

fn contracted(contract: &Contract, sizes: &[usize], args: &[&Tensor]) -> Tensor {
    let mut out = Tensor::full(sizes, 0.0);
    for d in points(&dim::bound(&contract.domain)) {
        if let Some(position) = out.position(access(&contract.output, &d)) {
            let reads = contract.operands.iter().zip(args).map(|(operand, arg)| arg.read(access(operand, &d)));
            out.data[position] += reads.product::<f64>();
        }
    }
    out
}

fn address<'a>(indirect: &'a Indirect, args: &'a [&Tensor], d: &'a [usize]) -> impl Iterator<Item = i64> + 'a {
    indirect.index.iter().map(move |index| match index {
        IndirectIndex::Affine(entry) => affine(entry, d),
        IndirectIndex::Tensor { arg, access: read } => args[*arg].read(access(read, d)) as i64,
    })
}

/// The maxima over `axes` and the row-major index within `axes` of the first of each.
/// Of nothing: the least value of the type, and 0.
fn first_maxima(x: &Tensor, axes: &[usize], sizes: &[usize], dtype: DType) -> (Tensor, Tensor) {
    let least = if dtype == DType::I32 { f64::from(i32::MIN) } else { f64::NEG_INFINITY };
    let mut maxima = Tensor::full(sizes, least);
    let mut indices = Tensor::full(sizes, 0.0);
    let mut seen = vec![0usize; maxima.data.len()];
    for (element, point) in x.data.iter().zip(points(&x.sizes)) {
        let kept = point.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &index)| index as i64);
        let position = maxima.position(kept).expect("a kept index lies in the reduced shape");
        if exceeds(*element, maxima.data[position]) {
            maxima.data[position] = *element;
            indices.data[position] = seen[position] as f64;
        }
        seen[position] += 1;
    }
    (maxima, indices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::graph::{Binary, Input, Output};
    use crate::source::{FileId, Span};

    fn dims(sizes: &[usize]) -> Vec<Dim> {
        sizes.iter().map(|&size| Dim::constant(size as i64)).collect()
    }

    fn span() -> Span {
        Span::new(FileId(0), 0, 0)
    }

    /// A graph with F32 inputs `a`, `b`, … of these sizes and elements 1, 2, 3, ….
    fn inputs(sizes: &[&[usize]]) -> (Graph, Feeds, Vec<ValueId>) {
        let (mut graph, mut feeds) = (Graph::default(), Feeds::default());
        let mut ids = Vec::new();
        for (letter, sizes) in ('a'..).zip(sizes) {
            let name = letter.to_string();
            let count = sizes.iter().product::<usize>();
            feeds.inputs.insert(name.clone(), Tensor::new(sizes, (1..=count).map(|x| x as f64).collect()));
            ids.push(graph.input(Input { name, shape: dims(sizes), dtype: DType::F32, span: span() }));
        }
        (graph, feeds, ids)
    }

    fn result(mut graph: Graph, feeds: &Feeds, value: ValueId) -> Vec<f64> {
        graph.outputs.push(Output { name: "y".into(), value });
        crate::graph::verify(&graph).expect("the graph is valid");
        evaluate(&graph, feeds).output("y").expect("declared above").data.clone()
    }

    #[test]
    fn a_contraction_multiplies_matrices() {
        let (mut graph, feeds, ids) = inputs(&[&[2, 3], &[2, 3]]);
        let contract = Contract {
            domain: dims(&[2, 2, 3]),
            operands: vec![vec![Affine::index(0), Affine::index(2)], vec![Affine::index(1), Affine::index(2)]],
            output: vec![Affine::index(0), Affine::index(1)],
        };
        let y = graph.contract(contract, &ids, &dims(&[2, 2]), span());
        assert_eq!(result(graph, &feeds, y), [14.0, 32.0, 32.0, 77.0]);
    }

    #[test]
    fn reads_out_of_range_give_zero_and_writes_out_of_range_are_dropped() {
        let (mut graph, feeds, ids) = inputs(&[&[3]]);
        let shifted = |offset| vec![Affine { terms: vec![(0, 1)], offset: Dim::constant(offset) }];
        let read = Contract { domain: dims(&[3]), operands: vec![shifted(1)], output: vec![Affine::index(0)] };
        let write = Contract { domain: dims(&[3]), operands: vec![vec![Affine::index(0)]], output: shifted(-1) };
        let a = graph.contract(read, &ids, &dims(&[3]), span());
        let b = graph.contract(write, &ids, &dims(&[3]), span());
        assert_eq!(result(graph.clone(), &feeds, a), [2.0, 3.0, 0.0]);
        assert_eq!(result(graph, &feeds, b), [2.0, 3.0, 0.0]);
    }

    #[test]
    fn gather_reads_rows_and_scatter_adds_them_back() {
        let (mut graph, mut feeds, ids) = inputs(&[&[3, 2]]);
        let rows = Input { name: "rows".into(), shape: dims(&[4]), dtype: DType::I32, span: span() };
        feeds.inputs.insert("rows".into(), Tensor::new(&[4], vec![2.0, 0.0, 2.0, -1.0]));
        let rows = graph.input(rows);
        let indirect = Indirect {
            domain: dims(&[4, 2]),
            index: vec![
                IndirectIndex::Tensor { arg: 1, access: vec![Affine::index(0)] },
                IndirectIndex::Affine(Affine::index(1)),
            ],
        };
        let y = graph.gather(indirect.clone(), &[ids[0], rows], span());
        let back = graph.scatter(indirect, &[y, rows], &dims(&[3, 2]), span());
        assert_eq!(result(graph.clone(), &feeds, y), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0, 0.0, 0.0]);
        assert_eq!(result(graph, &feeds, back), [1.0, 2.0, 0.0, 0.0, 10.0, 12.0]);
    }

    #[test]
    fn broadcast_transpose_sum_and_maximum_follow_their_axes() {
        let (mut graph, feeds, ids) = inputs(&[&[2, 3]]);
        let transposed = graph.transpose(ids[0], &[1, 0], span());
        let sum = graph.sum(ids[0], &[1], span());
        let wide = graph.broadcast(sum, &dims(&[3, 2]), &[1], span());
        let total = graph.binary(Binary::Add, transposed, wide, span());
        let index = graph.arg_max(total, &[0], span());
        assert_eq!(result(graph.clone(), &feeds, total), [7.0, 19.0, 8.0, 20.0, 9.0, 21.0]);
        assert_eq!(result(graph, &feeds, index), [2.0, 2.0]);
    }

    #[test]
    fn the_first_of_equal_maxima_wins() {
        let (mut graph, mut feeds, ids) = inputs(&[&[2, 2]]);
        feeds.inputs.insert("a".into(), Tensor::new(&[2, 2], vec![1.0, 5.0, 5.0, 5.0]));
        let index = graph.arg_max(ids[0], &[0, 1], span());
        assert_eq!(result(graph, &feeds, index), [1.0]);
    }

    #[test]
    fn the_first_that_is_not_a_number_is_the_maximum() {
        let (mut graph, mut feeds, ids) = inputs(&[&[2, 3]]);
        let data = vec![1.0, f64::NAN, f64::NAN, f64::NEG_INFINITY, 2.0, f64::INFINITY];
        feeds.inputs.insert("a".into(), Tensor::new(&[2, 3], data));
        let maximum = graph.reduce_max(ids[0], &[1], span());
        let index = graph.arg_max(ids[0], &[1], span());
        let maximum = result(graph.clone(), &feeds, maximum);
        assert!(maximum[0].is_nan() && maximum[1] == f64::INFINITY, "{maximum:?}");
        assert_eq!(result(graph, &feeds, index), [1.0, 2.0]);
    }
}
