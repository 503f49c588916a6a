//! Bands: which positions of k a tile of a product can leave out.
//!
//! Input: a product's [`kernel::Product::bands`] and its loops by role. Output: for rows and columns of C, a range of k.
//! Invariant: every summand outside the range may be left out; the range follows from the bands and the tile's place.

use std::ops::Range;

use crate::kernel::Linear;

/// A loop after orientation.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    pub extent: usize,
    /// Strides in A, B and C.
    pub strides: [i64; 3],
    /// Its number among the product's m, n and k loops; none for a loop of the batch.
    pub number: Option<usize>,
}

/// The bands that the axes of a product can follow.
#[derive(Debug, Default)]
pub struct Bands(Vec<Band>);

/// `m + n + k · position + offset`; negative where the summand may be left out.
#[derive(Debug, Default)]
struct Band {
    m: Term,
    n: Term,
    k: i64,
    offset: i64,
}

/// `coefficient · ((position / inner) mod extent)`: the index of one loop of an axis.
#[derive(Debug)]
struct Term {
    coefficient: i64,
    inner: usize,
    extent: usize,
}

impl Default for Term {
    fn default() -> Term {
        Term { coefficient: 0, inner: 1, extent: 1 }
    }
}

impl Term {
    /// The loop of this number with its coefficient; none if the axis has it not, or the term has another loop.
    fn set(&mut self, axis: &[Loop], number: usize, coefficient: i64) -> Option<()> {
        let place = axis.iter().position(|each| each.number == Some(number))?;
        let inner = axis[place + 1..].iter().map(|each| each.extent).product();
        let is_free = self.coefficient == 0;
        *self = Term { coefficient, inner, extent: axis[place].extent };
        is_free.then_some(())
    }

    /// Its greatest value over a range of positions that is not empty.
    fn greatest(&self, positions: &Range<usize>) -> i64 {
        let (low, high) = (positions.start / self.inner, (positions.end - 1) / self.inner);
        let wraps = high / self.extent != low / self.extent;
        let (low, high) = if wraps { (0, self.extent - 1) } else { (low % self.extent, high % self.extent) };
        (self.coefficient * low as i64).max(self.coefficient * high as i64)
    }
}

impl Bands {
    /// The bands of these functions over numbered loops; `axes` are those of m, n and k. Left out are functions of two loops
    /// of one axis, and of one loop of several in k.
    pub fn new(functions: &[Linear], axes: [&[Loop]; 3]) -> Bands {
        Bands(functions.iter().filter_map(|function| Band::new(function, axes)).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether whole tiles lie outside a band: one between rows and columns.
    pub fn leave_out_tiles(&self) -> bool {
        self.0.iter().any(|band| band.k == 0 && band.m.coefficient != 0 && band.n.coefficient != 0)
    }

    /// The positions of k in `block` that these rows and columns need, counted from the start of the block.
    #[inline]
    pub fn needed(&self, rows: &Range<usize>, columns: &Range<usize>, block: &Range<usize>) -> Range<usize> {
        let (mut start, mut end) = (block.start as i64, block.end as i64);
        for band in &self.0 {
            let rest = band.m.greatest(rows) + band.n.greatest(columns) + band.offset;
            match band.k {
                0 if rest < 0 => end = start,
                0 => {}
                // rest + k · position ≥ 0
                k if k > 0 => start = start.max(-rest.div_euclid(k)),
                k => end = end.min(rest.div_euclid(-k) + 1),
            }
        }
        match start < end {
            true => start as usize - block.start..end as usize - block.start,
            false => 0..0,
        }
    }
}

impl Band {
    fn new(function: &Linear, [m, n, k]: [&[Loop]; 3]) -> Option<Band> {
        let mut band = Band { offset: function.offset, ..Band::default() };
        for &(number, coefficient) in &function.terms {
            let is_in = |axis: &[Loop]| axis.iter().any(|each| each.number == Some(number));
            if is_in(m) {
                band.m.set(m, number, coefficient)?;
            } else if is_in(n) {
                band.n.set(n, number, coefficient)?;
            } else if is_in(k) {
                band.k = coefficient;
                (k.len() == 1).then_some(())?;
            }
            // The index of a loop of one iteration is 0.
        }
        Some(band)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(first: usize, extents: &[usize]) -> Vec<Loop> {
        let numbered = extents.iter().enumerate();
        numbered.map(|(i, &extent)| Loop { extent, strides: [0; 3], number: Some(first + i) }).collect()
    }

    /// Every summand that a band keeps is in the range of its tile, and a range is no longer than it must be.
    fn check(m: &[usize], n: usize, k: usize, functions: &[Linear]) {
        let axes = [axis(0, m), axis(m.len(), &[n]), axis(m.len() + 1, &[k])];
        let bands = Bands::new(functions, [&axes[0], &axes[1], &axes[2]]);
        let rows: usize = m.iter().product();
        let index = |row: usize, place: usize| row / m[place + 1..].iter().product::<usize>() % m[place];
        for (first, last) in [(0, 1), (0, 3), (2, 5), (3, 4), (0, rows)] {
            for columns in [0..1, 1..n, 0..n] {
                for block in [0..k, 1..k - 1, k / 2..k] {
                    let mut kept = Vec::new();
                    for (row, column) in (first..last).flat_map(|row| columns.clone().map(move |column| (row, column)))
                    {
                        let mut point: Vec<usize> = (0..m.len()).map(|place| index(row, place)).collect();
                        point.extend([column, 0]);
                        kept.extend(block.clone().filter(|&position| {
                            *point.last_mut().expect("it has k") = position;
                            functions.iter().all(|function| function.at(&point) >= 0)
                        }));
                    }
                    let needed = bands.needed(&(first..last), &columns, &block);
                    let needed = needed.start + block.start..needed.end + block.start;
                    assert!(kept.iter().all(|position| needed.contains(position)), "{kept:?} {needed:?}");
                    if functions.len() == 1 && (m.len() == 1 || last - first == 1) {
                        let exact =
                            kept.iter().min().map_or(0, |low| kept.iter().max().map_or(0, |high| high + 1 - low));
                        assert_eq!(needed.len(), exact, "{first}..{last} {columns:?} {block:?}");
                    }
                }
            }
        }
    }

    fn linear(terms: &[(usize, i64)], offset: i64) -> Linear {
        Linear { terms: terms.to_vec(), offset }
    }

    #[test]
    fn ranges_hold_what_is_needed_and_no_more() {
        for offset in [-3, 0, 2] {
            check(&[7], 5, 9, &[linear(&[(0, 1), (2, -1)], offset)]);
            check(&[7], 5, 9, &[linear(&[(0, -1), (2, 1)], offset)]);
            check(&[7], 5, 9, &[linear(&[(1, 1), (2, -2)], offset)]);
            check(&[7], 5, 9, &[linear(&[(1, -2), (2, 3)], offset)]);
            check(&[7], 5, 9, &[linear(&[(0, 1), (1, -1)], offset)]);
            check(&[3, 4], 5, 9, &[linear(&[(1, 1), (3, -1)], offset)]);
            check(&[3, 4], 5, 9, &[linear(&[(0, 2), (3, -1)], offset)]);
            check(&[7], 5, 9, &[linear(&[(0, 1), (2, -1)], 0), linear(&[(0, -1), (2, 1)], 2 + offset)]);
        }
    }

    #[test]
    fn what_axes_cannot_follow_is_no_band() {
        let (m, n, k) = (axis(0, &[3, 4]), axis(2, &[5]), axis(3, &[2, 6]));
        let bands = Bands::new(&[linear(&[(0, 1), (1, -1)], 0), linear(&[(1, 1), (3, -1)], 0)], [&m, &n, &k]);
        assert!(bands.is_empty());
    }
}
