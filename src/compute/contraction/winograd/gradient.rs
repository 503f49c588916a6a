//! Weight gradients of three by three outputs, tile by tile.
//!
//! Input: data and a gradient image as long taps. Output: C. Invariant: a part is a block of rows by a block of columns of C;
//! it sums over all tiles in one order.
#![allow(unsafe_op_in_unsafe_fn)]

use super::transform::{Band, Data, LongTaps, Row, Side, Staging, Tile, rows_to_tile_points, to_outputs};
use super::{Areas, Job, dispatch, inner_product, offsets, places};
use crate::contraction::product::ProductPlan;
use crate::kernel;
use crate::kernel::winograd::{Geometry, SHORT, Window};
use crate::machine::Level;
use crate::primitives::tile::Tiles;
use std::ops::Range;

/// Tiles that are summed at once: the depth of the inner product.
const BLOCK_TILES: usize = 64;
/// Most rows and columns of a part: the more, the fewer transforms; the sums of a part should stay in cache.
const MAX_SIDES: [usize; 2] = [128, 256];
/// Outputs of a row and a column.
const TAPS: usize = SHORT * SHORT;
/// Fewest parts, for threads to share.
const FEWEST_PARTS: usize = 4;

/// A correlation of short outputs, ready to run.
#[derive(Debug)]
pub struct GradientPlan {
    level: Level,
    tile: usize,
    accumulate: bool,
    data_byte: isize,
    taps_byte: isize,
    output_byte: isize,
    windows: [Window; 2],
    /// Offsets in data, taps and output.
    batch: [Vec<isize>; 3],
    /// Offsets in taps and output.
    rows: [Vec<isize>; 2],
    /// Offsets in data and output.
    columns: [Vec<isize>; 2],
    /// Offsets in data and taps.
    images: [Vec<isize>; 2],
    tiles_down: usize,
    tiles_across: usize,
    /// Rows of tiles of a block.
    block: usize,
    /// Tiles of a block.
    depth: usize,
    /// Rows and columns of a part.
    sides: [usize; 2],
    product: ProductPlan,
}

/// Rows and columns of a part: the longer side is halved until there are enough parts.
fn sides(extents: [usize; 2], batch: usize) -> [usize; 2] {
    let divisor = |extent: usize, most: usize| {
        (1..=extent.min(most)).rev().find(|side| extent.is_multiple_of(*side)).unwrap_or(1)
    };
    let mut sides = [divisor(extents[0], MAX_SIDES[0]), divisor(extents[1], MAX_SIDES[1])];
    while batch * (extents[0] / sides[0]) * (extents[1] / sides[1]) < FEWEST_PARTS {
        let longer = usize::from(sides[1] >= sides[0]);
        if sides[longer] < 32 {
            break;
        }
        sides[longer] = divisor(extents[longer], sides[longer] / 2);
    }
    sides
}

/// Byte offsets of the areas of scratch.
struct Layout {
    taps: usize,
    data: usize,
    sums: usize,
    product: usize,
    bytes: usize,
}

impl GradientPlan {
    pub(super) fn new(winograd: &kernel::Winograd, geometry: &Geometry, bytes: [usize; 3], level: Level) -> Self {
        let [data_byte, taps_byte, output_byte] = places(geometry, bytes);
        let tile = winograd.tile;
        let [tiles_down, tiles_across] = [0, 1].map(|window| geometry.long(window).div_ceil(tile));
        let images = [offsets(&geometry.summed, |dim| dim.data), offsets(&geometry.summed, |dim| dim.tap)];
        let block = (BLOCK_TILES / tiles_across).clamp(1, images[0].len() * tiles_down);
        let depth = block * tiles_across;
        let rows = [offsets(&geometry.rows, |dim| dim.tap), offsets(&geometry.rows, |dim| dim.output)];
        let columns = [offsets(&geometry.columns, |dim| dim.data), offsets(&geometry.columns, |dim| dim.output)];
        let batch = [
            offsets(&geometry.batch, |dim| dim.data),
            offsets(&geometry.batch, |dim| dim.tap),
            offsets(&geometry.batch, |dim| dim.output),
        ];
        let sides = sides([rows[0].len(), columns[0].len()], batch[0].len());
        let [taps_plane, data_plane] = sides.map(|side| (side * depth + super::SPARE) as i64);
        let sums_plane = (sides[0] * sides[1] + super::SPARE) as i64;
        let product = inner_product(
            [
                ((tile + SHORT - 1).pow(2), [taps_plane, data_plane, sums_plane]),
                (sides[0], [depth as i64, 0, sides[1] as i64]),
                (sides[1], [0, depth as i64, 1]),
                (depth, [1, 1, 0]),
            ],
            true,
            level,
        );
        Self {
            level,
            tile,
            accumulate: winograd.product.accumulate,
            data_byte,
            taps_byte,
            output_byte,
            windows: geometry.windows,
            batch,
            rows,
            columns,
            images,
            tiles_down,
            tiles_across,
            block,
            depth,
            sides,
            product,
        }
    }

    /// Whether columns at these offsets have their outputs behind each other.
    fn are_dense(&self, offsets: &[isize]) -> bool {
        let [down, across] = self.windows.map(|window| window.output);
        (down, across) == (SHORT as i64, 1) && offsets.windows(2).all(|pair| pair[1] - pair[0] == TAPS as isize)
    }

    /// Blocks of rows and of columns.
    fn blocks(&self) -> [usize; 2] {
        [self.rows[0].len() / self.sides[0], self.columns[0].len() / self.sides[1]]
    }

    pub(super) fn parts(&self) -> usize {
        let [rows, columns] = self.blocks();
        self.batch[0].len() * rows * columns
    }

    fn layout(&self) -> Layout {
        let points = (self.tile + SHORT - 1).pow(2);
        let mut areas = Areas::default();
        let area = |elements: usize| points * (elements + super::SPARE);
        Layout {
            taps: areas.take(area(self.sides[0] * self.depth)),
            data: areas.take(area(self.sides[1] * self.depth)),
            sums: areas.take(area(self.sides[0] * self.sides[1])),
            product: areas.take(self.product.scratch_bytes() / size_of::<f32>()),
            bytes: areas.bytes,
        }
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        self.layout().bytes
    }

    pub(super) unsafe fn run(&self, base: *mut u8, scratch: *mut u8, parts: Range<usize>) {
        for part in parts {
            dispatch(self.level, self.tile, Part { plan: self, base, scratch, part });
        }
    }
}

#[derive(Clone, Copy)]
struct Part<'a> {
    plan: &'a GradientPlan,
    base: *mut u8,
    scratch: *mut u8,
    part: usize,
}

/// One operand of a part.
struct Operand<'a> {
    start: *const f32,
    /// Offsets of the part's channels, and of all images.
    channels: &'a [isize],
    images: &'a [isize],
    /// Strides of rows; elements along both dims.
    stride: isize,
    extents: [usize; 2],
}

impl Job for Part<'_> {
    #[inline(always)]
    unsafe fn run<V: Tiles, T: Tile>(self) {
        let Self { plan, base, scratch, part } = self;
        let layout = plan.layout();
        let [row_blocks, column_blocks] = plan.blocks();
        let (batch, inside) = (part / (row_blocks * column_blocks), part % (row_blocks * column_blocks));
        let [row, column] = [inside / column_blocks * plan.sides[0], inside % column_blocks * plan.sides[1]];
        let [down, across] = plan.windows;
        let start = |byte: isize, operand: usize| {
            base.offset(byte).cast::<f32>().cast_const().offset(plan.batch[operand][batch])
        };
        let taps = Operand {
            start: start(plan.taps_byte, 1),
            channels: &plan.rows[0][row..row + plan.sides[0]],
            images: &plan.images[1],
            stride: down.tap as isize,
            extents: [down.taps, across.taps],
        };
        let data = Operand {
            start: start(plan.data_byte, 0),
            channels: &plan.columns[0][column..column + plan.sides[1]],
            images: &plan.images[0],
            stride: down.data as isize,
            extents: [down, across].map(|window| window.outputs + window.taps - 1),
        };
        let [taps_to, data_to, sums] =
            [layout.taps, layout.data, layout.sums].map(|area| scratch.add(area).cast::<f32>());
        let points = T::POINTS * T::POINTS;
        std::slice::from_raw_parts_mut(sums, points * (plan.sides[0] * plan.sides[1] + super::SPARE)).fill(0.0);
        let tile_rows = plan.images[0].len() * plan.tiles_down;
        for first in (0..tile_rows).step_by(plan.block) {
            let block = first..(first + plan.block).min(tile_rows);
            transform_side::<V, T, LongTaps>(plan, &taps, block.clone(), taps_to);
            transform_side::<V, T, Data>(plan, &data, block, data_to);
            let pointers = [taps_to.cast_const(), data_to.cast_const()];
            plan.product.run_on(pointers, sums, scratch.add(layout.product), 0..plan.product.parts());
        }
        let output = base.offset(plan.output_byte).cast::<f32>().offset(plan.batch[2][batch]);
        write_outputs::<V, T>(plan, sums, output, [row, column]);
    }
}

/// The points of all channels over a block of rows of tiles; zero where a last block has fewer.
#[inline(always)]
unsafe fn transform_side<V: Tiles, T: Tile, S: Side>(
    plan: &GradientPlan,
    side: &Operand<'_>,
    tile_rows: Range<usize>,
    points: *mut f32,
) {
    let plane = side.channels.len() * plan.depth + super::SPARE;
    let missing = plan.depth - tile_rows.len() * plan.tiles_across;
    let mut stage = Staging::new();
    for (channel, offset) in side.channels.iter().enumerate() {
        let to = points.add(channel * plan.depth);
        let bands = tile_rows.clone().map(|tile_row| {
            let (image, y) = (tile_row / plan.tiles_down, tile_row % plan.tiles_down * plan.tile);
            let place = offset + side.images[image] + y as isize * side.stride;
            let at = side.start.offset(place);
            Band { at, stride: side.stride, rows: side.extents[0] - y, columns: side.extents[1] }
        });
        rows_to_tile_points::<V, T, S>(bands, plan.tiles_across, &mut stage, to, plane);
        let to = to.add(tile_rows.len() * plan.tiles_across);
        for point in (0..T::POINTS * T::POINTS).filter(|_| missing > 0) {
            std::slice::from_raw_parts_mut(to.add(point * plane), missing).fill(0.0);
        }
    }
}

#[inline(always)]
unsafe fn write_outputs<V: Tiles, T: Tile>(
    plan: &GradientPlan,
    sums: *const f32,
    output: *mut f32,
    [first_row, first_column]: [usize; 2],
) {
    let [rows, columns] = plan.sides;
    let plane = rows * columns + super::SPARE;
    let strides = plan.windows.map(|window| window.output as isize);
    for row in 0..rows {
        for column in (0..columns).step_by(V::COUNT) {
            let tiles = to_outputs::<V, T, true>(sums.add(row * columns + column), plane);
            let used = (columns - column).min(V::COUNT);
            let offsets = &plan.columns[1][first_column + column..first_column + column + used];
            if V::COUNT >= TAPS && plan.are_dense(offsets) {
                let to = output.offset(plan.rows[1][first_row + row] + offsets[0]);
                write_dense::<V>(&tiles, to, used, plan.accumulate);
                continue;
            }
            for i in 0..SHORT {
                for j in 0..SHORT {
                    let mut lanes = [0.0f32; 16];
                    tiles[i][j].store(lanes.as_mut_ptr());
                    let place = plan.rows[1][first_row + row] + i as isize * strides[0] + j as isize * strides[1];
                    for lane in 0..used {
                        let to = output.offset(place + offsets[lane]);
                        *to = lanes[lane] + if plan.accumulate { *to } else { 0.0 };
                    }
                }
            }
        }
    }
}

/// Writes three by three outputs of `used` columns that lie behind each other.
#[inline(always)]
unsafe fn write_dense<V: Tiles>(tiles: &[Row<V>; 4], to: *mut f32, used: usize, accumulate: bool) {
    let mut lanes = [0.0f32; TAPS * 16];
    for tap in 0..TAPS {
        tiles[tap / SHORT][tap % SHORT].store(lanes.as_mut_ptr().add(tap * V::COUNT));
    }
    let sources: [*const f32; TAPS] = std::array::from_fn(|tap| lanes.as_ptr().wrapping_add(tap * V::COUNT));
    // The transposition writes whole vectors at each column.
    let mut dense = [0.0f32; TAPS * 16 + 16];
    V::transpose(&sources, V::COUNT, dense.as_mut_ptr(), TAPS);
    for x in (0..used * TAPS).step_by(V::COUNT) {
        let count = (used * TAPS - x).min(V::COUNT);
        let value = V::load_first(dense.as_ptr().add(x), count);
        let value = if accumulate { V::load_first(to.add(x), count).add(value) } else { value };
        value.store_first(to.add(x), count);
    }
}
