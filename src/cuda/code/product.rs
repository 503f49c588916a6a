//! A product as a CUDA function: tiles of the result, one a block, summed over panels in shared memory.
//!
//! Input: a [`Product`]. Output: the body of a function, and how many blocks of how many threads run it. Invariant: each
//! element is summed in the order of k, in f32.
//!
//! An operand's address is the sum of a function of m (or n) and one of k, however many loops those are made of, so a
//! convolution is read in place. While a panel is multiplied the next one is on its way to registers.

use super::linear::{sum_text, unravel};
use super::writer::Writer;
use super::{Function, Names};
use crate::kernel::{Linear, Product, ProductLoop};

/// Blocks that keep a GPU busy: multiprocessors of the larger ones.
const BUSY_BLOCKS: usize = 132;

/// The tile of a block: results `m` × `n` in panels of `k`, `rows` × `columns` of them a thread.
#[derive(Clone, Copy, Debug)]
struct Tile {
    m: usize,
    n: usize,
    k: usize,
    rows: usize,
    columns: usize,
    /// Multiplications of a block in the same time, relative to the largest tile: smaller ones load more for each.
    speed: f64,
}

const TILES: [Tile; 6] = [
    Tile { m: 128, n: 128, k: 8, rows: 8, columns: 8, speed: 1.0 },
    Tile { m: 128, n: 64, k: 8, rows: 8, columns: 4, speed: 0.9 },
    Tile { m: 64, n: 128, k: 8, rows: 4, columns: 8, speed: 0.9 },
    Tile { m: 64, n: 64, k: 16, rows: 4, columns: 4, speed: 0.75 },
    Tile { m: 32, n: 32, k: 32, rows: 2, columns: 2, speed: 0.35 },
    Tile { m: 16, n: 64, k: 16, rows: 1, columns: 4, speed: 0.3 },
];

/// Floats between the rows of a panel beyond their number, so that a column's do not share a bank; vectors stay aligned.
const GAP: usize = 4;

impl Tile {
    fn threads(&self) -> usize {
        self.m / self.rows * (self.n / self.columns)
    }

    /// The tile with which all results take the least time, by their number and the blocks that run side by side.
    fn choose(batch: usize, m: usize, n: usize) -> Tile {
        let time = |tile: &Tile| {
            let blocks = batch * m.div_ceil(tile.m) * n.div_ceil(tile.n);
            (blocks.div_ceil(BUSY_BLOCKS) * tile.m * tile.n) as f64 / tile.speed
        };
        *TILES.iter().min_by(|a, b| time(a).total_cmp(&time(b))).expect("there are tiles")
    }
}

/// How many points loops have.
fn points(loops: &[ProductLoop]) -> usize {
    loops.iter().map(|each| each.extent).product()
}

/// An operand as a panel: `side` (rows of A or columns of B) by k.
struct Panel<'a> {
    name: char,
    side: &'a [ProductLoop],
    tile_side: usize,
    stride: fn(&ProductLoop) -> i64,
    start: i64,
}

impl Panel<'_> {
    /// Whether neighbouring threads read neighbours along k.
    fn along_k(&self, k: &[ProductLoop]) -> bool {
        let contiguous = |loops: &[ProductLoop]| loops.last().is_some_and(|last| (self.stride)(last) == 1);
        contiguous(k) || !contiguous(self.side) && k.last().is_some_and(|last| (self.stride)(last) != 0)
    }
}

/// The function of a product.
pub(super) fn product(product: &Product, names: &Names) -> Function {
    let [batch, m, n, k] = [&product.batch, &product.m, &product.n, &product.k].map(|loops| points(loops));
    let tile = Tile::choose(batch, m, n);
    let mut out = Writer::default();
    let threads = tile.threads();
    let (tiles_m, tiles_n) = (m.div_ceil(tile.m), n.div_ceil(tile.n));
    let blocks = batch * tiles_m * tiles_n;
    let panels = [
        Panel { name: 'a', side: &product.m, tile_side: tile.m, stride: |each| each.a, start: product.a.1 },
        Panel { name: 'b', side: &product.n, tile_side: tile.n, stride: |each| each.b, start: product.b.1 },
    ];
    let [a, b, c] = [product.a.0, product.b.0, product.c.0].map(|id| names.buffer(id));
    out.line("const int thread = threadIdx.x, block = blockIdx.x;");
    out.line(format!(
        "const int first_m = block / {tiles_n} % {tiles_m} * {}, first_n = block % {tiles_n} * {};",
        tile.m, tile.n
    ));
    let indices: Vec<String> = (0..product.batch.len()).map(|number| format!("b{number}_")).collect();
    let extents: Vec<usize> = product.batch.iter().map(|each| each.extent).collect();
    unravel(&mut out, &format!("(block / {})", tiles_m * tiles_n), "int", &indices, &extents);
    let batch_text = |stride: fn(&ProductLoop) -> i64, start: i64| {
        let terms = product.batch.iter().map(stride).enumerate().filter(|(_, stride)| *stride != 0);
        let linear = Linear { terms: terms.collect(), offset: start };
        sum_text(&linear, false, &|number| format!("b{number}_"))
    };
    for (panel, buffer) in panels.iter().zip([&a, &b]) {
        out.line(format!(
            "const float* const from_{} = {buffer} + ({});",
            panel.name,
            batch_text(panel.stride, panel.start)
        ));
    }
    out.line(format!("float* const to = {c} + ({});", batch_text(|each| each.c, product.c.1)));
    for panel in &panels {
        place_function(&mut out, &format!("side_{}", panel.name), panel.side, panel.stride);
        place_function(&mut out, &format!("deep_{}", panel.name), &product.k, panel.stride);
    }
    place_function(&mut out, "row", &product.m, |each| each.c);
    place_function(&mut out, "column", &product.n, |each| each.c);
    bounds(&mut out, product, [m, n, k], tile);
    let mut shared = 0;
    for panel in &panels {
        out.line(format!("float* const shared_{} = (float*)shared + {shared};", panel.name));
        shared += 2 * tile.k * (panel.tile_side + GAP);
    }
    out.line(format!("float all[{}][{}] = {{}};", tile.rows, tile.columns));
    for panel in &panels {
        load_panel(&mut out, panel, product, [m, n, k], tile);
    }
    main_loop(&mut out, &panels, tile);
    store_tile(&mut out, product, [m, n], tile);
    Function::new(out, blocks, threads, 4 * shared)
}

/// A function from the number of a point of loops to the place that they add.
fn place_function(out: &mut Writer, name: &str, loops: &[ProductLoop], stride: fn(&ProductLoop) -> i64) {
    out.open(format!("auto {name} = [](int at) -> long long"));
    let names: Vec<String> = (0..loops.len()).map(|number| format!("p{number}")).collect();
    let extents: Vec<usize> = loops.iter().map(|each| each.extent).collect();
    unravel(out, "at", "int", &names, &extents);
    let terms = loops.iter().map(stride).enumerate().filter(|(_, stride)| *stride != 0);
    let linear = Linear { terms: terms.collect(), offset: 0 };
    let reach: i128 = loops.iter().map(|each| i128::from(stride(each)).abs() * each.extent as i128).sum();
    let short = reach <= i128::from(i32::MAX);
    out.line(format!("return {};", sum_text(&linear, short, &|number| format!("p{number}"))));
    out.close_statement();
}

/// `begin` and `end` of k: what the bands leave of it for the tile at hand.
fn bounds(out: &mut Writer, product: &Product, [m, n, k]: [usize; 3], tile: Tile) {
    out.line(format!("int begin = 0, end = {k};"));
    let single = [&product.m, &product.n, &product.k].map(|loops| loops.len() <= 1);
    if single != [true; 3] {
        return;
    }
    // The loops of bands are numbered m, n, k; those of one iteration are left out.
    let mut numbers = [None; 3];
    let mut next = 0;
    for (number, loops) in numbers.iter_mut().zip([&product.m, &product.n, &product.k]) {
        if !loops.is_empty() {
            (*number, next) = (Some(next), next + 1);
        }
    }
    let coefficient = |band: &Linear, side: usize| numbers[side].map_or(0, |number| band.coefficient(number));
    for band in &product.bands {
        let [of_m, of_n, of_k] = [0, 1, 2].map(|side| coefficient(band, side));
        let most = |coefficient: i64, first: &str, tile: usize, whole: usize| match coefficient {
            0 => String::new(),
            1.. => format!(" + {coefficient}LL * min({first} + {}, {})", tile - 1, whole - 1),
            _ => format!(" - {}LL * {first}", -coefficient),
        };
        let (rows, columns) = (most(of_m, "first_m", tile.m, m), most(of_n, "first_n", tile.n, n));
        out.open("");
        out.line(format!("const long long most = {}LL{rows}{columns};", band.offset));
        match of_k {
            0 => out.line("if (most < 0) end = 0;"),
            // Multiplied where most + of_k * k >= 0.
            1.. => out.line(format!(
                "if (most < 0) begin = max(begin, (int)((-most + {}) / {of_k}) / {} * {});",
                of_k - 1,
                tile.k,
                tile.k
            )),
            _ => out.line(format!("end = most < 0 ? 0 : (int)min((long long)end, most / {} + 1);", -of_k)),
        }
        out.close();
    }
}

/// `fetch_a`: the next panel's elements of this thread into registers; `put_a`: from there into shared memory.
fn load_panel(out: &mut Writer, panel: &Panel<'_>, product: &Product, [m, n, k]: [usize; 3], tile: Tile) {
    let Panel { name, tile_side, .. } = *panel;
    let threads = tile.threads();
    let elements = tile_side * tile.k;
    let each = elements.div_ceil(threads);
    let whole = if name == 'a' { m } else { n };
    let first = if name == 'a' { "first_m" } else { "first_n" };
    let along_k = panel.along_k(&product.k);
    let (side, deep) = match along_k {
        true => (format!("place / {}", tile.k), format!("place % {}", tile.k)),
        false => (format!("place % {tile_side}"), format!("place / {tile_side}")),
    };
    out.line(format!("float next_{name}[{each}];"));
    // With threads a multiple of the inner extent one of the two is the same for all of a thread's elements.
    let mut conditions = Vec::new();
    if !elements.is_multiple_of(threads) {
        conditions.push(format!("place < {elements}"));
    }
    if !whole.is_multiple_of(tile_side) {
        conditions.push(format!("{first} + side < {whole}"));
    }
    let is_banded = !product.bands.is_empty();
    if !k.is_multiple_of(tile.k) || is_banded {
        conditions.push("start + deep < end".to_string());
    }
    out.open(format!("auto fetch_{name} = [&](int start)"));
    out.line("#pragma unroll");
    out.open(format!("for (int number = 0; number < {each}; ++number)"));
    out.line(format!("const int place = thread + number * {threads}, side = {side}, deep = {deep};"));
    let value = format!("load(from_{name} + side_{name}({first} + side) + deep_{name}(start + deep))");
    out.line(match conditions.is_empty() {
        true => format!("next_{name}[number] = {value};"),
        false => format!("next_{name}[number] = {} ? {value} : 0.0f;", conditions.join(" && ")),
    });
    out.close();
    out.close_statement();
    out.open(format!("auto put_{name} = [&](int half)"));
    out.line("#pragma unroll");
    out.open(format!("for (int number = 0; number < {each}; ++number)"));
    out.line(format!("const int place = thread + number * {threads}, side = {side}, deep = {deep};"));
    let width = tile_side + GAP;
    let guard = if elements.is_multiple_of(threads) { String::new() } else { format!("if (place < {elements}) ") };
    out.line(format!("{guard}put(shared_{name} + (half * {} + deep) * {width} + side, next_{name}[number]);", tile.k));
    out.close();
    out.close_statement();
}

/// Panels in turns: while one is multiplied the next is fetched.
fn main_loop(out: &mut Writer, panels: &[Panel<'_>; 2], tile: Tile) {
    let (across, down) = (tile.n / tile.columns, tile.m / tile.rows);
    out.line(format!("const int lane_m = thread / {across}, lane_n = thread % {across};"));
    out.line(format!("auto local_m = [&](int number) {{ return {}; }};", spread(tile.rows, down, "lane_m")));
    out.line(format!("auto local_n = [&](int number) {{ return {}; }};", spread(tile.columns, across, "lane_n")));
    out.open("if (begin < end)");
    out.line("fetch_a(begin), fetch_b(begin);");
    out.line("put_a(0), put_b(0);");
    out.line("barrier();");
    out.open(format!("for (int start = begin, half = 0; start < end; start += {}, half ^= 1)", tile.k));
    out.line(format!("const bool more = start + {} < end;", tile.k));
    out.line(format!("if (more) fetch_a(start + {}), fetch_b(start + {});", tile.k, tile.k));
    out.line("#pragma unroll");
    out.open(format!("for (int deep = 0; deep < {}; ++deep)", tile.k));
    for (panel, (count, local)) in panels.iter().zip([(tile.rows, "local_m"), (tile.columns, "local_n")]) {
        let (name, width) = (panel.name, panel.tile_side + GAP);
        out.line(format!("float of_{name}[{count}];"));
        out.line("#pragma unroll");
        out.line(format!(
            "for (int number = 0; number < {count}; ++number) of_{name}[number] = get(shared_{name} + (half * {} + deep) * {width} + {local}(number));",
            tile.k
        ));
    }
    out.line("#pragma unroll");
    out.line(format!("for (int row = 0; row < {}; ++row)", tile.rows));
    out.line("#pragma unroll");
    out.line(format!(
        "for (int column = 0; column < {}; ++column) all[row][column] += of_a[row] * of_b[column];",
        tile.columns
    ));
    out.close();
    out.line("if (more) put_a(half ^ 1), put_b(half ^ 1);");
    out.line("barrier();");
    out.close_all(2);
}

/// A thread's rows or columns: groups of four neighbours, spread over the tile.
fn spread(count: usize, lanes: usize, lane: &str) -> String {
    let group = count.min(4);
    match count / group {
        1 => format!("{lane} * {group} + number"),
        _ => format!("number / {group} * {} + {lane} * {group} + number % {group}", lanes * group),
    }
}

fn store_tile(out: &mut Writer, product: &Product, [m, n]: [usize; 2], tile: Tile) {
    out.line("#pragma unroll");
    out.open(format!("for (int i = 0; i < {}; ++i)", tile.rows));
    out.line("const int at_m = first_m + local_m(i);");
    if !m.is_multiple_of(tile.m) {
        out.line(format!("if (at_m >= {m}) continue;"));
    }
    out.line("#pragma unroll");
    out.open(format!("for (int j = 0; j < {}; ++j)", tile.columns));
    out.line("const int at_n = first_n + local_n(j);");
    if !n.is_multiple_of(tile.n) {
        out.line(format!("if (at_n >= {n}) continue;"));
    }
    out.line("float* const element = to + (row(at_m) + column(at_n));");
    let value = if product.accumulate { "load(element) + all[i][j]" } else { "all[i][j]" };
    out.line(format!("store(element, {value});"));
    out.close_all(2);
}
