//! Facts over as few names as possible: what the assumed equations say about a name is put in its place.
//!
//! Input: assumptions one by one. Output: substitutions in order, and the assumptions over the names that remain.
//! Invariant: every admitted assignment, restricted to the names that remain and extended by the quotients that
//! replaced names, fits the remaining facts; evaluating the substitutions backwards gives the other names again.

use std::collections::BTreeMap;

use super::Dim;
use super::polynomial::{Atom, Monomial};

/// How many names are replaced, and the terms of what replaces one.
const MAX_REPLACED: usize = 64;
const MAX_TERMS: usize = 12;

/// What the names of quotients start with; no size of a model file has a space in its name.
const QUOTIENT: &str = "quotient ";

/// True for the quotient that a divisibility introduced.
pub(super) fn is_quotient(name: &str) -> bool {
    name.starts_with(QUOTIENT)
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(super) struct Reduced {
    /// Each name with what replaces it; later ones may replace names of earlier ones.
    pub replaced: Vec<(String, Dim)>,
    /// Each is ≥ 0.
    pub nonnegative: Vec<Dim>,
    /// Each is = 0, and gives no name.
    pub zero: Vec<Dim>,
}

impl Reduced {
    pub fn add_nonnegative(&mut self, dim: &Dim) {
        let dim = tightened(&self.apply(dim));
        if dim.as_const().is_none_or(|value| value < 0) && !self.nonnegative.contains(&dim) {
            self.nonnegative.push(dim);
        }
    }

    pub fn add_zero(&mut self, dim: &Dim) {
        let mut waiting = vec![self.apply(dim)];
        while let Some(equation) = waiting.pop() {
            let equation = cancelled(&equation);
            if equation.as_const() == Some(0) {
                continue;
            }
            match solved(&equation, self.replaced.len()) {
                Some((name, value)) if self.replaced.len() < MAX_REPLACED => {
                    let map = BTreeMap::from([(name.clone(), value.clone())]);
                    waiting.extend(std::mem::take(&mut self.zero).iter().map(|known| known.substitute(&map)));
                    let known = std::mem::take(&mut self.nonnegative);
                    self.replaced.push((name, value.clone()));
                    for dim in known.iter().map(|known| known.substitute(&map)).chain([value - Dim::constant(1)]) {
                        self.add_nonnegative(&dim);
                    }
                }
                _ => self.zero.push(equation),
            }
        }
    }

    /// The dim over the names that remain.
    pub fn apply(&self, dim: &Dim) -> Dim {
        let mut dim = dim.clone();
        for (name, value) in &self.replaced {
            if dim.vars().contains(name) {
                dim = dim.substitute(&BTreeMap::from([(name.clone(), value.clone())]));
            }
        }
        dim
    }
}

/// `a*Y + c ≥ 0` for whole `Y` is `Y + ⌊c/a⌋ ≥ 0`.
pub(super) fn tightened(dim: &Dim) -> Dim {
    let terms = dim.terms();
    let common = content(&terms);
    if common <= 1 {
        return dim.clone();
    }
    Dim::from_terms(terms.into_iter().map(|(monomial, number)| (monomial, number.div_euclid(common))))
}

/// The greatest common divisor of the coefficients beside names.
fn content(terms: &[(Monomial, i64)]) -> i64 {
    let named = terms.iter().filter(|(monomial, _)| !monomial.0.is_empty());
    named.fold(0, |common, (_, number)| super::division::gcd(common, *number))
}

/// An equation without the names, which are not 0, and the number that are factors of all its terms.
fn cancelled(equation: &Dim) -> Dim {
    let terms = equation.terms();
    let mut monomials = terms.iter().map(|(monomial, _)| monomial);
    let Some(first) = monomials.next().cloned() else { return equation.clone() };
    let mut common = monomials.fold(first, |common, monomial| common.common(monomial));
    common.0.retain(|(atom, _)| matches!(atom, Atom::Name(_)));
    let number = terms.iter().fold(0, |common, (_, number)| super::division::gcd(common, *number)).max(1);
    let reduce = |(monomial, value): &(Monomial, i64)| {
        (monomial.divided_by(&common).expect("the common factor divides every term"), value / number)
    };
    Dim::from_terms(terms.iter().map(reduce))
}

/// A name and what it is by this equation; `fresh` numbers the quotient that a divisibility introduces.
fn solved(equation: &Dim, fresh: usize) -> Option<(String, Dim)> {
    let terms = equation.terms();
    if terms.is_empty() || terms.len() > MAX_TERMS {
        return None;
    }
    for (monomial, sign) in &terms {
        if let ([(Atom::Name(name), 1)], 1 | -1) = (monomial.0.as_slice(), sign) {
            let value = Dim::from_terms([(monomial.clone(), 1)]) - equation * Dim::constant(*sign);
            if !value.is_overflow() && !value.vars().contains(name.as_ref()) {
                return Some((name.to_string(), value));
            }
        }
    }
    [1, -1].into_iter().find_map(|sign| divisible(&(equation * Dim::constant(sign)), fresh))
}

/// `k*name - d*⌊k*name/d⌋ - r = 0` with `k` and `d` without a common factor says that the name is a multiple of `d`,
/// plus `r` where `k` is 1.
fn divisible(equation: &Dim, fresh: usize) -> Option<(String, Dim)> {
    let rest = equation.constant_term().checked_neg()?;
    let linear = equation + Dim::constant(rest);
    let quotient = Dim::var(&format!("{QUOTIENT}{fresh}"));
    linear.atoms().find_map(|atom| {
        let Atom::Div(numerator, divisor) = atom else { return None };
        let terms = numerator.terms();
        let [(monomial, factor @ 1..)] = terms.as_slice() else { return None };
        let [(Atom::Name(name), 1)] = monomial.0.as_slice() else { return None };
        if linear != numerator - divisor * Dim::atom(atom.clone()) || divisor.vars().contains(name.as_ref()) {
            return None;
        }
        let value = match (divisor.as_const(), rest) {
            (Some(number), 0) if super::division::gcd(*factor, number) == 1 => divisor * &quotient,
            (Some(number), 1..) if *factor == 1 && rest < number => {
                divisor * (&quotient - Dim::constant(1)) + Dim::constant(rest)
            }
            (None, 0) if *factor == 1 && is_plainly_positive(divisor) => divisor * &quotient,
            _ => return None,
        };
        Some((name.to_string(), value))
    })
}

/// A sum of products of names with positive coefficients.
fn is_plainly_positive(dim: &Dim) -> bool {
    let terms = dim.terms();
    let of_names = |monomial: &Monomial| monomial.0.iter().all(|(atom, _)| matches!(atom, Atom::Name(_)));
    !terms.is_empty() && terms.iter().all(|(monomial, number)| *number > 0 && of_names(monomial))
}
