//! Kernels that run slice by slice: where such groups form, and that results do not show it.

use ansatz::cpu::Lowering;
use ansatz::dim::Dim;
use ansatz::grad::differentiate;
use ansatz::graph::{
    Access, Affine, Binary, Contract, DType, Feeds, Graph, Init, Output, Param, Tensor, Unary, ValueId, evaluate,
};
use ansatz::kernel::{Kernel, KernelKind, Persistent, Program};
use ansatz::machine::Level;
use ansatz::machine::pool::Pool;
use ansatz::schedule::plan;
use ansatz::source::{FileId, Span};

use crate::machine_code::compiled_within;
use crate::support::lowered::difference;

const UNGROUPED: usize = usize::MAX;

fn span() -> Span {
    Span::new(FileId(0), 0, 0)
}

fn lowering(slices: usize) -> Lowering {
    Lowering { slices, ..Lowering::default() }
}

/// A graph with its feeds.
#[derive(Default)]
struct Case {
    graph: Graph,
    feeds: Feeds,
}

/// Samples, positions, heads, width of a head.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    t: usize,
    h: usize,
    d: usize,
}

const SIZES: Sizes = Sizes { n: 4, t: 40, h: 6, d: 24 };

impl Case {
    fn dims(sizes: &[usize]) -> Vec<Dim> {
        sizes.iter().map(|&size| Dim::constant(size as i64)).collect()
    }

    fn param(&mut self, name: &str, sizes: &[usize]) -> ValueId {
        let count: usize = sizes.iter().product();
        let salt = name.len() as u64 * 97 + u64::from(name.as_bytes()[0]);
        let number = |place: usize| {
            let mixed = (place as u64 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed >> 40) as f64 / f64::from(1 << 23) - 1.0
        };
        self.feeds.params.insert(name.into(), Tensor::new(sizes, (0..count).map(number).collect()));
        let (name, init) = (name.into(), Init::Constant(0.0));
        self.graph.param(Param { name, shape: Self::dims(sizes), init, span: span() })
    }

    fn contract(&mut self, domain: &[usize], reads: [&[usize]; 2], writes: &[usize], args: [ValueId; 2]) -> ValueId {
        let access = |indices: &[usize]| -> Access { indices.iter().map(|&index| Affine::index(index)).collect() };
        let output = access(writes);
        let sizes: Vec<usize> = writes.iter().map(|&index| domain[index]).collect();
        let contract = Contract { domain: Self::dims(domain), operands: reads.map(access).to_vec(), output };
        self.graph.contract(contract, &args, &Self::dims(&sizes), span())
    }

    /// `[n, h, i, j]` from queries and keys `[n, t, h, d]`.
    fn scores(&mut self, q: ValueId, k: ValueId, Sizes { n, t, h, d }: Sizes) -> ValueId {
        self.contract(&[n, h, t, t, d], [&[0, 2, 1, 4], &[0, 3, 1, 4]], &[0, 1, 2, 3], [q, k])
    }

    fn softmax(&mut self, s: ValueId, Sizes { n, t, h, .. }: Sizes) -> ValueId {
        let shape = Self::dims(&[n, h, t, t]);
        let most = self.graph.reduce_max(s, &[3], span());
        let most = self.graph.broadcast(most, &shape, &[0, 1, 2], span());
        let below = self.graph.binary(Binary::Sub, s, most, span());
        let e = self.graph.unary(Unary::Exp, below, span());
        let sum = self.graph.sum(e, &[3], span());
        let sum = self.graph.broadcast(sum, &shape, &[0, 1, 2], span());
        self.graph.binary(Binary::Div, e, sum, span())
    }

    /// Attention of every head, its loss and the gradients of queries, keys and values.
    fn attention(sizes: Sizes) -> Self {
        let Sizes { n, t, h, d } = sizes;
        let mut case = Self::default();
        let [q, k, v, w] = ["query", "key", "value", "weights"].map(|name| case.param(name, &[n, t, h, d]));
        let s = case.scores(q, k, sizes);
        let a = case.softmax(s, sizes);
        let o = case.contract(&[n, t, h, d, t], [&[0, 2, 1, 4], &[0, 4, 2, 3]], &[0, 1, 2, 3], [a, v]);
        // A loss with curvature: its gradient needs the output first.
        let square = case.graph.binary(Binary::Mul, o, o, span());
        let weighted = case.graph.binary(Binary::Mul, square, w, span());
        let loss = case.graph.sum(weighted, &[0, 1, 2, 3], span());
        case.output("o", o);
        case.output("loss", loss);
        let gradients = differentiate(&mut case.graph, loss, &[q, k, v]);
        for (name, gradient) in ["dq", "dk", "dv"].into_iter().zip(gradients) {
            case.output(name, gradient);
        }
        ansatz::passes::run(&mut case.graph);
        case
    }

    fn output(&mut self, name: &str, value: ValueId) {
        self.graph.outputs.push(Output { name: name.into(), value });
    }

    fn plan(&self, slices: usize) -> Program {
        plan(&self.graph, &Persistent::of(&self.graph), &lowering(slices))
    }
}

fn products(kernels: &[Kernel]) -> usize {
    kernels.iter().filter(|kernel| matches!(kernel.kind, KernelKind::Product(_))).count()
}

#[test]
fn attention_runs_head_by_head_forward_and_backward() {
    let program = Case::attention(SIZES).plan(16);
    let [forward, backward] = program.groups.as_slice() else { panic!("{}", ansatz::kernel::print::print(&program)) };
    for group in [forward, backward] {
        assert_eq!(group.slices, SIZES.n * SIZES.h);
    }
    assert!(products(&program.kernels[forward.kernels.clone()]) >= 2);
    assert!(products(&program.kernels[backward.kernels.clone()]) >= 4);
    let ungrouped = Case::attention(SIZES).plan(UNGROUPED);
    assert!(ungrouped.groups.is_empty() && ungrouped.locals.is_empty());
}

#[test]
fn what_only_a_group_touches_has_room_for_one_slice_a_thread() {
    let program = Case::attention(SIZES).plan(16);
    let matrix = SIZES.t * SIZES.t;
    let scores = program.locals.iter().filter(|id| program.buffer(**id).elements() == matrix).count();
    assert!(scores >= 3, "scores and two gradients of them: {:?}", program.locals);
    let ungrouped = Case::attention(SIZES).plan(UNGROUPED);
    assert!(program.arena_bytes < ungrouped.arena_bytes);
}

#[test]
fn a_group_gives_the_bits_of_its_kernels_alone_on_any_number_of_threads() {
    let case = Case::attention(SIZES);
    let expected = evaluate(&case.graph, &case.feeds);
    for level in Level::available() {
        let alone = compiled_within(&case.graph, &case.feeds, level, &Pool::new(1), lowering(UNGROUPED));
        // Rows of 40 exponentials and products of depth 40 in f32.
        assert_eq!(difference(&expected, &alone, 1e-4), None, "{level}");
        for threads in [1, 2, 3, 7] {
            let grouped = compiled_within(&case.graph, &case.feeds, level, &Pool::new(threads), lowering(16));
            assert_eq!(difference(&alone, &grouped, 0.0), None, "{level}, {threads} threads");
        }
    }
}

#[test]
fn no_group_forms_where_a_slice_would_read_anothers_elements() {
    let Sizes { n, t, h, d } = SIZES;
    let mut case = Case::default();
    let [q, k, v] = ["query", "key", "value"].map(|name| case.param(name, &[n, t, h, d]));
    let s = case.scores(q, k, SIZES);
    // Sample i reads the scores of sample n - 1 - i.
    let mut turned: Access = [0, 1, 2, 3].map(Affine::index).to_vec();
    turned[0] = Affine { terms: vec![(0, -1)], offset: Dim::constant(n as i64 - 1) };
    let domain = Case::dims(&[n, h, t, t]);
    let output = (0..4).map(Affine::index).collect();
    let contract = Contract { domain: domain.clone(), operands: vec![turned], output };
    let turned = case.graph.contract(contract, &[s], &domain, span());
    let a = case.softmax(turned, SIZES);
    let o = case.contract(&[n, t, h, d, t], [&[0, 2, 1, 4], &[0, 4, 2, 3]], &[0, 1, 2, 3], [a, v]);
    case.output("o", o);
    let program = case.plan(16);
    let first = program.kernels.iter().position(|kernel| matches!(kernel.kind, KernelKind::Product(_)));
    let first = first.expect("the scores are a product");
    assert!(program.group_of(first).is_none(), "{:?}", program.groups);
    assert_eq!(case.graph.value(o).dtype, DType::F32);
    let expected = evaluate(&case.graph, &case.feeds);
    let actual = compiled_within(&case.graph, &case.feeds, ansatz::machine::detect(), &Pool::new(3), lowering(16));
    assert_eq!(difference(&expected, &actual, 1e-4), None);
}
