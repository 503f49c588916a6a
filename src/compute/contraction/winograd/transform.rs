//! The transforms of minimal filtering: rows of tiles to points and back.
//!
//! Input: rows of an image, or of points. Output: points `[p][q]` of each tile, or the tile's outputs. Invariant: lanes are
//! tiles, so a tile's bits do not depend on its place. The polynomial points are 0, 1, -1, (2, -2,) and infinity
//! (Lavin and Gray 2016, "Fast algorithms for convolutional neural networks").
#![allow(unsafe_op_in_unsafe_fn)]

use crate::machine::lanes::Lanes;

/// The most points of a tile along a dim.
pub const MOST_POINTS: usize = 6;

/// Elements, points or outputs along one dim, in order; what a tile has not is zero.
pub type Row<V> = [V; MOST_POINTS];

/// F(tile, 3), and F(3, tile) at the same points. Written out, so that each sum is a few instructions.
pub trait Tile {
    /// Outputs, or long taps, of a tile.
    const SIZE: usize;
    /// Points, `SIZE + 2`.
    const POINTS: usize;
    /// Points of `POINTS` elements of the data.
    unsafe fn data<V: Lanes>(d: &Row<V>) -> Row<V>;
    /// Points of three taps.
    unsafe fn short_taps<V: Lanes>(g: &Row<V>) -> Row<V>;
    /// Points of `SIZE` taps.
    unsafe fn long_taps<V: Lanes>(g: &Row<V>) -> Row<V>;
    /// `SIZE` outputs of the points.
    unsafe fn long_output<V: Lanes>(m: &Row<V>) -> Row<V>;
    /// Three outputs of the points.
    unsafe fn short_output<V: Lanes>(m: &Row<V>) -> Row<V>;
}

/// Tiles of two: rounding errors are those of a direct sum or slightly more.
pub struct Two;
/// Tiles of four: errors some ten times as large.
pub struct Four;

impl Tile for Two {
    const SIZE: usize = 2;
    const POINTS: usize = 4;

    #[inline(always)]
    unsafe fn data<V: Lanes>(d: &Row<V>) -> Row<V> {
        let zero = V::splat(0.0);
        [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3]), zero, zero]
    }

    #[inline(always)]
    unsafe fn short_taps<V: Lanes>(g: &Row<V>) -> Row<V> {
        let (zero, half) = (V::splat(0.0), V::splat(0.5));
        let (outer, middle) = (g[0].add(g[2]).mul(half), g[1].mul(half));
        [g[0], outer.add(middle), outer.sub(middle), g[2], zero, zero]
    }

    #[inline(always)]
    unsafe fn long_taps<V: Lanes>(g: &Row<V>) -> Row<V> {
        let (zero, half) = (V::splat(0.0), V::splat(0.5));
        [g[0], g[0].add(g[1]).mul(half), g[0].sub(g[1]).mul(half), g[1], zero, zero]
    }

    #[inline(always)]
    unsafe fn long_output<V: Lanes>(m: &Row<V>) -> Row<V> {
        let zero = V::splat(0.0);
        [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3]), zero, zero, zero, zero]
    }

    #[inline(always)]
    unsafe fn short_output<V: Lanes>(m: &Row<V>) -> Row<V> {
        let zero = V::splat(0.0);
        let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
        [m[0].add(sum), difference, sum.sub(m[3]), zero, zero, zero]
    }
}

impl Tile for Four {
    const SIZE: usize = 4;
    const POINTS: usize = 6;

    #[inline(always)]
    unsafe fn data<V: Lanes>(d: &Row<V>) -> Row<V> {
        let (two, four, five) = (V::splat(2.0), V::splat(4.0), V::splat(-5.0));
        let minus_four = V::splat(-4.0);
        let (even, odd) = (minus_four.accumulate(d[2], d[4]), minus_four.accumulate(d[1], d[3]));
        let (near, far) = (d[4].sub(d[2]), d[3].sub(d[1]).mul(two));
        [
            four.accumulate(d[0], five.accumulate(d[2], d[4])),
            even.add(odd),
            even.sub(odd),
            near.add(far),
            near.sub(far),
            four.accumulate(d[1], five.accumulate(d[3], d[5])),
        ]
    }

    #[inline(always)]
    unsafe fn short_taps<V: Lanes>(g: &Row<V>) -> Row<V> {
        let (sixth, twelfth, quarter) = (V::splat(1.0 / 6.0), V::splat(1.0 / 12.0), V::splat(0.25));
        let (outer, middle) = (g[0].add(g[2]).mul(V::splat(-1.0 / 6.0)), g[1].mul(sixth));
        let (even, odd) = (g[0].mul(V::splat(1.0 / 24.0)), g[1].mul(twelfth));
        let even = sixth.accumulate(g[2], even);
        [g[0].mul(quarter), outer.sub(middle), outer.add(middle), even.add(odd), even.sub(odd), g[2]]
    }

    #[inline(always)]
    unsafe fn long_taps<V: Lanes>(g: &Row<V>) -> Row<V> {
        let (sixth, third) = (V::splat(-1.0 / 6.0), V::splat(1.0 / 3.0));
        let (even, odd) = (g[0].add(g[2]).mul(sixth), g[1].add(g[3]).mul(sixth));
        let far_even = V::splat(1.0 / 6.0).accumulate(g[2], g[0].mul(V::splat(1.0 / 24.0)));
        let far_odd = third.accumulate(g[3], g[1].mul(V::splat(1.0 / 12.0)));
        [g[0].mul(V::splat(0.25)), even.add(odd), even.sub(odd), far_even.add(far_odd), far_even.sub(far_odd), g[3]]
    }

    #[inline(always)]
    unsafe fn long_output<V: Lanes>(m: &Row<V>) -> Row<V> {
        let zero = V::splat(0.0);
        let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
        let (near, near_odd) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (far, far_odd) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(near).add(far),
            two.accumulate(far_odd, near_odd),
            four.accumulate(far, near),
            eight.accumulate(far_odd, near_odd).add(m[5]),
            zero,
            zero,
        ]
    }

    #[inline(always)]
    unsafe fn short_output<V: Lanes>(m: &Row<V>) -> Row<V> {
        let zero = V::splat(0.0);
        let (near, near_odd) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (far, far_odd) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(near).add(far),
            V::splat(2.0).accumulate(far_odd, near_odd),
            V::splat(4.0).accumulate(far, near).add(m[5]),
            zero,
            zero,
            zero,
        ]
    }
}

/// What a row of tiles is transformed as.
pub trait Side {
    fn elements<T: Tile>() -> usize;
    /// Their points.
    unsafe fn points<V: Lanes, T: Tile>(elements: &Row<V>) -> Row<V>;
}

/// Data: neighbouring tiles overlap by two elements.
pub struct Data;
/// Long taps: neighbouring tiles touch.
pub struct LongTaps;

impl Side for Data {
    #[inline(always)]
    fn elements<T: Tile>() -> usize {
        T::POINTS
    }
    #[inline(always)]
    unsafe fn points<V: Lanes, T: Tile>(elements: &Row<V>) -> Row<V> {
        T::data(elements)
    }
}

impl Side for LongTaps {
    #[inline(always)]
    fn elements<T: Tile>() -> usize {
        T::SIZE
    }
    #[inline(always)]
    unsafe fn points<V: Lanes, T: Tile>(elements: &Row<V>) -> Row<V> {
        T::long_taps(elements)
    }
}

/// A band of an image: what is missing at its end is zero.
#[derive(Clone, Copy)]
pub struct Band {
    /// Its first element.
    pub at: *const f32,
    /// From row to row.
    pub stride: isize,
    /// Rows that are there.
    pub rows: usize,
    /// Elements that are there in each row.
    pub columns: usize,
}

/// Transforms a row of tiles: point (p, q) of tile t goes to `to[(p · POINTS + q) · plane + t]`; whole vectors are written.
///
/// # Safety
/// The vector type's instructions are there; the band is readable, `to` holds a row of whole vectors of `tiles` for each
/// point.
#[inline(always)]
pub unsafe fn to_points<V: Lanes, T: Tile, S: Side>(band: Band, tiles: usize, to: *mut f32, plane: usize) {
    for t in (0..tiles).step_by(V::COUNT) {
        // Points of the rows, at the elements from the first tile's on, and again from the next tile's on.
        let mut sums = [[[V::splat(0.0); 4]; MOST_POINTS]; 2];
        for next in 0..2 {
            if next * T::SIZE >= S::elements::<T>() {
                continue;
            }
            for vector in 0..T::SIZE {
                let points = rows_to_points::<V, T, S>(band, (t + next) * T::SIZE + vector * V::COUNT);
                for p in 0..T::POINTS {
                    sums[next][p][vector] = points[p];
                }
            }
        }
        write_points::<V, T, S>(&sums, to.add(t), plane);
    }
}

/// Sums along the columns of [`to_points`] at the elements of a vector of tiles, and at those of the next tiles.
type Sums<V> = [[[V; 4]; MOST_POINTS]; 2];

/// The points of a vector of tiles.
#[inline(always)]
unsafe fn write_points<V: Lanes, T: Tile, S: Side>(sums: &Sums<V>, to: *mut f32, plane: usize) {
    for p in 0..T::POINTS {
        let first = deal::<V, T>(&sums[0][p]);
        let second = deal::<V, T>(&sums[1][p]);
        let points = S::points::<V, T>(&match T::SIZE {
            2 => [first[0], first[1], second[0], second[1], second[0], second[1]],
            _ => [first[0], first[1], first[2], first[3], second[0], second[1]],
        });
        for q in 0..T::POINTS {
            points[q].store(to.add((p * T::POINTS + q) * plane));
        }
    }
}

/// Elements of a row of a [`Staging`]: a vector of 16 tiles of 4, and what whole vectors write behind it.
const STAGED: usize = 16 * 4 + 16;

/// Short rows of tiles side by side, so that they share vectors: the elements of each tile, and of its next one.
pub struct Staging([[[f32; STAGED]; MOST_POINTS]; 2]);

impl Staging {
    pub fn new() -> Self {
        Staging([[[0.0; STAGED]; MOST_POINTS]; 2])
    }

    /// Row a of the tiles' outputs.
    pub fn row(&mut self, a: usize) -> *mut f32 {
        self.0[0][a].as_mut_ptr()
    }

    /// Copies a band's row of tiles behind `at` elements.
    #[inline(always)]
    unsafe fn copy<V: Lanes, T: Tile, S: Side>(&mut self, band: Band, tiles: usize, at: usize) {
        let width = tiles * T::SIZE;
        for next in 0..S::elements::<T>().div_ceil(T::SIZE).min(2) {
            for a in 0..S::elements::<T>() {
                let to = self.0[next][a].as_mut_ptr().add(at);
                for x in (0..width).step_by(V::COUNT) {
                    let from = next * T::SIZE + x;
                    let value = if a >= band.rows || from >= band.columns {
                        V::splat(0.0)
                    } else {
                        let from_row = band.at.offset(a as isize * band.stride).add(from);
                        let there = band.columns - from;
                        if there >= V::COUNT { V::load(from_row) } else { V::load_first(from_row, there) }
                    };
                    value.store(to.add(x));
                }
            }
        }
    }
}

/// Transforms rows of tiles that follow each other in `to`, several in a vector where they are short.
///
/// # Safety
/// As [`to_points`] for each.
#[inline(always)]
pub unsafe fn rows_to_tile_points<V: Lanes, T: Tile, S: Side>(
    bands: impl ExactSizeIterator<Item = Band>,
    tiles: usize,
    stage: &mut Staging,
    to: *mut f32,
    plane: usize,
) {
    let together = V::COUNT / tiles;
    if together < 2 {
        for (number, band) in bands.enumerate() {
            to_points::<V, T, S>(band, tiles, to.add(number * tiles), plane);
        }
        return;
    }
    let count = bands.len();
    for (number, band) in bands.enumerate() {
        let place = number % together;
        stage.copy::<V, T, S>(band, tiles, place * tiles * T::SIZE);
        if place + 1 < together && number + 1 < count {
            continue;
        }
        let mut sums = [[[V::splat(0.0); 4]; MOST_POINTS]; 2];
        for next in 0..S::elements::<T>().div_ceil(T::SIZE).min(2) {
            for vector in 0..T::SIZE {
                let mut elements = [V::splat(0.0); MOST_POINTS];
                for a in 0..S::elements::<T>() {
                    elements[a] = V::load(stage.0[next][a].as_ptr().add(vector * V::COUNT));
                }
                let points = S::points::<V, T>(&elements);
                for p in 0..T::POINTS {
                    sums[next][p][vector] = points[p];
                }
            }
        }
        write_points::<V, T, S>(&sums, to.add((number - place) * tiles), plane);
    }
}

/// The points along the columns of a vector of elements from x on.
#[inline(always)]
unsafe fn rows_to_points<V: Lanes, T: Tile, S: Side>(band: Band, x: usize) -> Row<V> {
    let mut elements = [V::splat(0.0); MOST_POINTS];
    if band.rows >= S::elements::<T>() && x + V::COUNT <= band.columns {
        for a in 0..S::elements::<T>() {
            elements[a] = V::load(band.at.offset(a as isize * band.stride).add(x));
        }
    } else if x < band.columns {
        let there = (band.columns - x).min(V::COUNT);
        for a in 0..S::elements::<T>() {
            if a < band.rows {
                elements[a] = V::load_first(band.at.offset(a as isize * band.stride).add(x), there);
            }
        }
    }
    S::points::<V, T>(&elements)
}

/// Lane t of vector k is element `SIZE · t + k` of the first `SIZE` vectors behind each other.
#[inline(always)]
unsafe fn deal<V: Lanes, T: Tile>(vectors: &[V; 4]) -> [V; 4] {
    let (even, odd) = vectors[0].deal(vectors[1]);
    if T::SIZE == 2 {
        return [even, odd, even, odd];
    }
    let (more_even, more_odd) = vectors[2].deal(vectors[3]);
    let (first, third) = even.deal(more_even);
    let (second, fourth) = odd.deal(more_odd);
    [first, second, third, fourth]
}

/// The inverse of [`deal`].
#[inline(always)]
pub unsafe fn undeal<V: Lanes, T: Tile>(places: &Row<V>) -> [V; 4] {
    if T::SIZE == 2 {
        let (first, second) = places[0].zip_lanes(places[1]);
        return [first, second, first, second];
    }
    let (even, more_even) = places[0].zip_lanes(places[2]);
    let (odd, more_odd) = places[1].zip_lanes(places[3]);
    let (first, second) = even.zip_lanes(odd);
    let (third, fourth) = more_even.zip_lanes(more_odd);
    [first, second, third, fourth]
}

/// The outputs of a vector of tiles: `result[i][j]` from points `from[(p · POINTS + q) · plane]`; `SIZE` outputs along each
/// dim, or three.
///
/// # Safety
/// The vector type's instructions are there and whole vectors are readable at each point.
#[inline(always)]
pub unsafe fn to_outputs<V: Lanes, T: Tile, const SHORT: bool>(from: *const f32, plane: usize) -> [Row<V>; 4] {
    let zero = V::splat(0.0);
    let mut halves = [[zero; MOST_POINTS]; MOST_POINTS];
    for q in 0..T::POINTS {
        let mut points = [zero; MOST_POINTS];
        for p in 0..T::POINTS {
            points[p] = V::load(from.add((p * T::POINTS + q) * plane));
        }
        let outputs = if SHORT { T::short_output(&points) } else { T::long_output(&points) };
        for i in 0..4 {
            halves[i][q] = outputs[i];
        }
    }
    let mut result = [[zero; MOST_POINTS]; 4];
    for i in 0..4 {
        result[i] = if SHORT { T::short_output(&halves[i]) } else { T::long_output(&halves[i]) };
    }
    result
}

/// The points of a vector of three-by-three taps `taps[i][j]`.
///
/// # Safety
/// The vector type's instructions are there.
#[inline(always)]
pub unsafe fn taps_to_points<V: Lanes, T: Tile>(taps: &[[V; 3]; 3]) -> [Row<V>; MOST_POINTS] {
    let zero = V::splat(0.0);
    let mut columns = [[zero; MOST_POINTS]; MOST_POINTS];
    for j in 0..3 {
        let points = T::short_taps(&[taps[0][j], taps[1][j], taps[2][j], zero, zero, zero]);
        for p in 0..T::POINTS {
            columns[p][j] = points[p];
        }
    }
    let mut result = [[zero; MOST_POINTS]; MOST_POINTS];
    for p in 0..T::POINTS {
        result[p] = T::short_taps(&columns[p]);
    }
    result
}
