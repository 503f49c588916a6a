//! A scatter-add without a race and without atomics: each row of the result looks for what is added to it.
//!
//! Input: a nest that adds to rows which its data name. Output: the body of a function, and how many blocks of how many
//! threads run it; none where the nest is of another form. Invariant: what meets in an element is added in the order of
//! the loops, as one thread would.
//!
//! A warp has a row. Its lanes look at 32 places at once for those that name it, and then add each place's columns side by
//! side. Rows times places are looked at, which is less than one chain of additions to memory takes as long as there are not
//! very many of both.

use super::expr::{declaration, element};
use super::linear::{index_type, loop_name, unravel};
use super::writer::Writer;
use super::{Function, Names};
use crate::kernel::verify::last_outer_is_apart;
use crate::kernel::{Lanes, Nest, NodeId, Phase, Store};

/// Warps of a block.
const ROWS: usize = 8;
/// Places under which a thread a column goes through them one by one.
const LEAST_PLACES: usize = 64;
/// Most looks: rows times places, a few instructions of a warp for 32 of them.
const MOST_LOOKS: usize = 1 << 31;

/// The parts of such a nest.
struct Scatter<'n> {
    phase: &'n Phase,
    store: &'n Store,
    /// The node that names a row, and those that it is computed from.
    names_row: NodeId,
    cone: Vec<bool>,
    rows: usize,
    /// Loops over places, and over columns.
    places: Vec<usize>,
    columns: Vec<usize>,
}

impl Scatter<'_> {
    fn of(nest: &Nest) -> Option<Scatter<'_>> {
        let last = nest.outer.len().checked_sub(1)?;
        let [phase] = &nest.phases[..] else { return None };
        let [store] = &phase.stores[..] else { return None };
        let [term] = &store.location.indirect[..] else { return None };
        let is_added = store.accumulate && phase.inner.is_empty() && phase.reductions.is_empty();
        let has_columns = nest.lanes == Lanes::Outer && nest.parallel < last && last_outer_is_apart(nest);
        if !is_added || !has_columns {
            return None;
        }
        let places: Vec<usize> = (nest.parallel..last).collect();
        let columns: Vec<usize> = (0..nest.parallel).chain([last]).collect();
        let cone = cone(phase, term.node);
        let mut in_cone = phase.nodes.iter().zip(&cone).filter(|(_, used)| **used).map(|(node, _)| node);
        let sees_columns = in_cone.any(|node| {
            let linears = node.op.linears();
            linears.iter().any(|linear| columns.iter().any(|number| linear.coefficient(*number) != 0))
        });
        // What is added to one row lies in no other.
        let (low, high) = store.location.index.range(&nest.outer);
        let rows_apart = high - low < term.stride.abs();
        let count = |loops: &[usize]| loops.iter().map(|&number| nest.outer[number]).product::<usize>();
        let (rows, looked) = (usize::try_from(term.extent).ok()?, count(&places));
        let worth = looked >= LEAST_PLACES && rows.saturating_mul(looked) <= MOST_LOOKS;
        let names_row = term.node;
        (!sees_columns && rows_apart && worth).then_some(Scatter {
            phase,
            store,
            names_row,
            cone,
            rows,
            places,
            columns,
        })
    }
}

/// The nodes that one is computed from, and itself.
fn cone(phase: &Phase, node: NodeId) -> Vec<bool> {
    let mut used = vec![false; phase.nodes.len()];
    used[node.0 as usize] = true;
    for number in (0..phase.nodes.len()).rev() {
        if used[number] {
            phase.nodes[number].op.operands().iter().for_each(|operand| used[operand.0 as usize] = true);
        }
    }
    used
}

/// The function of a nest of this form.
pub(super) fn scatter(nest: &Nest, names: &Names<'_>) -> Option<Function> {
    let scatter = Scatter::of(nest)?;
    let Scatter { phase, store, names_row, ref cone, rows, ref places, ref columns } = scatter;
    let part = |loops: &[usize]| {
        let extents: Vec<usize> = loops.iter().map(|&number| nest.outer[number]).collect();
        let names: Vec<String> = loops.iter().map(|&number| loop_name(number)).collect();
        (names, extents)
    };
    let ((place_names, place_extents), (column_names, column_extents)) = (part(places), part(columns));
    let [place_count, column_count] = [&place_extents, &column_extents].map(|all| all.iter().product::<usize>());
    let [place_type, column_type] = [place_count, column_count].map(|count| index_type(count + 64));
    let mut out = Writer::default();
    out.line(format!("const int lane = threadIdx.x % 32, row = (int)blockIdx.x * {ROWS} + threadIdx.x / 32;"));
    out.line(format!("if (row >= {rows}) return;"));
    out.open(format!("for ({place_type} first = 0; first < {place_count}; first += 32)"));
    out.line("bool hit = false;");
    out.open(format!("if (first + lane < {place_count})"));
    out.line(format!("const {place_type} place = first + lane;"));
    unravel(&mut out, "place", place_type, &place_names, &place_extents);
    for (number, node) in phase.nodes.iter().enumerate().filter(|(number, _)| cone[*number]) {
        out.line(declaration(number, node, names, &nest.outer));
    }
    out.line(format!("hit = v{} == row;", names_row.0));
    out.close();
    out.open("for (u32 hits = ballot(hit); hits != 0; hits &= hits - 1)");
    out.line(format!("const {place_type} place = first + lowest(hits);"));
    unravel(&mut out, "place", place_type, &place_names, &place_extents);
    out.open(format!("for ({column_type} column = lane; column < {column_count}; column += 32)"));
    unravel(&mut out, "column", column_type, &column_names, &column_extents);
    for (number, node) in phase.nodes.iter().enumerate() {
        out.line(declaration(number, node, names, &nest.outer));
    }
    let (pointer, condition) = element(&store.location, names, &nest.outer);
    let guard = condition.map_or(String::new(), |condition| format!("if ({condition}) "));
    let sum = format!("load({pointer}) + v{}", store.value.0);
    out.line(guard + &names.store(store.location.buffer, &pointer, &sum));
    out.close_all(3);
    Some(Function::new(out, rows.div_ceil(ROWS), 32 * ROWS, 0))
}
