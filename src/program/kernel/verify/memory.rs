//! The rules of memory: what is read has been written, and bytes are not shared by buffers that are alive together.
//!
//! Input: a program of well-formed kernels. Output: the broken rules. Invariant: see [`super`].

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::kernel::{Buffer, BufferId, Kernel, KernelKind, Program, Role};

/// Buffers hold something when they are read, and inputs what they were given.
pub(super) fn check_order(program: &Program) -> Vec<Violation> {
    let mut found = Vec::new();
    let is_given = |buffer: &Buffer| match buffer.role {
        Role::Param(_) | Role::State(_) | Role::Input(_) | Role::Scalar(_) => true,
        Role::Output(_) | Role::Temporary(_) | Role::Local(_) => false,
    };
    let ids = (0..program.buffers.len() as u32).map(BufferId);
    let mut written: BTreeSet<BufferId> = ids.filter(|id| is_given(program.buffer(*id))).collect();
    for (position, kernel) in program.kernels.iter().enumerate() {
        if program.groups.iter().any(|group| group.kernels.start == position) {
            written.retain(|id| !program.is_local(*id));
        }
        let mut complain = |id: BufferId, what: &str| {
            let message = format!("{}: {} {what}", kernel.name, program.buffer(id).role);
            found.push(Violation { kernel: Some(position), message });
        };
        for (reads, writes) in steps(kernel) {
            reads.into_iter().filter(|id| !written.contains(id)).for_each(|id| complain(id, "is read before a write"));
            written.extend(&writes);
        }
        for id in kernel.writes() {
            if matches!(program.buffer(id).role, Role::Input(_) | Role::Scalar(_)) {
                complain(id, "is written");
            }
        }
    }
    found
}

/// What a kernel reads and writes, phase by phase.
fn steps(kernel: &Kernel) -> Vec<(Vec<BufferId>, Vec<BufferId>)> {
    let KernelKind::Nest(nest) = &kernel.kind else { return vec![(kernel.reads(), kernel.writes())] };
    let phase = |phase: &crate::kernel::Phase| {
        let added = phase.stores.iter().filter(|store| store.accumulate).map(|store| store.location.buffer);
        let reads = phase.loads().map(|location| location.buffer).chain(added).collect();
        (reads, phase.stores.iter().map(|store| store.location.buffer).collect())
    };
    nest.phases.iter().map(phase).collect()
}

/// Where buffers lie: aligned, inside, and apart while they are alive.
pub(super) fn check_places(program: &Program) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut complain = |kernel: Option<usize>, message: String| found.push(Violation { kernel, message });
    for (number, buffer) in program.buffers.iter().enumerate() {
        let is_local = program.is_local(BufferId(number as u32));
        let end = if is_local { program.local_bytes } else { program.arena_bytes };
        if buffer.offset % 64 != 0 || buffer.offset + buffer.bytes() > end {
            complain(None, format!("{} at {} is not aligned or not within {end} bytes", buffer.role, buffer.offset));
        }
        if is_local != matches!(buffer.role, Role::Local(_)) {
            complain(None, format!("{} is listed as local or is not", buffer.role));
        }
    }
    let (mut begin, mut end) = (BTreeMap::<usize, Vec<BufferId>>::new(), BTreeMap::<usize, Vec<BufferId>>::new());
    for (number, life) in lives(program).into_iter().enumerate() {
        let id = BufferId(number as u32);
        let Some((first, last)) = life.filter(|_| program.buffer(id).bytes() > 0) else { continue };
        begin.entry(first).or_default().push(id);
        end.entry(last).or_default().push(id);
    }
    // What is alive, by its first byte.
    let mut alive: BTreeMap<usize, BufferId> = BTreeMap::new();
    for position in 0..program.kernels.len().max(1) {
        for id in begin.remove(&position).unwrap_or_default() {
            let bytes = program.range(id);
            let below = alive.range(..bytes.end).next_back().map(|(_, other)| *other);
            match below.filter(|other| program.range(*other).end > bytes.start) {
                Some(other) => {
                    let [own, other] = [id, other].map(|id| &program.buffer(id).role);
                    complain(Some(position), format!("{own} and {other} share bytes and are alive together"));
                }
                None => drop(alive.insert(bytes.start, id)),
            }
        }
        for id in end.remove(&position).unwrap_or_default() {
            let start = program.range(id).start;
            if alive.get(&start) == Some(&id) {
                alive.remove(&start);
            }
        }
    }
    found
}

/// The first and the last kernel at which each buffer is alive; none for temporaries that nothing touches.
fn lives(program: &Program) -> Vec<Option<(usize, usize)>> {
    let always = (0, usize::MAX);
    let is_declared = |buffer: &Buffer| match buffer.role {
        Role::Param(_) | Role::State(_) | Role::Input(_) | Role::Scalar(_) | Role::Output(_) => true,
        Role::Temporary(_) | Role::Local(_) => false,
    };
    let lives = program.lives();
    // In a group, what lies in the arena is alive in all slices; a thread's own memory serves one at a time.
    let first = |kernel| program.group_of(kernel).map_or(kernel, |group| group.kernels.start);
    let last = |kernel| program.group_of(kernel).map_or(kernel, |group| group.kernels.end - 1);
    let alive = |(number, buffer): (usize, &Buffer)| match lives[number] {
        _ if is_declared(buffer) => Some(always),
        Some((from, to)) if !program.is_local(BufferId(number as u32)) => Some((first(from), last(to))),
        life => life,
    };
    program.buffers.iter().enumerate().map(alive).collect()
}
