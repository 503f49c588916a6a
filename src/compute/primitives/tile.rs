//! The innermost tile of a product: `C[rows × vectors] (+)= Σ_k A[row, k] · B[k, vectors]`, C in registers.
//!
//! Input: pointers to the rows of A and C, a panel of B. Output: the tile of C. Invariant: each element of C is one chain
//! of multiply-adds in the order of k, then one addition to memory if asked; so its bits do not depend on the tile's size.
#![allow(unsafe_op_in_unsafe_fn)]

use crate::machine::lanes::{Lanes, Portable};

/// The most rows of any tile.
pub const MAX_ROWS: usize = 14;
/// The most rows of a tile that reads A in place: each needs a pointer in a register.
pub const MAX_DIRECT_ROWS: usize = 8;

/// What a tile works on. Steps and offsets are in elements.
pub struct Tile {
    /// The rows of A: `A[i, k]` is at `a[i] + a_offsets[k]`. Packed: it is at `a[0] + k · rows + i`.
    pub a: [*const f32; MAX_DIRECT_ROWS],
    /// See `a`.
    pub a_offsets: *const isize,
    /// `B[k, j]` is at `b + k · b_step + j`.
    pub b: *const f32,
    /// See `b`.
    pub b_step: isize,
    /// Lanes of the last vector that may be read from B.
    pub b_last: usize,
    /// Number of k.
    pub depth: usize,
    /// The rows of C; `C[i, j]` is at `c[i] + column + j`.
    pub c: [*mut f32; MAX_ROWS],
    /// See `c`.
    pub column: isize,
    /// Lanes of the last vector that are written to C.
    pub c_last: usize,
    /// Add to C instead of replacing it.
    pub accumulate: bool,
}

/// A tile of a fixed size.
pub type TileFn = unsafe fn(&Tile);

/// A vector type with its tiles.
pub trait Tiles: Lanes {
    /// A vector of at most 8 lanes, for transposing narrow strips.
    type Narrow: Lanes;
    /// The most vectors in a tile's row.
    const MAX_VECTORS: usize;

    /// The most rows of tiles of so many vectors that read A packed.
    fn max_packed_rows(vectors: usize) -> usize;

    /// The tile of `rows` rows of `vectors` ≤ `MAX_VECTORS` vectors, both at least 1, that reads A packed or else in place;
    /// `rows` ≤ `max_packed_rows(vectors)`, in place ≤ [`MAX_DIRECT_ROWS`] too.
    fn tile<const PACKED: bool>(rows: usize, vectors: usize) -> TileFn;
}

/// The vectors of a full panel of a block of `vectors` (at least 1): three where tiles reach so far, four where that
/// leaves nothing over.
pub fn full_panel(vectors: usize, max_vectors: usize) -> usize {
    match max_vectors {
        4 if vectors.is_multiple_of(4) && !vectors.is_multiple_of(3) => 4,
        4 => vectors.min(3),
        _ => vectors.min(max_vectors),
    }
}

/// The vectors of the next panel where `left` (at least 1) remain. No single vector is left over if that can be helped,
/// since narrow tiles load more per multiply-add.
pub fn next_panel(left: usize, full_panel: usize) -> usize {
    match (left, full_panel) {
        (4, 3) => 2,
        _ => left.min(full_panel),
    }
}

#[inline(always)]
unsafe fn tile<V: Lanes, const ROWS: usize, const VECTORS: usize, const PACKED: bool>(t: &Tile) {
    let a: [*const f32; ROWS] =
        std::array::from_fn(|i| if PACKED { t.a[0].wrapping_add(i) } else { t.a[i % MAX_DIRECT_ROWS] });
    for row in &t.c[..ROWS] {
        for v in 0..VECTORS {
            V::prefetch_to_write(row.wrapping_offset(t.column).wrapping_add(v * V::COUNT));
        }
    }
    let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
    let b_last = t.b_last;
    for k in 0..t.depth {
        let a_offset = if PACKED { (k * ROWS) as isize } else { *t.a_offsets.add(k) };
        let b = t.b.offset(k as isize * t.b_step);
        let mut row = [V::splat(0.0); VECTORS];
        for v in 0..VECTORS - 1 {
            row[v] = V::load(b.add(v * V::COUNT));
        }
        row[VECTORS - 1] = V::load_first(b.add((VECTORS - 1) * V::COUNT), b_last);
        for i in 0..ROWS {
            let x = V::splat(*a[i].offset(a_offset));
            for v in 0..VECTORS {
                sums[i][v] = x.accumulate(row[v], sums[i][v]);
            }
        }
    }
    // Masked stores are slow, so they are left to the tiles at the edge.
    let whole = t.c_last == V::COUNT;
    for i in 0..ROWS {
        let c = t.c[i].offset(t.column);
        for v in 0..VECTORS {
            let to = c.add(v * V::COUNT);
            if v + 1 < VECTORS || whole {
                let sum = if t.accumulate { V::load(to).add(sums[i][v]) } else { sums[i][v] };
                sum.store(to);
            } else {
                let sum = if t.accumulate { V::load_first(to, t.c_last).add(sums[i][v]) } else { sums[i][v] };
                sum.store_first(to, t.c_last);
            }
        }
    }
}

/// A match from (rows, vectors) to instances of an entry point.
macro_rules! instances {
    ($entry:ident, $packed:expr, $rows:expr, $vectors:expr, { $($v:literal: $($r:literal)*;)* }) => {
        match ($vectors, $rows) {
            $($(($v, $r) => $entry::<$r, $v, { $packed }> as TileFn,)*)*
            (vectors, rows) => panic!("no tile of {rows} rows of {vectors} vectors"),
        }
    };
}

unsafe fn tile_portable<const ROWS: usize, const VECTORS: usize, const PACKED: bool>(t: &Tile) {
    tile::<Portable, ROWS, VECTORS, PACKED>(t);
}

impl Tiles for Portable {
    type Narrow = Portable;
    const MAX_VECTORS: usize = 1;

    fn max_packed_rows(_vectors: usize) -> usize {
        4
    }

    fn tile<const PACKED: bool>(rows: usize, vectors: usize) -> TileFn {
        instances!(tile_portable, PACKED, rows, vectors, { 1: 1 2 3 4; })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{MAX_DIRECT_ROWS, Tile, TileFn, Tiles, tile};
    use std::arch::x86_64::{__m256, __m512};

    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile_avx2<const ROWS: usize, const VECTORS: usize, const PACKED: bool>(t: &Tile) {
        tile::<__m256, ROWS, VECTORS, PACKED>(t);
    }

    impl Tiles for __m256 {
        type Narrow = __m256;
        const MAX_VECTORS: usize = 2;

        fn max_packed_rows(vectors: usize) -> usize {
            if vectors == 1 { 8 } else { 6 }
        }

        fn tile<const PACKED: bool>(rows: usize, vectors: usize) -> TileFn {
            instances!(tile_avx2, PACKED, rows, vectors, {
                1: 1 2 3 4 5 6 7 8;
                2: 1 2 3 4 5 6;
            })
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    unsafe fn tile_avx512<const ROWS: usize, const VECTORS: usize, const PACKED: bool>(t: &Tile) {
        tile::<__m512, ROWS, VECTORS, PACKED>(t);
    }

    impl Tiles for __m512 {
        type Narrow = __m256;
        const MAX_VECTORS: usize = 4;

        fn max_packed_rows(vectors: usize) -> usize {
            match vectors {
                1 => 14,
                2 => 12,
                3 => 8,
                _ => 6,
            }
        }

        fn tile<const PACKED: bool>(rows: usize, vectors: usize) -> TileFn {
            if PACKED && rows > MAX_DIRECT_ROWS {
                return instances!(tile_avx512, true, rows, vectors, { 1: 9 10 11 12 13 14; 2: 9 10 11 12; });
            }
            instances!(tile_avx512, PACKED, rows, vectors, {
                1: 1 2 3 4 5 6 7 8;
                2: 1 2 3 4 5 6 7 8;
                3: 1 2 3 4 5 6 7 8;
                4: 1 2 3 4 5 6;
            })
        }
    }
}
