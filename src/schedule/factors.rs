//! How each dim is divided into loops, so that values that flow into each other walk through the same loops although
//! a reshape lies between them.
//!
//! Input: a [`Form`]. Output: for each dim of each value the extents of its loops, outermost first; their product is
//! the dim's size, and a dim of size 1 has none.
//! Invariant: dims that correspond elementwise have equal loops, unless their divisions contradict each other
//! (35 as 5 · 7 and as 7 · 5).

use super::form::{Factors, Form, FormOp, GatherIndex, Id};

/// Rounds of propagation; each passes a division on through the whole form in both directions.
const ROUNDS: usize = 6;
/// Most loops of one dim.
const MOST_LOOPS: usize = 5;

/// Divides dims where reshapes ask for it.
pub(super) fn factors(form: &Form) -> Factors {
    let loops = |&size: &usize| if size == 1 { Vec::new() } else { vec![size] };
    let mut factors: Factors = form.values.iter().map(|value| value.sizes.iter().map(loops).collect()).collect();
    for _ in 0..ROUNDS {
        let forward = form.ids().fold(false, |changed, id| agree(form, &mut factors, id) | changed);
        let backward = form.ids().rev().fold(false, |changed, id| agree(form, &mut factors, id) | changed);
        if !forward && !backward {
            break;
        }
    }
    factors
}

/// Makes the dims of a value and of its arguments agree; true if anything changed.
fn agree(form: &Form, factors: &mut Factors, id: Id) -> bool {
    let value = form.value(id);
    if value.elements() == 0 {
        return false;
    }
    let mut changed = false;
    let mut pair = |factors: &mut Factors, dim: usize, arg: Id, arg_dim: usize| {
        if form.sizes(arg)[arg_dim] == value.sizes[dim] {
            changed |= agree_lists(factors, &[(id, dim)], &[(arg, arg_dim)]);
        }
    };
    match &value.op {
        FormOp::Unary(_) | FormOp::Binary(_) | FormOp::Compare(_) | FormOp::Select | FormOp::Cast => {
            for &arg in &value.args {
                (0..value.sizes.len()).for_each(|dim| pair(factors, dim, arg, dim));
            }
        }
        FormOp::View(view) => {
            for (arg_dim, linear) in view.access.iter().enumerate() {
                if let Some(dim) = linear.as_index() {
                    pair(factors, dim, value.args[0], arg_dim);
                }
            }
        }
        FormOp::Gather(index) => {
            for (arg_dim, entry) in index.iter().enumerate() {
                match entry {
                    GatherIndex::Linear(linear) => {
                        if let Some(dim) = linear.as_index() {
                            pair(factors, dim, value.args[0], arg_dim);
                        }
                    }
                    GatherIndex::Tensor(arg) => {
                        (0..value.sizes.len()).for_each(|dim| pair(factors, dim, value.args[*arg], dim));
                    }
                }
            }
        }
        FormOp::Reduce(_) => (0..value.sizes.len()).for_each(|dim| pair(factors, dim, value.args[0], dim)),
        FormOp::Reshape => {
            for (own, theirs) in groups(&value.sizes, form.sizes(value.args[0])) {
                let own: Vec<(Id, usize)> = own.map(|dim| (id, dim)).collect();
                let theirs: Vec<(Id, usize)> = theirs.map(|dim| (value.args[0], dim)).collect();
                changed |= agree_lists(factors, &own, &theirs);
            }
        }
        _ => {}
    }
    changed
}

/// The smallest runs of dims of two shapes that hold the same elements.
fn groups(a: &[usize], b: &[usize]) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut groups = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (start_a, start_b) = (i, j);
        let (mut product_a, mut product_b) = (a[i], b[j]);
        (i, j) = (i + 1, j + 1);
        while product_a != product_b {
            if product_a < product_b && i < a.len() {
                product_a *= a[i];
                i += 1;
            } else if product_b < product_a && j < b.len() {
                product_b *= b[j];
                j += 1;
            } else {
                return groups;
            }
        }
        groups.push((start_a..i, start_b..j));
    }
    groups
}

/// Gives two runs of dims with the same elements the loops of both.
fn agree_lists(factors: &mut Factors, a: &[(Id, usize)], b: &[(Id, usize)]) -> bool {
    let list = |factors: &Factors, dims: &[(Id, usize)]| -> Vec<usize> {
        dims.iter().flat_map(|(id, dim)| factors[id.0 as usize][*dim].clone()).collect()
    };
    let (list_a, list_b) = (list(factors, a), list(factors, b));
    if list_a == list_b {
        return false;
    }
    let Some(common) = common(&list_a, &list_b) else { return false };
    let mut changed = false;
    for dims in [a, b] {
        let mut rest = common.iter().copied();
        for (id, dim) in dims {
            let own = &mut factors[id.0 as usize][*dim];
            let size: usize = own.iter().product();
            let mut taken = Vec::new();
            while taken.iter().product::<usize>() < size {
                taken.extend(rest.next());
            }
            if taken.len() <= MOST_LOOPS && taken != *own {
                *own = taken;
                changed = true;
            }
        }
    }
    changed
}

/// The coarsest division that refines both; none where they contradict each other.
fn common(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let ends = |list: &[usize]| {
        let mut product = 1;
        list.iter()
            .rev()
            .map(|extent| {
                product *= extent;
                product
            })
            .collect::<Vec<usize>>()
    };
    let mut all = [ends(a), ends(b)].concat();
    all.sort_unstable();
    all.dedup();
    let mut before = 1;
    let mut extents = Vec::new();
    for end in all {
        if !end.is_multiple_of(before) {
            return None;
        }
        extents.push(end / before);
        before = end;
    }
    extents.reverse();
    Some(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_division_refines_both() {
        assert_eq!(common(&[4, 6], &[24]), Some(vec![4, 6]));
        assert_eq!(common(&[2, 12], &[4, 6]), Some(vec![2, 2, 6]));
        assert_eq!(common(&[5, 7], &[7, 5]), None);
    }

    #[test]
    fn groups_are_the_smallest_runs_of_equal_elements() {
        assert_eq!(groups(&[8, 3, 28, 28], &[8, 3, 784]), vec![(0..1, 0..1), (1..2, 1..2), (2..4, 2..3)]);
        assert_eq!(groups(&[6], &[2, 3]), vec![(0..1, 0..2)]);
    }
}
