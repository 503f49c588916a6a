//! Which elements an access can reach, and whether points of a loop nest can meet in one.
//!
//! Input: functions of loop indices with guards. Output: ranges and proofs. Invariant: ranges are never too small, and
//! points that are said to be apart are.
//!
//! A guard says that its own function lies in a range. The index less a multiple of the guard's function has fewer terms,
//! and its range plus that multiple of the guard's range holds the index: of a padded convolution's `s·i + u − p` nothing
//! is left. What is still open is tried point by point where there are not too many.

use std::collections::HashMap;
use std::ops::Range;

use crate::kernel::{Linear, Location};

/// Most points that are tried one by one.
const MANY_POINTS: usize = 1 << 16;
/// Most ways to use guards that are tried.
const MANY_WAYS: usize = 256;

/// An element of a buffer as a function of loops, where guards hold.
#[derive(Clone, Debug)]
pub(super) struct Access {
    index: Linear,
    guards: Vec<(Linear, i64)>,
    extents: Vec<usize>,
}

impl Access {
    /// Without guards.
    pub fn plain(index: Linear, extents: &[usize]) -> Access {
        Access { index, guards: Vec::new(), extents: extents.to_vec() }
    }

    /// Of a location: each data-dependent part is one more loop.
    pub fn of(location: &Location, extents: &[usize]) -> Access {
        let (mut index, mut extents) = (location.index.clone(), extents.to_vec());
        for term in &location.indirect {
            index = index.plus(&Linear::index(extents.len()).scaled(term.stride));
            extents.push(term.extent.max(0) as usize);
        }
        Access { index, guards: location.guards.clone(), extents }
    }

    /// Whether it lies in a buffer of so many elements at every point where it happens.
    pub fn is_within(&self, elements: usize) -> bool {
        let inside = |element: i64| element >= 0 && element < elements as i64;
        let (low, high) = self.range();
        let mut all = low > high || inside(low) && inside(high);
        if !all && self.points(&(0..0)) <= MANY_POINTS {
            all = true;
            self.each(&(0..0), &mut |_, element| all &= inside(element));
        }
        all
    }

    /// Slice b of the first `loops` loops touches elements from `low + step · b` to `high + step · b`; none if it does not.
    pub fn slices(&self, loops: usize) -> Option<(i64, i64, i64)> {
        let (mut step, mut run) = (None, 1);
        for number in (0..loops).rev().filter(|number| self.extents[*number] > 1) {
            let coefficient = self.index.coefficient(number);
            if *step.get_or_insert(coefficient) * run != coefficient {
                return None;
            }
            run *= self.extents[number] as i64;
        }
        let (low, high) = self.without(0..loops).range();
        Some((step.unwrap_or(0), low, high))
    }

    fn coefficient(&self, number: usize) -> i64 {
        self.index.coefficient(number)
    }

    /// The same without what some loops add to the index.
    fn without(&self, loops: Range<usize>) -> Access {
        let mut access = self.clone();
        access.index.terms.retain(|(number, _)| !loops.contains(number));
        access
    }

    /// Bounds of the least and greatest element; the first is greater where it never happens.
    pub fn range(&self) -> (i64, i64) {
        if self.extents.contains(&0) {
            return (1, 0);
        }
        let mut range = self.index.range(&self.extents);
        if !self.guards.is_empty() {
            let mut ways = MANY_WAYS;
            self.tighten(&self.index, &self.guards, (0, 0), &mut range, &mut ways);
        }
        range
    }

    /// The range by what the first guard bounds of the index, and the others of the rest.
    fn tighten(
        &self,
        rest: &Linear,
        guards: &[(Linear, i64)],
        (least, most): (i64, i64),
        range: &mut (i64, i64),
        ways: &mut usize,
    ) {
        let (low, high) = rest.range(&self.extents);
        *range = (range.0.max(low + least), range.1.min(high + most));
        let Some(((guard, extent), others)) = guards.split_first().filter(|_| *ways > 0) else { return };
        *ways -= 1;
        let (low, high) = guard.range(&self.extents);
        let (low, high) = (low.max(0), high.min(extent - 1));
        if low > high {
            *range = (1, 0);
            return;
        }
        let mut tried = vec![0];
        for &(number, coefficient) in &guard.terms {
            let factor = rest.coefficient(number) / coefficient;
            if rest.coefficient(number) % coefficient == 0 && !tried.contains(&factor) {
                tried.push(factor);
            }
        }
        for factor in tried.into_iter().rev() {
            let (a, b) = (factor * low, factor * high);
            let own = (least + a.min(b), most + a.max(b));
            self.tighten(&rest.plus(&guard.scaled(-factor)), others, own, range, ways);
        }
    }

    /// Loops that matter to it: those in its functions, and some more.
    fn used(&self, more: &Range<usize>) -> Vec<usize> {
        let functions = || std::iter::once(&self.index).chain(self.guards.iter().map(|(guard, _)| guard));
        let occurs = |number: &usize| more.contains(number) || functions().any(|each| each.coefficient(*number) != 0);
        (0..self.extents.len()).filter(occurs).collect()
    }

    /// How many points the loops have that matter.
    fn points(&self, more: &Range<usize>) -> usize {
        self.used(more).iter().fold(1, |points: usize, number| points.saturating_mul(self.extents[*number]))
    }

    /// Calls `visit` with each point at which it happens and its element; all that does not matter is 0.
    fn each(&self, more: &Range<usize>, visit: &mut dyn FnMut(&[usize], i64)) {
        if self.extents.contains(&0) {
            return;
        }
        let used = self.used(more);
        let mut point = vec![0; self.extents.len()];
        loop {
            if self.guards.iter().all(|(guard, extent)| (0..*extent).contains(&guard.at(&point))) {
                visit(&point, self.index.at(&point));
            }
            let Some(&next) = used.iter().rev().find(|number| point[**number] + 1 < self.extents[**number]) else {
                break;
            };
            point[next] += 1;
            used.iter().filter(|number| **number > next).for_each(|number| point[*number] = 0);
        }
    }
}

/// Whether points that differ in the loops `apart`, and agree in those before, never touch the same element. The accesses
/// share all loops up to the end of `apart`.
pub(super) fn is_apart(accesses: &[&Access], apart: Range<usize>) -> bool {
    let Some(first) = accesses.first() else { return true };
    if first.extents[apart.clone()].iter().all(|extent| *extent == 1) {
        return true;
    }
    // Accesses that never meet need not be compared.
    let mut by_range: Vec<((i64, i64), &Access)> = accesses.iter().map(|access| (access.range(), *access)).collect();
    by_range.retain(|((low, high), _)| low <= high);
    by_range.sort_by_key(|(range, _)| *range);
    let mut clusters: Vec<(i64, Vec<&Access>)> = Vec::new();
    for ((low, high), access) in by_range {
        match clusters.last_mut().filter(|(end, _)| low <= *end) {
            Some((end, cluster)) => {
                *end = high.max(*end);
                cluster.push(access);
            }
            None => clusters.push((high, vec![access])),
        }
    }
    clusters.iter().all(|(_, cluster)| are_apart_by_digits(cluster, &apart) || are_apart_by_trial(cluster, &apart))
}

/// One loop of a sum: it adds multiples of `weight`.
#[derive(Clone, Copy)]
struct Digit {
    weight: i64,
    extent: i64,
    /// Its index must follow from the sum.
    apart: bool,
}

impl Digit {
    fn reach(self) -> i64 {
        self.weight * (self.extent - 1)
    }
}

fn are_apart_by_digits(accesses: &[&Access], apart: &Range<usize>) -> bool {
    let first = accesses[0];
    let agree = |access: &&Access| (0..apart.end).all(|number| access.coefficient(number) == first.coefficient(number));
    if !accesses.iter().all(agree) {
        return false;
    }
    let digit = |number: usize| Digit {
        weight: first.coefficient(number).abs(),
        extent: first.extents[number] as i64,
        apart: apart.contains(&number),
    };
    let own: Vec<Digit> = apart.clone().map(digit).collect();
    // The other loops as one range, then one loop after another by itself, the greatest first, where all have it.
    let (mut digits, mut rest) = (own, accesses.iter().map(|access| access.without(0..apart.end)).collect::<Vec<_>>());
    let others = first.index.terms.iter().filter(|term| term.0 >= apart.end);
    let mut coefficients: Vec<i64> = others.map(|term| term.1).collect();
    coefficients.sort_by_key(|coefficient| std::cmp::Reverse(coefficient.abs()));
    for coefficient in coefficients {
        if can_tell(digits.clone(), spread(&rest)) {
            return true;
        }
        let place = |access: &Access| access.index.terms.iter().find(|term| term.1 == coefficient).map(|term| term.0);
        let Some(places) = rest.iter().map(place).collect::<Option<Vec<usize>>>() else { continue };
        let extent = rest.iter().zip(&places).map(|(access, place)| access.extents[*place]).max().unwrap_or(1);
        digits.push(Digit { weight: coefficient.abs(), extent: extent as i64, apart: false });
        rest = rest.iter().zip(places).map(|(access, place)| access.without(place..place + 1)).collect();
    }
    // What is left goes in steps of what divides all its terms and the differences of its constants.
    let step = step(&rest);
    let steps = spread(&rest).checked_div(step).unwrap_or(0);
    digits.push(Digit { weight: step, extent: steps + 1, apart: false });
    can_tell(digits, 0)
}

/// The greatest number of which all differences between elements of the accesses are multiples; 0 if there are none.
fn step(accesses: &[Access]) -> i64 {
    let Some(first) = accesses.first() else { return 0 };
    let differences = accesses.iter().map(|access| access.index.offset - first.index.offset);
    let coefficients =
        accesses.iter().flat_map(|access| access.index.terms.iter().map(|(_, coefficient)| *coefficient));
    differences.chain(coefficients).fold(0, |step, each| greatest_common_divisor(step, each.abs()))
}

/// From the least to the greatest element of all.
fn spread(accesses: &[Access]) -> i64 {
    let ranges = accesses.iter().map(Access::range).filter(|(low, high)| low <= high);
    let (low, high) = ranges.fold((i64::MAX, i64::MIN), |all, own| (all.0.min(own.0), all.1.max(own.1)));
    high.saturating_sub(low)
}

/// Whether the indices of the digits that are apart follow from the sum of all and a number in `0..=spread`.
fn can_tell(mut digits: Vec<Digit>, spread: i64) -> bool {
    digits.retain(|digit| digit.extent > 1);
    digits.sort_by_key(|digit| digit.weight);
    // The greatest digit follows where all others together do not reach it.
    while let Some((last, others)) = digits.split_last() {
        if last.weight <= spread + others.iter().map(|digit| digit.reach()).sum::<i64>() {
            break;
        }
        digits.pop();
    }
    if digits.iter().all(|digit| !digit.apart) {
        return true;
    }
    // Small digits are the remainder by what divides all greater ones.
    (1..digits.len()).any(|split| {
        let (low, high) = digits.split_at(split);
        let divisor = high.iter().fold(0, |divisor, digit| greatest_common_divisor(divisor, digit.weight));
        let reach = spread + low.iter().map(|digit| digit.reach()).sum::<i64>();
        reach < divisor && can_tell(low.to_vec(), spread) && can_tell(high.to_vec(), 0)
    })
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn are_apart_by_trial(accesses: &[&Access], apart: &Range<usize>) -> bool {
    let all = 0..apart.end;
    let points = accesses.iter().fold(0, |points: usize, access| points.saturating_add(access.points(&all)));
    if points > MANY_POINTS {
        return false;
    }
    let mut owners: HashMap<(Vec<usize>, i64), Vec<usize>> = HashMap::new();
    let mut is_apart = true;
    for access in accesses {
        access.each(&all, &mut |point, element| {
            let own = &point[apart.clone()];
            let owner = owners.entry((point[..apart.start].to_vec(), element)).or_insert_with(|| own.to_vec());
            is_apart &= owner == own;
        });
    }
    is_apart
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(terms: &[(usize, i64)], offset: i64) -> Linear {
        Linear { terms: terms.to_vec(), offset }
    }

    #[test]
    fn rows_of_any_length_that_are_named_by_numbers_are_apart_by_columns() {
        // Rows are stored by a loop and read one by one, of more columns than can be tried.
        for columns in [100, i64::from(i32::MAX)] {
            let stored = Access::plain(linear(&[(0, 1), (1, columns)], 0), &[columns as usize, 11]);
            let read = |offset: i64| Access::plain(linear(&[(0, 1)], offset), &[columns as usize]);
            for row in [0, 1, 10] {
                assert!(is_apart(&[&stored, &read(row * columns)], 0..1));
            }
            assert!(!is_apart(&[&stored, &read(10 * columns - 1)], 0..1));
        }
    }
}
