//! Floor division of polynomials, as far towards a normal form as exactness allows.
//!
//! Input: two dims. Output: their floored quotient. Invariant: the result equals ⌊a / b⌋ for every assignment with
//! b ≠ 0. For a constant divisor the remaining numerator has coefficients in `[0, b)` and no factor in common with b,
//! so `(H - 1)/2 + 1` and `(H + 1)/2` are the same dim.

use super::polynomial::{Atom, Monomial, floor_div_i64};
use super::{Dim, Form};

/// ⌊a / b⌋.
pub(super) fn floor_div(a: &Dim, b: &Dim) -> Dim {
    if a.is_overflow() || b.is_overflow() {
        return Dim(Form::Overflow);
    }
    if a == b && a.as_const() != Some(0) {
        return Dim::constant(1);
    }
    match (a.as_const(), b.as_const()) {
        (_, Some(0)) => Dim(Form::Overflow),
        (_, Some(1)) => a.clone(),
        (Some(0), _) => Dim::constant(0),
        (Some(x), Some(y)) => floor_div_i64(x, y).map_or(Dim(Form::Overflow), Dim::constant),
        (None, Some(y)) if y < 0 => match y.checked_neg() {
            Some(positive) => by_constant(&-a, positive),
            None => Dim(Form::Overflow),
        },
        (None, Some(y)) => by_constant(a, y),
        (_, None) => by_polynomial(a, b),
    }
}

pub(super) fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    i64::try_from(a).unwrap_or(1)
}

/// `divisor` ≥ 2, `a` not constant.
fn by_constant(a: &Dim, divisor: i64) -> Dim {
    let (mut whole, mut rest) = (Vec::new(), Vec::new());
    for (monomial, coefficient) in a.terms() {
        let remainder = coefficient.rem_euclid(divisor);
        whole.push((monomial.clone(), coefficient.div_euclid(divisor)));
        rest.push((monomial, remainder));
    }
    let whole = Dim::from_terms(whole);
    let rest = Dim::from_terms(rest);
    let Form::Poly(poly) = &rest.0 else {
        // The numerator's remainder is a constant in [0, divisor).
        return whole;
    };
    let common = poly
        .terms
        .iter()
        .filter(|(monomial, _)| !monomial.0.is_empty())
        .fold(divisor, |common, (_, coefficient)| gcd(common, *coefficient));
    let reduced = Dim::from_terms(
        poly.terms.iter().map(|(monomial, coefficient)| (monomial.clone(), coefficient.div_euclid(common))),
    );
    let divisor = divisor / common;
    if divisor == 1 {
        return whole + reduced;
    }
    whole + merge_nested(&reduced, divisor)
}

/// ⌊(⌊x / y⌋ + c) / d⌋ = ⌊(x + c·y) / (y·d)⌋ for an integer d > 0.
fn merge_nested(numerator: &Dim, divisor: i64) -> Dim {
    let constant = numerator.constant_term();
    let inner = numerator - Dim::constant(constant);
    if let Some(Atom::Div(x, y)) = inner.single_atom() {
        let merged = x + Dim::constant(constant) * y;
        return floor_div(&merged, &(y * Dim::constant(divisor)));
    }
    Dim::atom(Atom::Div(numerator.clone(), Dim::constant(divisor)))
}

/// `b` is not constant.
fn by_polynomial(a: &Dim, b: &Dim) -> Dim {
    let (quotient, rest) = divide(a, b);
    if rest.as_const() == Some(0) {
        return quotient;
    }
    // A partial quotient is kept only where the divisor is one term; for others the split would depend on the order.
    let divisor_terms = b.terms();
    let (whole, rest) = if divisor_terms.len() == 1 { (quotient, rest) } else { (Dim::constant(0), a.clone()) };
    let (rest, divisor) = cancel(&rest, b);
    if let Some(value) = divisor.as_const() {
        return whole + floor_div(&rest, &Dim::constant(value));
    }
    whole + Dim::atom(Atom::Div(rest, divisor))
}

/// Polynomial long division: `a = quotient·b + rest`, no term of the rest divisible by the leading term of b.
fn divide(a: &Dim, b: &Dim) -> (Dim, Dim) {
    let terms = b.terms();
    let Some((lead, lead_coefficient)) = terms.first() else { return (Dim::constant(0), a.clone()) };
    let (mut quotient, mut rest, mut pending) = (Dim::constant(0), Dim::constant(0), a.clone());
    for _ in 0..1024 {
        let Some((monomial, coefficient)) = pending.terms().into_iter().next() else {
            return (quotient, rest);
        };
        let factor = monomial.divided_by(lead).filter(|_| coefficient % lead_coefficient == 0);
        match factor {
            Some(factor) => {
                let part = Dim::from_terms([(factor, coefficient / lead_coefficient)]);
                pending = pending - &part * b;
                quotient = quotient + part;
            }
            None => {
                let part = Dim::from_terms([(monomial, coefficient)]);
                pending = pending - &part;
                rest = rest + part;
            }
        }
        if pending.is_overflow() || quotient.is_overflow() {
            break;
        }
    }
    (Dim::constant(0), a.clone())
}

/// Divides both by their common factor.
fn cancel(a: &Dim, b: &Dim) -> (Dim, Dim) {
    let terms: Vec<_> = a.terms().into_iter().chain(b.terms()).collect();
    let number = terms.iter().fold(0, |common, (_, coefficient)| gcd(common, *coefficient)).max(1);
    let mut monomials = terms.iter().map(|(monomial, _)| monomial);
    let Some(first) = monomials.next().cloned() else { return (a.clone(), b.clone()) };
    let common = monomials.fold(first, |common, monomial| common.common(monomial));
    let reduce = |dim: &Dim| {
        Dim::from_terms(dim.terms().into_iter().map(|(monomial, coefficient)| {
            let rest: Monomial = monomial.divided_by(&common).expect("the common factor divides every term");
            (rest, coefficient / number)
        }))
    };
    (reduce(a), reduce(b))
}
