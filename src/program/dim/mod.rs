//! Symbolic dims: integer polynomials over named sizes, with floor division, min and max as atoms.
//!
//! Input: arithmetic of the model file. Output: normal forms, and three-valued answers to shape questions ([`Facts`]).
//! Invariant: two dims that are equal as polynomials over the same atoms compare equal with `==`.
//! A remainder has no atom of its own: `a % b` is `a - b*(a/b)`, so `require C % heads == 0` is an equation
//! between polynomials.

mod bounds;
mod division;
mod facts;
mod polynomial;
mod proof;
#[cfg(test)]
mod random_tests;
mod reduced;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use facts::{Compare, Facts, Verdict};
use polynomial::{Atom, Polynomial};

/// The numbers that bound sizes are.
///
/// # Panics
/// Where one is still symbolic: a compiler bug.
pub fn bound(shape: &[Dim]) -> Vec<usize> {
    shape.iter().map(|dim| dim.as_const().expect("sizes are bound in a step") as usize).collect()
}

/// A size: a constant, or a polynomial in normal form. Construction never panics; a coefficient that overflows,
/// a division by zero or a form beyond the limits of [`polynomial`] makes the dim [`Dim::is_overflow`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dim(Form);

/// Invariant: `Poly` is never a constant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Form {
    Const(i64),
    Poly(Arc<Polynomial>),
    Overflow,
}

impl Dim {
    /// A number.
    pub const fn constant(value: i64) -> Self {
        Dim(Form::Const(value))
    }

    /// A named size.
    pub fn var(name: &str) -> Self {
        Self::atom(Atom::Name(Arc::from(name)))
    }

    /// `Some` for a number.
    pub fn as_const(&self) -> Option<i64> {
        match self.0 {
            Form::Const(value) => Some(value),
            Form::Poly(_) | Form::Overflow => None,
        }
    }

    /// `Some` for a plain named size.
    pub fn as_var(&self) -> Option<&str> {
        match self.single_atom()? {
            Atom::Name(name) => Some(name),
            Atom::Div(..) | Atom::Min(..) | Atom::Max(..) => None,
        }
    }

    /// The number that is added to the terms with names.
    pub fn constant_term(&self) -> i64 {
        self.terms().iter().find(|(monomial, _)| monomial.0.is_empty()).map_or(0, |(_, number)| *number)
    }

    /// True where arithmetic left the range that the normal form can hold, or divided by zero.
    pub fn is_overflow(&self) -> bool {
        self.0 == Form::Overflow
    }

    /// The named sizes that occur anywhere in the dim.
    pub fn vars(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        self.collect_vars(&mut names);
        names
    }

    fn collect_vars(&self, names: &mut BTreeSet<String>) {
        for atom in self.atoms() {
            match atom {
                Atom::Name(name) => {
                    names.insert(name.to_string());
                }
                Atom::Div(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                    a.collect_vars(names);
                    b.collect_vars(names);
                }
            }
        }
    }

    /// The dim with named sizes replaced; names that are absent from the map stay.
    pub fn substitute(&self, map: &BTreeMap<String, Dim>) -> Dim {
        let Form::Poly(poly) = &self.0 else { return self.clone() };
        if map.is_empty() {
            return self.clone();
        }
        let mut sum = Dim::constant(0);
        for (monomial, coefficient) in &poly.terms {
            let mut product = Dim::constant(*coefficient);
            for (atom, power) in &monomial.0 {
                let value = atom.substitute(map);
                for _ in 0..*power {
                    product = product * &value;
                }
            }
            sum = sum + product;
        }
        sum
    }

    /// The value under an assignment; `None` where a name is missing, a divisor is zero or the result overflows.
    pub fn eval(&self, map: &BTreeMap<String, i64>) -> Option<i64> {
        match &self.0 {
            Form::Const(value) => Some(*value),
            Form::Overflow => None,
            Form::Poly(poly) => {
                let mut sum = 0i64;
                for (monomial, coefficient) in &poly.terms {
                    let mut product = *coefficient;
                    for (atom, power) in &monomial.0 {
                        product = product.checked_mul(atom.eval(map)?.checked_pow(*power)?)?;
                    }
                    sum = sum.checked_add(product)?;
                }
                Some(sum)
            }
        }
    }

    /// ⌊self / divisor⌋, simplified: `(4*C)/4` is `C`, `(a*b)/b` is `a`, nested constant divisors merge.
    /// Exact wherever the divisor is not zero.
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        division::floor_div(self, divisor)
    }

    /// `self - divisor * ⌊self / divisor⌋`: the remainder with the divisor's sign.
    pub fn rem(&self, divisor: &Dim) -> Dim {
        self - divisor * self.floor_div(divisor)
    }

    /// The smaller of the two.
    pub fn min(&self, other: &Dim) -> Dim {
        match (self - other).as_const() {
            Some(difference) => if difference <= 0 { self } else { other }.clone(),
            None if self.is_overflow() || other.is_overflow() => Dim(Form::Overflow),
            None => {
                let (a, b) = if polynomial::order(self, other).is_le() { (self, other) } else { (other, self) };
                Self::atom(Atom::Min(a.clone(), b.clone()))
            }
        }
    }

    /// The larger of the two.
    pub fn max(&self, other: &Dim) -> Dim {
        match (self - other).as_const() {
            Some(difference) => if difference >= 0 { self } else { other }.clone(),
            None if self.is_overflow() || other.is_overflow() => Dim(Form::Overflow),
            None => {
                let (a, b) = if polynomial::order(self, other).is_le() { (self, other) } else { (other, self) };
                Self::atom(Atom::Max(a.clone(), b.clone()))
            }
        }
    }

    /// The product of several dims: the element count of a shape.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::constant(1), |product, dim| product * dim)
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $function:path;)*) => {$(
        impl std::ops::$trait<&Dim> for &Dim {
            type Output = Dim;
            fn $method(self, other: &Dim) -> Dim {
                $function(self, other)
            }
        }
        impl std::ops::$trait<Dim> for Dim {
            type Output = Dim;
            fn $method(self, other: Dim) -> Dim {
                $function(&self, &other)
            }
        }
        impl std::ops::$trait<&Dim> for Dim {
            type Output = Dim;
            fn $method(self, other: &Dim) -> Dim {
                $function(&self, other)
            }
        }
        impl std::ops::$trait<Dim> for &Dim {
            type Output = Dim;
            fn $method(self, other: Dim) -> Dim {
                $function(self, &other)
            }
        }
    )*};
}
operators! {
    Add add polynomial::add;
    Sub sub polynomial::sub;
    Mul mul polynomial::mul;
}

impl std::ops::Neg for &Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        self * Dim::constant(-1)
    }
}

impl std::ops::Neg for Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        -&self
    }
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        Dim::constant(value)
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        i64::try_from(value).map_or(Dim(Form::Overflow), Dim::constant)
    }
}

/// A number for a constant, else the text of [`std::fmt::Display`].
/// For readers a number or the formula; in binary forms only sizes that are bound.
impl serde::Serialize for Dim {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_const() {
            Some(value) => serializer.serialize_i64(value),
            None if serializer.is_human_readable() => serializer.collect_str(self),
            None => Err(serde::ser::Error::custom(format!("the size `{self}` is not bound"))),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Dim {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(Dim::constant)
    }
}
