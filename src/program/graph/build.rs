//! Checked constructors: every value of a graph is made here or by [`Graph::push`].
//!
//! Input: ops, arguments and what cannot be inferred. Output: a [`ValueId`] with inferred shape and type.
//! Invariant: a value that leaves this file passes [`mod@super::verify`]; a failure is a compiler bug and panics,
//! since `model` establishes shapes and types before it builds.

use super::{
    Access, Affine, Binary, Compare, Contract, DType, Graph, Indirect, Input, InputId, Op, Param, ParamId, Scalar,
    ScalarId, State, StateId, Unary, Value, ValueId, verify,
};
use crate::dim::Dim;
use crate::source::Span;

/// The access that reads (or writes) each index of a domain of `rank` in order.
pub fn identity_access(rank: usize) -> Access {
    (0..rank).map(Affine::index).collect()
}

/// Entries and the leaves that read them.
impl Graph {
    /// Declares an input and reads it.
    pub fn input(&mut self, input: Input) -> ValueId {
        let span = input.span;
        self.inputs.push(input);
        self.read_input(InputId(self.inputs.len() as u32 - 1), span)
    }

    /// Declares a parameter and reads it.
    pub fn param(&mut self, param: Param) -> ValueId {
        let span = param.span;
        self.params.push(param);
        self.read_param(ParamId(self.params.len() as u32 - 1), span)
    }

    /// Declares a state and reads it as it is at the start of the step.
    pub fn state(&mut self, state: State) -> ValueId {
        let span = state.span;
        self.states.push(state);
        self.read_state(StateId(self.states.len() as u32 - 1), span)
    }

    /// Declares a host scalar and reads it.
    pub fn scalar(&mut self, scalar: Scalar, span: Span) -> ValueId {
        self.scalars.push(scalar);
        self.read_scalar(ScalarId(self.scalars.len() as u32 - 1), span)
    }

    /// Reads a declared input.
    pub fn read_input(&mut self, id: InputId, span: Span) -> ValueId {
        let Input { shape, dtype, .. } = self.inputs[id.0 as usize].clone();
        self.checked(Value { op: Op::Input(id), args: Vec::new(), shape, dtype, span })
    }

    /// Reads a declared parameter.
    pub fn read_param(&mut self, id: ParamId, span: Span) -> ValueId {
        let shape = self.params[id.0 as usize].shape.clone();
        self.checked(Value { op: Op::Param(id), args: Vec::new(), shape, dtype: DType::F32, span })
    }

    /// Reads a declared state as it is at the start of the step.
    pub fn read_state(&mut self, id: StateId, span: Span) -> ValueId {
        let State { shape, dtype, .. } = self.states[id.0 as usize].clone();
        self.checked(Value { op: Op::State(id), args: Vec::new(), shape, dtype, span })
    }

    /// Reads a declared host scalar.
    pub fn read_scalar(&mut self, id: ScalarId, span: Span) -> ValueId {
        self.checked(Value { op: Op::Scalar(id), args: Vec::new(), shape: Vec::new(), dtype: DType::F32, span })
    }

    /// A tensor of equal elements.
    pub fn constant(&mut self, value: f64, shape: &[Dim], dtype: DType, span: Span) -> ValueId {
        self.leaf(Op::Const(value), shape, dtype, span)
    }

    /// A tensor whose every element is the size `dim`.
    pub fn size(&mut self, dim: Dim, shape: &[Dim], dtype: DType, span: Span) -> ValueId {
        self.leaf(Op::Size(dim), shape, dtype, span)
    }

    /// An I32 tensor whose element is its own index along `axis`.
    pub fn index(&mut self, axis: usize, shape: &[Dim], span: Span) -> ValueId {
        self.leaf(Op::Index { axis }, shape, DType::I32, span)
    }

    /// U[0, 1).
    pub fn random(&mut self, stream: u32, shape: &[Dim], span: Span) -> ValueId {
        self.leaf(Op::Random { stream }, shape, DType::F32, span)
    }

    fn leaf(&mut self, op: Op, shape: &[Dim], dtype: DType, span: Span) -> ValueId {
        self.checked(Value { op, args: Vec::new(), shape: shape.to_vec(), dtype, span })
    }
}

/// Elementwise operations.
impl Graph {
    /// `op(x)`.
    pub fn unary(&mut self, op: Unary, x: ValueId, span: Span) -> ValueId {
        self.like(Op::Unary(op), &[x], x, span)
    }

    /// `op(a, b)`; equal shapes and types.
    pub fn binary(&mut self, op: Binary, a: ValueId, b: ValueId, span: Span) -> ValueId {
        self.like(Op::Binary(op), &[a, b], a, span)
    }

    /// `op(a, b)` as Bool; equal shapes and types.
    pub fn compare(&mut self, op: Compare, a: ValueId, b: ValueId, span: Span) -> ValueId {
        let shape = self.shape(a).to_vec();
        self.checked(Value { op: Op::Compare(op), args: vec![a, b], shape, dtype: DType::Bool, span })
    }

    /// `condition ? then : otherwise`.
    pub fn select(&mut self, condition: ValueId, then: ValueId, otherwise: ValueId, span: Span) -> ValueId {
        self.like(Op::Select, &[condition, then, otherwise], then, span)
    }

    /// Conversion to `dtype`; `x` itself where it has that type.
    pub fn cast(&mut self, x: ValueId, dtype: DType, span: Span) -> ValueId {
        if self.value(x).dtype == dtype {
            return x;
        }
        let shape = self.shape(x).to_vec();
        self.checked(Value { op: Op::Cast, args: vec![x], shape, dtype, span })
    }

    /// Identity without a gradient.
    pub fn detach(&mut self, x: ValueId, span: Span) -> ValueId {
        self.like(Op::Detach, &[x], x, span)
    }

    /// A value of the shape and type of `model`.
    fn like(&mut self, op: Op, args: &[ValueId], model: ValueId, span: Span) -> ValueId {
        let Value { shape, dtype, .. } = self.value(model).clone();
        self.checked(Value { op, args: args.to_vec(), shape, dtype, span })
    }
}

/// Operations that move or combine elements.
impl Graph {
    /// The same elements, row-major, under another shape.
    pub fn reshape(&mut self, x: ValueId, shape: &[Dim], span: Span) -> ValueId {
        let dtype = self.value(x).dtype;
        self.checked(Value { op: Op::Reshape, args: vec![x], shape: shape.to_vec(), dtype, span })
    }

    /// An affine contraction that gives a tensor of `shape`.
    pub fn contract(&mut self, contract: Contract, args: &[ValueId], shape: &[Dim], span: Span) -> ValueId {
        let dtype = self.value(args[0]).dtype;
        self.checked(Value { op: Op::Contract(contract), args: args.to_vec(), shape: shape.to_vec(), dtype, span })
    }

    /// Sum over `axes`, which vanish.
    pub fn sum(&mut self, x: ValueId, axes: &[usize], span: Span) -> ValueId {
        let domain = self.shape(x).to_vec();
        let kept: Vec<usize> = (0..domain.len()).filter(|axis| !axes.contains(axis)).collect();
        let shape: Vec<Dim> = kept.iter().map(|&axis| domain[axis].clone()).collect();
        let output = kept.into_iter().map(Affine::index).collect();
        let contract = Contract { operands: vec![identity_access(domain.len())], domain, output };
        self.contract(contract, &[x], &shape, span)
    }

    /// Repeats `x` over `shape`: axis `i` of `x` becomes axis `axes[i]`. An axis of size 1 is repeated.
    pub fn broadcast(&mut self, x: ValueId, shape: &[Dim], axes: &[usize], span: Span) -> ValueId {
        let read = self
            .shape(x)
            .iter()
            .zip(axes)
            .map(|(dim, &axis)| {
                if *dim == Dim::constant(1) && shape[axis] != *dim {
                    return Affine::constant(0);
                }
                assert!(*dim == shape[axis], "broadcast of {} into {}", show(self.shape(x)), show(shape));
                Affine::index(axis)
            })
            .collect();
        let output = identity_access(shape.len());
        self.contract(Contract { domain: shape.to_vec(), operands: vec![read], output }, &[x], shape, span)
    }

    /// Permutes axes: axis `i` of the result is axis `permutation[i]` of `x`.
    pub fn transpose(&mut self, x: ValueId, permutation: &[usize], span: Span) -> ValueId {
        let domain: Vec<Dim> = permutation.iter().map(|&axis| self.shape(x)[axis].clone()).collect();
        let mut read = vec![Affine::constant(0); permutation.len()];
        for (index, &axis) in permutation.iter().enumerate() {
            read[axis] = Affine::index(index);
        }
        let contract = Contract { domain: domain.clone(), operands: vec![read], output: identity_access(domain.len()) };
        self.contract(contract, &[x], &domain, span)
    }

    /// Maximum over `axes`, which vanish.
    pub fn reduce_max(&mut self, x: ValueId, axes: &[usize], span: Span) -> ValueId {
        let dtype = self.value(x).dtype;
        self.reduction(Op::ReduceMax { axes: sorted(axes) }, x, axes, dtype, span)
    }

    /// Row-major index within `axes` of the first maximal element.
    pub fn arg_max(&mut self, x: ValueId, axes: &[usize], span: Span) -> ValueId {
        self.reduction(Op::ArgMax { axes: sorted(axes) }, x, axes, DType::I32, span)
    }

    fn reduction(&mut self, op: Op, x: ValueId, axes: &[usize], dtype: DType, span: Span) -> ValueId {
        let dims = self.shape(x).iter().enumerate();
        let shape = dims.filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim.clone()).collect();
        self.checked(Value { op, args: vec![x], shape, dtype, span })
    }

    /// Reads `args[0]` at `indirect`; further args are the index tensors.
    pub fn gather(&mut self, indirect: Indirect, args: &[ValueId], span: Span) -> ValueId {
        let dtype = self.value(args[0]).dtype;
        let shape = indirect.domain.clone();
        self.checked(Value { op: Op::Gather(indirect), args: args.to_vec(), shape, dtype, span })
    }

    /// Adds the elements of `args[0]` into a tensor of `shape` at `indirect`; further args are the index tensors.
    pub fn scatter(&mut self, indirect: Indirect, args: &[ValueId], shape: &[Dim], span: Span) -> ValueId {
        let dtype = self.value(args[0]).dtype;
        self.checked(Value { op: Op::Scatter(indirect), args: args.to_vec(), shape: shape.to_vec(), dtype, span })
    }

    fn checked(&mut self, value: Value) -> ValueId {
        if let Err(message) = verify::check(self, &value) {
            panic!("value {} cannot be built: {message}", self.len());
        }
        self.push(value)
    }
}

fn sorted(axes: &[usize]) -> Vec<usize> {
    let mut axes = axes.to_vec();
    axes.sort_unstable();
    axes
}

fn show(shape: &[Dim]) -> String {
    super::print::shape_text(shape)
}
