//! Whether other kernels have to run between two that could become one.
//!
//! Input: the edges "must run before" among items, asked for as they are at that time. Output: an answer, and an order
//! that follows the joins. Invariant: `rank` rises along every edge, unless updates replace each other's inputs in a
//! circle; then there is no order, and searches are not narrowed by it.
//!
//! A search runs from both ends at once, an edge of the side that has walked fewer first, and only among items that rank
//! between the ends. So it costs as much as the smaller side: few steps, however long the program is. Paths that are
//! known beforehand need no search.

use std::collections::{HashSet, VecDeque};

/// The order of items that are being joined.
pub(super) struct Precedence {
    /// Items by rank; an item that joined another leaves a gap.
    order: Vec<Option<usize>>,
    /// The place of each item in `order`; none where the items go in a circle.
    rank: Option<Vec<usize>>,
    /// Known paths.
    forest: Forest,
}

/// A forest of edges as they were before any join: what an item reaches in it, it still reaches. It answers at once what a
/// search would have to walk a network's whole depth for, twice: whether a gradient comes after the value it belongs to.
#[derive(Default)]
struct Forest {
    /// The item from whose edge each item hangs.
    parent: Vec<Option<usize>>,
    /// The numbers of an item and of those below it; its own is the first.
    below: Vec<std::ops::Range<usize>>,
    /// What each item has joined.
    joined: Vec<Option<usize>>,
    /// The latest part of each item, of which most is known.
    latest: Vec<usize>,
    /// The rank that each item had.
    rank: Vec<usize>,
}

impl Forest {
    /// Each item hangs from the deepest one that it can, so that paths in the forest are long.
    fn new<'a>(order: &[usize], rank: &[usize], successors: impl Fn(usize) -> Edges<'a>) -> Self {
        let count = rank.len();
        let (mut parent, mut depth): (Vec<Option<usize>>, Vec<usize>) = (vec![None; count], vec![0; count]);
        for &item in order {
            for next in successors(item) {
                super::count_work(1);
                if depth[next] <= depth[item] {
                    (parent[next], depth[next]) = (Some(item), depth[item] + 1);
                }
            }
        }
        let mut sizes = vec![1; count];
        for &item in order.iter().rev() {
            if let Some(above) = parent[item] {
                sizes[above] += sizes[item];
            }
        }
        // Where the next item below each one begins, and the next one that hangs from none.
        let (mut free, mut roots): (Vec<usize>, usize) = (vec![0; count], 0);
        let mut below = vec![0..0; count];
        for &item in order {
            let start = parent[item].map_or(&mut roots, |above| &mut free[above]);
            below[item] = *start..*start + sizes[item];
            *start += sizes[item];
            free[item] = below[item].start + 1;
        }
        Self { parent, below, joined: vec![None; count], latest: (0..count).collect(), rank: rank.to_vec() }
    }

    /// What an item has become a part of.
    fn whole(&self, mut item: usize) -> usize {
        while let Some(first) = self.joined[item] {
            item = first;
        }
        item
    }

    fn join(&mut self, first: usize, second: usize) {
        if self.joined.is_empty() {
            return;
        }
        self.joined[second] = Some(first);
        self.latest[first] = [first, second]
            .map(|item| self.latest[item])
            .into_iter()
            .max_by_key(|&item| self.rank[item])
            .expect("there are two");
    }

    /// Whether some other item is known to come after `from` and before `to`.
    fn separates(&self, from: usize, to: usize) -> bool {
        !self.joined.is_empty() && (self.hangs(from, to, to) || self.hangs(from, to, self.latest[to]))
    }

    /// Whether this part of `to` hangs from `from` by way of another item.
    fn hangs(&self, from: usize, to: usize, part: usize) -> bool {
        let mut above = self.parent[part];
        while let Some(item) = above {
            super::count_work(1);
            let whole = self.whole(item);
            if whole != to {
                let parts = [from, self.latest[from]];
                return whole != from && parts.iter().any(|&part| self.below[part].contains(&self.below[item].start));
            }
            above = self.parent[item];
        }
        false
    }
}

/// Why two items may be joined: all items between their ranks that must run after the first one, or all that must run
/// before the second one.
pub(super) enum Free {
    Successors(HashSet<usize>),
    Predecessors(HashSet<usize>),
}

/// The items on the far ends of an item's edges, possibly more than once, found as they are asked for.
pub(super) type Edges<'a> = Box<dyn Iterator<Item = usize> + 'a>;

/// A search from one end.
struct Side<'a> {
    seen: HashSet<usize>,
    open: VecDeque<usize>,
    /// The item whose edges are walked.
    item: usize,
    edges: Edges<'a>,
    walked: usize,
}

impl<'a> Side<'a> {
    fn new(start: usize, edges: Edges<'a>) -> Self {
        Self { seen: HashSet::from([start]), open: VecDeque::new(), item: start, edges, walked: 0 }
    }

    /// The far end of the next edge; none where all have been walked.
    fn next(&mut self, edges: impl Fn(usize) -> Edges<'a>) -> Option<usize> {
        loop {
            if let Some(next) = self.edges.next() {
                super::count_work(1);
                self.walked += 1;
                return Some(next);
            }
            self.item = self.open.pop_front()?;
            self.edges = edges(self.item);
        }
    }
}

impl Precedence {
    /// Of so many items in this order; none where there is no order.
    pub fn new(order: Option<Vec<usize>>) -> Self {
        let rank = order.as_ref().map(|order| {
            let mut rank = vec![0; order.len()];
            order.iter().enumerate().for_each(|(place, &item)| rank[item] = place);
            rank
        });
        Self { order: order.into_iter().flatten().map(Some).collect(), rank, forest: Forest::default() }
    }

    /// Notes paths, so that fewer have to be searched for; called before any join.
    pub fn note_paths<'a>(&mut self, successors: impl Fn(usize) -> Edges<'a>) {
        if let Some(rank) = &self.rank {
            let order: Vec<usize> = self.order.iter().flatten().copied().collect();
            self.forest = Forest::new(&order, rank, successors);
        }
    }

    /// Whether there is an order.
    pub fn is_order(&self) -> bool {
        self.rank.is_some()
    }

    /// Which of two items comes first, if that is known.
    pub fn sorted(&self, a: usize, b: usize) -> (usize, usize) {
        match &self.rank {
            Some(rank) if rank[b] < rank[a] => (b, a),
            Some(_) | None => (a, b),
        }
    }

    /// Whether some other item must run after `from` and before `to`; if not, why.
    pub fn free<'a>(
        &self,
        [from, to]: [usize; 2],
        successors: impl Fn(usize) -> Edges<'a>,
        predecessors: impl Fn(usize) -> Edges<'a>,
    ) -> Option<Free> {
        if self.forest.separates(from, to) {
            return None;
        }
        let (mut ahead, mut back) = (Side::new(from, successors(from)), Side::new(to, predecessors(to)));
        let between =
            |item: usize| self.rank.as_ref().is_none_or(|rank| rank[from] < rank[item] && rank[item] < rank[to]);
        loop {
            let forward = ahead.walked < back.walked;
            let next = if forward { ahead.next(&successors) } else { back.next(&predecessors) };
            let (side, other) = if forward { (&mut ahead, &back) } else { (&mut back, &ahead) };
            let (start, end) = if forward { (from, to) } else { (to, from) };
            let Some(next) = next else {
                side.seen.remove(&start);
                let seen = std::mem::take(&mut side.seen);
                return Some(if forward { Free::Successors(seen) } else { Free::Predecessors(seen) });
            };
            if next == end && side.item == start {
                continue;
            }
            if other.seen.contains(&next) {
                return None;
            }
            if between(next) && side.seen.insert(next) {
                side.open.push_back(next);
            }
        }
    }

    /// `second` becomes a part of `first`, where one of them comes before the other and `free` is what lies between.
    pub fn join(&mut self, first: usize, second: usize, free: &Free) {
        let Some(rank) = &mut self.rank else { return };
        self.forest.join(first, second);
        let (low, high) = (rank[first].min(rank[second]), rank[first].max(rank[second]));
        (self.order[low], self.order[high]) = (None, None);
        let mut place = |order: &mut Vec<Option<usize>>, at: usize, item: usize| {
            order[at] = Some(item);
            rank[item] = at;
        };
        let moved = match free {
            Free::Successors(moved) | Free::Predecessors(moved) => moved,
        };
        if moved.is_empty() {
            let at = if matches!(free, Free::Successors(_)) { high } else { low };
            place(&mut self.order, at, first);
            return;
        }
        let others: Vec<usize> = self.order[low..=high].iter().flatten().copied().collect();
        super::count_work(others.len());
        self.order[low..=high].fill(None);
        let (moved, rest): (Vec<usize>, Vec<usize>) = others.into_iter().partition(|item| moved.contains(item));
        let (before, after) = if matches!(free, Free::Successors(_)) { (rest, moved) } else { (moved, rest) };
        let all = before.into_iter().chain([first]).chain(after);
        all.enumerate().for_each(|(number, item)| place(&mut self.order, low + number, item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Successors and predecessors of items with these edges.
    fn free(precedence: &Precedence, ends: [usize; 2], edges: &[(usize, usize)]) -> Option<Free> {
        let after = |item| edges.iter().filter(move |edge| edge.0 == item).map(|edge| edge.1);
        let before = |item| edges.iter().filter(move |edge| edge.1 == item).map(|edge| edge.0);
        precedence.free(ends, |item| Box::new(after(item)), |item| Box::new(before(item)))
    }

    #[test]
    fn a_path_through_another_item_separates() {
        let precedence = Precedence::new(Some(vec![0, 1, 2, 3]));
        assert!(free(&precedence, [0, 2], &[(0, 1), (1, 2), (0, 2)]).is_none());
        assert!(free(&precedence, [0, 2], &[(0, 1), (0, 2), (1, 3), (2, 3)]).is_some());
        assert!(free(&Precedence::new(None), [0, 2], &[(0, 1), (1, 2)]).is_none());
    }

    #[test]
    fn joins_keep_the_order() {
        // 0 → 1 → 4, 0 → 3, 2 → 3: when 3 joins 0, item 2 must come before them and item 1 after.
        let edges = [(0, 1), (1, 4), (0, 3), (2, 3)];
        let mut precedence = Precedence::new(Some(vec![0, 1, 2, 3, 4]));
        let found = free(&precedence, [0, 3], &edges).expect("nothing lies between");
        precedence.join(0, 3, &found);
        let rank = precedence.rank.expect("there is an order");
        assert!(rank[2] < rank[0] && rank[0] < rank[1] && rank[1] < rank[4], "{rank:?}");
    }

    #[test]
    fn the_smaller_side_decides_how_far_a_search_goes() {
        // A chain of many items of which the last also reads an input of its own, item 0.
        let count = 1000;
        let edges: Vec<(usize, usize)> = (1..count - 1).map(|item| (item, item + 1)).chain([(0, 1)]).collect();
        let precedence = Precedence::new(Some((0..count).collect()));
        super::super::take_work();
        assert!(free(&precedence, [2, 900], &edges).is_none());
        let along = super::super::take_work();
        assert!(free(&precedence, [0, 1], &edges).is_some());
        let beside = super::super::take_work();
        assert!(along <= 1800 && beside <= 2, "{along} and {beside} edges");
    }

    #[test]
    fn noted_paths_answer_as_a_search_does_after_joins_too() {
        let (count, mut state) = (40, 1u64);
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut edges: Vec<(usize, usize)> =
            (1..count).flat_map(|item| [(random(item), item), (random(item), item)]).collect();
        let mut noted = Precedence::new(Some((0..count).collect()));
        noted.note_paths(|item| {
            Box::new(edges.iter().filter(move |edge| edge.0 == item).map(|edge| edge.1).collect::<Vec<_>>().into_iter())
        });
        let (mut joins, mut refused) = (0, 0);
        for round in 0..3 {
            for (a, b) in (0..count).flat_map(|a| (0..a).map(move |b| (a, b))) {
                if [a, b].iter().any(|&item| noted.forest.whole(item) != item) {
                    continue;
                }
                let (from, to) = noted.sorted(a, b);
                let plain =
                    Precedence { forest: Forest::default(), order: noted.order.clone(), rank: noted.rank.clone() };
                let [found, expected] = [&noted, &plain].map(|precedence| free(precedence, [from, to], &edges));
                assert_eq!(found.is_some(), expected.is_some(), "{from} and {to} in round {round}");
                refused += usize::from(noted.forest.separates(from, to));
                if let Some(free) = found.filter(|_| (a + 3 * b + round) % 5 == 0) {
                    noted.join(a, b, &free);
                    edges.iter_mut().for_each(|edge| {
                        *edge = (if edge.0 == b { a } else { edge.0 }, if edge.1 == b { a } else { edge.1 });
                    });
                    edges.retain(|edge| edge.0 != edge.1);
                    joins += 1;
                }
            }
        }
        assert!(joins > 10 && refused > 30, "{joins} joins, {refused} refusals");
    }

    #[test]
    fn a_noted_path_is_not_walked() {
        let count = 1000;
        let edges: Vec<(usize, usize)> = (1..count)
            .map(|item| (item - 1, item))
            .chain((0..count / 2).map(|item| (item, count - 1 - item)))
            .collect();
        let mut precedence = Precedence::new(Some((0..count).collect()));
        precedence.note_paths(|item| Box::new(edges.iter().filter(move |edge| edge.0 == item).map(|edge| edge.1)));
        super::super::take_work();
        assert!(free(&precedence, [2, count - 3], &edges).is_none());
        let walked = super::super::take_work();
        assert!(walked <= 2, "{walked} edges");
    }

    #[test]
    fn an_item_with_many_readers_costs_as_much_as_the_other_side() {
        // All read item 0, and one of them an item behind it too.
        let count = 1000;
        let edges: Vec<(usize, usize)> = (2..count).map(|item| (0, item)).chain([(1, 500)]).collect();
        let precedence = Precedence::new(Some((0..count).collect()));
        super::super::take_work();
        assert!(free(&precedence, [0, 500], &edges).is_some());
        let walked = super::super::take_work();
        assert!(walked <= 10, "{walked} edges");
    }
}
