//! Two nests brought to the same outer loops.
//!
//! Input: two nests. Output: both with equal outer loops, if one can be brought to the other's.
//! Invariant: only the order of independent loops changes, so each nest keeps its meaning.

use std::borrow::Cow;

use super::code::{At, Code, CodeOp, CodePhase, CodeReduction, CodeStore, Coord, Dest, Draft, Element};
use crate::kernel::{Linear, NodeId};

/// Both nests with equal outer loops, and whether one of them gave up outer loops.
/// A nest without inner loops gives up those that the other does not have.
pub(super) fn align<'a>(a: &'a Draft, b: &'a Draft) -> Option<(Cow<'a, Draft>, Cow<'a, Draft>, bool)> {
    match (has_inner(a), has_inner(b)) {
        (false, false) | (true, true) => (a.outer == b.outer).then_some((Cow::Borrowed(a), Cow::Borrowed(b), false)),
        (true, false) if !has_reductions(b) => {
            let order = loop_order(&b.outer, &a.outer, pairs(a, b).map(|(written, read)| (read, written)))?;
            let split = split(b, &order, a.outer.len());
            Some((Cow::Borrowed(a), Cow::Owned(split), b.outer.len() > a.outer.len()))
        }
        (false, true) if !has_reductions(a) => {
            let order = loop_order(&a.outer, &b.outer, pairs(a, b))?;
            let split = split(a, &order, b.outer.len());
            Some((Cow::Owned(split), Cow::Borrowed(b), a.outer.len() > b.outer.len()))
        }
        (true, false) | (false, true) => None,
    }
}

fn has_inner(draft: &Draft) -> bool {
    draft.phases.iter().any(|phase| !phase.inner.is_empty())
}

fn has_reductions(draft: &Draft) -> bool {
    draft.phases.iter().any(|phase| !phase.reductions.is_empty())
}

/// Loops of `a` and of `b` that run through the same dim of a value that `a` stores and `b` loads.
fn pairs(a: &Draft, b: &Draft) -> impl Iterator<Item = (usize, usize)> {
    let mut pairs = Vec::new();
    for store in a.stores() {
        for element in b.loads().filter(|element| Dest::Value(element.value) == store.dest) {
            if let (At::Dims(written), At::Dims(read)) = (&store.at, &element.at) {
                pairs.extend(written.iter().zip(read).flat_map(|(written, read)| dim_pairs(written, read)));
            }
        }
    }
    pairs.into_iter()
}

/// Loops of equal stride in two coordinates of one dim.
fn dim_pairs(written: &Coord, read: &Coord) -> Vec<(usize, usize)> {
    let (Coord::Linear(written), Coord::Linear(read)) = (written, read) else { return Vec::new() };
    let partner = |stride: i64| read.terms.iter().find(|term| term.1 == stride).map(|term| term.0);
    written.terms.iter().filter_map(|&(index, stride)| Some((index, partner(stride)?))).collect()
}

/// The loops of a nest in the order in which the first ones are those of `outer`: by the pairs (own loop, loop of
/// `outer`) where there are any, else as they are. None where extents do not fit.
fn loop_order(own: &[usize], outer: &[usize], pairs: impl Iterator<Item = (usize, usize)>) -> Option<Vec<usize>> {
    let mut order: Vec<Option<usize>> = vec![None; outer.len()];
    let mut paired = false;
    for (mine, theirs) in pairs.filter(|pair| pair.1 < outer.len()) {
        paired = true;
        if order[theirs].is_some_and(|other| other != mine) {
            return None;
        }
        order[theirs] = Some(mine);
    }
    if !paired {
        order = (0..outer.len()).map(Some).collect();
    }
    let mut order = order.into_iter().collect::<Option<Vec<usize>>>()?;
    let distinct = order.iter().enumerate().all(|(place, index)| !order[..place].contains(index));
    let fits = order.iter().zip(outer).all(|(&mine, extent)| own.get(mine) == Some(extent));
    if !distinct || !fits {
        return None;
    }
    let rest: Vec<usize> = (0..own.len()).filter(|index| !order.contains(index)).collect();
    order.extend(rest);
    Some(order)
}

/// The nest with its loops in this order, those from `outer` on as inner loops.
fn split(draft: &Draft, order: &[usize], outer: usize) -> Draft {
    let extents: Vec<usize> = order.iter().map(|&index| draft.outer[index]).collect();
    let place = |index: usize| order.iter().position(|&each| each == index).expect("every loop has a place");
    let is_same = order.iter().enumerate().all(|(place, &index)| place == index);
    let phases = draft.phases.iter().map(|phase| {
        let moved = if is_same {
            phase.clone()
        } else {
            renumbered(phase, &|linear| linear.compose(|l| Linear::index(place(l))))
        };
        CodePhase { inner: extents[outer..].to_vec(), ..moved }
    });
    Draft { outer: extents[..outer].to_vec(), parallel: outer, phases: phases.collect(), ..draft.clone() }
}

/// The phase with every linear function replaced.
fn renumbered(phase: &CodePhase, change: &impl Fn(&Linear) -> Linear) -> CodePhase {
    let change_at = |at: &At| match at {
        At::Flat(flat) => At::Flat(change(flat)),
        At::Dims(coords) => At::Dims(
            coords
                .iter()
                .map(|coord| match coord {
                    Coord::Linear(linear) => Coord::Linear(change(linear)),
                    Coord::Node(node) => Coord::Node(*node),
                })
                .collect(),
        ),
    };
    let change_guards =
        |guards: &[(Linear, i64)]| guards.iter().map(|(linear, extent)| (change(linear), *extent)).collect();
    let mut code = Code::default();
    let mut names: Vec<NodeId> = Vec::new();
    for (op, dtype) in &phase.code.nodes {
        let mut op = op.renamed(&|node: NodeId| names[node.0 as usize]);
        if let CodeOp::Index(linear) | CodeOp::Random { element: linear, .. } = &mut op {
            *linear = change(linear);
        } else if let CodeOp::Load(Element { at, guards, .. }) = &mut op {
            (*at, *guards) = (change_at(at), change_guards(guards));
        }
        names.push(code.push(op, *dtype));
    }
    let name = |node: NodeId| names[node.0 as usize];
    let reductions = phase.reductions.iter().map(|each| CodeReduction { node: name(each.node), ..each.clone() });
    let stores = phase.stores.iter().map(|store| CodeStore {
        at: change_at(&store.at).renamed(&name),
        guards: change_guards(&store.guards),
        value: name(store.value),
        ..store.clone()
    });
    CodePhase { inner: phase.inner.clone(), reductions: reductions.collect(), stores: stores.collect(), code }
}
