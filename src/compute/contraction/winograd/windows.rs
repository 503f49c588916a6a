//! Convolutions of three by three taps, and their input gradients, tile by tile.
//!
//! Input: data and the transformed taps. Output: C. Invariant: a part is a block of rows of C's channels over a block of rows
//! of tiles; parts of one block of tiles follow each other and share its points.
#![allow(unsafe_op_in_unsafe_fn)]

use super::transform::{Band, Data, Row, Staging, Tile, rows_to_tile_points, to_outputs, undeal};
use super::{Areas, Job, dispatch, inner_product, offsets, places};
use crate::contraction::product::ProductPlan;
use crate::kernel;
use crate::kernel::winograd::{Geometry, SHORT, Window};
use crate::machine::Level;
use crate::primitives::tile::Tiles;
use std::ops::Range;

/// Tiles of a block: three vectors of 16 lanes, the width of the fastest register tile.
const BLOCK_TILES: usize = 48;
/// Most rows of a part.
const MAX_ROWS: usize = 128;

/// A correlation of short taps, ready to run.
#[derive(Debug)]
pub struct WindowsPlan {
    level: Level,
    tile: usize,
    accumulate: bool,
    data_byte: isize,
    filter_byte: usize,
    output_byte: isize,
    windows: [Window; 2],
    /// Offsets in data and output.
    images: [Vec<isize>; 2],
    /// Offsets in the output.
    rows: Vec<isize>,
    /// Offsets in the data.
    summed: Vec<isize>,
    /// Rows of tiles of an image, tiles of a row, rows of tiles of a block.
    tiles_down: usize,
    tiles_across: usize,
    block: usize,
    /// Columns of the inner product: tiles of a block in whole vectors.
    width: usize,
    /// Rows of a part.
    height: usize,
    product: ProductPlan,
}

/// Byte offsets of the areas of scratch.
struct Layout {
    points: usize,
    results: usize,
    product: usize,
    bytes: usize,
}

impl WindowsPlan {
    pub(super) fn new(
        winograd: &kernel::Winograd,
        geometry: &Geometry,
        bytes: [usize; 3],
        filter_byte: usize,
        level: Level,
    ) -> Self {
        let [data_byte, _, output_byte] = places(geometry, bytes);
        let tile = winograd.tile;
        let [tiles_down, tiles_across] = [0, 1].map(|window| geometry.long(window).div_ceil(tile));
        let block = (BLOCK_TILES / tiles_across).max(1);
        let width = (block * tiles_across).next_multiple_of(16);
        let rows = offsets(&geometry.rows, |dim| dim.output);
        let summed = offsets(&geometry.summed, |dim| dim.data);
        let height =
            (1..=rows.len().min(MAX_ROWS)).rev().find(|height| rows.len().is_multiple_of(*height)).unwrap_or(1);
        let (depth, plane) = (summed.len(), rows.len() * summed.len());
        let [points_plane, results_plane] = [depth, height].map(|rows| (rows * width + super::SPARE) as i64);
        let product = inner_product(
            [
                ((tile + SHORT - 1).pow(2), [plane as i64, points_plane, results_plane]),
                (height, [depth as i64, 0, width as i64]),
                (width, [0, 1, 1]),
                (depth, [1, width as i64, 0]),
            ],
            false,
            level,
        );
        Self {
            level,
            tile,
            accumulate: winograd.product.accumulate,
            data_byte,
            filter_byte,
            output_byte,
            windows: geometry.windows,
            images: [offsets(&geometry.columns, |dim| dim.data), offsets(&geometry.columns, |dim| dim.output)],
            rows,
            summed,
            tiles_down,
            tiles_across,
            block,
            width,
            height,
            product,
        }
    }

    pub(super) fn parts(&self) -> usize {
        self.tile_blocks() * (self.rows.len() / self.height)
    }

    fn tile_rows(&self) -> usize {
        self.images[0].len() * self.tiles_down
    }

    fn tile_blocks(&self) -> usize {
        self.tile_rows().div_ceil(self.block)
    }

    fn layout(&self) -> Layout {
        let points = (self.tile + SHORT - 1).pow(2);
        let mut areas = Areas::default();
        let area = |rows: usize| points * (rows * self.width + super::SPARE);
        Layout {
            points: areas.take(area(self.summed.len())),
            results: areas.take(area(self.height)),
            product: areas.take(self.product.scratch_bytes() / size_of::<f32>()),
            bytes: areas.bytes,
        }
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        self.layout().bytes
    }

    pub(super) unsafe fn run(&self, base: *mut u8, scratch: *mut u8, parts: Range<usize>) {
        dispatch(self.level, self.tile, Parts { plan: self, base, scratch, first: parts.start, end: parts.end });
    }

    /// The image and the first row of the tiles of a row of tiles.
    fn place(&self, tile_row: usize) -> (usize, usize) {
        (tile_row / self.tiles_down, tile_row % self.tiles_down * self.tile)
    }
}

#[derive(Clone, Copy)]
struct Parts<'a> {
    plan: &'a WindowsPlan,
    base: *mut u8,
    scratch: *mut u8,
    first: usize,
    end: usize,
}

impl Job for Parts<'_> {
    #[inline(always)]
    unsafe fn run<V: Tiles, T: Tile>(self) {
        let Self { plan, base, scratch, .. } = self;
        let layout = plan.layout();
        let row_blocks = plan.rows.len() / plan.height;
        let [points, results] = [layout.points, layout.results].map(|area| scratch.add(area).cast::<f32>());
        let mut transformed = None;
        for part in self.first..self.end {
            let (tile_block, row_block) = (part / row_blocks, part % row_blocks);
            let first = tile_block * plan.block;
            let tile_rows = first..(first + plan.block).min(plan.tile_rows());
            if transformed != Some(tile_block) {
                transform_data::<V, T>(plan, base, points, tile_rows.clone());
                transformed = Some(tile_block);
            }
            let filter = base.add(plan.filter_byte).cast::<f32>().add(row_block * plan.height * plan.summed.len());
            let pointers = [filter.cast_const(), points.cast_const()];
            plan.product.run_on(pointers, results, scratch.add(layout.product), 0..plan.product.parts());
            write_outputs::<V, T>(plan, base, results, row_block * plan.height, tile_rows);
        }
    }
}

#[inline(always)]
unsafe fn transform_data<V: Tiles, T: Tile>(
    plan: &WindowsPlan,
    base: *mut u8,
    points: *mut f32,
    tile_rows: Range<usize>,
) {
    let data = base.offset(plan.data_byte).cast::<f32>().cast_const();
    let [down, across] = plan.windows;
    let plane = plan.summed.len() * plan.width + super::SPARE;
    let [rows, columns] = [down, across].map(|window| window.outputs + window.taps - 1);
    let mut stage = Staging::new();
    for (channel, offset) in plan.summed.iter().enumerate() {
        let to = points.add(channel * plan.width);
        let bands = tile_rows.clone().map(|tile_row| {
            let (image, y) = plan.place(tile_row);
            let place = offset + plan.images[0][image] + y as isize * down.data as isize;
            Band { at: data.offset(place), stride: down.data as isize, rows: rows - y, columns }
        });
        rows_to_tile_points::<V, T, Data>(bands, plan.tiles_across, &mut stage, to, plane);
    }
}

#[inline(always)]
unsafe fn write_outputs<V: Tiles, T: Tile>(
    plan: &WindowsPlan,
    base: *mut u8,
    results: *const f32,
    first_row: usize,
    tile_rows: Range<usize>,
) {
    let output = base.offset(plan.output_byte).cast::<f32>();
    let [down, across] = plan.windows;
    let plane = plan.height * plan.width + super::SPARE;
    if V::COUNT / plan.tiles_across >= 2 {
        return write_short_rows::<V, T>(plan, output, results, first_row, tile_rows);
    }
    for row in 0..plan.height {
        let mut from = results.add(row * plan.width);
        for tile_row in tile_rows.clone() {
            let (image, y) = plan.place(tile_row);
            let place = plan.rows[first_row + row] + plan.images[1][image] + y as isize * down.output as isize;
            let to = output.offset(place);
            for t in (0..plan.tiles_across).step_by(V::COUNT) {
                let tiles = to_outputs::<V, T, false>(from.add(t), plane);
                let columns = (across.outputs - t * T::SIZE).min(V::COUNT * T::SIZE);
                for i in 0..T::SIZE.min(down.outputs - y) {
                    let to = to.offset(i as isize * down.output as isize).add(t * T::SIZE);
                    write_row::<V, T>(&tiles[i], to, columns, plan.accumulate);
                }
            }
            from = from.add(plan.tiles_across);
        }
    }
}

/// As [`write_outputs`], where several rows of tiles fit a vector.
#[inline(always)]
unsafe fn write_short_rows<V: Tiles, T: Tile>(
    plan: &WindowsPlan,
    output: *mut f32,
    results: *const f32,
    first_row: usize,
    tile_rows: Range<usize>,
) {
    let [down, across] = plan.windows;
    let plane = plan.height * plan.width + super::SPARE;
    let together = V::COUNT / plan.tiles_across;
    let mut stage = Staging::new();
    for row in 0..plan.height {
        for first in tile_rows.clone().step_by(together) {
            let from = results.add(row * plan.width + (first - tile_rows.start) * plan.tiles_across);
            let tiles = to_outputs::<V, T, false>(from, plane);
            for i in 0..T::SIZE {
                let vectors = undeal::<V, T>(&tiles[i]);
                for v in 0..T::SIZE {
                    vectors[v].store(stage.row(i).add(v * V::COUNT));
                }
            }
            for tile_row in first..(first + together).min(tile_rows.end) {
                let (image, y) = plan.place(tile_row);
                let to = output
                    .offset(plan.rows[first_row + row] + plan.images[1][image] + y as isize * down.output as isize);
                for i in 0..T::SIZE.min(down.outputs - y) {
                    let from = stage.row(i).add((tile_row - first) * plan.tiles_across * T::SIZE).cast_const();
                    let to = to.offset(i as isize * down.output as isize);
                    copy_short::<V>(from, to, across.outputs, plan.accumulate);
                }
            }
        }
    }
}

/// Copies, or adds, a short row. Masked stores are slow, so fours go by themselves.
#[inline(always)]
unsafe fn copy_short<V: Tiles>(from: *const f32, to: *mut f32, count: usize, accumulate: bool) {
    if !accumulate && count.is_multiple_of(4) {
        for x in (0..count).step_by(4) {
            to.add(x).cast::<[f32; 4]>().write_unaligned(from.add(x).cast::<[f32; 4]>().read_unaligned());
        }
        return;
    }
    for x in (0..count).step_by(V::COUNT) {
        let used = (count - x).min(V::COUNT);
        let value = V::load_first(from.add(x), used);
        let value = if accumulate { V::load_first(to.add(x), used).add(value) } else { value };
        value.store_first(to.add(x), used);
    }
}

/// `to[t · SIZE + j] (+)= row[j][t]` for the first `columns` elements.
#[inline(always)]
unsafe fn write_row<V: Tiles, T: Tile>(row: &Row<V>, to: *mut f32, columns: usize, accumulate: bool) {
    let vectors = undeal::<V, T>(row);
    for v in 0..T::SIZE {
        let count = columns.saturating_sub(v * V::COUNT).min(V::COUNT);
        let to = to.wrapping_add(v * V::COUNT);
        if count > 0 {
            let value = if accumulate { V::load_first(to, count).add(vectors[v]) } else { vectors[v] };
            if count == V::COUNT { value.store(to) } else { value.store_first(to, count) }
        }
    }
}
