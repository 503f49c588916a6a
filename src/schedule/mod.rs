//! Graph with bound sizes to loop nests, products and a memory plan.
//!
//! Input: a verified graph whose dims are numbers, after `passes`; the places of parameters and states; a [`Backend`].
//! Output: a [`Program`]. Invariant: the program depends on the graph and the numbers of the [`Target`] alone, never on the
//! machine at hand.
//!
//! 1. `lower`, `contract`: graph → `form`, in which contractions are views, reductions, scatters or products.
//! 2. `factors`: which loops run over each dim, the same on both sides of a reshape.
//! 3. `roots`: which values are stored; everything else is computed where it is read.
//! 4. `draft`, `inline`: a kernel for each stored value, with what it reads inlined.
//! 5. `merge`, `align`: nests over the same points become one.
//! 6. `order`: kernels in an order in which updates happen in place after the last read.
//! 7. `emit`: addresses, joined loops, which loop runs in lockstep.
//! 8. `bands`: which summands of a product are zero, or not read, because of indices.
//! 9. [`Backend::lower`]: what only this machine wants.
//! 10. `memory`: temporaries share bytes.

mod align;
mod bands;
mod code;
mod contract;
mod draft;
mod emit;
mod factors;
mod form;
mod inline;
mod lower;
pub(crate) mod memory;
mod merge;
mod order;
mod pieces;
mod precedence;
mod roots;
mod target;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use target::{Backend, Costs, Products, Target, Unrolled};

use crate::dim;
use crate::graph::{DType, Graph, Param, State, Variable};
use crate::kernel::persistent::round_up;
use crate::kernel::verify::{check, verify, verify_kernels};
use crate::kernel::{Buffer, BufferId, Kernel, KernelKind, Persistent, Program, Role};
use crate::source::Span;
use code::Dest;
use draft::Item;
use form::{Form, FormOp, Id, Source};

#[cfg(test)]
thread_local! {
    /// Steps counted so far.
    static WORK: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts steps of loops that could take more than a linear number of them, so that tests need no clock.
fn count_work(_steps: usize) {
    #[cfg(test)]
    WORK.with(|work| work.set(work.get() + _steps));
}

/// The steps counted since the last call.
#[cfg(test)]
fn take_work() -> usize {
    WORK.with(std::cell::Cell::take)
}

/// Plans one step for a machine.
///
/// # Panics
/// Where a dim is symbolic or `persistent` lacks a parameter or state of the graph: compiler bugs.
pub fn plan(graph: &Graph, persistent: &Persistent, backend: &dyn Backend) -> Program {
    let mut form = lower::lower(graph, backend.target());
    form.factors = factors::factors(&form);
    let mut roots = roots::choose(&form);
    let chosen = roots.len();
    let mut items = draft::items(&form, &mut roots);
    if roots.len() > chosen {
        // The second round loads what the first found to be needed in memory instead of computing it again.
        items = draft::items(&form, &mut roots);
    }
    let ordered = order::order(&form, merge::merge(&form, items));
    assemble(graph, persistent, &form, &ordered, backend)
}

/// Buffers of everything declared, in a fixed order: parameters, states, inputs, scalars, outputs.
struct Declared {
    buffers: Vec<Buffer>,
    /// How many buffers precede the states, the inputs, the scalars and the outputs.
    before: [usize; 4],
}

impl Declared {
    fn of(graph: &Graph, persistent: &Persistent) -> Self {
        let mut buffers: Vec<Buffer> = Vec::new();
        let fixed = |role: Role, dtype: DType, sizes: Vec<usize>| {
            let offset = persistent.offset(&role).unwrap_or_else(|| panic!("no place for {role}"));
            Buffer { role, dtype, sizes, offset }
        };
        let param = |each: &Param| fixed(Role::Param(each.name.clone()), DType::F32, dim::bound(&each.shape));
        buffers.extend(graph.params.iter().map(param));
        let states = buffers.len();
        let state = |each: &State| fixed(Role::State(each.name.clone()), each.dtype, dim::bound(&each.shape));
        buffers.extend(graph.states.iter().map(state));
        let (inputs, mut offset) = (buffers.len(), persistent.bytes);
        let mut next = |role: Role, dtype: DType, sizes: Vec<usize>| {
            let buffer = Buffer { role, dtype, sizes, offset };
            offset += round_up(buffer.bytes());
            buffer
        };
        for input in &graph.inputs {
            buffers.push(next(Role::Input(input.name.clone()), input.dtype, dim::bound(&input.shape)));
        }
        let scalars = buffers.len();
        for scalar in &graph.scalars {
            buffers.push(next(Role::Scalar(scalar.name.clone()), DType::F32, Vec::new()));
        }
        let outputs = buffers.len();
        for output in &graph.outputs {
            let value = graph.value(output.value);
            buffers.push(next(Role::Output(output.name.clone()), value.dtype, graph.sizes(output.value)));
        }
        Self { buffers, before: [states, inputs, scalars, outputs] }
    }

    fn source(&self, source: Source) -> BufferId {
        let [states, inputs, scalars, _] = self.before.map(|count| count as u32);
        BufferId(match source {
            Source::Param(id) => id.0,
            Source::State(id) => states + id.0,
            Source::Input(id) => inputs + id.0,
            Source::Scalar(id) => scalars + id.0,
        })
    }

    fn target(&self, target: Variable) -> BufferId {
        self.source(target.into())
    }

    fn output(&self, number: usize) -> BufferId {
        BufferId((self.before[3] + number) as u32)
    }
}

fn assemble(
    graph: &Graph,
    persistent: &Persistent,
    form: &Form,
    ordered: &order::Ordered,
    backend: &dyn Backend,
) -> Program {
    let declared = Declared::of(graph, persistent);
    let mut buffers = declared.buffers.clone();
    let fixed = buffers.len();
    let mut values: BTreeMap<Id, BufferId> = BTreeMap::new();
    let mut dests: BTreeMap<Dest, BufferId> = BTreeMap::new();
    let (places, copies) = draft::output_places(form);
    values.extend(places.into_iter().map(|(id, number)| (id, declared.output(number))));
    dests.extend(copies.into_iter().map(|number| (Dest::Output(number), declared.output(number))));
    for id in form.ids() {
        if let FormOp::Source(source) = form.value(id).op {
            values.insert(id, declared.source(source));
        }
    }
    let mut temporary = |form_id: Id| {
        let value = form.value(form_id);
        let role = Role::Temporary((buffers.len() - fixed).to_string());
        buffers.push(Buffer { role, dtype: value.dtype, sizes: value.sizes.clone(), offset: 0 });
        BufferId(buffers.len() as u32 - 1)
    };
    let mut final_copies = Vec::new();
    for (number, (target, id)) in form.updates.iter().enumerate() {
        let target = declared.target(*target);
        let place = if ordered.copied.contains(&number) { temporary(*id) } else { target };
        dests.insert(Dest::Update(number), place);
        if place != target {
            final_copies.push((place, target, form.value(*id).span));
        }
    }
    for dest in ordered.items.iter().flat_map(Item::writes) {
        if let Dest::Value(id) = dest {
            values.entry(id).or_insert_with(|| temporary(id));
        }
    }
    let places = emit::Places { form, values: &values, dests: &dests };
    let mut kernels: Vec<Kernel> = ordered
        .items
        .iter()
        .flat_map(|item| match item {
            Item::Nest(draft) => emit::nest(&places, draft),
            Item::Product(product) => emit::product(&places, product),
        })
        .collect();
    kernels.extend(final_copies.into_iter().map(copy));
    let mut program = Program { buffers, kernels, precision: graph.precision, ..Program::default() };
    check("emit", &program, verify_kernels);
    bands::find(&mut program);
    check("bands", &program, verify_kernels);
    backend.lower(&mut program, graph.precision);
    let declared = program.buffers[..fixed].iter();
    let start = declared.map(|buffer| buffer.offset + round_up(buffer.bytes())).max();
    let start = start.unwrap_or(0).max(persistent.bytes);
    program.arena_bytes = start + place_temporaries(&mut program, fixed, start);
    check("memory", &program, verify);
    program
}

fn copy((from, to, span): (BufferId, BufferId, Span)) -> Kernel {
    Kernel { kind: KernelKind::Copy { from, to }, name: "copy".to_string(), span }
}

/// Gives offsets to the buffers behind `fixed` that are not local; returns the bytes that they take.
fn place_temporaries(program: &mut Program, fixed: usize, start: usize) -> usize {
    let lives = program.lives();
    // What a group touches is alive in all of its slices.
    let group = |kernel: usize| program.group_of(kernel).map_or(kernel..kernel + 1, |group| group.kernels.clone());
    let placed: Vec<usize> =
        (fixed..program.buffers.len()).filter(|buffer| !program.is_local(BufferId(*buffer as u32))).collect();
    let requests: Vec<memory::Request> = placed
        .iter()
        .map(|&buffer| {
            let (first, last) = lives[buffer].unwrap_or((0, 0));
            let (first, last) = (group(first).start, group(last).end - 1);
            memory::Request { bytes: program.buffers[buffer].bytes(), first, last }
        })
        .collect();
    let (offsets, bytes) = memory::place(&requests);
    for (buffer, offset) in placed.into_iter().zip(offsets) {
        program.buffers[buffer].offset = start + offset;
    }
    bytes
}
