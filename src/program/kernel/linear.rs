//! Arithmetic on [`Linear`] functions of loop indices.
//!
//! Input and output: plain data. Invariant: terms stay sorted by loop, each loop once, no zero coefficient.

use super::Linear;
use crate::graph::op::sum_of_terms;

impl Linear {
    /// The constant function.
    pub fn constant(offset: i64) -> Self {
        Self { terms: Vec::new(), offset }
    }

    /// The index of one loop.
    pub fn index(index: usize) -> Self {
        Self { terms: vec![(index, 1)], offset: 0 }
    }

    /// `Some` for a constant function.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.offset)
    }

    /// `Some(l)` for the plain index of loop `l`.
    pub fn as_index(&self) -> Option<usize> {
        match self.terms.as_slice() {
            [(index, 1)] if self.offset == 0 => Some(*index),
            _ => None,
        }
    }

    /// The coefficient of a loop, 0 where it does not occur.
    pub fn coefficient(&self, index: usize) -> i64 {
        self.terms.iter().find(|term| term.0 == index).map_or(0, |term| term.1)
    }

    /// The sum of two functions.
    #[must_use]
    pub fn plus(&self, other: &Linear) -> Self {
        let terms = sum_of_terms(&self.terms, &other.terms);
        Self { terms, offset: self.offset + other.offset }
    }

    /// The function plus a number.
    #[must_use]
    pub fn shifted(&self, offset: i64) -> Self {
        Self { terms: self.terms.clone(), offset: self.offset + offset }
    }

    /// The function times a number.
    #[must_use]
    pub fn scaled(&self, factor: i64) -> Self {
        if factor == 0 {
            return Self::default();
        }
        let terms = self.terms.iter().map(|&(index, coefficient)| (index, coefficient * factor)).collect();
        Self { terms, offset: self.offset * factor }
    }

    /// Puts a function in the place of each index.
    #[must_use]
    pub fn compose(&self, substitute: impl Fn(usize) -> Linear) -> Self {
        let start = Self::constant(self.offset);
        self.terms.iter().fold(start, |sum, &(index, coefficient)| sum.plus(&substitute(index).scaled(coefficient)))
    }

    /// Forgets a loop; the numbers of later ones become one less.
    pub fn remove(&mut self, index: usize) {
        self.terms.retain(|term| term.0 != index);
        self.terms.iter_mut().filter(|term| term.0 > index).for_each(|term| term.0 -= 1);
    }

    /// Fixes the index of a loop.
    pub fn fix(&mut self, index: usize, point: usize) {
        self.offset += self.coefficient(index) * point as i64;
        self.terms.retain(|term| term.0 != index);
    }

    /// Least and greatest value over a box of index extents; every extent is at least 1.
    pub fn range(&self, extents: &[usize]) -> (i64, i64) {
        let mut range = (self.offset, self.offset);
        for &(index, coefficient) in &self.terms {
            let reach = coefficient * (extents[index] as i64 - 1);
            range = (range.0 + reach.min(0), range.1 + reach.max(0));
        }
        range
    }

    /// True if every value over the box lies in `0..extent`.
    pub fn is_within(&self, extents: &[usize], extent: i64) -> bool {
        let (least, greatest) = self.range(extents);
        least >= 0 && greatest < extent
    }

    /// Its value at a point.
    pub fn at(&self, point: &[usize]) -> i64 {
        self.terms.iter().fold(self.offset, |sum, &(index, coefficient)| sum + coefficient * point[index] as i64)
    }
}

/// Row-major strides of these sizes, in elements.
pub fn row_major(sizes: &[usize]) -> Vec<i64> {
    let mut strides = vec![1; sizes.len()];
    for dim in (1..sizes.len()).rev() {
        strides[dim - 1] = strides[dim] * sizes[dim] as i64;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composition_substitutes_every_index() {
        let function = Linear { terms: vec![(0, 2), (1, 1)], offset: -1 };
        let composed = function.compose(|index| Linear { terms: vec![(3, 5)], offset: index as i64 });
        assert_eq!(composed, Linear { terms: vec![(3, 15)], offset: 0 });
    }

    #[test]
    fn range_takes_the_sign_of_coefficients_into_account() {
        let function = Linear { terms: vec![(0, -2), (1, 3)], offset: 1 };
        assert_eq!(function.range(&[4, 2]), (-5, 4));
    }

    #[test]
    fn cancelled_terms_vanish() {
        let sum = Linear::index(2).plus(&Linear::index(2).scaled(-1));
        assert_eq!(sum, Linear::constant(0));
    }
}
