//! The schedule's own graph: sizes are numbers, contractions are already sorted by how they run.
//!
//! Input: pushed by `lower` and `contract`. Output: read by `roots`, `draft` and `emit`.
//! Invariant: arguments precede users; equal values (same op, arguments, sizes) exist once; where all guards of a
//! [`View`] hold, its access lies inside the argument.

use std::collections::HashMap;

use super::target::Target;
use crate::graph::{Affine, Binary, Compare, DType, InputId, OutputName, ParamId, ScalarId, StateId, Unary, Variable};
use crate::kernel::{Linear, ReductionKind};
use crate::source::Span;

/// Position in [`Form::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(pub u32);

/// What lies in memory before the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    Input(InputId),
    Param(ParamId),
    State(StateId),
    Scalar(ScalarId),
}

impl From<Variable> for Source {
    fn from(variable: Variable) -> Source {
        match variable {
            Variable::Param(id) => Source::Param(id),
            Variable::State(id) => Source::State(id),
        }
    }
}

/// Bytes of an element, as far as choices go: flags take less.
pub(super) const ELEMENT_BYTES: usize = 4;

/// A condition `0 ≤ linear < extent`.
pub(super) type Guard = (Linear, i64);

/// An affine index as a linear function.
pub(super) fn linear(affine: &Affine) -> Linear {
    Linear { terms: affine.terms.clone(), offset: affine.offset.as_const().expect("sizes are bound before scheduling") }
}

/// How a value comes about. Linear functions are over the dims of the value itself unless said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum FormOp {
    Source(Source),
    /// The bits of an f64.
    Const(u64),
    Index {
        axis: usize,
    },
    Random {
        stream: u32,
    },
    Unary(Unary),
    Binary(Binary),
    Compare(Compare),
    Select,
    Cast,
    Reshape,
    View(View),
    /// Element of `args[0]`; 0 where an index is out of range.
    Gather(Vec<GatherIndex>),
    /// Reduction over the trailing axes of `args[0]`.
    Reduce(ReductionKind),
    /// Elements of `args[0]` added to (or, when `injective`, put to) an output of zeros. Over the dims of `args[0]`.
    Scatter {
        index: Vec<GatherIndex>,
        injective: bool,
    },
    /// `out[i] = Σ_k args[0][a(i, k)] · args[1][b(i, k)]`, in range in every piece.
    Product(ProductForm),
}

impl FormOp {
    /// True if only a kernel of its own can make the value.
    pub fn is_kernel(&self) -> bool {
        matches!(self, FormOp::Reduce(_) | FormOp::Scatter { .. } | FormOp::Product(_))
    }

    /// True if the value is there before the step.
    pub fn is_source(&self) -> bool {
        matches!(self, FormOp::Source(_))
    }
}

/// `out[i] = args[0][access(i)]`, 0 where a guard fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct View {
    pub access: Vec<Linear>,
    pub guards: Vec<Guard>,
}

/// One dim of an indirect address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum GatherIndex {
    Linear(Linear),
    /// The element of `args[n]` at the point itself.
    Tensor(usize),
}

impl GatherIndex {
    /// The function, if the index does not depend on data.
    pub fn linear(&self) -> Option<&Linear> {
        if let GatherIndex::Linear(linear) = self { Some(linear) } else { None }
    }
}

/// A product over the output's dims followed by the summed ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProductForm {
    /// Extents of the summed indices, numbered behind the output's dims.
    pub summed: Vec<usize>,
    pub a: Vec<Linear>,
    pub b: Vec<Linear>,
    /// Where it is computed: boxes that have no output in common and together all of them; in each, the sum runs over
    /// the box's summed indices.
    pub pieces: Vec<Piece>,
}

/// Loop extents by value and dim.
pub(super) type Factors = Vec<Vec<Vec<usize>>>;

/// A range of each index: the output's dims, then the summed ones.
pub(super) type Piece = Vec<std::ops::Range<usize>>;

#[derive(Clone, Debug)]
pub(super) struct FormValue {
    pub op: FormOp,
    pub args: Vec<Id>,
    pub sizes: Vec<usize>,
    pub dtype: DType,
    pub span: Span,
}

impl FormValue {
    pub fn elements(&self) -> usize {
        self.sizes.iter().product()
    }
}

type Key = (FormOp, Vec<Id>, Vec<usize>, DType);

#[derive(Debug)]
pub(super) struct Form {
    pub values: Vec<FormValue>,
    pub outputs: Vec<(OutputName, Id)>,
    pub updates: Vec<(Variable, Id)>,
    pub target: Target,
    /// How dims are divided into loops; filled once the form is complete.
    pub factors: Factors,
    known: HashMap<Key, Id>,
}

impl Form {
    pub fn new(target: &Target) -> Self {
        let (values, outputs, updates) = Default::default();
        Self { values, outputs, updates, target: *target, factors: Vec::new(), known: HashMap::new() }
    }

    pub fn value(&self, id: Id) -> &FormValue {
        &self.values[id.0 as usize]
    }

    pub fn ids(&self) -> impl DoubleEndedIterator<Item = Id> + use<> {
        (0..self.values.len() as u32).map(Id)
    }

    pub fn sizes(&self, id: Id) -> &[usize] {
        &self.value(id).sizes
    }

    pub fn push(&mut self, op: FormOp, args: &[Id], sizes: &[usize], dtype: DType, span: Span) -> Id {
        let mut args = args.to_vec();
        if matches!(op, FormOp::Binary(Binary::Add | Binary::Mul)) {
            // a + b and b + a are the same bits.
            args.sort_unstable();
        }
        let key = (op, args, sizes.to_vec(), dtype);
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let id = Id(self.values.len() as u32);
        let (op, args, sizes) = (key.0.clone(), key.1.clone(), key.2.clone());
        self.values.push(FormValue { op, args, sizes, dtype, span });
        self.known.insert(key, id);
        id
    }

    pub fn constant(&mut self, number: f64, sizes: &[usize], dtype: DType, span: Span) -> Id {
        self.push(FormOp::Const(number.to_bits()), &[], sizes, dtype, span)
    }

    pub fn binary(&mut self, op: Binary, a: Id, b: Id, span: Span) -> Id {
        let (sizes, dtype) = (self.sizes(a).to_vec(), self.value(a).dtype);
        self.push(FormOp::Binary(op), &[a, b], &sizes, dtype, span)
    }

    /// A view of `arg` of these sizes. Guards are added for accesses that leave the argument,
    /// and those that always hold are dropped; the identity gives `arg` itself.
    pub fn view(&mut self, arg: Id, sizes: &[usize], access: Vec<Linear>, guards: &[Guard], span: Span) -> Id {
        let dtype = self.value(arg).dtype;
        if sizes.contains(&0) {
            return self.constant(0.0, sizes, dtype, span);
        }
        let ranged = access.iter().zip(self.sizes(arg)).map(|(linear, &size)| (linear.clone(), size as i64));
        let mut needed: Vec<Guard> = Vec::new();
        for (linear, extent) in ranged.chain(guards.iter().cloned()) {
            let (least, greatest) = linear.range(sizes);
            if greatest < 0 || least >= extent {
                return self.constant(0.0, sizes, dtype, span);
            }
            if !linear.is_within(sizes, extent) && !needed.contains(&(linear.clone(), extent)) {
                needed.push((linear, extent));
            }
        }
        let sizes_agree = self.sizes(arg) == sizes;
        let identity = access.iter().enumerate().all(|(dim, linear)| match linear.as_constant() {
            Some(offset) => offset == 0 && sizes.get(dim) == Some(&1),
            None => linear.as_index() == Some(dim),
        });
        if sizes_agree && identity && needed.is_empty() {
            return arg;
        }
        self.push(FormOp::View(View { access, guards: needed }), &[arg], sizes, dtype, span)
    }

    /// Reduction over the last `axes` axes. Of nothing: 0, or −∞ for a maximum.
    pub fn reduce(&mut self, kind: ReductionKind, arg: Id, axes: usize, span: Span) -> Id {
        let sizes = self.sizes(arg).to_vec();
        let outer = &sizes[..sizes.len() - axes];
        let dtype = match kind {
            ReductionKind::Sum | ReductionKind::Max => self.value(arg).dtype,
            ReductionKind::ArgMax => DType::I32,
        };
        if sizes[outer.len()..].contains(&0) {
            let nothing = if kind == ReductionKind::Max { f64::NEG_INFINITY } else { 0.0 };
            return self.constant(nothing, outer, dtype, span);
        }
        if axes == 0 && kind != ReductionKind::ArgMax {
            return arg;
        }
        self.push(FormOp::Reduce(kind), &[arg], outer, dtype, span)
    }
}
