//! Bounds of sizes and quotients, found by refuting ranges.
//!
//! Input: polynomials that are ≥ 0, and equations. Output: an interval for each atom, or the answer that no assignment
//! fits. Invariant: every assignment that the facts admit lies within the intervals. A range of an atom is left out
//! where, with all other atoms anywhere in theirs, one fact fails; so `H % 4 == 0` gives `H >= 4`, and `H^2 >= 5` gives
//! `H >= 3`. The number of trials is bounded.

use std::collections::BTreeMap;

use super::Dim;
use super::polynomial::Atom;

/// Both ends belong to it; the extreme numbers stand for no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub low: i64,
    pub high: i64,
}

const ALL: Interval = Interval { low: i64::MIN, high: i64::MAX };
/// How often all atoms are looked at in turn.
const ROUNDS: usize = 3;
/// How many ranges are tried at one end of one atom, in one round.
const TRIALS: usize = 80;
/// How far trials move an end that a proof starts from; facts that refute every range would move it without end.
const REACH: i64 = 1 << 16;
/// How many evaluations of facts one search for bounds makes.
const EVALUATIONS: usize = 4_000;
/// How many facts, and how many atoms, are looked at.
const MAX_FACTS: usize = 48;
/// How many atoms, with those inside of others, a fact has at most.
const MAX_WEIGHT: usize = 64;

fn end(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn is_open(end: i64) -> bool {
    end == i64::MIN || end == i64::MAX
}

impl Interval {
    fn point(value: i64) -> Self {
        Interval { low: value, high: value }
    }

    fn meet(self, other: Interval) -> Interval {
        Interval { low: self.low.max(other.low), high: self.high.min(other.high) }
    }

    fn plus(self, other: Interval) -> Interval {
        let open = |a: i64, b: i64, none: i64| {
            if a == none || b == none { none } else { end(i128::from(a) + i128::from(b)) }
        };
        Interval { low: open(self.low, other.low, i64::MIN), high: open(self.high, other.high, i64::MAX) }.closed()
    }

    /// The least and the largest of what the four pairs of ends give.
    fn corners(self, other: Interval, function: impl Fn(i64, i64) -> i64) -> Interval {
        let values = [
            function(self.low, other.low),
            function(self.low, other.high),
            function(self.high, other.low),
            function(self.high, other.high),
        ];
        let [a, b, c, d] = values;
        Interval { low: a.min(b).min(c.min(d)), high: a.max(b).max(c.max(d)) }.closed()
    }

    fn times(self, other: Interval) -> Interval {
        self.corners(other, |a, b| {
            let open = is_open(a) || is_open(b);
            match open && a != 0 && b != 0 {
                true if (a < 0) == (b < 0) => i64::MAX,
                true => i64::MIN,
                false => end(i128::from(a) * i128::from(b)),
            }
        })
    }

    fn divided_by(self, divisor: Interval) -> Interval {
        if divisor.low < 1 {
            return ALL;
        }
        self.corners(divisor, |a, b| match (is_open(a), is_open(b)) {
            (true, true) if a > 0 => i64::MAX,
            (true, true) => i64::MIN,
            (true, false) => a,
            (false, true) => {
                if a < 0 {
                    -1
                } else {
                    0
                }
            }
            (false, false) => a.div_euclid(b),
        })
    }

    /// An end beyond the numbers of 64 bits stays an end.
    fn closed(self) -> Interval {
        Interval { low: self.low.min(i64::MAX - 1), high: self.high.max(i64::MIN + 1) }
    }

    fn is_empty(self) -> bool {
        self.low > self.high
    }
}

/// What is known of atoms; a name that is absent is at least 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds(BTreeMap<Atom, Interval>);

impl Bounds {
    /// Of the atoms of the facts and of a goal; `None`: no assignment fits.
    pub fn of(nonnegative: &[Dim], zero: &[Dim], goal: &Dim) -> Option<Bounds> {
        Self::within(nonnegative, zero, goal, REACH)
    }

    /// True where ranges alone show that no assignment fits.
    pub fn refute(nonnegative: &[Dim], zero: &[Dim]) -> bool {
        Self::within(nonnegative, zero, &Dim::constant(0), i64::MAX).is_none()
    }

    fn within(nonnegative: &[Dim], zero: &[Dim], goal: &Dim, reach: i64) -> Option<Bounds> {
        let with_kind = |dims: &[Dim], equal: bool| -> Vec<(Dim, bool)> {
            dims.iter()
                .filter(|dim| !dim.is_overflow() && weight(dim, MAX_WEIGHT) < MAX_WEIGHT)
                .map(|dim| (dim.clone(), equal))
                .collect()
        };
        let mut facts = with_kind(nonnegative, false);
        facts.extend(with_kind(zero, true));
        facts.truncate(MAX_FACTS);
        let mut atoms = Vec::new();
        for dim in facts.iter().map(|(dim, _)| dim).chain([goal]) {
            collect_atoms(dim, &mut atoms);
        }
        let mut bounds = Bounds::default();
        for atom in &atoms {
            let interval = bounds.of_atom(atom);
            bounds.0.insert(atom.clone(), interval);
        }
        for fact in &facts {
            bounds.meet_at_sight(fact);
        }
        if facts.iter().any(|fact| bounds.refutes(fact)) {
            return None;
        }
        let mut budget = EVALUATIONS;
        for _ in 0..ROUNDS {
            let before = bounds.0.clone();
            for atom in &atoms {
                bounds.narrow(atom, &facts, reach, &mut budget)?;
            }
            if bounds.0 == before || budget == 0 {
                break;
            }
        }
        Some(bounds)
    }

    pub fn get(&self, atom: &Atom) -> Interval {
        self.0.get(atom).copied().unwrap_or(match atom {
            Atom::Name(_) => Interval { low: 1, high: i64::MAX },
            Atom::Div(..) | Atom::Min(..) | Atom::Max(..) => ALL,
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Atom, &Interval)> {
        self.0.iter()
    }

    /// `k*atom + c ≥ 0` and `k*atom + c = 0` give ends without trials.
    fn meet_at_sight(&mut self, (dim, equal): &(Dim, bool)) {
        let constant = dim.constant_term();
        let terms = dim.terms();
        let mut named = terms.iter().filter(|(monomial, _)| !monomial.0.is_empty());
        let (Some((monomial, slope)), None) = (named.next(), named.next()) else { return };
        let [(atom, 1)] = monomial.0.as_slice() else { return };
        let (Some(low), Some(high)) = (constant.checked_neg(), slope.checked_abs()) else { return };
        // k·atom ≥ -c, for a negative k: |k|·atom ≤ c.
        let least = Interval { low: -(constant.div_euclid(high)), high: i64::MAX };
        let most = Interval { low: i64::MIN, high: constant.div_euclid(high) };
        let exact = Interval { low: -(constant.div_euclid(high)), high: low.div_euclid(high) };
        let given = match (*equal, *slope > 0) {
            (false, true) => least,
            (false, false) => most,
            (true, true) => exact,
            (true, false) => Interval { low: -(low.div_euclid(high)), high: constant.div_euclid(high) },
        };
        let known = self.get(atom).meet(given);
        self.0.insert(atom.clone(), known);
    }

    /// From what the atom is made of, and what is known of it.
    fn of_atom(&self, atom: &Atom) -> Interval {
        let made = match atom {
            Atom::Name(_) => ALL,
            Atom::Div(a, b) => self.of_dim(a).divided_by(self.of_dim(b)),
            Atom::Min(a, b) => {
                let (a, b) = (self.of_dim(a), self.of_dim(b));
                Interval { low: a.low.min(b.low), high: a.high.min(b.high) }
            }
            Atom::Max(a, b) => {
                let (a, b) = (self.of_dim(a), self.of_dim(b));
                Interval { low: a.low.max(b.low), high: a.high.max(b.high) }
            }
        };
        made.meet(self.get(atom))
    }

    fn of_dim(&self, dim: &Dim) -> Interval {
        if dim.is_overflow() {
            return ALL;
        }
        let mut sum = Interval::point(0);
        for (monomial, coefficient) in dim.terms() {
            let mut product = Interval::point(coefficient);
            for (atom, power) in &monomial.0 {
                let value = self.of_atom(atom);
                let mut powered = value;
                for _ in 1..*power {
                    powered = powered.times(value);
                }
                if power % 2 == 0 {
                    powered.low = powered.low.max(0);
                }
                product = product.times(powered);
            }
            sum = sum.plus(product);
        }
        sum
    }

    fn refutes(&self, (dim, equal): &(Dim, bool)) -> bool {
        let value = self.of_dim(dim);
        value.is_empty() || value.high < 0 || *equal && value.low > 0
    }

    /// Leaves out what the facts refute at both ends of the atom's interval. `None`: all of it.
    fn narrow(&mut self, atom: &Atom, facts: &[(Dim, bool)], reach: i64, budget: &mut usize) -> Option<()> {
        let facts: Vec<&(Dim, bool)> = facts.iter().filter(|(dim, _)| mentions(dim, atom)).collect();
        let made = self.of_atom(atom);
        self.0.insert(atom.clone(), made);
        if made.is_empty() {
            return None;
        }
        let mut refuted = |bounds: &mut Bounds, part: Interval| {
            let whole = bounds.0.insert(atom.clone(), part);
            let allowed = (*budget).min(facts.len());
            *budget -= allowed;
            let found = facts[..allowed].iter().any(|fact| bounds.refutes(fact)) || bounds.of_atom(atom).is_empty();
            bounds.0.insert(atom.clone(), whole.unwrap_or(ALL));
            found
        };
        let mut width = 1i64;
        let farthest = made.low.saturating_add(reach);
        for _ in 0..TRIALS {
            let now = self.get(atom);
            if now.low == i64::MIN || now.low > farthest {
                break;
            }
            let last = now.low.saturating_add(width - 1).min(now.high);
            if !refuted(self, Interval { low: now.low, high: last }) {
                match width {
                    1 => break,
                    _ => width = (width / 8).max(1),
                }
                continue;
            }
            if last == now.high {
                return None;
            }
            self.0.insert(atom.clone(), Interval { low: last + 1, high: now.high });
            width = width.saturating_mul(2);
        }
        if self.get(atom).high == i64::MAX {
            self.close(atom, &mut refuted);
        }
        width = 1;
        for _ in 0..TRIALS {
            let now = self.get(atom);
            if now.high == i64::MAX {
                break;
            }
            let first = now.high.saturating_sub(width - 1).max(now.low);
            if !refuted(self, Interval { low: first, high: now.high }) {
                match width {
                    1 => break,
                    _ => width = (width / 8).max(1),
                }
                continue;
            }
            if first == now.low {
                return None;
            }
            self.0.insert(atom.clone(), Interval { low: now.low, high: first - 1 });
            width = width.saturating_mul(2);
        }
        Some(())
    }

    /// Finds some upper end for an atom that has none.
    fn close(&mut self, atom: &Atom, refuted: &mut impl FnMut(&mut Bounds, Interval) -> bool) {
        let now = self.get(atom);
        if now.low == i64::MIN {
            return;
        }
        for exponent in [3, 6, 12, 24, 40] {
            let first = now.low.saturating_add(1 << exponent);
            if refuted(self, Interval { low: first, high: i64::MAX }) {
                self.0.insert(atom.clone(), Interval { low: now.low, high: first - 1 });
                return;
            }
        }
    }
}

/// Inner atoms before the ones that are made of them.
fn collect_atoms(dim: &Dim, found: &mut Vec<Atom>) {
    for atom in dim.atoms() {
        if found.contains(atom) || found.len() >= MAX_FACTS {
            continue;
        }
        if let Atom::Div(a, b) | Atom::Min(a, b) | Atom::Max(a, b) = atom {
            collect_atoms(a, found);
            collect_atoms(b, found);
        }
        found.push(atom.clone());
    }
}

fn mentions(dim: &Dim, atom: &Atom) -> bool {
    dim.atoms().any(|found| {
        found == atom
            || match found {
                Atom::Name(_) => false,
                Atom::Div(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => mentions(a, atom) || mentions(b, atom),
            }
    })
}

/// How often atoms occur, with those inside of others, counted up to `most`.
fn weight(dim: &Dim, most: usize) -> usize {
    let mut sum = 0;
    for atom in dim.atoms() {
        sum += 1;
        if sum >= most {
            return most;
        }
        if let Atom::Div(a, b) | Atom::Min(a, b) | Atom::Max(a, b) = atom {
            sum += weight(a, most - sum);
            sum += weight(b, most.saturating_sub(sum));
        }
    }
    sum.min(most)
}
