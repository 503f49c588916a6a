//! What is assumed about named sizes, and three-valued answers drawn from it.
//!
//! Input: assumptions from `require` lines and declarations; every named size is at least 1. Output: [`Verdict`]s.
//! Invariant: `Proved` holds for every assignment that the assumptions admit; `Refuted` carries one that they admit
//! and for which the claim is false. Searches are deterministic and their cost is bounded.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use super::Dim;
use super::polynomial::{Atom, Monomial};

/// The answer to a question about dims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Holds for every admitted assignment.
    Proved,
    /// Fails for this admitted assignment; an empty one says that it fails for every assignment.
    Refuted(BTreeMap<String, i64>),
    /// Neither a proof nor a counterexample was found.
    Undecided,
}

impl Verdict {
    /// True for [`Verdict::Proved`].
    pub fn is_proved(&self) -> bool {
        *self == Verdict::Proved
    }

    /// `H = 33, W = 1` of a counterexample, where there is one with names.
    pub fn counterexample(&self) -> Option<String> {
        match self {
            Verdict::Refuted(map) if !map.is_empty() => {
                Some(map.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", "))
            }
            Verdict::Refuted(_) | Verdict::Proved | Verdict::Undecided => None,
        }
    }
}

/// A relation between two dims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Relation {
    Eq,
    Ne,
    Ge,
    Gt,
    Le,
    Lt,
}

/// Assumptions about named sizes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Each is ≥ 0.
    nonnegative: Vec<Dim>,
    /// Each is = 0.
    zero: Vec<Dim>,
    /// Each is ≠ 0; used by the search for counterexamples and by [`Facts::prove_ne`].
    nonzero: Vec<Dim>,
    /// Answers so far, by question about a difference; repeated layers ask the same ones. Assumptions empty it.
    answers: RefCell<HashMap<(Question, Dim), Verdict>>,
}

/// What is asked about a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Question {
    Zero,
    Nonnegative,
    Nonzero,
}

/// How many assignments a search for a counterexample tries.
const SEARCH_BUDGET: usize = 4_000;
/// How many residue cases a proof splits into.
const CASE_BUDGET: i64 = 256;
/// How many steps a proof by linear combination takes.
const STEP_BUDGET: usize = 600;
/// How many assumptions one proof combines.
const STEP_DEPTH: usize = 6;

impl Facts {
    /// No assumptions but that named sizes are at least 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// Assumes `a >= b`.
    pub fn assume_ge(&mut self, a: &Dim, b: &Dim) {
        self.answers.get_mut().clear();
        self.nonnegative.push(a - b);
    }

    /// Assumes `a == b`.
    pub fn assume_eq(&mut self, a: &Dim, b: &Dim) {
        self.answers.get_mut().clear();
        self.zero.push(a - b);
    }

    /// Assumes `a != b`.
    pub fn assume_ne(&mut self, a: &Dim, b: &Dim) {
        self.answers.get_mut().clear();
        self.nonzero.push(a - b);
    }

    /// Assumes `a % b == 0`.
    pub fn assume_divides(&mut self, b: &Dim, a: &Dim) {
        self.answers.get_mut().clear();
        self.zero.push(a.rem(b));
    }

    /// Assumes a relation.
    pub fn assume(&mut self, relation: Relation, a: &Dim, b: &Dim) {
        let one = Dim::constant(1);
        match relation {
            Relation::Eq => self.assume_eq(a, b),
            Relation::Ne => self.assume_ne(a, b),
            Relation::Ge => self.assume_ge(a, b),
            Relation::Gt => self.assume_ge(a, &(b + one)),
            Relation::Le => self.assume_ge(b, a),
            Relation::Lt => self.assume_ge(b, &(a + one)),
        }
    }

    /// Does the relation hold for every admitted assignment?
    pub fn prove(&self, relation: Relation, a: &Dim, b: &Dim) -> Verdict {
        let one = Dim::constant(1);
        match relation {
            Relation::Eq => self.prove_eq(a, b),
            Relation::Ne => self.prove_ne(a, b),
            Relation::Ge => self.prove_ge(a, b),
            Relation::Gt => self.prove_ge(a, &(b + one)),
            Relation::Le => self.prove_ge(b, a),
            Relation::Lt => self.prove_ge(b, &(a + one)),
        }
    }

    /// `Some(true)` where the relation always holds, `Some(false)` where it never does.
    pub fn always(&self, relation: Relation, a: &Dim, b: &Dim) -> Option<bool> {
        let opposite = match relation {
            Relation::Eq => Relation::Ne,
            Relation::Ne => Relation::Eq,
            Relation::Ge => Relation::Lt,
            Relation::Gt => Relation::Le,
            Relation::Le => Relation::Gt,
            Relation::Lt => Relation::Ge,
        };
        if self.prove(relation, a, b).is_proved() {
            Some(true)
        } else if self.prove(opposite, a, b).is_proved() {
            Some(false)
        } else {
            None
        }
    }

    /// Is `a == b`?
    pub fn prove_eq(&self, a: &Dim, b: &Dim) -> Verdict {
        if a == b && !a.is_overflow() {
            return Verdict::Proved;
        }
        self.answer(Question::Zero, a - b, Self::decide_zero)
    }

    /// The known answer, or the one that `decide` finds.
    fn answer(&self, question: Question, difference: Dim, decide: fn(&Self, &Dim) -> Verdict) -> Verdict {
        if difference.as_const().is_some() {
            return decide(self, &difference);
        }
        let key = (question, difference);
        if let Some(known) = self.answers.borrow().get(&key) {
            return known.clone();
        }
        let verdict = decide(self, &key.1);
        self.answers.borrow_mut().insert(key, verdict.clone());
        verdict
    }

    fn decide_zero(&self, original: &Dim) -> Verdict {
        let difference = self.rewrite(original);
        match difference.as_const() {
            Some(0) => return Verdict::Proved,
            Some(_) => return Verdict::Refuted(BTreeMap::new()),
            None if difference.is_overflow() => return Verdict::Undecided,
            None => {}
        }
        if let Some(map) = self.search(original, |value| value != 0) {
            return Verdict::Refuted(map);
        }
        let by_cases = self.cases(&difference, &|case, goal| case.rewrite(goal).as_const() == Some(0));
        if by_cases || (self.is_nonnegative(&difference) && self.is_nonnegative(&-&difference)) {
            Verdict::Proved
        } else {
            Verdict::Undecided
        }
    }

    /// Is `a >= b`?
    pub fn prove_ge(&self, a: &Dim, b: &Dim) -> Verdict {
        self.answer(Question::Nonnegative, a - b, Self::decide_nonnegative)
    }

    fn decide_nonnegative(&self, original: &Dim) -> Verdict {
        let difference = self.rewrite(original);
        match difference.as_const() {
            Some(value) if value >= 0 => return Verdict::Proved,
            Some(_) => return Verdict::Refuted(BTreeMap::new()),
            None if difference.is_overflow() => return Verdict::Undecided,
            None => {}
        }
        if let Some(map) = self.search(original, |value| value < 0) {
            return Verdict::Refuted(map);
        }
        if self.is_nonnegative(&difference) { Verdict::Proved } else { Verdict::Undecided }
    }

    /// Is `a != b`?
    pub fn prove_ne(&self, a: &Dim, b: &Dim) -> Verdict {
        self.answer(Question::Nonzero, a - b, Self::decide_nonzero)
    }

    fn decide_nonzero(&self, original: &Dim) -> Verdict {
        let difference = self.rewrite(original);
        match difference.as_const() {
            Some(0) => return Verdict::Refuted(BTreeMap::new()),
            Some(_) => return Verdict::Proved,
            None if difference.is_overflow() => return Verdict::Undecided,
            None => {}
        }
        if self.nonzero.iter().any(|known| known == original || -known == *original) {
            return Verdict::Proved;
        }
        if let Some(map) = self.search(original, |value| value == 0) {
            return Verdict::Refuted(map);
        }
        let one = Dim::constant(1);
        if self.is_nonnegative(&(&difference - &one)) || self.is_nonnegative(&(-&difference - one)) {
            Verdict::Proved
        } else {
            Verdict::Undecided
        }
    }

    /// True where the assignment fits every assumption.
    pub fn admits(&self, map: &BTreeMap<String, i64>) -> bool {
        map.values().all(|value| *value >= 1)
            && self.nonnegative.iter().all(|dim| dim.eval(map).is_some_and(|value| value >= 0))
            && self.zero.iter().all(|dim| dim.eval(map) == Some(0))
            && self.nonzero.iter().all(|dim| dim.eval(map).is_some_and(|value| value != 0))
    }

    /// The largest number that an assumption of the form `k*name >= c` gives for the name; at least 1.
    fn lower_bound(&self, name: &str) -> i64 {
        let bounds = self.nonnegative.iter().filter_map(|fact| {
            let terms = fact.terms();
            let (lead, slope) = terms.first()?;
            let constant = match terms.as_slice() {
                [_] => 0,
                [_, (monomial, constant)] if monomial.0.is_empty() => *constant,
                _ => return None,
            };
            let is_name = matches!(lead.0.as_slice(), [(Atom::Name(found), 1)] if found.as_ref() == name);
            (is_name && *slope > 0).then(|| -(constant.div_euclid(*slope)))
        });
        bounds.fold(1, i64::max)
    }

    /// Uses the assumed equations from left to right, towards fewer and simpler terms.
    fn rewrite(&self, dim: &Dim) -> Dim {
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

    /// The first admitted assignment, in order of growing sum, whose value of `dim` is wanted.
    fn search(&self, dim: &Dim, wanted: impl Fn(i64) -> bool) -> Option<BTreeMap<String, i64>> {
        let mut names = dim.vars();
        let facts = || self.nonnegative.iter().chain(&self.zero).chain(&self.nonzero);
        loop {
            let before = names.len();
            for fact in facts() {
                let vars = fact.vars();
                if vars.iter().any(|name| names.contains(name)) {
                    names.extend(vars);
                }
            }
            if names.len() == before {
                break;
            }
        }
        let related = |fact: &&Dim| fact.vars().iter().all(|name| names.contains(name));
        let local = Facts {
            nonnegative: self.nonnegative.iter().filter(related).cloned().collect(),
            zero: self.zero.iter().filter(related).cloned().collect(),
            nonzero: self.nonzero.iter().filter(related).cloned().collect(),
            ..Facts::default()
        };
        let names: Vec<(String, i64)> = names.iter().map(|name| (name.clone(), local.lower_bound(name))).collect();
        let mut budget = SEARCH_BUDGET;
        let longest = if names.len() <= 1 { 600 } else { 64 };
        for total in 0..=longest {
            let mut map = BTreeMap::new();
            let mut accept = |map: &BTreeMap<String, i64>| dim.eval(map).is_some_and(&wanted) && local.admits(map);
            match distribute(&names, total, &mut map, &mut budget, &mut accept) {
                Some(true) => return Some(map),
                Some(false) => {}
                None => return None,
            }
            if names.is_empty() {
                return None;
            }
        }
        None
    }

    /// Is `dim` ≥ 0 for every admitted assignment?
    fn is_nonnegative(&self, dim: &Dim) -> bool {
        self.cases(dim, &|case, goal| {
            let mut budget = STEP_BUDGET;
            combine(goal, &case.axioms(goal), STEP_DEPTH, &mut budget)
        })
    }

    /// Splits min and max by which side is smaller, and names under constant divisors by residue; in each case names
    /// are shifted so that they start at 0 (`test` sees names ≥ 0).
    fn cases(&self, dim: &Dim, test: &dyn Fn(&Facts, &Dim) -> bool) -> bool {
        self.cases_by_side(dim, test, 3)
    }

    fn cases_by_side(&self, dim: &Dim, test: &dyn Fn(&Facts, &Dim) -> bool, depth: usize) -> bool {
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
            case.assume_ge(large, small);
            case.cases_by_side(&replace_atom(dim, &atom, chosen), test, depth - 1)
        })
    }

    fn cases_by_residue(&self, dim: &Dim, test: &dyn Fn(&Facts, &Dim) -> bool) -> bool {
        let mut periods = BTreeMap::new();
        collect_periods(dim, 1, &mut periods);
        let mut names = dim.vars();
        names.extend(self.nonnegative.iter().chain(&self.zero).flat_map(Dim::vars));
        let count = periods.values().try_fold(1i64, |count, period| count.checked_mul(*period));
        if count.is_none_or(|count| count > CASE_BUDGET) {
            periods.clear();
        }
        let plan: Vec<(String, i64, i64)> = names
            .into_iter()
            .map(|name| (name.clone(), periods.get(&name).copied().unwrap_or(1), self.lower_bound(&name)))
            .collect();
        let count: i64 = plan.iter().map(|(_, period, _)| period).product();
        (0..count).all(|case| {
            let mut digits = case;
            let mut map = BTreeMap::new();
            for (name, period, bound) in &plan {
                let residue = digits % period;
                digits /= period;
                // name = period·(name' + first) + residue with name' ≥ 0 covers every value ≥ bound of this residue.
                let first = (bound - residue + period - 1).div_euclid(*period);
                let start = Dim::constant(period * first + residue);
                map.insert(name.clone(), Dim::constant(*period) * Dim::var(name) + start);
            }
            let shift = |dims: &[Dim]| dims.iter().map(|dim| dim.substitute(&map)).collect();
            let shifted = Facts {
                nonnegative: shift(&self.nonnegative),
                zero: shift(&self.zero),
                nonzero: Vec::new(),
                ..Facts::default()
            };
            test(&shifted, &dim.substitute(&map))
        })
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

/// Assigns bounds plus non-negative offsets of the given total. `None`: the budget is spent.
fn distribute(
    names: &[(String, i64)],
    total: i64,
    map: &mut BTreeMap<String, i64>,
    budget: &mut usize,
    accept: &mut dyn FnMut(&BTreeMap<String, i64>) -> bool,
) -> Option<bool> {
    let Some(((name, bound), rest)) = names.split_first() else {
        *budget = budget.checked_sub(1)?;
        return Some(accept(map));
    };
    let offsets = if rest.is_empty() { total..=total } else { 0..=total };
    for offset in offsets {
        map.insert(name.clone(), bound.saturating_add(offset));
        if distribute(rest, total - offset, map, budget, accept)? {
            return Some(true);
        }
    }
    Some(false)
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
/// each step cancels one negative term of the goal by the axiom that has the same term negative.
fn combine(goal: &Dim, axioms: &[Dim], depth: usize, budget: &mut usize) -> bool {
    if plainly_nonnegative(goal) {
        return true;
    }
    if depth == 0 || *budget == 0 || goal.is_overflow() {
        return false;
    }
    let bad = goal.terms().into_iter().find(|(monomial, c)| *c < 0 || !nonnegative_monomial(monomial));
    let Some((monomial, coefficient)) = bad else { return false };
    for axiom in axioms {
        for (lead, slope) in axiom.terms() {
            if (slope < 0) != (coefficient < 0) {
                continue;
            }
            let Some(rest) = monomial.divided_by(&lead) else { continue };
            if !nonnegative_monomial(&rest) {
                continue;
            }
            *budget = budget.saturating_sub(1);
            // |slope|·goal − |coefficient|·rest·axiom has no term at `monomial`.
            let (Some(slope), Some(factor)) = (slope.checked_abs(), coefficient.checked_abs()) else { continue };
            let next = goal * Dim::constant(slope) - Dim::from_terms([(rest, factor)]) * axiom;
            if combine(&next, axioms, depth - 1, budget) {
                return true;
            }
        }
    }
    false
}
