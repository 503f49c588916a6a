//! Whether other kernels have to run between two that could become one.
//!
//! Input: the edges "must run before" among items, asked for as they are at that time. Output: an answer, and an order
//! that follows the joins. Invariant: `rank` rises along every edge, unless updates replace each other's inputs in a
//! circle; then there is no order, and searches are not narrowed by it.
//!
//! A search runs from both ends at once, the side that has walked fewer edges first, and only among items that rank
//! between the ends. So it costs as much as the smaller side: few steps, however long the program is.

use std::collections::{HashSet, VecDeque};

/// The order of items that are being joined.
pub(super) struct Precedence {
    /// Items by rank; an item that joined another leaves a gap.
    order: Vec<Option<usize>>,
    /// The place of each item in `order`; none where the items go in a circle.
    rank: Option<Vec<usize>>,
}

/// Why two items may be joined: all items between their ranks that must run after the first one, or all that must run
/// before the second one.
pub(super) enum Free {
    Successors(HashSet<usize>),
    Predecessors(HashSet<usize>),
}

/// A search from one end.
struct Side {
    seen: HashSet<usize>,
    open: VecDeque<usize>,
    walked: usize,
}

impl Side {
    fn new(start: usize) -> Self {
        Self { seen: HashSet::from([start]), open: VecDeque::from([start]), walked: 0 }
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
        Self { order: order.into_iter().flatten().map(Some).collect(), rank }
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
    pub fn free(
        &self,
        [from, to]: [usize; 2],
        successors: impl Fn(usize) -> Vec<usize>,
        predecessors: impl Fn(usize) -> Vec<usize>,
    ) -> Option<Free> {
        let (mut ahead, mut back) = (Side::new(from), Side::new(to));
        let between =
            |item: usize| self.rank.as_ref().is_none_or(|rank| rank[from] < rank[item] && rank[item] < rank[to]);
        loop {
            let forward = ahead.walked < back.walked;
            let (side, other) = if forward { (&mut ahead, &back) } else { (&mut back, &ahead) };
            let (start, end) = if forward { (from, to) } else { (to, from) };
            let Some(item) = side.open.pop_front() else { break };
            let next = if forward { successors(item) } else { predecessors(item) };
            side.walked += next.len();
            super::count_work(next.len());
            for next in next {
                if next == end && item == start {
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
        ahead.seen.remove(&from);
        back.seen.remove(&to);
        Some(if back.open.is_empty() && back.walked <= ahead.walked {
            Free::Predecessors(back.seen)
        } else {
            Free::Successors(ahead.seen)
        })
    }

    /// `second` becomes a part of `first`, where one of them comes before the other and `free` is what lies between.
    pub fn join(&mut self, first: usize, second: usize, free: &Free) {
        let Some(rank) = &mut self.rank else { return };
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
        let after = |item| edges.iter().filter(|edge| edge.0 == item).map(|edge| edge.1).collect();
        let before = |item| edges.iter().filter(|edge| edge.1 == item).map(|edge| edge.0).collect();
        precedence.free(ends, after, before)
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
}
