//! Proofs from facts about the names of one question.
//!
//! Input: what is ≥ 0 and what is = 0, over as few names as possible, and a goal. Output: whether the goal follows.
//! Invariant: what is proved holds for every assignment that the facts admit; the cost of a question is bounded.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::Dim;
use super::bounds::{Bounds, Interval};
use super::division::gcd;
use super::polynomial::{Atom, Monomial};
use super::reduced::tightened;

/// How many residue cases a proof splits into.
const CASE_BUDGET: i64 = 256;
/// How many cases a proof splits into where names have few values.
const VALUE_BUDGET: i64 = 64;
/// How many steps a search for a proof by linear combination takes, for each number of assumptions.
const STEP_BUDGET: usize = 200;
/// How many steps the cases of a proof take together.
const ALL_STEPS: usize = 20_000;
/// How many assumptions one proof combines.
const STEP_DEPTH: usize = 6;

/// Facts, and the bounds of atoms that follow from them.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Each is ≥ 0.
    nonnegative: Vec<Dim>,
    /// Each is = 0.
    zero: Vec<Dim>,
    bounds: Bounds,
}

/// How the values of a name are split.
enum Split {
    /// By the remainder of a division by `period`, from `low` on.
    Residues {
        period: i64,
        low: i64,
    },
    Values(Interval),
}

impl Split {
    fn count(&self) -> i64 {
        match self {
            Split::Residues { period, .. } => *period,
            Split::Values(values) => values.high - values.low + 1,
        }
    }

    /// The name in the case of this number, over a name that is ≥ 0 and takes the old one's place.
    fn value(&self, name: &str, case: i64) -> Dim {
        match self {
            Split::Values(values) => Dim::constant(values.low + case),
            Split::Residues { period, low } => {
                // period·(name' + first) + residue with name' ≥ 0 covers every value ≥ low of this residue.
                let first = low.saturating_sub(case).saturating_add(period - 1).div_euclid(*period);
                Dim::constant(*period) * (Dim::var(name) + Dim::constant(first)) + Dim::constant(case)
            }
        }
    }
}

impl Case {
    /// These facts, with no bounds yet.
    pub fn new(nonnegative: Vec<Dim>, zero: Vec<Dim>) -> Case {
        Case { nonnegative, zero, bounds: Bounds::default() }
    }

    /// With the bounds of all atoms, those of the goal among them; `None` where no assignment fits.
    pub fn with_bounds(mut self, goal: &Dim) -> Option<Case> {
        self.bounds = Bounds::of(&self.nonnegative, &self.zero, goal)?;
        for (atom, interval) in self.bounds.iter() {
            if !matches!(atom, Atom::Name(_)) && interval.low > i64::MIN {
                self.nonnegative.push(Dim::atom(atom.clone()) - Dim::constant(interval.low));
            }
            if interval.high < i64::MAX {
                self.nonnegative.push(Dim::constant(interval.high) - Dim::atom(atom.clone()));
            }
        }
        Some(self)
    }

    /// The least value of a name.
    pub fn low(&self, name: &str) -> i64 {
        self.bounds.get(&Atom::Name(name.into())).low
    }

    /// Is `goal` = 0 for every admitted assignment?
    pub fn is_zero(&self, goal: &Dim) -> bool {
        self.cases(goal, &|case, goal| case.rewrite(goal).as_const() == Some(0))
            || self.is_nonnegative(goal) && self.is_nonnegative(&-goal)
    }

    /// Is `goal` ≠ 0 for every admitted assignment?
    pub fn is_nonzero(&self, goal: &Dim) -> bool {
        let one = Dim::constant(1);
        let with_goal: Vec<Dim> = self.zero.iter().chain([goal]).cloned().collect();
        Bounds::refute(&self.nonnegative, &with_goal)
            || self.is_nonnegative(&(goal - &one))
            || self.is_nonnegative(&(-goal - one))
    }

    /// Is `goal` ≥ 0 for every admitted assignment?
    pub fn is_nonnegative(&self, goal: &Dim) -> bool {
        let opposite = -goal - Dim::constant(1);
        let with_opposite: Vec<Dim> = [opposite].into_iter().chain(self.nonnegative.iter().cloned()).collect();
        Bounds::refute(&with_opposite, &self.zero) || {
            let left = Cell::new(ALL_STEPS);
            self.cases(goal, &|case, goal| {
                let axioms = case.axioms(goal);
                // Short proofs first.
                (1..=STEP_DEPTH).any(|depth| {
                    let allowed = left.get().min(STEP_BUDGET);
                    let mut budget = allowed;
                    let found = combine(goal, &axioms, depth, &mut budget);
                    left.set(left.get() - (allowed - budget));
                    found
                })
            })
        }
    }

    /// Uses the assumed equations from left to right, towards fewer and simpler terms.
    pub fn rewrite(&self, dim: &Dim) -> Dim {
        let mut dim = dim.clone();
        let mut rules = Vec::new();
        for equation in &self.zero {
            let candidates = equation.terms().into_iter().filter(|(m, c)| c.abs() == 1 && !m.0.is_empty());
            let Some((lead, sign)) = candidates.max_by(|(m, _), (n, _)| m.cmp(n)) else { continue };
            let replacement = Dim::from_terms([(lead.clone(), 1)]) - equation * Dim::constant(sign);
            if let [(Atom::Name(name), 1)] = lead.0.as_slice()
                && !replacement.vars().contains(name.as_ref())
            {
                dim = dim.substitute(&BTreeMap::from([(name.to_string(), replacement.clone())]));
            }
            rules.push((lead, replacement));
        }
        for _ in 0..32 {
            let step = dim.terms().into_iter().find_map(|(monomial, coefficient)| {
                rules.iter().find_map(|(lead, replacement)| {
                    let rest = monomial.divided_by(lead)?;
                    let old = Dim::from_terms([(monomial.clone(), coefficient)]);
                    Some(&dim - old + Dim::from_terms([(rest, coefficient)]) * replacement)
                })
            });
            match step {
                Some(next) => dim = next,
                None => break,
            }
        }
        dim
    }

    /// Splits min and max by which side is smaller, and names under constant divisors by residue; in each case names
    /// are shifted so that they start at 0 (`test` sees names ≥ 0).
    fn cases(&self, dim: &Dim, test: &dyn Fn(&Case, &Dim) -> bool) -> bool {
        self.cases_by_side(dim, test, 3)
    }

    fn cases_by_side(&self, dim: &Dim, test: &dyn Fn(&Case, &Dim) -> bool, depth: usize) -> bool {
        let Some(atom) = dim.atoms().find(|atom| matches!(atom, Atom::Min(..) | Atom::Max(..))).cloned() else {
            return self.cases_by_residue(dim, test);
        };
        let (Atom::Min(a, b) | Atom::Max(a, b)) = &atom else { return false };
        if depth == 0 {
            return false;
        }
        [(a, b), (b, a)].into_iter().all(|(small, large)| {
            let chosen = if matches!(atom, Atom::Min(..)) { small } else { large };
            let mut case = self.clone();
            case.nonnegative.push(large - small);
            case.cases_by_side(&replace_atom(dim, &atom, chosen), test, depth - 1)
        })
    }

    fn cases_by_residue(&self, dim: &Dim, test: &dyn Fn(&Case, &Dim) -> bool) -> bool {
        let mut names = dim.vars();
        names.extend(self.nonnegative.iter().chain(&self.zero).flat_map(Dim::vars));
        let mut periods = BTreeMap::new();
        collect_periods(dim, 1, &mut periods);
        let plan = self.plan(&names, &periods, CASE_BUDGET, false);
        if self.splits(dim, test, &plan) {
            return true;
        }
        let (cases, before) = (count(&plan), periods.clone());
        for fact in self.nonnegative.iter().chain(&self.zero) {
            let mut more = periods.clone();
            collect_periods(fact, 1, &mut more);
            if product(more.values().copied()) <= VALUE_BUDGET {
                periods = more;
            }
        }
        let plan = self.plan(&names, &periods, VALUE_BUDGET, true);
        (periods != before || count(&plan) != cases) && self.splits(dim, test, &plan)
    }

    /// How names are split into at most so many cases.
    fn plan(
        &self,
        names: &BTreeSet<String>,
        periods: &BTreeMap<String, i64>,
        most: i64,
        by_value: bool,
    ) -> Vec<(String, Split)> {
        let all = product(periods.values().copied());
        let mut left = if all > most { most } else { most / all };
        let split = |name: &String| {
            let interval = self.bounds.get(&Atom::Name(name.as_str().into()));
            let period = periods.get(name).copied().filter(|_| all <= most).unwrap_or(1);
            let values = interval.high.saturating_sub(interval.low).saturating_add(1);
            if by_value && values <= left.saturating_mul(period) {
                left = left.saturating_mul(period) / values;
                return (name.clone(), Split::Values(interval));
            }
            (name.clone(), Split::Residues { period, low: interval.low })
        };
        names.iter().map(split).collect()
    }

    /// Tests each case of a plan.
    fn splits(&self, dim: &Dim, test: &dyn Fn(&Case, &Dim) -> bool, plan: &[(String, Split)]) -> bool {
        (0..count(plan)).all(|case| {
            let mut digits = case;
            let mut map = BTreeMap::new();
            for (name, split) in plan {
                map.insert(name.clone(), split.value(name, digits % split.count()));
                digits /= split.count();
            }
            let shift = |dims: &[Dim]| dims.iter().map(|dim| dim.substitute(&map)).collect::<Vec<_>>();
            let shifted =
                Case { nonnegative: shift(&self.nonnegative), zero: shift(&self.zero), bounds: Bounds::default() };
            shifted.is_empty() || test(&shifted, &dim.substitute(&map))
        })
    }

    /// True where a fact is a number that it cannot be.
    fn is_empty(&self) -> bool {
        self.nonnegative.iter().any(|dim| dim.as_const().is_some_and(|value| value < 0))
            || self.zero.iter().any(|dim| dim.as_const().is_some_and(|value| value != 0))
    }

    /// Polynomials known to be ≥ 0 where names are: the assumptions, and the bounds of the divisions that occur.
    fn axioms(&self, goal: &Dim) -> Vec<Dim> {
        let mut axioms = self.nonnegative.clone();
        for equation in &self.zero {
            axioms.push(equation.clone());
            axioms.push(-equation);
        }
        let mut divisions = Vec::new();
        for dim in axioms.iter().chain([goal]) {
            collect_divisions(dim, &mut divisions);
        }
        for (numerator, divisor) in divisions {
            if !plainly_positive(&divisor) {
                continue;
            }
            let quotient = Dim::atom(Atom::Div(numerator.clone(), divisor.clone()));
            let product = &divisor * &quotient;
            axioms.push(&numerator - &product);
            axioms.push(product + divisor - Dim::constant(1) - numerator);
        }
        axioms
    }
}

fn count(plan: &[(String, Split)]) -> i64 {
    product(plan.iter().map(|(_, split)| split.count()))
}

fn product(factors: impl IntoIterator<Item = i64>) -> i64 {
    factors.into_iter().fold(1, i64::saturating_mul)
}

fn replace_atom(dim: &Dim, atom: &Atom, value: &Dim) -> Dim {
    let mut sum = Dim::constant(0);
    for (monomial, coefficient) in dim.terms() {
        let mut product = Dim::constant(coefficient);
        for (factor, power) in &monomial.0 {
            for _ in 0..*power {
                product = if factor == atom { product * value } else { product * Dim::atom(factor.clone()) };
            }
        }
        sum = sum + product;
    }
    sum
}

/// For each name inside divisions by constants: a number that every divisor above it divides.
fn collect_periods(dim: &Dim, above: i64, periods: &mut BTreeMap<String, i64>) {
    for atom in dim.atoms() {
        match atom {
            Atom::Name(name) if above > 1 => {
                let period = periods.entry(name.to_string()).or_insert(1);
                let mut candidate = *period;
                while candidate % above != 0 && candidate <= CASE_BUDGET {
                    candidate += *period;
                }
                *period = candidate;
            }
            Atom::Name(_) => {}
            Atom::Div(a, b) => match b.as_const() {
                Some(divisor) => collect_periods(a, above.saturating_mul(divisor), periods),
                None => {
                    collect_periods(a, above, periods);
                    collect_periods(b, above, periods);
                }
            },
            Atom::Min(a, b) | Atom::Max(a, b) => {
                collect_periods(a, above, periods);
                collect_periods(b, above, periods);
            }
        }
    }
}

fn collect_divisions(dim: &Dim, found: &mut Vec<(Dim, Dim)>) {
    for atom in dim.atoms() {
        if let Atom::Div(a, b) = atom {
            let pair = (a.clone(), b.clone());
            if !found.contains(&pair) && found.len() < 16 {
                found.push(pair);
                collect_divisions(a, found);
            }
        }
    }
}

/// ≥ 0 at sight where names are ≥ 0.
fn plainly_nonnegative(dim: &Dim) -> bool {
    !dim.is_overflow() && dim.terms().iter().all(|(monomial, c)| *c >= 0 && nonnegative_monomial(monomial))
}

/// ≥ 1 at sight where names are ≥ 0.
fn plainly_positive(dim: &Dim) -> bool {
    plainly_nonnegative(&(dim - Dim::constant(1)))
}

fn nonnegative_monomial(monomial: &Monomial) -> bool {
    monomial.0.iter().all(|(atom, power)| {
        power % 2 == 0
            || match atom {
                Atom::Name(_) => true,
                Atom::Div(a, b) => plainly_nonnegative(a) && plainly_positive(b),
                Atom::Min(a, b) => plainly_nonnegative(a) && plainly_nonnegative(b),
                Atom::Max(a, b) => plainly_nonnegative(a) || plainly_nonnegative(b),
            }
    })
}

/// Proves `goal` ≥ 0 as a sum of products of axioms (each ≥ 0) with non-negative monomials, plus plain terms:
/// each step cancels one negative term of the goal by the axiom that has the same term negative. Dims are whole, so
/// `s*goal ≥ 1 - s` is enough.
fn combine(goal: &Dim, axioms: &[Dim], depth: usize, budget: &mut usize) -> bool {
    let goal = &tightened(goal);
    if plainly_nonnegative(goal) {
        return true;
    }
    if depth == 0 || *budget == 0 || goal.is_overflow() {
        return false;
    }
    let bad = goal.terms().into_iter().find(|(monomial, c)| *c < 0 || !nonnegative_monomial(monomial));
    let Some((monomial, coefficient)) = bad else { return false };
    for axiom in axioms {
        if *budget == 0 {
            return false;
        }
        for (lead, slope) in axiom.named_terms() {
            if (*slope < 0) != (coefficient < 0) {
                continue;
            }
            let Some(rest) = monomial.divided_by(lead) else { continue };
            if !nonnegative_monomial(&rest) {
                continue;
            }
            *budget = budget.saturating_sub(1);
            // |slope|·goal − |coefficient|·rest·axiom has no term at `monomial`.
            let (Some(slope), Some(factor)) = (slope.checked_abs(), coefficient.checked_abs()) else { continue };
            let common = gcd(slope, factor);
            let (slope, factor) = (slope / common, factor / common);
            let scaled = goal * Dim::constant(slope) + Dim::constant(slope - 1);
            let next = scaled - Dim::from_terms([(rest, factor)]) * axiom;
            if combine(&next, axioms, depth - 1, budget) {
                return true;
            }
        }
    }
    false
}
