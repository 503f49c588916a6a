//! A nest as a CUDA function.
//!
//! Input: a [`Nest`] and its [`Division`]. Output: the body of a function, and how many blocks of how many threads run it.
//! Invariant: what one member of a team stores and another reads lies on two sides of a barrier, and all threads of a
//! block meet the same barriers.

use std::collections::BTreeSet;

use super::expr::{constant, declaration, element, reduced_name, type_name};
use super::linear::{index_type, loop_name, unravel};
use super::scatter::scatter;
use super::teams::{Division, Teams, division};
use super::writer::Writer;
use super::{Function, Names};
use crate::graph::DType;
use crate::kernel::verify::last_outer_is_apart;
use crate::kernel::{BufferId, Lanes, Nest, Phase, Reduction, ReductionKind};

/// The function of a nest.
pub(super) fn nest(nest: &Nest, names: &Names<'_>) -> Function {
    if let Some(function) = scatter(nest, names) {
        return function;
    }
    let text = NestText { nest, names, out: Writer::default(), teams: None, slot_bytes: 0, since: Touched::default() };
    match division(nest) {
        Division::Points { block } => text.points(block),
        Division::Teams(teams) => text.teams(teams),
    }
}

/// Buffers that were touched since the last barrier.
#[derive(Default)]
struct Touched {
    loads: BTreeSet<BufferId>,
    stores: BTreeSet<BufferId>,
}

impl Touched {
    fn of(phase: &Phase) -> Touched {
        Touched {
            loads: phase.loads().map(|location| location.buffer).collect(),
            stores: phase.stores.iter().map(|store| store.location.buffer).collect(),
        }
    }

    fn add(&mut self, other: &Touched) {
        self.loads.extend(&other.loads);
        self.stores.extend(&other.stores);
    }

    /// Whether one side stores what the other touches.
    fn conflicts(&self, other: &Touched) -> bool {
        let meet = |stores: &BTreeSet<BufferId>, touched: &Touched| {
            !stores.is_disjoint(&touched.loads) || !stores.is_disjoint(&touched.stores)
        };
        meet(&self.stores, other) || meet(&other.stores, self)
    }
}

struct NestText<'a> {
    nest: &'a Nest,
    names: &'a Names<'a>,
    out: Writer,
    teams: Option<Teams>,
    /// Shared memory that sums over members need.
    slot_bytes: usize,
    since: Touched,
}

impl NestText<'_> {
    /// A thread a point.
    fn points(mut self, block: usize) -> Function {
        let (parallel, outer) = (self.nest.parallel, self.nest.outer.len());
        let mut spread: Vec<usize> = (0..parallel).collect();
        if self.nest.lanes == Lanes::Outer && parallel < outer && last_outer_is_apart(self.nest) {
            spread.push(outer - 1);
        }
        let total: usize = spread.iter().map(|&number| self.nest.outer[number]).product();
        let index = index_type(total.next_multiple_of(block));
        self.out.line(format!("const {index} point = ({index})blockIdx.x * {block} + threadIdx.x;"));
        if !total.is_multiple_of(block) {
            self.out.line(format!("if (point >= {total}) return;"));
        }
        self.unravel("point", index, &spread);
        let sequence: Vec<usize> = (parallel..outer).filter(|number| !spread.contains(number)).collect();
        self.open_loops(&sequence);
        for number in 0..self.nest.phases.len() {
            self.phase_of_thread(number);
        }
        self.out.close_all(sequence.len());
        Function::new(self.out, total.div_ceil(block), block, 0)
    }

    /// A team a point.
    fn teams(mut self, teams: Teams) -> Function {
        let Teams { members, teams: each, members_first } = teams;
        self.teams = Some(teams);
        let total: usize = self.nest.outer[..self.nest.parallel].iter().product();
        let index = index_type(total.next_multiple_of(each));
        let thread = "(int)threadIdx.x";
        let (member, row) = match (each, members_first) {
            (1, _) => (thread.to_string(), "0".to_string()),
            (_, true) => (format!("{thread} % {members}"), format!("{thread} / {members}")),
            (_, false) => (format!("{thread} / {each}"), format!("{thread} % {each}")),
        };
        self.out.line(format!("const int member = {member}, row = {row};"));
        self.out.line(format!("const {index} team = ({index})blockIdx.x * {each} + row;"));
        self.out.line(format!("const bool active = team < {total};"));
        let parallel: Vec<usize> = (0..self.nest.parallel).collect();
        self.unravel("team", index, &parallel);
        let sequence: Vec<usize> = (self.nest.parallel..self.nest.outer.len()).collect();
        self.open_loops(&sequence);
        for number in 0..self.nest.phases.len() {
            self.phase_of_team(number, teams);
        }
        if !sequence.is_empty() {
            let mut all = Touched::default();
            self.nest.phases.iter().for_each(|phase| all.add(&Touched::of(phase)));
            // The next point may touch what another member has touched at this one.
            if all.conflicts(&all) {
                self.barrier(teams);
            }
        }
        self.out.close_all(sequence.len());
        let slots = self.slot_bytes;
        Function::new(self.out, total.div_ceil(each), members * each, slots)
    }

    /// Declares the indices of loops from the number of a point in row-major order.
    fn unravel(&mut self, point: &str, index: &str, loops: &[usize]) {
        let extents = loops.iter().map(|&number| self.nest.outer[number]).collect::<Vec<_>>();
        let names: Vec<String> = loops.iter().map(|&number| loop_name(number)).collect();
        unravel(&mut self.out, point, index, &names, &extents);
    }

    fn open_loops(&mut self, loops: &[usize]) {
        for &number in loops {
            let (name, extent) = (loop_name(number), self.nest.outer[number]);
            self.out.open(format!("for (int {name} = 0; {name} < {extent}; ++{name})"));
        }
    }

    fn extents(&self, phase: &Phase) -> Vec<usize> {
        [&self.nest.outer[..], &phase.inner[..]].concat()
    }

    /// The reductions' start, before the inner loops.
    fn open_reductions(&mut self, number: usize) {
        let phase = &self.nest.phases[number];
        for (index, reduction) in phase.reductions.iter().enumerate() {
            let name = reduced_name(number, index);
            if phase.inner.is_empty() {
                let dtype = phase.nodes[reduction.node.0 as usize].dtype;
                self.out.line(format!("{} {name} = {};", type_name(dtype), constant(0.0, dtype)));
            } else {
                self.out.line(format!(
                    "{} all_{name} = {};",
                    fold_type(phase, reduction),
                    fold_start(phase, reduction)
                ));
            }
        }
    }

    /// Nodes, then what is taken into reductions, then stores: one point.
    fn point(&mut self, number: usize, first_only: bool) {
        let phase = &self.nest.phases[number];
        let extents = self.extents(phase);
        for (place, node) in phase.nodes.iter().enumerate() {
            self.out.line(declaration(place, node, self.names, &extents));
        }
        for (index, reduction) in phase.reductions.iter().enumerate() {
            let (name, value) = (reduced_name(number, index), format!("v{}", reduction.node.0));
            self.out.line(match (phase.inner.is_empty(), reduction.kind) {
                (true, _) => format!("{name} = {value};"),
                (false, ReductionKind::ArgMax) => format!("all_{name}.take({value}, (int)({}));", self.flat(phase)),
                (false, ReductionKind::Sum | ReductionKind::Max) => format!("all_{name}.take({value});"),
            });
        }
        if first_only && !phase.stores.is_empty() {
            self.out.open("if (member == 0)");
        }
        for store in &phase.stores {
            let (pointer, condition) = element(&store.location, self.names, &extents);
            let value = format!("v{}", store.value.0);
            let value = if store.accumulate { format!("load({pointer}) + {value}") } else { value };
            let guard = condition.map_or(String::new(), |condition| format!("if ({condition}) "));
            self.out.line(guard + &self.names.store(store.location.buffer, &pointer, &value));
        }
        if first_only && !phase.stores.is_empty() {
            self.out.close();
        }
    }

    /// The row-major number of the inner point at hand.
    fn flat(&self, phase: &Phase) -> String {
        let first = self.nest.outer.len();
        let mut text = loop_name(first);
        for (number, extent) in phase.inner.iter().enumerate().skip(1) {
            text = format!("({text}) * {extent} + {}", loop_name(first + number));
        }
        text
    }

    /// The results of reductions, after the inner loops.
    fn close_reductions(&mut self, number: usize, teams: Option<Teams>) {
        let phase = &self.nest.phases[number];
        if phase.inner.is_empty() {
            return;
        }
        let mut meets = false;
        for (index, reduction) in phase.reductions.iter().enumerate() {
            let name = reduced_name(number, index);
            if let Some(teams) = teams {
                let bytes = if reduction.kind == ReductionKind::ArgMax { 8 } else { 4 };
                let Teams { members, teams: each, members_first } = teams;
                if teams.is_warp() {
                    self.out.line(format!("join_warp<{members}>(all_{name});"));
                } else if members_first {
                    self.slot_bytes = self.slot_bytes.max(members.div_ceil(32) * bytes);
                    self.out.line(format!("join_block<{members}>(all_{name});"));
                    meets = true;
                } else {
                    self.slot_bytes = self.slot_bytes.max(members * each * bytes);
                    self.out.line(format!("join_columns<{members}, {each}>(all_{name}, member, row);"));
                    meets = true;
                }
            }
            let dtype = match reduction.kind {
                ReductionKind::ArgMax => DType::I32,
                ReductionKind::Sum | ReductionKind::Max => phase.nodes[reduction.node.0 as usize].dtype,
            };
            self.out.line(format!("const {} {name} = all_{name}.result();", type_name(dtype)));
        }
        if meets {
            self.since = Touched::default();
        }
    }

    fn phase_of_thread(&mut self, number: usize) {
        let phase = &self.nest.phases[number];
        self.open_reductions(number);
        if phase.inner.is_empty() {
            self.out.open("");
            self.point(number, false);
            self.out.close();
            return;
        }
        for (position, extent) in phase.inner.iter().enumerate() {
            let name = loop_name(self.nest.outer.len() + position);
            self.out.open(format!("for (int {name} = 0; {name} < {extent}; ++{name})"));
        }
        self.point(number, false);
        self.out.close_all(phase.inner.len());
        self.close_reductions(number, None);
    }

    fn phase_of_team(&mut self, number: usize, teams: Teams) {
        let phase = &self.nest.phases[number];
        let touched = Touched::of(phase);
        if self.since.conflicts(&touched) {
            self.barrier(teams);
        }
        self.open_reductions(number);
        if phase.inner.is_empty() {
            // What one member stores another must not load.
            let alone = !touched.stores.is_disjoint(&touched.loads);
            self.out.open(if alone { "if (active && member == 0)" } else { "if (active)" });
            self.point(number, !alone);
            self.out.close();
            for index in (0..phase.reductions.len()).filter(|_| alone) {
                let name = reduced_name(number, index);
                self.slot_bytes = self.slot_bytes.max(4 * teams.teams);
                self.out.line(format!("{name} = from_first({name}, member, row);"));
            }
            self.since.add(&touched);
            return;
        }
        let Teams { members, .. } = teams;
        let total: usize = phase.inner.iter().product();
        let index = index_type(total + members);
        self.out.open("if (active)");
        self.out.open(format!("for ({index} inner = member; inner < {total}; inner += {members})"));
        let first = self.nest.outer.len();
        let names: Vec<String> = (0..phase.inner.len()).map(|position| loop_name(first + position)).collect();
        unravel(&mut self.out, "inner", index, &names, &phase.inner);
        self.point(number, false);
        self.out.close_all(2);
        self.since.add(&touched);
        self.close_reductions(number, Some(teams));
    }

    fn barrier(&mut self, teams: Teams) {
        self.out.line(if teams.is_warp() { "barrier_warp();" } else { "barrier();" });
        self.since = Touched::default();
    }
}

/// The accumulator of a reduction.
fn fold_type(phase: &Phase, reduction: &Reduction) -> String {
    let dtype = type_name(phase.nodes[reduction.node.0 as usize].dtype);
    match reduction.kind {
        ReductionKind::Sum => "Sum".to_string(),
        ReductionKind::Max => format!("Max<{dtype}>"),
        ReductionKind::ArgMax => format!("ArgMax<{dtype}>"),
    }
}

fn fold_start(phase: &Phase, reduction: &Reduction) -> String {
    let least = match phase.nodes[reduction.node.0 as usize].dtype {
        DType::I32 => constant(f64::from(i32::MIN), DType::I32),
        DType::F32 | DType::Bool => constant(f64::NEG_INFINITY, DType::F32),
    };
    match reduction.kind {
        ReductionKind::Sum => "{0.0f}".to_string(),
        ReductionKind::Max => format!("{{{least}}}"),
        ReductionKind::ArgMax => format!("{{{least}, NOWHERE}}"),
    }
}
