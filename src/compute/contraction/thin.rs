//! Thin products: C of few columns, without copies or tiles. Depthwise and grouped convolutions are batches of them.
//!
//! Input: a [`kernel::Product`] one side of which has at most [`MOST_COLUMNS`] places. Output: a plan that is run part by
//! part. Invariant: as in `product`: an element's order of summation follows from sizes and strides alone.
//!
//! Two ways, by what lies side by side in memory:
//! - *Along rows*: a vector holds neighbouring rows of C; k is walked once, each element of B meets the vector as a
//!   scalar. (A depthwise convolution and its input gradient: rows are pixels, k are taps.)
//! - *Along k*: a vector holds neighbouring summands, each lane sums its own; the lanes are added at the end in a fixed
//!   tree. (The weight gradient: rows are taps, k are pixels.)
#![allow(unsafe_op_in_unsafe_fn)]

use super::place::Place;
use super::shape::{Operands, Orientation, operands};
use crate::kernel;
use crate::machine::lanes::Lanes;
use crate::machine::{Level, at_level};
use crate::primitives::axis::Axis;
use std::ops::Range;

/// Most places of the thin side.
pub const MOST_COLUMNS: usize = 4;
/// Most rows that share the loads of B along k: the accumulators and what is loaded fit 16 registers.
const MOST_ROWS: usize = 9;
/// Products of the batch from which one is not cut into parts.
const MANY: usize = 16;
/// Multiply-adds that a part keeps at least.
const PART: usize = 1 << 16;
/// Most parts of one product along rows.
const MOST_PARTS: usize = 64;
/// Least share of a vector's lanes that does useful work, loads of scattered elements counted as costs.
const LEAST_FILL: f64 = 0.2;

/// Neighbouring positions of one dim: the offsets of the first in two operands, and how many.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: isize,
    second: isize,
    count: usize,
}

/// Which positions a vector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Along {
    Rows,
    Sum,
}

/// A thin product made ready to run.
#[derive(Debug)]
pub struct ThinPlan {
    along: Along,
    operands: Operands,
    /// Where the first elements are.
    starts: [Place; 3],
    /// Runs of what a vector holds: rows (offsets in A and C) or k (in A and B). Along rows, no longer than a vector.
    segments: Vec<Segment>,
    /// The other one of the two: k (offsets in A and B) or rows (in A and C), position by position.
    places: Vec<[isize; 2]>,
    /// Columns: offsets in B and C.
    columns: Vec<[isize; 2]>,
    /// Steps of the segments' positions.
    steps: [isize; 2],
    /// Parts of one product of the batch.
    blocks: usize,
    accumulate: bool,
}

/// The runs that two axes over the same loops have in common, cut into pieces of at most `most`.
fn segments(first: &Axis, second: &Axis, most: usize) -> Vec<Segment> {
    let mut found = Vec::new();
    for run in first.runs(0..first.extent()) {
        for part in second.runs(run.position..run.position + run.length) {
            for start in (0..part.length).step_by(most) {
                found.push(Segment {
                    first: run.offset + (part.position + start) as isize * first.step(),
                    second: part.offset + start as isize * second.step(),
                    count: (part.length - start).min(most),
                });
            }
        }
    }
    found
}

/// The offsets of two axes over the same loops.
fn places([first, second]: &[Axis; 2]) -> Vec<[isize; 2]> {
    segments(first, second, 1).into_iter().map(|segment| [segment.first, segment.second]).collect()
}

/// What a vector of elements so far apart is worth beside one of neighbours.
fn worth(step: isize) -> f64 {
    match step {
        1 => 1.0,
        2 => 0.6,
        _ => 0.12,
    }
}

/// The share of full vectors that pieces of these lengths fill.
fn fill(extent: usize, [first, second]: &[Axis; 2], lanes: usize) -> f64 {
    let run = first.run().min(second.run()).max(1);
    extent as f64 / (extent.div_ceil(run) * run.div_ceil(lanes) * lanes) as f64
}

impl ThinPlan {
    /// A plan where one side is thin and vectors can be filled. The places are those of the operands' first elements; the
    /// first `kept` batch loops stay outermost.
    pub fn new(product: &kernel::Product, [a, b, c]: [Place; 3], kept: usize, level: Level) -> Option<ThinPlan> {
        let places_of = |loops: &[kernel::ProductLoop]| loops.iter().map(|each| each.extent).product::<usize>();
        let swapped = places_of(&product.m) < places_of(&product.n);
        let orientation = if swapped { Orientation::Swapped } else { Orientation::Given };
        let operands = operands(product, kept, orientation);
        let Operands { m, n, k, batch, .. } = &operands;
        if n[0].extent() > MOST_COLUMNS || m[0].extent() * n[0].extent() * k[0].extent() == 0 {
            return None;
        }
        let width = level.lanes();
        let write = if m[1].step() == 1 { 1.0 } else { 0.5 };
        let rows = fill(m[0].extent(), m, width) * worth(m[0].step()) * write;
        let sum = fill(k[0].extent(), k, width) * worth(k[0].step()) * worth(k[1].step());
        let along = if rows >= sum { Along::Rows } else { Along::Sum };
        if rows.max(sum) < LEAST_FILL {
            return None;
        }
        let (run, single) = match along {
            Along::Rows => (m, k),
            Along::Sum => (k, m),
        };
        let most = if along == Along::Rows { width } else { usize::MAX };
        let segments = segments(&run[0], &run[1], most);
        let count: usize = batch.iter().map(|(extent, _)| extent).product();
        let work = m[0].extent() * n[0].extent() * k[0].extent();
        let blocks = match along {
            Along::Rows if count >= MANY => 1,
            Along::Rows => (work / PART).clamp(1, MOST_PARTS).min(segments.len()),
            Along::Sum => m[0].extent().div_ceil(MOST_ROWS),
        };
        Some(ThinPlan {
            along,
            starts: if swapped { [b, a, c] } else { [a, b, c] },
            segments,
            places: places(single),
            columns: places(n),
            steps: [run[0].step(), run[1].step()],
            blocks,
            accumulate: product.accumulate,
            operands,
        })
    }

    /// The number of independent parts.
    pub fn parts(&self) -> usize {
        self.operands.batch.iter().map(|(extent, _)| extent).product::<usize>() * self.blocks
    }

    /// Runs parts in order.
    ///
    /// # Safety
    /// As for `ProductPlan::run`, with the base and the thread's scratch; of the scratch, no bytes of its own are needed.
    pub unsafe fn run(&self, level: Level, memory: [*mut u8; 2], parts: Range<usize>) {
        let run = at_level!(level, fn(plan: &ThinPlan, memory: [*mut u8; 2], parts: Range<usize>), V => {
            run_parts::<V>(plan, memory, parts)
        });
        run(self, memory, parts);
    }
}

/// One product of the batch at work.
struct Part<'a> {
    plan: &'a ThinPlan,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
}

/// The `block`-th of `blocks` nearly equal pieces of `0..extent`.
fn piece(extent: usize, block: usize, blocks: usize) -> Range<usize> {
    extent * block / blocks..extent * (block + 1) / blocks
}

#[inline(always)]
unsafe fn run_parts<V: Lanes>(plan: &ThinPlan, memory: [*mut u8; 2], parts: Range<usize>) {
    for number in parts {
        let (block, batch) = (number % plan.blocks, number / plan.blocks);
        let [a, b, c] = plan.operands.batch_offsets(batch);
        let [base, scratch] = memory;
        let start = |operand: usize, offset: isize| plan.starts[operand].pointer(base, scratch).offset(offset);
        let part = Part { plan, a: start(0, a), b: start(1, b), c: start(2, c) };
        match plan.along {
            Along::Rows => {
                let rows = &plan.segments[piece(plan.segments.len(), block, plan.blocks)];
                match plan.steps[0] {
                    1 => rows_part::<V, 1>(&part, rows),
                    2 => rows_part::<V, 2>(&part, rows),
                    _ => rows_part::<V, 0>(&part, rows),
                }
            }
            Along::Sum => {
                let first = block * MOST_ROWS;
                let rows = &plan.places[first..(first + MOST_ROWS).min(plan.places.len())];
                for column in &plan.columns {
                    match plan.steps {
                        [1, 1] => sum_part::<V, 1, 1>(&part, rows, *column),
                        [2, 1] => sum_part::<V, 2, 1>(&part, rows, *column),
                        [_, _] => sum_part::<V, 0, 0>(&part, rows, *column),
                    }
                }
            }
        }
    }
}

/// `count` elements `step` apart; `STEP` is the step, or 0 where it is not 1 or 2. Zero in the other lanes.
#[inline(always)]
unsafe fn load<V: Lanes, const STEP: usize>(from: *const f32, step: isize, count: usize) -> V {
    match STEP {
        1 => V::load_first(from, count),
        2 => V::load_second(from, count),
        _ => {
            let mut lanes = [0.0f32; 16];
            for (i, lane) in lanes.iter_mut().enumerate().take(count.min(V::COUNT)) {
                *lane = *from.offset(i as isize * step);
            }
            V::load(lanes.as_ptr())
        }
    }
}

/// Rows of a part with all columns, a few at a time so that they share loads.
#[inline(always)]
unsafe fn rows_part<V: Lanes, const STEP: usize>(part: &Part<'_>, rows: &[Segment]) {
    let mut columns = part.plan.columns.as_slice();
    while !columns.is_empty() {
        let (now, later) = columns.split_at(if columns.len() == 3 { 2 } else { columns.len() });
        match now.len() {
            1 => rows_of::<V, STEP, 4, 1>(part, rows, now),
            2 => rows_of::<V, STEP, 4, 2>(part, rows, now),
            _ => rows_of::<V, STEP, 2, 4>(part, rows, now),
        }
        columns = later;
    }
}

#[inline(always)]
unsafe fn rows_of<V: Lanes, const STEP: usize, const ROWS: usize, const COLUMNS: usize>(
    part: &Part<'_>,
    rows: &[Segment],
    columns: &[[isize; 2]],
) {
    // Loads of scattered elements take so long that sharing those of B would not show.
    let mut groups = rows.chunks_exact(if STEP == 0 { 1 } else { ROWS });
    for group in &mut groups {
        if STEP == 0 {
            rows_tile::<V, STEP, 1, COLUMNS>(part, group, columns);
        } else {
            rows_tile::<V, STEP, ROWS, COLUMNS>(part, group, columns);
        }
    }
    for row in groups.remainder() {
        rows_tile::<V, STEP, 1, COLUMNS>(part, std::slice::from_ref(row), columns);
    }
}

#[inline(always)]
unsafe fn rows_tile<V: Lanes, const STEP: usize, const ROWS: usize, const COLUMNS: usize>(
    part: &Part<'_>,
    rows: &[Segment],
    columns: &[[isize; 2]],
) {
    let plan = part.plan;
    let a: [*const f32; ROWS] = std::array::from_fn(|row| part.a.offset(rows[row].first));
    let counts: [usize; ROWS] = std::array::from_fn(|row| rows[row].count);
    let b: [*const f32; COLUMNS] = std::array::from_fn(|column| part.b.offset(columns[column][0]));
    let mut sums = [[V::splat(0.0); COLUMNS]; ROWS];
    for &[in_a, in_b] in &plan.places {
        let factors: [V; COLUMNS] = std::array::from_fn(|column| V::splat(*b[column].offset(in_b)));
        for row in 0..ROWS {
            let x = load::<V, STEP>(a[row].offset(in_a), plan.steps[0], counts[row]);
            for column in 0..COLUMNS {
                sums[row][column] = x.accumulate(factors[column], sums[row][column]);
            }
        }
    }
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            let to = part.c.offset(rows[row].second + columns[column][1]);
            store(sums[row][column], to, plan.steps[1], counts[row], plan.accumulate);
        }
    }
}

/// Writes the first `count` lanes to elements `step` apart.
#[inline(always)]
unsafe fn store<V: Lanes>(value: V, to: *mut f32, step: isize, count: usize, accumulate: bool) {
    if step == 1 {
        let value = if accumulate { V::load_first(to, count).add(value) } else { value };
        return value.store_first(to, count);
    }
    let mut lanes = [0.0f32; 16];
    value.store(lanes.as_mut_ptr());
    for (i, lane) in lanes.iter().enumerate().take(count.min(V::COUNT)) {
        let at = to.offset(i as isize * step);
        *at = if accumulate { *at + lane } else { *lane };
    }
}

/// One column of a block of rows, as many at a time as share the loads of B.
#[inline(always)]
unsafe fn sum_part<V: Lanes, const A: usize, const B: usize>(part: &Part<'_>, rows: &[[isize; 2]], column: [isize; 2]) {
    let mut rows = rows;
    while !rows.is_empty() {
        // Loads of scattered elements take so long that sharing those of B would not show.
        let (now, later) = rows.split_at(match rows.len() {
            MOST_ROWS.. if A != 0 => MOST_ROWS,
            3.. if A != 0 => 3,
            _ => 1,
        });
        match now.len() {
            MOST_ROWS if A != 0 => sum_tile::<V, A, B, MOST_ROWS>(part, now, column),
            3 if A != 0 => sum_tile::<V, A, B, 3>(part, now, column),
            _ => sum_tile::<V, A, B, 1>(part, now, column),
        }
        rows = later;
    }
}

#[inline(always)]
unsafe fn sum_tile<V: Lanes, const A: usize, const B: usize, const ROWS: usize>(
    part: &Part<'_>,
    rows: &[[isize; 2]],
    column: [isize; 2],
) {
    let plan = part.plan;
    let [step_a, step_b] = plan.steps;
    let a: [*const f32; ROWS] = std::array::from_fn(|row| part.a.offset(rows[row][0]));
    let b = part.b.offset(column[0]);
    let mut sums = [V::splat(0.0); ROWS];
    for segment in &plan.segments {
        let (mut start, mut left) = (0isize, segment.count);
        while left > 0 {
            let count = left.min(V::COUNT);
            let y = load::<V, B>(b.offset(segment.second + start * step_b), step_b, count);
            for row in 0..ROWS {
                let x = load::<V, A>(a[row].offset(segment.first + start * step_a), step_a, count);
                sums[row] = x.accumulate(y, sums[row]);
            }
            left -= count;
            start += count as isize;
        }
    }
    for row in 0..ROWS {
        let to = part.c.offset(rows[row][1] + column[1]);
        let sum = across(sums[row]);
        *to = if plan.accumulate { *to + sum } else { sum };
    }
}

/// The sum of all lanes: halves are added until one is left.
#[inline(always)]
unsafe fn across<V: Lanes>(value: V) -> f32 {
    let mut lanes = [0.0f32; 16];
    value.store(lanes.as_mut_ptr());
    let mut width = V::COUNT;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}
