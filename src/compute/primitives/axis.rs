//! One operand's view of one dimension of a product: a map from positions to element offsets.
//!
//! Input: the loops that make up the dimension, with the operand's strides. Output: runs of constant step.
//! Invariant: position p of the dimension counts its loops in row-major order, so two operands' axes over the same loops
//! agree on positions, however each merges the loops.

use std::ops::Range;

/// A map from `0..extent` to element offsets, of equal runs with a constant step.
#[derive(Clone, Debug)]
pub struct Axis {
    extent: usize,
    /// Positions in a run; divides the extent.
    run: usize,
    /// Offset between neighbours in a run.
    step: isize,
    /// The offset of each run's first position.
    starts: Vec<isize>,
}

/// A piece of a run inside a range of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First position, counted from the start of the range.
    pub position: usize,
    /// Number of positions, at least 1.
    pub length: usize,
    /// Offset of the first position.
    pub offset: isize,
}

impl Axis {
    /// The axis of loops `(extent, stride)`, outermost first.
    pub fn new(loops: impl DoubleEndedIterator<Item = (usize, i64)>) -> Axis {
        let (mut run, mut step) = (1usize, 1isize);
        let mut outer: Vec<(usize, isize)> = Vec::new();
        for (extent, stride) in loops.rev().map(|(extent, stride)| (extent, stride as isize)) {
            if extent == 1 {
                continue;
            }
            let merges = outer.is_empty() && (run == 1 || stride == step * run as isize);
            if run == 1 && merges {
                (run, step) = (extent, stride);
            } else if merges {
                run *= extent;
            } else {
                outer.push((extent, stride));
            }
        }
        let mut starts = vec![0isize];
        for &(extent, stride) in outer.iter().rev() {
            starts = starts.iter().flat_map(|&start| (0..extent as isize).map(move |i| start + i * stride)).collect();
        }
        Axis { extent: run * starts.len(), run, step, starts }
    }

    /// Number of positions.
    pub fn extent(&self) -> usize {
        self.extent
    }

    /// Positions in a run.
    pub fn run(&self) -> usize {
        self.run
    }

    /// Offset between neighbours in a run.
    pub fn step(&self) -> isize {
        self.step
    }

    /// The pieces of runs that make up a range of positions, in order.
    pub fn runs(&self, range: Range<usize>) -> impl Iterator<Item = Run> + '_ {
        let first = range.start;
        let mut next = range.start;
        std::iter::from_fn(move || {
            if next >= range.end {
                return None;
            }
            let (index, inside) = if self.starts.len() == 1 { (0, next) } else { (next / self.run, next % self.run) };
            let length = (self.run - inside).min(range.end - next);
            let run = Run { position: next - first, length, offset: self.starts[index] + inside as isize * self.step };
            next += length;
            Some(run)
        })
    }

    /// Whether the offsets of the range are consecutive numbers.
    pub fn is_contiguous(&self, range: Range<usize>) -> bool {
        if range.len() <= 1 {
            return true;
        }
        let mut expected = None;
        self.runs(range).all(|run| {
            let follows = expected.is_none_or(|offset| offset == run.offset);
            expected = Some(run.offset + run.length as isize);
            follows && (run.length == 1 || self.step == 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(axis: &Axis, range: Range<usize>) -> Vec<isize> {
        axis.runs(range).flat_map(|run| (0..run.length as isize).map(move |i| run.offset + i * axis.step())).collect()
    }

    #[test]
    fn axis_counts_loops_in_row_major_order() {
        let loops = [(3, 100), (1, 7), (2, 10), (4, 2)];
        let mut expected = Vec::new();
        for i in 0..3 {
            for j in 0..2 {
                for k in 0..4 {
                    expected.push(i * 100 + j * 10 + k * 2);
                }
            }
        }
        let axis = Axis::new(loops.into_iter());
        assert_eq!(axis.extent(), 24);
        for start in 0..24 {
            for end in start..=24 {
                assert_eq!(offsets(&axis, start..end), expected[start..end]);
            }
        }
    }

    #[test]
    fn axis_merges_loops_that_continue_each_other() {
        let axis = Axis::new([(5, 12), (3, 4), (4, 1)].into_iter());
        assert_eq!((axis.run(), axis.step(), axis.extent()), (60, 1, 60));
        assert!(axis.is_contiguous(3..50));
    }

    #[test]
    fn axis_of_no_loops_has_one_position_and_of_an_empty_loop_none() {
        assert_eq!(offsets(&Axis::new([].into_iter()), 0..1), [0]);
        assert_eq!(Axis::new([(4, 1), (0, 1)].into_iter()).extent(), 0);
        assert_eq!(Axis::new([(0, 9), (3, 1)].into_iter()).extent(), 0);
    }

    #[test]
    fn contiguity_is_seen_across_runs_only_where_offsets_continue() {
        let axis = Axis::new([(2, 50), (10, 1)].into_iter());
        assert!(axis.is_contiguous(0..10) && axis.is_contiguous(12..20));
        assert!(!axis.is_contiguous(5..15));
    }
}
