//! Host scalars: formulas over the clock, evaluated in f64 before each step.
//!
//! Input: a [`ScalarExpr`] and a [`ClockReading`]. Output: a number, or the formula as text.
//! Invariant: arithmetic means what it means for tensors ([`unary`], [`binary`], [`compare`] serve both).

use std::fmt;

use super::{Binary, Clock, Compare, ScalarExpr, Unary};

/// Where the training stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockReading {
    /// The number of this step, from 1.
    pub step: u64,
    /// Steps in the whole training.
    pub total_steps: u64,
    /// Steps in one epoch.
    pub steps_per_epoch: u64,
}

impl ScalarExpr {
    /// The value at this clock reading.
    pub fn evaluate(&self, clock: &ClockReading) -> f64 {
        match self {
            ScalarExpr::Const(value) => *value,
            ScalarExpr::Clock(Clock::Step) => clock.step as f64,
            ScalarExpr::Clock(Clock::TotalSteps) => clock.total_steps as f64,
            ScalarExpr::Clock(Clock::StepsPerEpoch) => clock.steps_per_epoch as f64,
            ScalarExpr::Unary(op, x) => unary(*op, x.evaluate(clock)),
            ScalarExpr::Binary(op, a, b) => binary(*op, a.evaluate(clock), b.evaluate(clock)),
            ScalarExpr::Compare(op, a, b) => truth(compare(*op, a.evaluate(clock), b.evaluate(clock))),
            ScalarExpr::Select(condition, then, otherwise) => {
                if condition.evaluate(clock) != 0.0 {
                    then.evaluate(clock)
                } else {
                    otherwise.evaluate(clock)
                }
            }
        }
    }
}

/// 1 for true, 0 for false.
pub fn truth(condition: bool) -> f64 {
    if condition { 1.0 } else { 0.0 }
}

/// The meaning of a [`Unary`] on real numbers (and, for `Not`, on truth values 0 and 1).
pub fn unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Erf => libm::erf(x),
        Unary::Floor => x.floor(),
        Unary::Not => truth(x == 0.0),
    }
}

/// The meaning of a [`Binary`] on real numbers (and, for `And` and `Or`, on truth values 0 and 1).
pub fn binary(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Rem => a - b * (a / b).floor(),
        Binary::Pow => a.powf(b),
        Binary::Max => {
            if exceeds(b, a) {
                b
            } else {
                a
            }
        }
        Binary::Min => {
            if exceeds(-b, -a) {
                b
            } else {
                a
            }
        }
        Binary::And => truth(a != 0.0 && b != 0.0),
        Binary::Or => truth(a != 0.0 || b != 0.0),
    }
}

/// Whether `b` replaces `a` as the maximum: what is not a number exceeds every number.
pub fn exceeds(b: f64, a: f64) -> bool {
    b > a || (b.is_nan() && !a.is_nan())
}

/// The meaning of a [`Binary`] on 32-bit integers: wrapping, with floor division and 0 for a zero divisor.
///
/// # Panics
/// On `Pow`, `And`, `Or`, which the verifier does not admit on I32.
pub fn binary_integer(op: Binary, a: i32, b: i32) -> i32 {
    let floor_div = |a: i32, b: i32| {
        let (quotient, remainder) = (a.wrapping_div(b), a.wrapping_rem(b));
        if remainder != 0 && (remainder < 0) != (b < 0) { quotient - 1 } else { quotient }
    };
    match op {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div if b == 0 => 0,
        Binary::Div => floor_div(a, b),
        Binary::Rem if b == 0 => 0,
        Binary::Rem => a.wrapping_sub(floor_div(a, b).wrapping_mul(b)),
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
        Binary::Pow | Binary::And | Binary::Or => panic!("{op:?} is not defined on I32"),
    }
}

/// The meaning of a [`Compare`]; false (`Ne`: true) where an operand is not a number.
pub fn compare(op: Compare, a: f64, b: f64) -> bool {
    match op {
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
        Compare::Eq => a == b,
        Compare::Ne => a != b,
    }
}

impl fmt::Display for ScalarExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScalarExpr::Const(value) => write!(f, "{value}"),
            ScalarExpr::Clock(Clock::Step) => write!(f, "step"),
            ScalarExpr::Clock(Clock::TotalSteps) => write!(f, "total_steps"),
            ScalarExpr::Clock(Clock::StepsPerEpoch) => write!(f, "steps_per_epoch"),
            ScalarExpr::Unary(Unary::Neg, x) => write!(f, "-{x}"),
            ScalarExpr::Unary(Unary::Not, x) => write!(f, "(not {x})"),
            ScalarExpr::Unary(op, x) => write!(f, "{}({x})", unary_name(*op)),
            ScalarExpr::Binary(op, a, b) => match binary_symbol(*op) {
                Some(symbol) => write!(f, "({a} {symbol} {b})"),
                None => write!(f, "{}({a}, {b})", format!("{op:?}").to_lowercase()),
            },
            ScalarExpr::Compare(op, a, b) => write!(f, "({a} {} {b})", compare_symbol(*op)),
            ScalarExpr::Select(condition, then, otherwise) => write!(f, "({then} if {condition} else {otherwise})"),
        }
    }
}

/// The language's name of a function.
pub fn unary_name(op: Unary) -> String {
    format!("{op:?}").to_lowercase()
}

/// The language's infix symbol, if it has one.
pub fn binary_symbol(op: Binary) -> Option<&'static str> {
    match op {
        Binary::Add => Some("+"),
        Binary::Sub => Some("-"),
        Binary::Mul => Some("*"),
        Binary::Div => Some("/"),
        Binary::Rem => Some("%"),
        Binary::Pow => Some("^"),
        Binary::And => Some("and"),
        Binary::Or => Some("or"),
        Binary::Max | Binary::Min => None,
    }
}

/// The language's infix symbol.
pub fn compare_symbol(op: Compare) -> &'static str {
    match op {
        Compare::Lt => "<",
        Compare::Le => "<=",
        Compare::Gt => ">",
        Compare::Ge => ">=",
        Compare::Eq => "==",
        Compare::Ne => "!=",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_correction_follows_the_step() {
        let power =
            ScalarExpr::Binary(Binary::Pow, Box::new(ScalarExpr::Const(0.9)), Box::new(ScalarExpr::Clock(Clock::Step)));
        let expr = ScalarExpr::Binary(Binary::Sub, Box::new(ScalarExpr::Const(1.0)), Box::new(power));
        let clock = ClockReading { step: 2, total_steps: 10, steps_per_epoch: 5 };
        assert!((expr.evaluate(&clock) - 0.19).abs() < 1e-15);
        assert_eq!(expr.to_string(), "(1 - (0.9 ^ step))");
    }

    #[test]
    fn extrema_of_what_is_not_a_number_are_not_numbers() {
        for (a, b) in [(f64::NAN, 1.0), (1.0, f64::NAN), (f64::NAN, f64::INFINITY), (f64::NEG_INFINITY, f64::NAN)] {
            assert!(binary(Binary::Max, a, b).is_nan() && binary(Binary::Min, a, b).is_nan(), "{a}, {b}");
        }
        assert_eq!((binary(Binary::Max, 1.0, 2.0), binary(Binary::Min, 1.0, 2.0)), (2.0, 1.0));
    }

    #[test]
    fn integer_division_rounds_down_and_its_remainder_has_the_divisors_sign() {
        assert_eq!(binary_integer(Binary::Div, -7, 2), -4);
        assert_eq!(binary_integer(Binary::Rem, -7, 2), 1);
        assert_eq!(binary_integer(Binary::Rem, 7, -2), -1);
        assert_eq!(binary_integer(Binary::Div, 7, 0), 0);
        assert_eq!(binary_integer(Binary::Rem, 7, 0), 0);
        assert_eq!(binary_integer(Binary::Div, i32::MIN, -1), i32::MIN);
    }
}
