//! Random graphs over all core operations, small and of odd sizes, reproducible from one number.
//!
//! Output: a graph with parameters, inputs, a state with its update, a scalar loss and feeds for every entry.
//! All fed numbers are exact in f32. Comparisons, roundings and arg-maxima act on fed numbers (or on what is moved
//! from them), so that a lower precision takes the same branches.

use ansatz::dim::Dim;
use ansatz::graph::{
    Access, Affine, Binary, Compare, Contract, DType, Feeds, Graph, Indirect, IndirectIndex, Init, Input, Op, Output,
    Param, State, StateKind, Tensor, Unary, Update, ValueId, Variable,
};

use super::{dims, span};

/// SplitMix64 (Steele, Lea, Flood 2014): a deterministic stream of numbers.
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// An integer in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    /// A real number in `[low, high)`, exact in f32.
    pub fn real(&mut self, low: f64, high: f64) -> f64 {
        f64::from((low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64) as f32)
    }

    /// One of several.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What a generated graph may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// All ops.
    Everything,
    /// All ops but [`Op::Detach`], which differs from its difference quotient on purpose.
    Differentiable,
}

/// A graph ready to run.
pub struct RandomGraph {
    /// The graph; its outputs are `loss` and some inner values; it has one update.
    pub graph: Graph,
    /// A feed for each entry.
    pub feeds: Feeds,
    /// The loss, rank 0.
    pub loss: ValueId,
    /// Reads of the parameters.
    pub params: Vec<ValueId>,
}

/// The graph of this number.
pub fn random_graph(seed: u64, contents: Contents) -> RandomGraph {
    let mut growth = Growth {
        random: Random::new(seed),
        contents,
        graph: Graph::default(),
        feeds: Feeds { seed, ..Feeds::default() },
        params: Vec::new(),
        floats: Vec::new(),
        leaves: Vec::new(),
        next_stream: 0,
    };
    for _ in 0..2 {
        let sizes = growth.sizes();
        growth.param(&sizes);
    }
    let sizes = growth.sizes();
    growth.input(&sizes);
    let steps = 4 + growth.random.below(14);
    for _ in 0..steps {
        growth.step();
    }
    growth.finish()
}

const SIZES: &[usize] = &[1, 2, 3, 5, 7, 17];
const MAX_ELEMENTS: usize = 400;
const MAX_POINTS: usize = 6000;

struct Growth {
    random: Random,
    contents: Contents,
    graph: Graph,
    feeds: Feeds,
    params: Vec<ValueId>,
    /// F32 values.
    floats: Vec<ValueId>,
    /// F32 values that are fed, not computed.
    leaves: Vec<ValueId>,
    next_stream: u32,
}

impl Growth {
    fn sizes(&mut self) -> Vec<usize> {
        loop {
            let rank = self.random.below(4);
            let sizes: Vec<usize> = (0..rank).map(|_| self.random.pick(SIZES)).collect();
            if sizes.iter().product::<usize>() <= MAX_ELEMENTS {
                return sizes;
            }
        }
    }

    fn tensor(&mut self, sizes: &[usize]) -> Tensor {
        let data = (0..sizes.iter().product()).map(|_| self.random.real(-1.5, 1.5)).collect();
        Tensor::new(sizes, data)
    }

    fn param(&mut self, sizes: &[usize]) -> ValueId {
        let name = format!("p{}", self.graph.params.len());
        let tensor = self.tensor(sizes);
        self.feeds.params.insert(name.clone(), tensor);
        let id = self.graph.param(Param { name, shape: dims(sizes), init: Init::Constant(0.0), span: span() });
        self.params.push(id);
        self.leaves.push(id);
        self.floats.push(id);
        id
    }

    fn input(&mut self, sizes: &[usize]) -> ValueId {
        let name = format!("x{}", self.graph.inputs.len());
        let tensor = self.tensor(sizes);
        self.feeds.inputs.insert(name.clone(), tensor);
        let id = self.graph.input(Input { name, shape: dims(sizes), dtype: DType::F32, span: span() });
        self.leaves.push(id);
        self.floats.push(id);
        id
    }

    /// An I32 input whose elements lie a little beyond `0..extent` at both ends.
    fn indices(&mut self, sizes: &[usize], extent: usize) -> ValueId {
        let name = format!("i{}", self.graph.inputs.len());
        let count = sizes.iter().product::<usize>();
        let data = (0..count).map(|_| self.random.between(-1, extent as i64) as f64).collect();
        self.feeds.inputs.insert(name.clone(), Tensor::new(sizes, data));
        self.graph.input(Input { name, shape: dims(sizes), dtype: DType::I32, span: span() })
    }

    fn float(&mut self) -> ValueId {
        // Recent values are likelier, so that graphs grow deep.
        let count = self.floats.len();
        let place = self.random.below(count).max(self.random.below(count));
        self.floats[place]
    }

    fn constant_like(&mut self, value: f64, model: ValueId) -> ValueId {
        let shape = self.graph.shape(model).to_vec();
        self.graph.constant(value, &shape, DType::F32, span())
    }

    /// A float of the shape of `model`.
    fn partner(&mut self, model: ValueId) -> ValueId {
        let shape = self.graph.shape(model).to_vec();
        let same: Vec<ValueId> = self.floats.iter().copied().filter(|&id| self.graph.shape(id) == shape).collect();
        match self.random.below(5) {
            0 => {
                let value = self.random.pick(&[0.0, 1.0, -1.0, 0.5, 2.0]);
                self.graph.constant(value, &shape, DType::F32, span())
            }
            1 => {
                let sizes = self.graph.sizes(model);
                self.input(&sizes)
            }
            _ => self.random.pick(&same),
        }
    }

    /// A fed float of the shape of `model`.
    fn leaf_like(&mut self, model: ValueId) -> ValueId {
        let shape = self.graph.shape(model).to_vec();
        match self.leaves.iter().copied().find(|&id| self.graph.shape(id) == shape) {
            Some(id) => id,
            None => {
                let sizes = self.graph.sizes(model);
                self.input(&sizes)
            }
        }
    }

    /// |x| + 1/2, on which logarithm, root, quotient and power are tame.
    fn positive(&mut self, x: ValueId) -> ValueId {
        let half = self.constant_like(0.5, x);
        let size = self.graph.unary(Unary::Abs, x, span());
        self.graph.binary(Binary::Add, size, half, span())
    }

    fn step(&mut self) {
        let x = self.float();
        let y = match self.random.below(16) {
            0 | 1 => self.unary(x),
            2 | 3 => self.binary(x),
            4 => self.select(x),
            5 => self.view(x),
            6 => {
                let axes = self.axes(x);
                self.graph.sum(x, &axes, span())
            }
            7 => self.product(x),
            8 => self.convolution(),
            9 => self.any_contract(x),
            10 => self.maximum(x),
            11 => self.indirect(x),
            12 => self.positions(x),
            13 => self.reshape(x),
            14 => self.rounded(x),
            _ => self.noise(x),
        };
        let y = self.squash(y);
        self.floats.push(y);
    }

    /// Keeps magnitudes near 1 without hiding the op behind a squash every time.
    fn squash(&mut self, y: ValueId) -> ValueId {
        match self.random.below(3) {
            0 => self.graph.unary(Unary::Tanh, y, span()),
            1 => {
                let scale = self.constant_like(0.25, y);
                self.graph.binary(Binary::Mul, scale, y, span())
            }
            _ => y,
        }
    }

    fn unary(&mut self, x: ValueId) -> ValueId {
        const OPS: &[Unary] = &[
            Unary::Neg,
            Unary::Abs,
            Unary::Exp,
            Unary::Log,
            Unary::Sqrt,
            Unary::Sin,
            Unary::Cos,
            Unary::Tanh,
            Unary::Sigmoid,
            Unary::Erf,
        ];
        let op = self.random.pick(OPS);
        let x = match op {
            Unary::Exp => self.graph.unary(Unary::Tanh, x, span()),
            Unary::Log | Unary::Sqrt => self.positive(x),
            Unary::Neg | Unary::Abs | Unary::Sin | Unary::Cos | Unary::Tanh | Unary::Sigmoid | Unary::Erf => x,
            Unary::Floor | Unary::Not => unreachable!("not among the ops"),
        };
        self.graph.unary(op, x, span())
    }

    fn binary(&mut self, x: ValueId) -> ValueId {
        let y = self.partner(x);
        let op = self.random.pick(&[
            Binary::Add,
            Binary::Sub,
            Binary::Mul,
            Binary::Div,
            Binary::Pow,
            Binary::Max,
            Binary::Min,
        ]);
        let (a, b) = match op {
            Binary::Div => (x, self.positive(y)),
            Binary::Pow => {
                let exponent = self.random.pick(&[2.0, 0.5, -1.0, 3.0, 1.0]);
                let exponent = match self.random.chance(50) {
                    true => self.constant_like(exponent, x),
                    false => self.graph.unary(Unary::Tanh, y, span()),
                };
                (self.positive(x), exponent)
            }
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Max | Binary::Min => (x, y),
            Binary::Rem | Binary::And | Binary::Or => unreachable!("not among the ops"),
        };
        self.graph.binary(op, a, b, span())
    }

    fn condition(&mut self, model: ValueId) -> ValueId {
        let a = self.leaf_like(model);
        let b = match self.random.chance(50) {
            true => self.constant_like(0.0, model),
            false => self.partner_leaf(model),
        };
        let op = self.random.pick(&[Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge, Compare::Eq, Compare::Ne]);
        let condition = self.graph.compare(op, a, b, span());
        match self.random.below(4) {
            0 => self.graph.unary(Unary::Not, condition, span()),
            1 => {
                let zero = self.constant_like(0.0, model);
                let other = self.graph.compare(Compare::Gt, b, zero, span());
                let op = self.random.pick(&[Binary::And, Binary::Or]);
                self.graph.binary(op, condition, other, span())
            }
            _ => condition,
        }
    }

    fn partner_leaf(&mut self, model: ValueId) -> ValueId {
        let sizes = self.graph.sizes(model);
        self.input(&sizes)
    }

    fn select(&mut self, x: ValueId) -> ValueId {
        let y = self.partner(x);
        // Half of them are rectifiers: `x > 0 ? x : 0`, on a fed x.
        if self.random.chance(50) {
            let x = self.leaf_like(x);
            let zero = self.constant_like(0.0, x);
            let condition = self.graph.compare(Compare::Gt, x, zero, span());
            return self.graph.select(condition, x, zero, span());
        }
        let condition = self.condition(x);
        if self.random.chance(30) {
            let mask = self.graph.cast(condition, DType::F32, span());
            return self.graph.binary(Binary::Mul, mask, y, span());
        }
        self.graph.select(condition, x, y, span())
    }

    fn axes(&mut self, x: ValueId) -> Vec<usize> {
        (0..self.graph.shape(x).len()).filter(|_| self.random.chance(50)).collect()
    }

    fn count(&self, x: ValueId) -> usize {
        self.graph.sizes(x).iter().product()
    }

    /// Transposition, repetition, slice with padding, or window.
    fn view(&mut self, x: ValueId) -> ValueId {
        let sizes = self.graph.sizes(x);
        match self.random.below(4) {
            0 => {
                let mut order: Vec<usize> = (0..sizes.len()).collect();
                for place in (1..order.len()).rev() {
                    order.swap(place, self.random.below(place + 1));
                }
                self.graph.transpose(x, &order, span())
            }
            1 => {
                let factor = self.random.pick(&[1, 2, 3]);
                if self.count(x) * factor > MAX_ELEMENTS {
                    return x;
                }
                let place = self.random.below(sizes.len() + 1);
                let mut wide = sizes.clone();
                wide.insert(place, factor);
                let axes: Vec<usize> = (0..sizes.len()).map(|axis| axis + usize::from(axis >= place)).collect();
                self.graph.broadcast(x, &dims(&wide), &axes, span())
            }
            2 => {
                let read = (0..sizes.len()).map(|axis| self.affine_of(axis)).collect();
                let output = ansatz::graph::build::identity_access(sizes.len());
                let contract = Contract { domain: dims(&sizes), operands: vec![read], output };
                self.graph.contract(contract, &[x], &dims(&sizes), span())
            }
            _ if !sizes.is_empty() && self.count(x) * 3 <= MAX_ELEMENTS => {
                // y[..., i, u] = x[..., S*i + D*u - P]
                let last = sizes.len() - 1;
                let mut domain = sizes.clone();
                domain.push(3);
                let (stride, dilation) = (self.random.between(1, 3), self.random.between(1, 2));
                let offset = Dim::constant(-self.random.between(0, 2));
                let mut read: Access = (0..last).map(Affine::index).collect();
                read.push(Affine { terms: vec![(last, stride), (last + 1, dilation)], offset });
                let output = ansatz::graph::build::identity_access(domain.len());
                let contract = Contract { domain: dims(&domain), operands: vec![read], output };
                self.graph.contract(contract, &[x], &dims(&domain), span())
            }
            _ => x,
        }
    }

    fn affine_of(&mut self, index: usize) -> Affine {
        let offset = Dim::constant(self.random.between(-2, 2));
        Affine { terms: vec![(index, self.random.pick(&[1, 1, 1, 2, -1]))], offset }
    }

    /// A product with a new weight over the last axis of `x`: `y[…, o] = Σ_k x[…, k] w[o, k]`.
    fn product(&mut self, x: ValueId) -> ValueId {
        let sizes = self.graph.sizes(x);
        let Some((&inner, outer)) = sizes.split_last() else { return x };
        let out = self.random.pick(&[1, 2, 5, 17]);
        let shape: Vec<usize> = outer.iter().copied().chain([out]).collect();
        if shape.iter().product::<usize>() > MAX_ELEMENTS || shape.iter().product::<usize>() * inner > MAX_POINTS {
            return x;
        }
        let weight = self.param(&[out, inner]);
        let rank = outer.len();
        let plain = |range: std::ops::Range<usize>| range.map(Affine::index).collect::<Access>();
        let mut read = plain(0..rank);
        read.push(Affine::index(rank + 1));
        let contract = Contract {
            domain: dims(&[&shape[..], &[inner]].concat()),
            operands: vec![read, plain(rank..rank + 2)],
            output: plain(0..rank + 1),
        };
        self.graph.contract(contract, &[x, weight], &dims(&shape), span())
    }

    /// A grouped convolution in one spatial dim with stride, padding and dilation, or its transpose.
    fn convolution(&mut self) -> ValueId {
        let [groups, per_group, out, width] = [1 + self.random.below(2), 2, 1 + self.random.below(3), 7];
        let (window, stride) = (1 + self.random.below(3), 1 + self.random.below(3));
        let (pad, dilation) = (self.random.below(3), 1 + self.random.below(2));
        let batch = self.random.pick(&[1, 3]);
        let x = self.param(&[batch, groups, per_group, width]);
        let weight = self.param(&[groups, out, per_group, window]);
        let positions = (width + 2 * pad).saturating_sub(dilation * (window - 1) + 1) / stride + 1;
        // n, g, o, i, c, u
        let domain = dims(&[batch, groups, out, positions, per_group, window]);
        let [n, g, o, i, c, u] = [0, 1, 2, 3, 4, 5].map(Affine::index);
        let slide =
            Affine { terms: vec![(3, stride as i64), (5, dilation as i64)], offset: Dim::constant(-(pad as i64)) };
        let weights = vec![g.clone(), o.clone(), c.clone(), u];
        if self.random.chance(50) {
            let operands = vec![vec![n.clone(), g.clone(), c, slide], weights];
            let contract = Contract { domain, operands, output: vec![n, g, o, i] };
            let shape = dims(&[batch, groups, out, positions]);
            return self.graph.contract(contract, &[x, weight], &shape, span());
        }
        let narrow = self.param(&[batch, groups, out, positions]);
        let operands = vec![vec![n.clone(), g.clone(), o, i], weights];
        let contract = Contract { domain, operands, output: vec![n, g, c, slide] };
        self.graph.contract(contract, &[narrow, weight], &dims(&[batch, groups, per_group, width]), span())
    }

    /// A contraction with arbitrary affine accesses; what leaves a tensor reads as 0 or is dropped.
    fn any_contract(&mut self, x: ValueId) -> ValueId {
        let rank = 1 + self.random.below(4);
        let domain: Vec<usize> = (0..rank).map(|_| self.random.pick(&[1, 2, 3, 5, 7])).collect();
        let shape: Vec<usize> = (0..self.random.below(4)).map(|_| self.random.pick(&[1, 2, 3, 5, 7])).collect();
        let mut args = vec![x];
        if self.random.chance(60) {
            args.push(self.float());
        }
        let operands = args.iter().map(|&arg| self.access(rank, self.graph.shape(arg).len())).collect();
        let output = self.access(rank, shape.len());
        self.graph.contract(Contract { domain: dims(&domain), operands, output }, &args, &dims(&shape), span())
    }

    fn access(&mut self, domain: usize, rank: usize) -> Access {
        let mut entry = || match self.random.below(6) {
            0 => Affine::constant(self.random.between(0, 1)),
            1 if domain > 1 => {
                let first = self.random.below(domain - 1);
                let second = first + 1 + self.random.below(domain - first - 1);
                let coefficients = [1, 1, 2, -1, 3];
                let terms = vec![(first, self.random.pick(&coefficients)), (second, self.random.pick(&coefficients))];
                Affine { terms, offset: Dim::constant(self.random.between(-2, 2)) }
            }
            2 => {
                let index = self.random.below(domain);
                self.affine_of(index)
            }
            _ => Affine::index(self.random.below(domain)),
        };
        (0..rank).map(|_| entry()).collect()
    }

    fn maximum(&mut self, x: ValueId) -> ValueId {
        let axes = self.axes(x);
        if self.random.chance(70) {
            return self.graph.reduce_max(x, &axes, span());
        }
        let leaf = self.leaf_like(x);
        let place = self.graph.arg_max(leaf, &axes, span());
        self.graph.cast(place, DType::F32, span())
    }

    /// Rows of `x` (or sums into rows) by an index tensor, some of it out of range.
    fn indirect(&mut self, x: ValueId) -> ValueId {
        let sizes = self.graph.sizes(x);
        let Some(&rows) = sizes.first() else { return x };
        let address = |rank: usize, tensor: usize| {
            let mut index = vec![IndirectIndex::Tensor { arg: 1, access: vec![Affine::index(tensor)] }];
            index.extend((1..rank).map(|axis| IndirectIndex::Affine(Affine::index(axis))));
            index
        };
        if self.random.chance(50) {
            let count = self.random.pick(&[1, 2, 3]);
            let domain: Vec<usize> = [&[count], &sizes[1..]].concat();
            let places = self.indices(&[count], rows);
            let indirect = Indirect { domain: dims(&domain), index: address(sizes.len(), 0) };
            return self.graph.gather(indirect, &[x, places], span());
        }
        let target = self.random.pick(&[1, 2, 5]);
        let shape: Vec<usize> = [&[target], &sizes[1..]].concat();
        let places = self.indices(&[rows], target);
        let indirect = Indirect { domain: dims(&sizes), index: address(sizes.len(), 0) };
        self.graph.scatter(indirect, &[x, places], &dims(&shape), span())
    }

    /// `x` times an integer function of the position: mask by comparison, or ramp.
    fn positions(&mut self, x: ValueId) -> ValueId {
        let shape = self.graph.shape(x).to_vec();
        if shape.is_empty() {
            return x;
        }
        let axis = self.random.below(shape.len());
        let own = self.graph.index(axis, &shape, span());
        let other = match self.random.chance(50) {
            true => self.graph.size(shape[self.random.below(shape.len())].clone(), &shape, DType::I32, span()),
            false => self.graph.constant(self.random.between(-2, 3) as f64, &shape, DType::I32, span()),
        };
        let op = self.random.pick(&[
            Binary::Add,
            Binary::Sub,
            Binary::Mul,
            Binary::Div,
            Binary::Rem,
            Binary::Max,
            Binary::Min,
        ]);
        let mixed = self.graph.binary(op, own, other, span());
        if self.random.chance(50) {
            let op = self.random.pick(&[Compare::Lt, Compare::Le, Compare::Eq, Compare::Ne]);
            let mask = self.graph.compare(op, mixed, own, span());
            let zero = self.constant_like(0.0, x);
            return self.graph.select(mask, x, zero, span());
        }
        let ramp = self.graph.cast(mixed, DType::F32, span());
        self.graph.binary(Binary::Mul, x, ramp, span())
    }

    fn reshape(&mut self, x: ValueId) -> ValueId {
        let sizes = self.graph.sizes(x);
        let count = sizes.iter().product::<usize>();
        let mut shapes = vec![vec![count], vec![1, count], vec![count, 1, 1]];
        shapes.extend([2, 3, 5, 7].iter().filter(|&&f| count % f == 0).map(|&f| vec![f, count / f]));
        let shape = self.random.pick(&shapes);
        self.graph.reshape(x, &dims(&shape), span())
    }

    /// Floor, remainder, truncation of fed numbers, times `x`.
    fn rounded(&mut self, x: ValueId) -> ValueId {
        let leaf = self.leaf_like(x);
        let rounded = match self.random.below(3) {
            0 => self.graph.unary(Unary::Floor, leaf, span()),
            1 => {
                let modulus = self.constant_like(0.75, leaf);
                self.graph.binary(Binary::Rem, leaf, modulus, span())
            }
            _ => {
                let whole = self.graph.cast(leaf, DType::I32, span());
                self.graph.cast(whole, DType::F32, span())
            }
        };
        self.graph.binary(Binary::Add, x, rounded, span())
    }

    /// Dropout by a random mask, or (where allowed) a detached factor.
    fn noise(&mut self, x: ValueId) -> ValueId {
        if self.contents == Contents::Everything && self.random.chance(50) {
            let y = self.partner(x);
            let y = self.graph.detach(y, span());
            return self.graph.binary(Binary::Mul, x, y, span());
        }
        let shape = self.graph.shape(x).to_vec();
        let draw = self.graph.random(self.next_stream, &shape, span());
        self.next_stream += 1;
        let keep = self.constant_like(0.625, x);
        let kept = self.graph.compare(Compare::Lt, draw, keep, span());
        let zero = self.constant_like(0.0, x);
        self.graph.select(kept, x, zero, span())
    }

    /// The loss: a mean of smooth functions of the last values; one state that follows a value.
    fn finish(mut self) -> RandomGraph {
        let mut loss = self.graph.constant(0.0, &[], DType::F32, span());
        let last: Vec<ValueId> = self.floats.iter().rev().take(4).copied().collect();
        for &value in &last {
            let bounded = self.graph.unary(Unary::Sin, value, span());
            let all: Vec<usize> = (0..self.graph.shape(value).len()).collect();
            let sum = self.graph.sum(bounded, &all, span());
            let scale = self.graph.constant(1.0 / self.count(value).max(1) as f64, &[], DType::F32, span());
            let mean = self.graph.binary(Binary::Mul, sum, scale, span());
            loss = self.graph.binary(Binary::Add, loss, mean, span());
        }
        let followed = last[0];
        let sizes = self.graph.sizes(followed);
        let tensor = self.tensor(&sizes);
        self.feeds.states.insert("s0".into(), tensor);
        let shape = dims(&sizes);
        let entry =
            State { name: "s0".into(), shape, dtype: DType::F32, init: 0.0, kind: StateKind::Buffer, span: span() };
        let state = self.graph.state(entry);
        let Op::State(id) = self.graph.value(state).op else { unreachable!("a state reads a state") };
        let (keep, follow) = (self.constant_like(0.75, state), self.constant_like(0.25, state));
        let old = self.graph.binary(Binary::Mul, keep, state, span());
        let new = self.graph.binary(Binary::Mul, follow, followed, span());
        let value = self.graph.binary(Binary::Add, old, new, span());
        self.graph.updates.push(Update { target: Variable::State(id), value });
        self.graph.outputs.push(Output { name: "loss".into(), value: loss });
        for (place, &value) in last.iter().enumerate() {
            self.graph.outputs.push(Output { name: format!("inner{place}").into(), value });
        }
        RandomGraph { graph: self.graph, feeds: self.feeds, loss, params: self.params }
    }
}
