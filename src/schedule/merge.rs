//! Nests that walk over the same points become one: values pass in registers, rows stay near, kernels get fewer.
//!
//! Input: items. Output: fewer items of equal meaning. Invariant: whatever a merged nest reads of its own results
//! belongs to the same outer point and was computed in the same phase or an earlier one; no other kernel has to run
//! between the merged ones.
//!
//! An element-wise nest joins a reduction over its rows by giving up its last loops: they become inner loops. So the
//! maximum, the sum of exponentials and the result of a softmax, or statistics and normalisation, are one nest.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::align::align;
use super::code::{At, CodeOp, CodePhase, CodeReduction, CodeStore, Dest, Draft, Element, loads};
use super::draft::{Item, output_places};
use super::form::{ELEMENT_BYTES, Form, Id};
use super::order::{overwritten, same_outer_point, too_early, try_order};
use super::precedence::{Edges, Free, Precedence};
use super::target::Target;
use crate::graph::DType;
use crate::kernel::{NodeId, ReductionKind};

/// Nodes of one phase above which nothing more joins it: compile time grows faster than code.
const MOST_NODES: usize = 300;
/// Nodes of all phases above which nothing more joins a nest, so that each join costs a bounded time.
const MOST_NODES_OF_ALL: usize = 2000;
/// As many nests that read the same element are tried.
const MOST_SIBLINGS: usize = 32;
/// How often all items are tried.
const ROUNDS: usize = 4;

/// Merges what can be merged, earlier items first.
pub(super) fn merge(form: &Form, items: Vec<Item>) -> Vec<Item> {
    let overwritten = overwritten(form);
    let mut groups = Groups::new(form, items, overwritten);
    // A merge may open the way for an earlier one: moments of an optimizer join once the parameter that reads them has.
    for _ in 0..ROUNDS {
        let joined = (0..groups.items.len()).filter(|&position| groups.join_one(position)).count();
        if joined == 0 {
            break;
        }
    }
    let mut items: Vec<Item> = groups.items.into_iter().flatten().collect();
    drop_unread(form, &mut items);
    items
}

struct Groups<'a> {
    form: &'a Form,
    items: Vec<Option<Item>>,
    reads: Vec<BTreeSet<Id>>,
    /// The values that each item makes.
    writes: Vec<Vec<Id>>,
    /// The updates that each item makes.
    updates: Vec<Vec<usize>>,
    writer: BTreeMap<Id, usize>,
    readers: BTreeMap<Id, BTreeSet<usize>>,
    /// The nests that load an element of a large value.
    loaders: HashMap<Id, HashMap<At, BTreeSet<usize>>>,
    /// The item of each update.
    updater: BTreeMap<usize, usize>,
    /// What each update overwrites.
    overwritten: Vec<Option<Id>>,
    /// The updates that overwrite each value.
    overwriters: BTreeMap<Id, Vec<usize>>,
    precedence: Precedence,
}

impl<'a> Groups<'a> {
    fn new(form: &'a Form, items: Vec<Item>, overwritten: Vec<Option<Id>>) -> Self {
        let order = try_order(form, &items, &overwritten, &BTreeSet::new()).ok();
        let items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
        let mut overwriters: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
        for (update, old) in overwritten.iter().enumerate().filter_map(|(update, old)| Some((update, (*old)?))) {
            overwriters.entry(old).or_default().push(update);
        }
        let mut groups = Self {
            form,
            reads: vec![BTreeSet::new(); items.len()],
            writes: vec![Vec::new(); items.len()],
            updates: vec![Vec::new(); items.len()],
            items,
            writer: BTreeMap::new(),
            readers: BTreeMap::new(),
            loaders: HashMap::new(),
            updater: BTreeMap::new(),
            overwritten,
            overwriters,
            precedence: Precedence::new(order),
        };
        (0..groups.items.len()).for_each(|position| groups.register(position, &Marks::default()));
        let mut precedence = std::mem::replace(&mut groups.precedence, Precedence::new(None));
        precedence.note_paths(|position| groups.successors(position));
        groups.precedence = precedence;
        groups
    }

    /// Notes what an item reads and writes, or of a nest only what is behind the marks.
    fn register(&mut self, position: usize, marks: &Marks) {
        let Some(item) = &self.items[position] else { return };
        let (reads, dests): (Vec<Id>, Vec<Dest>) = match item {
            Item::Nest(draft) => {
                if draft.scatter.is_none() {
                    for element in marks.loads(draft).filter(|element| is_large(self.form, draft, element)) {
                        let places = self.loaders.entry(element.value).or_default();
                        places.entry(element.at.clone()).or_default().insert(position);
                    }
                }
                let stores = marks.stores(draft).map(|store| store.dest);
                (marks.loads(draft).map(|element| element.value).collect(), stores.collect())
            }
            Item::Product(_) => (item.reads().into_iter().collect(), item.writes().into_iter().collect()),
        };
        for id in reads {
            if self.reads[position].insert(id) {
                self.readers.entry(id).or_default().insert(position);
            }
        }
        for dest in dests {
            match dest {
                Dest::Value(id) => {
                    insert_sorted(&mut self.writes[position], id);
                    self.writer.insert(id, position);
                }
                Dest::Update(update) => {
                    insert_sorted(&mut self.updates[position], update);
                    self.updater.insert(update, position);
                }
                Dest::Output(_) => {}
            }
        }
    }

    fn unregister(&mut self, position: usize) {
        if let Some(Item::Nest(draft)) = &self.items[position] {
            for element in draft.loads() {
                if let Some(places) = self.loaders.get_mut(&element.value)
                    && let Some(loaders) = places.get_mut(&element.at)
                {
                    loaders.remove(&position);
                }
            }
        }
        self.writes[position].clear();
        self.updates[position].clear();
        for id in std::mem::take(&mut self.reads[position]) {
            self.readers.entry(id).or_default().remove(&position);
        }
    }

    fn nest(&self, position: usize) -> Option<&Draft> {
        match &self.items[position] {
            Some(Item::Nest(draft)) if draft.scatter.is_none() => Some(draft),
            Some(Item::Nest(_) | Item::Product(_)) | None => None,
        }
    }

    /// Earlier nests that may take this one in: those that it reads from, then those that read the same elements;
    /// the latest first.
    fn candidates(&self, position: usize) -> Vec<usize> {
        let Some(draft) = self.nest(position) else { return Vec::new() };
        let producers: BTreeSet<usize> =
            self.reads[position].iter().filter_map(|id| self.writer.get(id)).copied().collect();
        let mut siblings: BTreeSet<usize> = BTreeSet::new();
        let elements = draft.loads().filter(|element| is_large(self.form, draft, element));
        for loaders in elements.filter_map(|element| self.loaders.get(&element.value)?.get(&element.at)) {
            let others = loaders.range(..position).rev().filter(|other| !producers.contains(other));
            siblings.extend(others.take(MOST_SIBLINGS));
        }
        let siblings = siblings.into_iter().rev().take(MOST_SIBLINGS);
        producers.into_iter().rev().chain(siblings).filter(|&other| other != position).collect()
    }

    /// Joins the item to the first candidate that takes it.
    fn join_one(&mut self, position: usize) -> bool {
        self.candidates(position).into_iter().any(|candidate| self.try_join(candidate, position))
    }

    fn try_join(&mut self, first: usize, second: usize) -> bool {
        let (Some(a), Some(b)) = (self.nest(first), self.nest(second)) else { return false };
        super::count_work(1);
        if nodes(a) + nodes(b) > MOST_NODES_OF_ALL {
            return false;
        }
        let Some((a, b, split)) = align(a, b) else { return false };
        if split && !is_worthwhile(&self.form.target, &a, &b) {
            return false;
        }
        let stored = |store: &CodeStore| matches!(store.dest, Dest::Value(id) if self.reads[first].contains(&id));
        if b.stores().any(stored) {
            return false;
        }
        let (before, after) = self.precedence.sorted(first, second);
        let Some(free) = self.free(before, after) else { return false };
        super::count_work(nodes(&b));
        let [new_a, new_b] = [a, b].map(|draft| match draft {
            Cow::Owned(draft) => Some(draft),
            Cow::Borrowed(_) => None,
        });
        let moved = new_a.is_some();
        // Out of its place, so that it can grow while the other one is read.
        let old_a = self.items[first].take();
        let (mut joined, old_a) = match (new_a, old_a) {
            (Some(draft), old_a) => (draft, old_a),
            (None, Some(Item::Nest(draft))) => (draft, None),
            (None, Some(Item::Product(_)) | None) => unreachable!("both are nests"),
        };
        let Some(b) = new_b.as_ref().or_else(|| self.nest(second)) else { unreachable!("both are nests") };
        let marks = Marks::of(&joined);
        if !join(self.form, &mut joined, b) || !too_early(&joined, &self.overwritten).is_empty() {
            self.items[first] = old_a.or_else(|| {
                marks.rewind(&mut joined);
                Some(Item::Nest(joined))
            });
            return false;
        }
        self.unregister(second);
        self.items[second] = None;
        if moved {
            self.items[first] = old_a;
            self.unregister(first);
        }
        let known = if moved { Marks::default() } else { marks };
        super::count_work(known.loads(&joined).count());
        self.items[first] = Some(Item::Nest(joined));
        self.register(first, &known);
        self.precedence.join(first, second, &free);
        true
    }

    /// Why no other kernel must run between two, if none must.
    fn free(&self, before: usize, after: usize) -> Option<Free> {
        let successors = |position: usize| self.successors(position);
        let predecessors = |position: usize| self.predecessors(position);
        let free = self.precedence.free([before, after], successors, predecessors)?;
        if !self.precedence.is_order() {
            self.precedence.free([after, before], successors, predecessors)?;
        }
        Some(free)
    }

    /// Items that must run after this one, possibly more than once: readers of its results, and updates of what it reads.
    fn successors(&self, position: usize) -> Edges<'_> {
        let readers = self.writes[position].iter().filter_map(|id| self.readers.get(id)).flatten();
        let replaced = self.reads[position].iter().filter_map(|id| self.overwriters.get(id)).flatten();
        let updaters = replaced.filter_map(|update| self.updater.get(update));
        Box::new(readers.chain(updaters).copied().filter(move |&next| next != position))
    }

    /// Items that must run before this one, possibly more than once: writers of what it reads, and readers of what it
    /// overwrites.
    fn predecessors(&self, position: usize) -> Edges<'_> {
        let writers = self.reads[position].iter().filter_map(|id| self.writer.get(id));
        let replaced = self.updates[position].iter().filter_map(|&update| self.overwritten[update]);
        let readers = replaced.filter_map(|old| self.readers.get(&old)).flatten();
        Box::new(writers.chain(readers).copied().filter(move |&next| next != position))
    }
}

/// Nodes of all phases.
fn nodes(draft: &Draft) -> usize {
    draft.phases.iter().map(|phase| phase.code.nodes.len()).sum()
}

/// True if a value has as many elements as the nest that loads it has points, or whole rows.
fn is_large(form: &Form, draft: &Draft, element: &Element) -> bool {
    let points: usize = draft.outer.iter().product();
    form.value(element.value).elements() >= points.max(2)
}

fn insert_sorted<T: Ord>(sorted: &mut Vec<T>, new: T) {
    if let Err(place) = sorted.binary_search(&new) {
        sorted.insert(place, new);
    }
}

/// How much there was of each phase of a nest before another one joined it: nodes, reductions and stores. A join only
/// adds, so what it copies and notes is as much as joins, not as much as the nest has become.
#[derive(Default)]
struct Marks(Vec<[usize; 3]>);

impl Marks {
    fn of(draft: &Draft) -> Self {
        let lengths = |phase: &CodePhase| [phase.code.nodes.len(), phase.reductions.len(), phase.stores.len()];
        Self(draft.phases.iter().map(lengths).collect())
    }

    /// The lengths of a phase; 0 where there was none.
    fn phase(&self, number: usize) -> [usize; 3] {
        self.0.get(number).copied().unwrap_or_default()
    }

    /// What has been loaded since.
    fn loads<'a>(&self, draft: &'a Draft) -> impl Iterator<Item = &'a Element> {
        draft.phases.iter().enumerate().flat_map(|(number, phase)| loads(&phase.code.nodes[self.phase(number)[0]..]))
    }

    /// The stores since.
    fn stores<'a>(&self, draft: &'a Draft) -> impl Iterator<Item = &'a CodeStore> {
        draft.phases.iter().enumerate().flat_map(|(number, phase)| &phase.stores[self.phase(number)[2]..])
    }

    /// Takes everything since out again.
    fn rewind(&self, draft: &mut Draft) {
        draft.phases.truncate(self.0.len());
        for (phase, [nodes, reductions, stores]) in draft.phases.iter_mut().zip(&self.0) {
            phase.code.truncate(*nodes);
            phase.reductions.truncate(*reductions);
            phase.stores.truncate(*stores);
        }
    }
}

fn points(draft: &Draft) -> (usize, usize, usize) {
    let rows: usize = draft.outer.iter().product();
    let inner = |phase: &CodePhase| phase.inner.iter().product::<usize>();
    let longest = draft.phases.iter().map(inner).max().unwrap_or(1);
    (rows, longest, draft.phases.iter().map(|phase| rows * inner(phase)).sum())
}

/// True if a nest whose inner loops were outer ones keeps enough rows for all tasks, and rows so short that they stay near.
fn is_worthwhile(target: &Target, a: &Draft, b: &Draft) -> bool {
    let ((rows, longest_a, work_a), (_, longest_b, work_b)) = (points(a), points(b));
    let stays_near = longest_a.max(longest_b) * ELEMENT_BYTES <= target.near_bytes;
    work_a + work_b <= target.small_work || (rows >= target.tasks && stays_near)
}

/// Adds `b` to a nest; false, with a part of `b` added, where `b` needs more of the nest than its own outer point or the
/// code grows too long.
fn join(form: &Form, joined: &mut Draft, b: &Draft) -> bool {
    b.phases.iter().all(|phase| place(form, joined, phase).is_some())
        && joined.phases.iter().all(|phase| phase.code.nodes.len() <= MOST_NODES)
}

/// Where a value of the nest is stored or reduced.
fn made_in(draft: &Draft, value: Id) -> Option<(usize, &CodeStore)> {
    draft.phases.iter().enumerate().find_map(|(number, phase)| {
        phase.stores.iter().find(|store| store.dest == Dest::Value(value)).map(|store| (number, store))
    })
}

/// The phase whose reduction makes a value.
fn reduced_in(draft: &Draft, value: Id) -> Option<usize> {
    draft.phases.iter().position(|phase| phase.reductions.iter().any(|reduction| reduction.value == value))
}

/// Whether a load at the point of the store reads just what it stores.
fn passes(store: &CodeStore, element: &Element) -> bool {
    store.at == element.at && element.guards.is_empty() && store.guards.is_empty()
}

/// Adds a phase of another nest to the first phase where everything it reads is known, or behind the last.
fn place(form: &Form, joined: &mut Draft, phase: &CodePhase) -> Option<()> {
    let mut earliest = 0;
    for (op, _) in &phase.code.nodes {
        if let CodeOp::Reduced(value) = op {
            earliest = earliest.max(reduced_in(joined, *value)? + 1);
        }
        let Some(element) = op.element() else { continue };
        let Some((made, store)) = made_in(joined, element.value) else { continue };
        if passes(store, element) && joined.phases[made].inner == phase.inner {
            earliest = earliest.max(made);
        } else if same_outer_point(joined.outer.len(), store, &element.at) {
            earliest = earliest.max(made + 1);
        } else {
            return None;
        }
    }
    let fitting = (earliest..joined.phases.len()).find(|&number| joined.phases[number].inner == phase.inner);
    let number = fitting.unwrap_or_else(|| {
        joined.phases.push(CodePhase { inner: phase.inner.clone(), ..CodePhase::default() });
        joined.phases.len() - 1
    });
    add(form, joined, number, phase)
}

fn add(form: &Form, joined: &mut Draft, number: usize, phase: &CodePhase) -> Option<()> {
    let mut names: Vec<NodeId> = Vec::with_capacity(phase.code.nodes.len());
    for (op, dtype) in &phase.code.nodes {
        let op = op.renamed(&|node: NodeId| names[node.0 as usize]);
        names.push(if let CodeOp::Load(element) = op {
            load(form, joined, number, element, *dtype)?
        } else {
            joined.phases[number].code.push(op, *dtype)
        });
    }
    let name = |node: NodeId| names[node.0 as usize];
    let target = &mut joined.phases[number];
    for reduction in &phase.reductions {
        target.reductions.push(CodeReduction { node: name(reduction.node), ..reduction.clone() });
    }
    for store in &phase.stores {
        let mut store = store.clone();
        store.value = name(store.value);
        store.at = store.at.renamed(&name);
        target.stores.push(store);
    }
    Some(())
}

/// A load inside the joined nest: a register where the nest itself has the value.
fn load(form: &Form, joined: &mut Draft, number: usize, element: Element, dtype: DType) -> Option<NodeId> {
    let Some((made, store)) = made_in(joined, element.value) else {
        return Some(joined.phases[number].code.push(CodeOp::Load(element), dtype));
    };
    let (same, node) = (passes(store, &element), store.value);
    if same && made == number {
        return Some(node);
    }
    if !same_outer_point(joined.outer.len(), store, &element.at) {
        return None;
    }
    let per_row = joined.phases[made].inner.is_empty() && dtype == DType::F32;
    if same && per_row {
        if reduced_in(joined, element.value).is_none() {
            let reduction = CodeReduction { kind: ReductionKind::Sum, node, value: element.value };
            joined.phases[made].reductions.push(reduction);
        }
        return Some(joined.phases[number].code.push(CodeOp::Reduced(element.value), dtype));
    }
    debug_assert!(!form.value(element.value).op.is_source(), "a nest stores no sources");
    Some(joined.phases[number].code.push(CodeOp::Load(element), dtype))
}

/// Removes stores that nobody reads any more, reductions without readers and empty phases.
fn drop_unread(form: &Form, items: &mut [Item]) {
    let places: BTreeSet<Id> = output_places(form).0.into_iter().map(|(id, _)| id).collect();
    let read: BTreeSet<Id> = items.iter().flat_map(Item::reads).collect();
    for item in items {
        let Item::Nest(draft) = item else { continue };
        for phase in &mut draft.phases {
            phase.stores.retain(|store| match store.dest {
                Dest::Value(id) => read.contains(&id) || places.contains(&id),
                Dest::Update(_) | Dest::Output(_) => true,
            });
        }
        let used = used_reductions(draft);
        for phase in &mut draft.phases {
            phase.reductions.retain(|reduction| used.contains(&reduction.value));
        }
        draft.phases.retain(|phase| !phase.stores.is_empty() || !phase.reductions.is_empty());
    }
}

/// The reductions that some store needs.
fn used_reductions(draft: &Draft) -> BTreeSet<Id> {
    let mut used: BTreeSet<Id> = BTreeSet::new();
    for phase in draft.phases.iter().rev() {
        let mut wanted: Vec<NodeId> = phase.stores.iter().map(|store| store.value).collect();
        wanted.extend(phase.stores.iter().flat_map(|store| store.at.nodes()));
        wanted.extend(phase.reductions.iter().filter(|each| used.contains(&each.value)).map(|each| each.node));
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        while let Some(node) = wanted.pop() {
            if !seen.insert(node) {
                continue;
            }
            let op = &phase.code.nodes[node.0 as usize].0;
            if let CodeOp::Reduced(value) = op {
                used.insert(*value);
            }
            wanted.extend(op.operands());
        }
    }
    used
}
