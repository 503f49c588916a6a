//! Products in pieces, so that the padding of strided windows is not multiplied.
//!
//! Input: the indices of a product and where its operands are read. Output: boxes of indices. Invariants: the boxes'
//! outputs are disjoint and cover all; what a box leaves out reads zeros.
//!
//! The input gradient of a window of W taps and stride S has a tap `S·a + b + …` for each residue b of the output. If S does
//! not divide W, some residues have fewer taps than others (of 3 taps with stride 2, two and one): over two dims, 9 of 16.
//! A piece for each number of taps has no zeros.
//!
//! At the border of a small image many taps of a wide window miss it: of 5 taps over the 14 rows that 10 padded ones give, 20
//! of 70. Rows with about the same taps are a piece.

use super::form::Piece;
use super::target::Products;
use crate::kernel::Linear;
use std::ops::Range;

/// Most pieces: three dims of stride 2 have 8.
const MOST_PIECES: usize = 8;
/// Most pieces of rows: about two at each border, and the inner one.
const MOST_BORDER_PIECES: usize = 5;

/// An output index and a summed one, cut into boxes.
struct Cut {
    output: usize,
    summed: usize,
    boxes: Vec<[Range<usize>; 2]>,
}

/// The box of all indices.
pub(super) fn whole(extents: &[usize]) -> Piece {
    extents.iter().map(|&extent| 0..extent).collect()
}

/// The pieces of a product of these extents, the first `rank` of which are the output's; `reads` are its operands' accesses
/// with the sizes that they are in range of. No piece has too few multiplications for
/// a product.
pub(super) fn without_zeros<'a>(
    extents: &[usize],
    rank: usize,
    reads: impl Iterator<Item = (&'a Linear, &'a usize)>,
    products: &Products,
) -> Vec<Piece> {
    let mut pieces = vec![whole(extents)];
    let mut used: Vec<usize> = Vec::new();
    for (linear, &size) in reads {
        let Some(cut) = cut(extents, rank, linear, size, products) else { continue };
        let free = ![cut.output, cut.summed].iter().any(|index| used.contains(index));
        if free && pieces.len() * cut.boxes.len() <= MOST_PIECES {
            let with = |piece: &Piece, [output, summed]: &[Range<usize>; 2]| {
                let mut piece = piece.clone();
                (piece[cut.output], piece[cut.summed]) = (output.clone(), summed.clone());
                piece
            };
            pieces = pieces.iter().flat_map(|piece| cut.boxes.iter().map(|each| with(piece, each))).collect();
            used.extend([cut.output, cut.summed]);
        }
    }
    let is_small = |piece: &Piece| piece.iter().map(ExactSizeIterator::len).product::<usize>() < products.least;
    if pieces.iter().any(is_small) { vec![whole(extents)] } else { pieces }
}

/// The boxes in which a read of an output and a summed index is in range, if they leave out enough.
fn cut(extents: &[usize], rank: usize, linear: &Linear, size: usize, products: &Products) -> Option<Cut> {
    let [(output, by_output), (summed, by_summed)] = linear.terms[..] else { return None };
    if output >= rank || summed < rank || linear.is_within(extents, size as i64) {
        return None;
    }
    let (places, taps) = (extents[output], extents[summed]);
    // A residue's whole range moves less than one step of its taps; else it is a place, and zeros are an image's border.
    let is_residue = by_output.abs() * places as i64 <= by_summed.abs();
    if !is_residue && (taps <= products.filtered_taps || places <= taps) {
        return None;
    }
    let in_range = |place: usize| -> Range<usize> {
        let at = |tap: usize| linear.offset + by_output * place as i64 + by_summed * tap as i64;
        let mut taps = (0..taps).filter(|&tap| (0..size as i64).contains(&at(tap)));
        taps.next().map_or(0..0, |first| first..taps.next_back().unwrap_or(first) + 1)
    };
    let mut boxes: Vec<[Range<usize>; 2]> = Vec::new();
    for place in 0..places {
        let taps = in_range(place);
        match boxes.last_mut() {
            Some([places, same]) if *same == taps => places.end = place + 1,
            Some(_) | None => boxes.push([place..place + 1, taps]),
        }
    }
    let (most, least_saving) = match is_residue {
        true => (MOST_PIECES, products.residue_saving),
        false => (MOST_BORDER_PIECES, products.border_saving),
    };
    if boxes.iter().any(|[_, taps]| taps.is_empty()) {
        return None;
    }
    while boxes.len() > most {
        join_nearest(&mut boxes);
    }
    let kept: usize = boxes.iter().map(points).sum();
    let pays = (places * taps - kept) * least_saving >= places * taps;
    pays.then_some(Cut { output, summed, boxes })
}

fn points([places, taps]: &[Range<usize>; 2]) -> usize {
    places.len() * taps.len()
}

/// Joins those two neighbours of at least two boxes that leave out least.
fn join_nearest(boxes: &mut Vec<[Range<usize>; 2]>) {
    let joined = |i: usize, boxes: &[[Range<usize>; 2]]| {
        let ([places, taps], [next, others]) = (&boxes[i], &boxes[i + 1]);
        [places.start..next.end, taps.start.min(others.start)..taps.end.max(others.end)]
    };
    let added = |&i: &usize| points(&joined(i, boxes)) - points(&boxes[i]) - points(&boxes[i + 1]);
    let nearest = (0..boxes.len() - 1).min_by_key(added).expect("two boxes at least");
    boxes[nearest] = joined(nearest, boxes);
    boxes.remove(nearest + 1);
}

/// Least and greatest value over all pieces.
pub(super) fn range(linear: &Linear, pieces: &[Piece]) -> (i64, i64) {
    let one = |piece: &Piece| {
        let lengths: Vec<usize> = piece.iter().map(ExactSizeIterator::len).collect();
        linear.compose(|index| Linear::index(index).shifted(piece[index].start as i64)).range(&lengths)
    };
    let ranges = pieces.iter().map(one);
    ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products of at least so many multiplications.
    fn from(least: usize) -> Products {
        Products { least, ..crate::cpu::Lowering::default().target.products }
    }

    /// Output [40 rows, 2 residues, 8 channels], summed [16 channels, 2 steps]; taps `2·a + b − 1` of 3.
    const EXTENTS: [usize; 5] = [40, 2, 8, 16, 2];

    #[test]
    fn residues_with_fewer_taps_are_pieces_of_their_own() {
        let tap = Linear { terms: vec![(1, 1), (4, 2)], offset: -1 };
        let pieces = without_zeros(&EXTENTS, 3, [(&tap, &3)].into_iter(), &from(100));
        let expected = |residue: usize, taps: Range<usize>| vec![0..40, residue..residue + 1, 0..8, 0..16, taps];
        assert_eq!(pieces, [expected(0, 1..2), expected(1, 0..2)]);
        assert_eq!(range(&tap, &pieces), (0, 2));
    }

    #[test]
    fn rows_whose_wide_windows_reach_over_the_border_are_pieces() {
        // Output [14 rows, 8 channels], summed [16 channels, 5 taps]; row `i − u` of 10.
        let extents = [14, 8, 16, 5];
        let row = Linear { terms: vec![(0, 1), (3, -1)], offset: 0 };
        let pieces = without_zeros(&extents, 2, [(&row, &10)].into_iter(), &from(100));
        let expected = |rows: Range<usize>, taps: Range<usize>| vec![rows, 0..8, 0..16, taps];
        let borders = [expected(0..2, 0..2), expected(2..4, 0..4), expected(4..11, 0..5)];
        assert_eq!(pieces[..3], borders);
        assert_eq!(pieces[3..], [expected(11..13, 2..5), expected(13..14, 4..5)]);
        // Three taps are left to minimal filtering; of many rows, few are near the border.
        for (rows, taps) in [(6, 3), (40, 5)] {
            let size = rows + 1 - taps;
            assert_eq!(without_zeros(&[rows, 8, 16, taps], 2, [(&row, &size)].into_iter(), &from(100)).len(), 1);
        }
    }

    #[test]
    fn borders_full_windows_and_small_products_stay_whole() {
        let whole = vec![whole(&EXTENTS)];
        let border = Linear { terms: vec![(0, 1), (4, 1)], offset: -1 };
        assert_eq!(without_zeros(&EXTENTS, 3, [(&border, &40)].into_iter(), &from(100)), whole);
        let full = Linear { terms: vec![(1, 1), (4, 2)], offset: 0 };
        assert_eq!(without_zeros(&EXTENTS, 3, [(&full, &4)].into_iter(), &from(100)), whole);
        let tap = Linear { terms: vec![(1, 1), (4, 2)], offset: -1 };
        assert_eq!(without_zeros(&EXTENTS, 3, [(&tap, &3)].into_iter(), &from(100_000)), whole);
    }
}
