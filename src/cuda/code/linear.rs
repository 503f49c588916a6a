//! Loop indices and their functions as C.
//!
//! Input: a [`Linear`], the extents of its loops. Output: an expression. Invariant: no part of it overflows: where one could
//! leave 32 bits it is computed in 64.

use super::writer::Writer;
use crate::kernel::Linear;

/// The C variable of a loop.
pub(super) fn loop_name(number: usize) -> String {
    format!("i{number}")
}

/// Whether every partial sum of the function fits into 32 bits.
fn is_short(linear: &Linear, extents: &[usize]) -> bool {
    let reach = linear
        .terms
        .iter()
        .map(|&(number, coefficient)| i128::from(coefficient).abs() * (extents[number].max(1) as i128 - 1));
    i128::from(linear.offset).abs() + reach.sum::<i128>() <= i128::from(i32::MAX)
}

/// The function as an expression, `int` or `long long`.
pub(super) fn linear_text(linear: &Linear, extents: &[usize]) -> String {
    sum_text(linear, is_short(linear, extents), &loop_name)
}

/// The sum of the terms with names of one's own.
pub(super) fn sum_text(linear: &Linear, short: bool, name: &dyn Fn(usize) -> String) -> String {
    let suffix = if short { "" } else { "LL" };
    let mut text = String::new();
    for &(number, coefficient) in &linear.terms {
        let (sign, size) = (if coefficient < 0 { " - " } else { " + " }, coefficient.unsigned_abs());
        text.push_str(match (text.is_empty(), coefficient < 0) {
            (true, true) => "-",
            (true, false) => "",
            (false, _) => sign,
        });
        match (size, short) {
            (1, true) => text.push_str(&name(number)),
            (1, false) => text.push_str(&format!("(long long){}", name(number))),
            _ => text.push_str(&format!("{size}{suffix} * {}", name(number))),
        }
    }
    match (linear.offset, text.is_empty()) {
        (0, false) => {}
        (offset, true) => text = format!("{offset}{suffix}"),
        (offset, false) if offset < 0 => text.push_str(&format!(" - {}{suffix}", offset.unsigned_abs())),
        (offset, false) => text.push_str(&format!(" + {offset}{suffix}")),
    }
    text
}

/// The type of a number of so many points.
pub(super) fn index_type(points: usize) -> &'static str {
    if i32::try_from(points).is_ok() { "int" } else { "long long" }
}

/// Declares indices from a number in row-major order.
pub(super) fn unravel(out: &mut Writer, number: &str, index: &str, names: &[String], extents: &[usize]) {
    let mut below = 1;
    let mut lines = Vec::new();
    for (position, (name, extent)) in names.iter().zip(extents).enumerate().rev() {
        let part = if below == 1 { number.to_string() } else { format!("{number} / {below}") };
        let part = if position == 0 { part } else { format!("{part} % {extent}") };
        let part = if index == "int" { part } else { format!("(int)({part})") };
        lines.push(format!("const int {name} = {part};"));
        below *= extent;
    }
    lines.iter().rev().for_each(|line| out.line(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_leave_32_bits_is_computed_in_64() {
        let linear = Linear { terms: vec![(0, 65_536), (1, -1)], offset: -3 };
        assert_eq!(linear_text(&linear, &[8, 8]), "65536 * i0 - i1 - 3");
        assert_eq!(linear_text(&linear, &[65_536, 8]), "65536LL * i0 - (long long)i1 - 3LL");
        assert_eq!(linear_text(&Linear::constant(-4), &[]), "-4");
        assert_eq!(linear_text(&Linear { terms: vec![(0, -2)], offset: 1 }, &[3]), "-2 * i0 + 1");
    }
}
