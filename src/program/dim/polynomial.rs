//! Sums of monomials over atoms, sorted and without zero coefficients.
//!
//! Input and output: [`Dim`]s. Invariant: terms are in descending graded lexicographic order of their monomials,
//! each monomial once, no zero coefficient; at most [`MAX_TERMS`] terms, degree at most [`MAX_DEGREE`],
//! atoms nested at most [`MAX_DEPTH`] deep. Beyond the limits a dim overflows, so hostile files cost little.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Dim, Form};

const MAX_TERMS: usize = 256;
const MAX_DEGREE: u32 = 32;
const MAX_DEPTH: u32 = 24;

/// What a polynomial is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Atom {
    /// A named size.
    Name(Arc<str>),
    /// ⌊a / b⌋.
    Div(Dim, Dim),
    /// min(a, b).
    Min(Dim, Dim),
    /// max(a, b).
    Max(Dim, Dim),
}

impl Atom {
    pub fn substitute(&self, map: &BTreeMap<String, Dim>) -> Dim {
        match self {
            Atom::Name(name) => map.get(name.as_ref()).cloned().unwrap_or_else(|| Dim::atom(self.clone())),
            Atom::Div(a, b) => a.substitute(map).floor_div(&b.substitute(map)),
            Atom::Min(a, b) => a.substitute(map).min(&b.substitute(map)),
            Atom::Max(a, b) => a.substitute(map).max(&b.substitute(map)),
        }
    }

    pub fn eval(&self, map: &BTreeMap<String, i64>) -> Option<i64> {
        match self {
            Atom::Name(name) => map.get(name.as_ref()).copied(),
            Atom::Div(a, b) => floor_div_i64(a.eval(map)?, b.eval(map)?),
            Atom::Min(a, b) => Some(a.eval(map)?.min(b.eval(map)?)),
            Atom::Max(a, b) => Some(a.eval(map)?.max(b.eval(map)?)),
        }
    }

    fn depth(&self) -> u32 {
        match self {
            Atom::Name(_) => 1,
            Atom::Div(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => 1 + a.depth().max(b.depth()),
        }
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Names first, alphabetically.
impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |atom: &Atom| match atom {
            Atom::Name(_) => 0,
            Atom::Div(..) => 1,
            Atom::Min(..) => 2,
            Atom::Max(..) => 3,
        };
        match (self, other) {
            (Atom::Name(a), Atom::Name(b)) => a.cmp(b),
            (
                Atom::Div(a, b) | Atom::Min(a, b) | Atom::Max(a, b),
                Atom::Div(c, d) | Atom::Min(c, d) | Atom::Max(c, d),
            ) => rank(self).cmp(&rank(other)).then_with(|| order(a, c)).then_with(|| order(b, d)),
            (Atom::Name(_), _) | (_, Atom::Name(_)) => rank(self).cmp(&rank(other)),
        }
    }
}

/// A total order of dims for normal forms; it says nothing about their values. (`Dim` itself has no `Ord`,
/// whose `min` would hide [`Dim::min`].)
pub(super) fn order(a: &Dim, b: &Dim) -> Ordering {
    match (&a.0, &b.0) {
        (Form::Const(x), Form::Const(y)) => x.cmp(y),
        (Form::Poly(x), Form::Poly(y)) => x.terms.cmp(&y.terms),
        (Form::Overflow, Form::Overflow) => Ordering::Equal,
        (Form::Const(_), _) | (Form::Poly(_), Form::Overflow) => Ordering::Less,
        (_, Form::Const(_)) | (Form::Overflow, Form::Poly(_)) => Ordering::Greater,
    }
}

/// Floor division; `None` for a zero divisor or overflow.
pub(super) fn floor_div_i64(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    Some(if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
}

/// A product of powers of atoms: atoms ascending, powers at least 1. Empty: the constant monomial.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Monomial(pub Vec<(Atom, u32)>);

impl Monomial {
    pub fn degree(&self) -> u32 {
        self.0.iter().map(|(_, power)| power).sum()
    }

    pub fn times(&self, other: &Monomial) -> Monomial {
        let mut powers: BTreeMap<&Atom, u32> = BTreeMap::new();
        for (atom, power) in self.0.iter().chain(&other.0) {
            *powers.entry(atom).or_default() += power;
        }
        Monomial(powers.into_iter().map(|(atom, power)| (atom.clone(), power)).collect())
    }

    /// `self / other` where every power suffices.
    pub fn divided_by(&self, other: &Monomial) -> Option<Monomial> {
        let mut rest = self.0.clone();
        for (atom, power) in &other.0 {
            let entry = rest.iter_mut().find(|(candidate, _)| candidate == atom)?;
            entry.1 = entry.1.checked_sub(*power)?;
        }
        rest.retain(|(_, power)| *power > 0);
        Some(Monomial(rest))
    }

    /// The largest monomial that divides both.
    pub fn common(&self, other: &Monomial) -> Monomial {
        let shared = self.0.iter().filter_map(|(atom, power)| {
            let (_, theirs) = other.0.iter().find(|(candidate, _)| candidate == atom)?;
            Some((atom.clone(), *power.min(theirs)))
        });
        Monomial(shared.collect())
    }
}

impl PartialOrd for Monomial {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Graded lexicographic; an earlier atom weighs more. Compatible with multiplication, as division needs.
impl Ord for Monomial {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_degree = self.degree().cmp(&other.degree());
        if by_degree != Ordering::Equal {
            return by_degree;
        }
        for ((a, power_a), (b, power_b)) in self.0.iter().zip(&other.0) {
            let order = b.cmp(a).then(power_a.cmp(power_b));
            if order != Ordering::Equal {
                return order;
            }
        }
        self.0.len().cmp(&other.0.len())
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Polynomial {
    pub terms: Vec<(Monomial, i64)>,
    depth: u32,
}

impl Dim {
    pub(super) fn atom(atom: Atom) -> Dim {
        Dim::from_terms([(Monomial(vec![(atom, 1)]), 1)])
    }

    pub(super) fn depth(&self) -> u32 {
        match &self.0 {
            Form::Poly(poly) => poly.depth,
            Form::Const(_) | Form::Overflow => 0,
        }
    }

    /// Terms of any order; equal monomials add up.
    pub(super) fn from_terms(terms: impl IntoIterator<Item = (Monomial, i64)>) -> Dim {
        let mut sums: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (monomial, coefficient) in terms {
            let sum = sums.entry(monomial).or_insert(0);
            match sum.checked_add(coefficient) {
                Some(value) => *sum = value,
                None => return Dim(Form::Overflow),
            }
        }
        let terms: Vec<_> = sums.into_iter().rev().filter(|(_, coefficient)| *coefficient != 0).collect();
        match terms.as_slice() {
            [] => return Dim::constant(0),
            [(monomial, coefficient)] if monomial.0.is_empty() => return Dim::constant(*coefficient),
            _ => {}
        }
        let atoms = terms.iter().flat_map(|(monomial, _)| &monomial.0);
        let depth = atoms.map(|(atom, _)| atom.depth()).max().unwrap_or(0);
        if terms.len() > MAX_TERMS || depth > MAX_DEPTH || terms[0].0.degree() > MAX_DEGREE {
            return Dim(Form::Overflow);
        }
        Dim(Form::Poly(Arc::new(Polynomial { terms, depth })))
    }

    /// The terms, highest first; empty for 0 and for overflow.
    pub(super) fn terms(&self) -> Vec<(Monomial, i64)> {
        match &self.0 {
            Form::Const(0) | Form::Overflow => Vec::new(),
            Form::Const(value) => vec![(Monomial::default(), *value)],
            Form::Poly(poly) => poly.terms.clone(),
        }
    }

    /// The terms of a dim that is no number, highest first.
    pub(super) fn named_terms(&self) -> &[(Monomial, i64)] {
        match &self.0 {
            Form::Poly(poly) => poly.terms.as_slice(),
            Form::Const(_) | Form::Overflow => &[],
        }
    }

    /// The atoms of all terms, with repetitions.
    pub(super) fn atoms(&self) -> impl Iterator<Item = &Atom> {
        self.named_terms().iter().flat_map(|(monomial, _)| monomial.0.iter().map(|(atom, _)| atom))
    }

    /// `Some` for one atom with power and coefficient 1.
    pub(super) fn single_atom(&self) -> Option<&Atom> {
        let Form::Poly(poly) = &self.0 else { return None };
        match poly.terms.as_slice() {
            [(monomial, 1)] => match monomial.0.as_slice() {
                [(atom, 1)] => Some(atom),
                _ => None,
            },
            _ => None,
        }
    }
}

/// `a + b`.
pub(super) fn add(a: &Dim, b: &Dim) -> Dim {
    match (&a.0, &b.0) {
        (Form::Overflow, _) | (_, Form::Overflow) => Dim(Form::Overflow),
        (Form::Const(x), Form::Const(y)) => x.checked_add(*y).map_or(Dim(Form::Overflow), Dim::constant),
        (Form::Const(0), _) => b.clone(),
        (_, Form::Const(0)) => a.clone(),
        _ => Dim::from_terms(a.terms().into_iter().chain(b.terms())),
    }
}

/// `a - b`.
pub(super) fn sub(a: &Dim, b: &Dim) -> Dim {
    match (&a.0, &b.0) {
        (Form::Const(x), Form::Const(y)) => x.checked_sub(*y).map_or(Dim(Form::Overflow), Dim::constant),
        _ => add(a, &mul(b, &Dim::constant(-1))),
    }
}

/// `a * b`.
pub(super) fn mul(a: &Dim, b: &Dim) -> Dim {
    match (&a.0, &b.0) {
        (Form::Overflow, _) | (_, Form::Overflow) => Dim(Form::Overflow),
        (Form::Const(x), Form::Const(y)) => x.checked_mul(*y).map_or(Dim(Form::Overflow), Dim::constant),
        (Form::Const(1), _) => b.clone(),
        (_, Form::Const(1)) => a.clone(),
        _ => {
            let (left, right) = (a.terms(), b.terms());
            if left.len() * right.len() > MAX_TERMS * 16 {
                return Dim(Form::Overflow);
            }
            let mut terms = Vec::with_capacity(left.len() * right.len());
            for (m, x) in &left {
                for (n, y) in &right {
                    let Some(coefficient) = x.checked_mul(*y) else { return Dim(Form::Overflow) };
                    terms.push((m.times(n), coefficient));
                }
            }
            Dim::from_terms(terms)
        }
    }
}
