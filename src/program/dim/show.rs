//! Dims as a person writes them: `H - 2`, `4*C`, `(H + 1)/2`.
//!
//! Input: a normal form. Output: text that the language's parser reads back to the same dim, except for overflow.

use std::fmt::{Display, Formatter, Result};

use super::polynomial::{Atom, Monomial};
use super::{Dim, Form};

impl Display for Dim {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.0 {
            Form::Const(value) => write!(f, "{value}"),
            Form::Overflow => f.write_str("overflow"),
            Form::Poly(poly) => {
                let positive = poly.terms.iter().filter(|(_, coefficient)| *coefficient > 0);
                let negative = poly.terms.iter().filter(|(_, coefficient)| *coefficient < 0);
                for (position, (monomial, coefficient)) in positive.chain(negative).enumerate() {
                    match (position, *coefficient < 0) {
                        (0, false) => {}
                        (0, true) => f.write_str("-")?,
                        (_, false) => f.write_str(" + ")?,
                        (_, true) => f.write_str(" - ")?,
                    }
                    write_term(f, monomial, coefficient.unsigned_abs())?;
                }
                Ok(())
            }
        }
    }
}

fn write_term(f: &mut Formatter<'_>, monomial: &Monomial, coefficient: u64) -> Result {
    if monomial.0.is_empty() {
        return write!(f, "{coefficient}");
    }
    if coefficient != 1 {
        write!(f, "{coefficient}*")?;
    }
    let alone = coefficient == 1 && monomial.0.len() == 1;
    for (position, (atom, power)) in monomial.0.iter().enumerate() {
        if position > 0 {
            f.write_str("*")?;
        }
        write_atom(f, atom, alone && *power == 1)?;
        if *power > 1 {
            write!(f, "^{power}")?;
        }
    }
    Ok(())
}

fn write_atom(f: &mut Formatter<'_>, atom: &Atom, alone: bool) -> Result {
    match atom {
        Atom::Name(name) => f.write_str(name),
        Atom::Div(a, b) if alone => {
            write_operand(f, a)?;
            f.write_str("/")?;
            write_operand(f, b)
        }
        Atom::Div(..) => {
            f.write_str("(")?;
            write_atom(f, atom, true)?;
            f.write_str(")")
        }
        Atom::Min(a, b) => write!(f, "min({a}, {b})"),
        Atom::Max(a, b) => write!(f, "max({a}, {b})"),
    }
}

/// In parentheses unless it is a name, a call or a natural number.
fn write_operand(f: &mut Formatter<'_>, dim: &Dim) -> Result {
    match (dim.as_const(), dim.single_atom()) {
        (Some(value), _) if value >= 0 => write!(f, "{value}"),
        (_, Some(Atom::Name(_) | Atom::Min(..) | Atom::Max(..))) => write!(f, "{dim}"),
        _ => write!(f, "({dim})"),
    }
}
