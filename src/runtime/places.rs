//! Where parameters and states lie in the arena, and what they are called in a checkpoint.
//!
//! Input: the graph of a step and the plan of what persists. Output: a buffer for each parameter and state. Invariant: every step of a run finds them at the same places.

use std::collections::BTreeMap;

use crate::cpu::Arena;
use crate::graph::{DType, Graph, StateKind};
use crate::kernel::{Buffer, Role};
use crate::primitives::float_mode::all_finite;
use crate::schedule::Persistent;
use crate::source::Span;

/// Weights and buffers stand under their own names, other states under a prefix.
pub(super) fn checkpoint_name(kind: &StateKind, name: &str) -> String {
    match kind {
        StateKind::Buffer => name.to_string(),
        StateKind::Optimizer(_) => format!("optimizer:{name}"),
        StateKind::Metric => format!("metric:{name}"),
    }
}

/// The numbers of a shape whose sizes are bound.
pub(super) fn sizes(shape: &[crate::dim::Dim]) -> Vec<usize> {
    shape.iter().map(|dim| dim.as_const().expect("sizes are bound in training") as usize).collect()
}

/// The place of each parameter and state of the training step.
pub(super) fn places(graph: &Graph, persistent: &Persistent) -> BTreeMap<Role, Buffer> {
    let params = graph.params.iter().map(|p| (Role::Param(p.name.clone()), DType::F32, sizes(&p.shape)));
    let states = graph.states.iter().map(|s| (Role::State(s.name.clone()), s.dtype, sizes(&s.shape)));
    let place = |(role, dtype, sizes): (Role, DType, Vec<usize>)| {
        let offset = persistent.offset(&role).expect("the graph's own parameters and states have places");
        (role.clone(), Buffer { role, dtype, sizes, offset })
    };
    params.chain(states).map(place).collect()
}

/// Sets all elements to a value.
pub(super) fn fill(arena: &mut Arena, buffer: &Buffer, value: f64) {
    match buffer.dtype {
        DType::F32 => arena.f32_mut(buffer).fill(value as f32),
        DType::I32 => arena.i32_mut(buffer).fill(value as i32),
        DType::Bool => arena.raw_mut(buffer).fill(u8::from(value != 0.0)),
    }
}

/// The first parameter, buffer or optimizer state that holds a value that is not finite, and where it is declared.
/// States that begin infinite may stay so.
pub(super) fn not_finite(graph: &Graph, places: &BTreeMap<Role, Buffer>, arena: &Arena) -> Option<(String, Span)> {
    let is_broken = |place: Role| !all_finite(arena.f32(&places[&place]));
    let param = graph.params.iter().find(|param| is_broken(Role::Param(param.name.clone())));
    if let Some(param) = param {
        return Some((param.name.clone(), param.span));
    }
    let held = |kind: &StateKind| matches!(kind, StateKind::Buffer | StateKind::Optimizer(_));
    let states = graph.states.iter().filter(|s| s.dtype == DType::F32 && held(&s.kind) && s.init.is_finite());
    let mut broken = states.filter(|state| is_broken(Role::State(state.name.clone())));
    broken.next().map(|state| (checkpoint_name(&state.kind, &state.name), state.span))
}
