//! The core operations: a closed set of about thirty, closed under differentiation.
//!
//! Input and output: plain data. Invariant: each variant states its formula, shape rule and gradient;
//! a match over [`Op`] lists every variant.

use super::{DType, InputId, ParamId, ScalarId, StateId};
use crate::dim::{Compare, Dim};

/// A core operation. "Same shape" means equal dims; nothing broadcasts implicitly:
/// a broadcast is a one-operand [`Contract`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Op {
    /// A tensor fed from outside. No gradient.
    Input(InputId),
    /// A trained tensor.
    Param(ParamId),
    /// A tensor kept from step to step, as it was at the start of the step. No gradient.
    State(StateId),
    /// A host scalar, rank 0, F32. No gradient.
    Scalar(ScalarId),
    /// Every element is this number, of any shape and type (Bool: nonzero is true). No gradient.
    Const(f64),
    /// Every element is this size, of any shape, F32 or I32. No gradient.
    Size(Dim),
    /// I32 tensor of any shape whose element is its own index along `axis`. No gradient.
    Index {
        /// Which axis.
        axis: usize,
    },
    /// U[0, 1), F32, of any shape: Philox-4x32-10 keyed by the run's seed, counter (step, stream, element). No gradient.
    Random {
        /// Distinguishes the draws of one step.
        stream: u32,
    },
    /// Elementwise function of one tensor.
    Unary(Unary),
    /// Elementwise function of two tensors of the same shape and type.
    Binary(Binary),
    /// Elementwise comparison of two tensors of the same shape and type; gives Bool. No gradient.
    Compare(Compare),
    /// `args[0] ? args[1] : args[2]`, elementwise; `args[0]` is Bool. The gradient flows to the chosen side.
    Select,
    /// Conversion to the value's dtype: F32 → I32 truncates, Bool → 0/1, number → Bool is `≠ 0`.
    /// Gradient passes F32 → F32 only.
    Cast,
    /// Identity whose gradient is zero.
    Detach,
    /// The same elements in row-major order under another shape of equal element count. Gradient: the reverse reshape.
    Reshape,
    /// The affine contraction of one or two F32 tensors (or one of any type, without reduction): see [`Contract`].
    Contract(Contract),
    /// Maximum over `axes` (sorted), which vanish from the shape; F32 or I32. What is not a number exceeds every number.
    /// Gradient: to the first maximal element in row-major order.
    ReduceMax {
        /// The reduced axes.
        axes: Vec<usize>,
    },
    /// Row-major index, within `axes` (sorted), of the first maximal element, or of the first that is not a number; I32.
    /// No gradient.
    ArgMax {
        /// The reduced axes.
        axes: Vec<usize>,
    },
    /// `out[d] = data[index(d)]`, zero where the index is out of range.
    /// args: data, then the I32 index tensors. Gradient: [`Op::Scatter`] with the same indices.
    Gather(Indirect),
    /// `out[index(d)] += source[d]`, dropped where the index is out of range; the value's shape is the output's.
    /// args: source (of shape `domain`), then the I32 index tensors. Gradient: [`Op::Gather`] with the same indices.
    Scatter(Indirect),
}

/// Elementwise functions of one tensor; F32 unless said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Unary {
    /// −x (F32, I32). Gradient −g.
    Neg,
    /// |x| (F32, I32). Gradient g·sign(x), 0 at 0.
    Abs,
    /// eˣ. Gradient g·y.
    Exp,
    /// ln x. Gradient g/x.
    Log,
    /// √x. Gradient g/(2y).
    Sqrt,
    /// sin x. Gradient g·cos x.
    Sin,
    /// cos x. Gradient −g·sin x.
    Cos,
    /// tanh x. Gradient g·(1 − y²).
    Tanh,
    /// 1/(1 + e⁻ˣ). Gradient g·y·(1 − y).
    Sigmoid,
    /// The error function. Gradient g·2/√π·e^(−x²).
    Erf,
    /// ⌊x⌋. Gradient 0.
    Floor,
    /// Logical negation (Bool). No gradient.
    Not,
}

/// Elementwise functions of two tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Binary {
    /// a + b (F32, I32).
    Add,
    /// a − b (F32, I32).
    Sub,
    /// a · b (F32, I32).
    Mul,
    /// a / b (F32; I32: floor division, 0 when b is 0).
    Div,
    /// a mod b with the sign of b (F32, I32; I32: 0 when b is 0). Gradient to a: g; to b: −g·⌊a/b⌋.
    Rem,
    /// aᵇ (F32). Gradient to a: g·b·aᵇ⁻¹; to b: g·y·ln a, 0 where a is 0.
    Pow,
    /// max(a, b) (F32, I32); not a number where a or b is none. The gradient flows to what is not less than the other, half
    /// to each at a tie.
    Max,
    /// min(a, b) (F32, I32); not a number where a or b is none. The gradient flows to what is not more than the other, half
    /// to each at a tie.
    Min,
    /// Logical conjunction (Bool).
    And,
    /// Logical disjunction (Bool).
    Or,
}

/// The types of arithmetic.
pub(crate) const NUMBERS: &[DType] = &[DType::F32, DType::I32];
/// The type of logic.
pub(crate) const TRUTH: &[DType] = &[DType::Bool];

impl Unary {
    /// The types that it is defined on.
    pub(crate) fn dtypes(self) -> &'static [DType] {
        match self {
            Unary::Neg | Unary::Abs => NUMBERS,
            Unary::Exp | Unary::Log | Unary::Sqrt | Unary::Sin | Unary::Cos | Unary::Tanh => &[DType::F32],
            Unary::Sigmoid | Unary::Erf | Unary::Floor => &[DType::F32],
            Unary::Not => TRUTH,
        }
    }
}

impl Binary {
    /// The types that it is defined on.
    pub(crate) fn dtypes(self) -> &'static [DType] {
        match self {
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Rem | Binary::Max | Binary::Min => NUMBERS,
            Binary::Pow => &[DType::F32],
            Binary::And | Binary::Or => TRUTH,
        }
    }
}

/// A sum over an iteration domain of a product of reads at affine indices, written at an affine index:
///
/// `out = 0; for d in domain { out[output(d)] += Π_i args[i][operands[i](d)] }`
///
/// A read out of range gives 0; a write out of range is dropped. The value's shape is the output's.
/// Matrix product, batched product, convolution of any rank, stride, dilation and grouping, transposed convolution,
/// reduction by sum, broadcast, transposition, slice, pad, window: all are this one op.
/// Gradient to operand i: the same domain, with the upstream gradient read at `output` in place of operand i,
/// written at `operands[i]`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Contract {
    /// Extents of the iteration indices.
    pub domain: Vec<Dim>,
    /// One access per argument (one or two).
    pub operands: Vec<Access>,
    /// Where the product is added.
    pub output: Access,
}

/// One affine index per dim of the accessed tensor.
pub type Access = Vec<Affine>;

/// `Σ coefficient · index + offset` over the indices of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Affine {
    /// (index of the domain, coefficient ≠ 0), sorted by index, each index once.
    pub terms: Vec<(usize, i64)>,
    /// The constant part.
    pub offset: Dim,
}

impl Affine {
    /// The plain index `d`.
    pub fn index(d: usize) -> Self {
        Self { terms: vec![(d, 1)], offset: Dim::constant(0) }
    }

    /// A constant.
    pub fn constant(value: i64) -> Self {
        Self { terms: Vec::new(), offset: Dim::constant(value) }
    }

    /// `Some(d)` if this is the plain index `d`.
    pub fn as_index(&self) -> Option<usize> {
        match self.terms.as_slice() {
            [(d, 1)] if self.offset.as_const() == Some(0) => Some(*d),
            _ => None,
        }
    }

    /// True if `0 ≤ self < extent` is proved all over the domain: a plain index over the very dim, or by numbers.
    pub fn is_within(&self, domain: &[Dim], extent: &Dim) -> bool {
        if let Some(index) = self.as_index()
            && domain[index] == *extent
        {
            return true;
        }
        let (Some(extent), Some(offset)) = (extent.as_const(), self.offset.as_const()) else { return false };
        let (mut low, mut high) = (offset, offset);
        for &(index, coefficient) in &self.terms {
            let Some(last) = domain[index].as_const().map(|size| size - 1) else { return false };
            let reach = coefficient.saturating_mul(last);
            low = low.saturating_add(reach.min(0));
            high = high.saturating_add(reach.max(0));
        }
        low >= 0 && high < extent
    }
}

/// `a + b`, both sorted by index; no coefficient of the sum is 0.
pub fn sum_of_terms(a: &[(usize, i64)], b: &[(usize, i64)]) -> Vec<(usize, i64)> {
    let mut terms = a.to_vec();
    for &(index, coefficient) in b {
        match terms.iter_mut().find(|term| term.0 == index) {
            Some(term) => term.1 += coefficient,
            None => terms.push((index, coefficient)),
        }
    }
    terms.retain(|term| term.1 != 0);
    terms.sort_unstable();
    terms
}

/// Addresses of [`Op::Gather`] and [`Op::Scatter`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Indirect {
    /// Extents of the iteration indices; the shape of the gathered (or scattered) tensor.
    pub domain: Vec<Dim>,
    /// One entry per dim of the addressed tensor.
    pub index: Vec<IndirectIndex>,
}

/// One dim of an [`Indirect`] address.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum IndirectIndex {
    /// An affine function of the domain.
    Affine(Affine),
    /// The element of index tensor `arg` (1-based among the args: `args[arg]`) at `access`.
    Tensor {
        /// Position in `args`, at least 1.
        arg: usize,
        /// Where the index tensor is read.
        access: Access,
    },
}
