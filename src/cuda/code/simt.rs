//! A product in f32: each thread sums a small tile of results from panels in shared memory.
//!
//! Input: a [`Product`]. Output: the body of a function, and how many blocks of how many threads run it. Invariant: each
//! element is summed in the order of k, in f32.
//!
//! While a panel is multiplied the next one is on its way to registers.

use super::panel::{Extents, Panel, Sides, each_element, fastest, head, panels, store, turns};
use super::writer::Writer;
use super::{Function, Names};
use crate::kernel::Product;

/// The tile of a block, of which a thread has `rows` × `columns` results.
#[derive(Clone, Copy, Debug)]
struct Tile {
    sides: Sides,
    rows: usize,
    columns: usize,
    /// As [`fastest`] wants it.
    speed: f64,
}

const fn tile([m, n, k]: [usize; 3], rows: usize, columns: usize, speed: f64) -> Tile {
    Tile { sides: Sides { m, n, k }, rows, columns, speed }
}

const TILES: [Tile; 6] = [
    tile([128, 128, 8], 8, 8, 1.0),
    tile([128, 64, 8], 8, 4, 0.9),
    tile([64, 128, 8], 4, 8, 0.9),
    tile([64, 64, 16], 4, 4, 0.75),
    tile([32, 32, 32], 2, 2, 0.35),
    tile([16, 64, 16], 1, 4, 0.3),
];

/// Floats between the rows of a panel beyond their number, so that a column's do not share a bank; vectors stay aligned.
const GAP: usize = 4;

impl Tile {
    fn threads(&self) -> usize {
        self.sides.m / self.rows * (self.sides.n / self.columns)
    }
}

/// The function of a product.
pub(super) fn product(product: &Product, names: &Names<'_>) -> Function {
    let extents = Extents::of(product);
    let tile = fastest(&TILES, extents, |tile| (tile.sides, tile.speed));
    let panels = panels(product, tile.sides);
    let mut out = Writer::default();
    head(&mut out, product, names, tile.sides, &panels);
    let mut shared = 0;
    for panel in &panels {
        out.line(format!("float* const shared_{} = (float*)shared + {shared};", panel.name));
        shared += 2 * tile.sides.k * (panel.tile_side + GAP);
    }
    out.line(format!("float all[{}][{}] = {{}};", tile.rows, tile.columns));
    for panel in &panels {
        load_panel(&mut out, panel, product, tile);
    }
    main_loop(&mut out, &panels, tile);
    store_tile(&mut out, product, names, tile);
    Function::new(out, tile.sides.blocks(extents), tile.threads(), 4 * shared)
}

/// `fetch_a`: the next panel's elements of this thread into registers; `put_a`: from there into shared memory.
fn load_panel(out: &mut Writer, panel: &Panel<'_>, product: &Product, tile: Tile) {
    let (name, tile_side, threads, depth) = (panel.name, panel.tile_side, tile.threads(), tile.sides.k);
    let elements = tile_side * depth;
    let each = elements.div_ceil(threads);
    let (side, deep) = match panel.along_k(&product.k) {
        true => (format!("place / {depth}"), format!("place % {depth}")),
        false => (format!("place % {tile_side}"), format!("place / {tile_side}")),
    };
    let place = format!("const int place = thread + number * {threads}, side = {side}, deep = {deep};");
    let guard = if elements.is_multiple_of(threads) { String::new() } else { format!("if (place < {elements}) ") };
    let element = panel.element(product, tile.sides, "deep");
    let width = tile_side + GAP;
    out.line(format!("float next_{name}[{each}];"));
    let bodies = [
        (format!("fetch_{name} = [&](int start)"), format!("{guard}next_{name}[number] = {element};")),
        (
            format!("put_{name} = [&](int half)"),
            format!("{guard}put(shared_{name} + (half * {depth} + deep) * {width} + side, next_{name}[number]);"),
        ),
    ];
    for (function, body) in bodies {
        each_element(out, &function, each, &place, &body);
    }
}

/// Panels in turns: while one is multiplied the next is fetched.
fn main_loop(out: &mut Writer, panels: &[Panel<'_>; 2], tile: Tile) {
    let Tile { sides: Sides { m, n, k }, rows, columns, .. } = tile;
    let (across, down) = (n / columns, m / rows);
    out.line(format!("const int lane_m = thread / {across}, lane_n = thread % {across};"));
    out.line(format!("auto local_m = [&](int number) {{ return {}; }};", spread(rows, down, "lane_m")));
    out.line(format!("auto local_n = [&](int number) {{ return {}; }};", spread(columns, across, "lane_n")));
    turns(out, k, |out| {
        out.line("#pragma unroll");
        out.open(format!("for (int deep = 0; deep < {k}; ++deep)"));
        for (panel, (count, local)) in panels.iter().zip([(rows, "local_m"), (columns, "local_n")]) {
            let (name, width) = (panel.name, panel.tile_side + GAP);
            let element = format!("shared_{name} + (half * {k} + deep) * {width} + {local}(number)");
            out.line(format!("float of_{name}[{count}];"));
            out.line("#pragma unroll");
            out.line(format!("for (int number = 0; number < {count}; ++number) of_{name}[number] = get({element});"));
        }
        out.line("#pragma unroll");
        out.line(format!("for (int row = 0; row < {rows}; ++row)"));
        out.line("#pragma unroll");
        let multiply = "all[row][column] += of_a[row] * of_b[column];";
        out.line(format!("for (int column = 0; column < {columns}; ++column) {multiply}"));
        out.close();
    });
}

/// A thread's rows or columns: groups of four neighbours, spread over the tile.
fn spread(count: usize, lanes: usize, lane: &str) -> String {
    let group = count.min(4);
    match count / group {
        1 => format!("{lane} * {group} + number"),
        _ => format!("number / {group} * {} + {lane} * {group} + number % {group}", lanes * group),
    }
}

fn store_tile(out: &mut Writer, product: &Product, names: &Names<'_>, tile: Tile) {
    out.line("#pragma unroll");
    out.open(format!("for (int i = 0; i < {}; ++i)", tile.rows));
    out.line("#pragma unroll");
    out.open(format!("for (int j = 0; j < {}; ++j)", tile.columns));
    out.line("const int at_m = first_m + local_m(i), at_n = first_n + local_n(j);");
    store(out, product, names, tile.sides, "all[i][j]");
    out.close_all(2);
}
