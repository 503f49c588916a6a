//! The order of kernels: what is read is written before, and what an update overwrites is read before.
//!
//! Input: items. Output: the same items in order, and the updates that cannot happen in place.
//! Invariant: deterministic; ties go to the item that belongs to the earliest value.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{At, CodeStore, Coord, Dest, Draft};
use super::draft::Item;
use super::form::{Form, FormOp, Id, Source};

/// The value that each update overwrites, if anything reads it.
pub(super) fn overwritten(form: &Form) -> Vec<Option<Id>> {
    let mut sources: BTreeMap<Source, Id> = BTreeMap::new();
    for id in form.ids() {
        if let FormOp::Source(source) = form.value(id).op {
            sources.entry(source).or_insert(id);
        }
    }
    form.updates.iter().map(|(target, _)| sources.get(&(*target).into()).copied()).collect()
}

/// Items in order, and the updates that go through a temporary and a copy at the end.
pub(super) struct Ordered {
    pub items: Vec<Item>,
    pub copied: BTreeSet<usize>,
}

pub(super) fn order(form: &Form, items: Vec<Item>) -> Ordered {
    let overwritten = overwritten(form);
    let mut copied: BTreeSet<usize> = BTreeSet::new();
    for item in &items {
        let Item::Nest(draft) = item else { continue };
        copied.extend(too_early(draft, &overwritten));
    }
    loop {
        match try_order(form, &items, &overwritten, &copied) {
            Ok(order) => {
                let mut slots: Vec<Option<Item>> = items.into_iter().map(Some).collect();
                let items = order.into_iter().filter_map(|position| slots[position].take()).collect();
                return Ordered { items, copied };
            }
            Err(update) => copied.insert(update),
        };
    }
}

fn updates(item: &Item) -> impl Iterator<Item = usize> + use<> {
    item.writes().into_iter().filter_map(|dest| match dest {
        Dest::Update(update) => Some(update),
        Dest::Value(_) | Dest::Output(_) => None,
    })
}

/// The updates of a nest that must not be stored in place: some load of the old value comes after the store that
/// replaces it.
pub(super) fn too_early(draft: &Draft, overwritten: &[Option<Id>]) -> BTreeSet<usize> {
    let mut replaced: BTreeMap<Id, Vec<(usize, usize, &CodeStore)>> = BTreeMap::new();
    for (written, phase) in draft.phases.iter().enumerate() {
        for store in &phase.stores {
            if let Dest::Update(update) = store.dest
                && let Some(old) = overwritten[update]
            {
                replaced.entry(old).or_default().push((update, written, store));
            }
        }
    }
    let mut early = BTreeSet::new();
    if replaced.is_empty() {
        return early;
    }
    for (read, phase) in draft.phases.iter().enumerate() {
        super::count_work(phase.code.nodes.len());
        for element in phase.code.loads() {
            for &(update, written, store) in replaced.get(&element.value).into_iter().flatten() {
                let keeps_old = (read == written && element.at == store.at && element.guards.is_empty())
                    || (read < written && same_outer_point(draft.outer.len(), store, &element.at));
                if !keeps_old {
                    early.insert(update);
                }
            }
        }
    }
    early
}

/// True if an element read belongs to the same outer point as the store of its buffer: it has the store's coordinate in
/// every dim that the store addresses by an outer loop, and the store uses all outer loops.
pub(super) fn same_outer_point(outer: usize, store: &CodeStore, at: &At) -> bool {
    let (At::Dims(written), At::Dims(read)) = (&store.at, at) else { return false };
    let mut named = BTreeSet::new();
    for (written, read) in written.iter().zip(read) {
        let Coord::Linear(linear) = written else { return false };
        let loops = linear.terms.iter().map(|term| term.0);
        if loops.clone().all(|index| index >= outer) {
            continue;
        }
        // The loops of one dim number its elements row-major: equal functions of them have equal loops.
        if loops.clone().any(|index| index >= outer) || written != read {
            return false;
        }
        named.extend(loops);
    }
    named.len() == outer
}

/// Positions in order, or an update that is in the way.
pub(super) fn try_order(
    form: &Form,
    items: &[Item],
    overwritten: &[Option<Id>],
    copied: &BTreeSet<usize>,
) -> Result<Vec<usize>, usize> {
    let reads: Vec<BTreeSet<Id>> = items.iter().map(Item::reads).collect();
    let mut writers: BTreeMap<Id, usize> = BTreeMap::new();
    let mut readers: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
    for (position, read) in reads.iter().enumerate() {
        read.iter().for_each(|id| readers.entry(*id).or_default().push(position));
    }
    for (position, item) in items.iter().enumerate() {
        for dest in item.writes() {
            if let Dest::Value(id) = dest {
                writers.insert(id, position);
            }
        }
    }
    let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); items.len()];
    for (position, read) in reads.iter().enumerate() {
        for writer in read.iter().filter_map(|id| writers.get(id)).filter(|writer| **writer != position) {
            after[*writer].insert(position);
        }
    }
    for (position, item) in items.iter().enumerate() {
        for old in updates(item).filter(|update| !copied.contains(update)).filter_map(|update| overwritten[update]) {
            for &reader in readers.get(&old).into_iter().flatten().filter(|reader| **reader != position) {
                after[reader].insert(position);
            }
        }
    }
    let mut waiting = vec![0usize; items.len()];
    after.iter().flatten().for_each(|&next| waiting[next] += 1);
    let keys: Vec<(Option<Id>, bool, usize)> =
        items.iter().enumerate().map(|(n, item)| key(form, item, &reads[n], n)).collect();
    let mut ready: BTreeSet<_> = (0..items.len()).filter(|&n| waiting[n] == 0).map(|n| keys[n]).collect();
    let mut order = Vec::with_capacity(items.len());
    while let Some((_, _, next)) = ready.pop_first() {
        order.push(next);
        for &successor in &after[next] {
            waiting[successor] -= 1;
            if waiting[successor] == 0 {
                ready.insert(keys[successor]);
            }
        }
    }
    if order.len() == items.len() {
        return Ok(order);
    }
    let stuck = (0..items.len()).filter(|&n| waiting[n] > 0);
    let update = stuck.flat_map(|n| updates(&items[n])).find(|update| !copied.contains(update));
    Err(update.expect("only updates in place can make a cycle"))
}

/// Values in the order of the form; a sink right behind the last computed value that it reads.
fn key(form: &Form, item: &Item, reads: &BTreeSet<Id>, position: usize) -> (Option<Id>, bool, usize) {
    let written = item.writes().into_iter().filter_map(|dest| match dest {
        Dest::Value(id) => Some(id),
        Dest::Update(_) | Dest::Output(_) => None,
    });
    let computed = reads.iter().copied().filter(|id| !form.value(*id).op.is_source());
    match written.max() {
        Some(id) => (Some(id), false, position),
        None => (computed.max(), true, position),
    }
}
