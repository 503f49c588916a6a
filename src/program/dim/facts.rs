//! What is assumed about named sizes, and three-valued answers drawn from it.
//!
//! Input: assumptions from `require` lines and declarations; every named size is at least 1. Output: [`Verdict`]s.
//! Invariant: `Proved` holds for every assignment that the assumptions admit; `Refuted` carries one that they admit
//! and for which the claim is false. Searches are deterministic and their cost is bounded.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Dim;
use super::proof::Case;
use super::reduced::{Reduced, is_quotient};

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

/// A comparison of two dims, or of the elements of two tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub enum Compare {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
}

impl Compare {
    /// The comparison that holds of two whole numbers where this one does not.
    pub fn opposite(self) -> Compare {
        match self {
            Compare::Lt => Compare::Ge,
            Compare::Le => Compare::Gt,
            Compare::Gt => Compare::Le,
            Compare::Ge => Compare::Lt,
            Compare::Eq => Compare::Ne,
            Compare::Ne => Compare::Eq,
        }
    }
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
    /// The first two over as few names as possible.
    reduced: Reduced,
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
/// How many assumptions the search evaluates.
const SEARCH_EVALUATIONS: usize = 100_000;

impl Facts {
    /// No assumptions but that named sizes are at least 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// Assumes `a >= b`.
    pub fn assume_ge(&mut self, a: &Dim, b: &Dim) {
        self.answers.get_mut().clear();
        let difference = a - b;
        self.reduced.add_nonnegative(&difference);
        self.nonnegative.push(difference);
    }

    /// Assumes `a == b`.
    pub fn assume_eq(&mut self, a: &Dim, b: &Dim) {
        self.answers.get_mut().clear();
        let difference = a - b;
        self.reduced.add_zero(&difference);
        self.zero.push(difference);
    }

    /// Assumes `a != b`.
    pub fn assume_ne(&mut self, a: &Dim, b: &Dim) {
        self.answers.get_mut().clear();
        self.nonzero.push(a - b);
    }

    /// Assumes `a % b == 0`.
    pub fn assume_divides(&mut self, b: &Dim, a: &Dim) {
        self.assume_eq(&a.rem(b), &Dim::constant(0));
    }

    /// Assumes a relation.
    pub fn assume(&mut self, relation: Compare, a: &Dim, b: &Dim) {
        let one = Dim::constant(1);
        match relation {
            Compare::Eq => self.assume_eq(a, b),
            Compare::Ne => self.assume_ne(a, b),
            Compare::Ge => self.assume_ge(a, b),
            Compare::Gt => self.assume_ge(a, &(b + one)),
            Compare::Le => self.assume_ge(b, a),
            Compare::Lt => self.assume_ge(b, &(a + one)),
        }
    }

    /// Does the relation hold for every admitted assignment?
    pub fn prove(&self, relation: Compare, a: &Dim, b: &Dim) -> Verdict {
        let one = Dim::constant(1);
        match relation {
            Compare::Eq => self.prove_eq(a, b),
            Compare::Ne => self.prove_ne(a, b),
            Compare::Ge => self.prove_ge(a, b),
            Compare::Gt => self.prove_ge(a, &(b + one)),
            Compare::Le => self.prove_ge(b, a),
            Compare::Lt => self.prove_ge(b, &(a + one)),
        }
    }

    /// `Some(true)` where the relation always holds, `Some(false)` where it never does.
    pub fn always(&self, relation: Compare, a: &Dim, b: &Dim) -> Option<bool> {
        if self.prove(relation, a, b).is_proved() {
            Some(true)
        } else if self.prove(relation.opposite(), a, b).is_proved() {
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
        self.decide(original, |value| value == 0, Case::is_zero)
    }

    /// Looks for a counterexample and for a proof of a claim about this difference.
    fn decide(&self, original: &Dim, holds: fn(i64) -> bool, proves: fn(&Case, &Dim) -> bool) -> Verdict {
        let names = self.related(original.vars());
        let known = self.about(&names);
        let difference = known.rewrite(&self.reduced.apply(original));
        match difference.as_const() {
            Some(value) if holds(value) => return Verdict::Proved,
            Some(_) => return Verdict::Refuted(BTreeMap::new()),
            None if difference.is_overflow() => return Verdict::Undecided,
            None => {}
        }
        let Some(case) = known.with_bounds(&difference) else { return Verdict::Proved };
        if let Some(map) = self.search(original, &names, &case, |value| !holds(value)) {
            return Verdict::Refuted(map);
        }
        if proves(&case, &difference) { Verdict::Proved } else { Verdict::Undecided }
    }

    /// Is `a >= b`?
    pub fn prove_ge(&self, a: &Dim, b: &Dim) -> Verdict {
        self.answer(Question::Nonnegative, a - b, Self::decide_nonnegative)
    }

    fn decide_nonnegative(&self, original: &Dim) -> Verdict {
        self.decide(original, |value| value >= 0, Case::is_nonnegative)
    }

    /// Is `a != b`?
    pub fn prove_ne(&self, a: &Dim, b: &Dim) -> Verdict {
        self.answer(Question::Nonzero, a - b, Self::decide_nonzero)
    }

    fn decide_nonzero(&self, original: &Dim) -> Verdict {
        if self.nonzero.iter().any(|known| known == original || -known == *original) {
            return Verdict::Proved;
        }
        self.decide(original, |value| value != 0, Case::is_nonzero)
    }

    /// True where the assignment fits every assumption.
    pub fn admits(&self, map: &BTreeMap<String, i64>) -> bool {
        map.values().all(|value| *value >= 1)
            && self.nonnegative.iter().all(|dim| dim.eval(map).is_some_and(|value| value >= 0))
            && self.zero.iter().all(|dim| dim.eval(map) == Some(0))
            && self.nonzero.iter().all(|dim| dim.eval(map).is_some_and(|value| value != 0))
    }

    /// True where it is proved that no values of these names fit the assumptions.
    pub fn contradict(&self, names: &BTreeSet<String>) -> bool {
        let names = self.related(names.clone());
        let minus_one = Dim::constant(-1);
        let Some(case) = self.about(&names).with_bounds(&minus_one) else { return true };
        self.search(&minus_one, &names, &case, |_| true).is_none() && case.is_nonnegative(&minus_one)
    }

    /// These names and those that the assumptions tie to them.
    fn related(&self, mut names: BTreeSet<String>) -> BTreeSet<String> {
        let mut waiting: Vec<BTreeSet<String>> =
            self.nonnegative.iter().chain(&self.zero).chain(&self.nonzero).map(Dim::vars).collect();
        loop {
            let before = waiting.len();
            waiting.retain(|vars| {
                let touches = vars.iter().any(|name| names.contains(name));
                if touches {
                    names.extend(vars.iter().cloned());
                }
                !touches
            });
            if waiting.len() == before {
                return names;
            }
        }
    }

    /// The names that remain of these.
    fn remaining(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        names.iter().flat_map(|name| self.reduced.apply(&Dim::var(name)).vars()).collect()
    }

    /// What is known of these names.
    fn about(&self, names: &BTreeSet<String>) -> Case {
        let names = self.remaining(names);
        let related = |dims: &[Dim]| {
            let touches = |dim: &&Dim| dim.as_const().is_some() || dim.vars().iter().any(|name| names.contains(name));
            dims.iter().filter(touches).cloned().collect()
        };
        Case::new(related(&self.reduced.nonnegative), related(&self.reduced.zero))
    }

    /// The first admitted assignment, in order of growing sum, whose value of `dim` is wanted.
    fn search(
        &self,
        dim: &Dim,
        related: &BTreeSet<String>,
        case: &Case,
        wanted: impl Fn(i64) -> bool,
    ) -> Option<BTreeMap<String, i64>> {
        let known = |dims: &[Dim]| {
            let inside = |dim: &&Dim| dim.vars().iter().all(|name| related.contains(name));
            dims.iter().filter(inside).cloned().collect()
        };
        let local = Facts {
            nonnegative: known(&self.nonnegative),
            zero: known(&self.zero),
            nonzero: known(&self.nonzero),
            ..Facts::default()
        };
        let replaced: Vec<&(String, Dim)> = self
            .reduced
            .replaced
            .iter()
            .rev()
            .filter(|(name, _)| related.contains(name) || is_quotient(name))
            .collect();
        let extended = |map: &BTreeMap<String, i64>| {
            let mut map = map.clone();
            for (name, value) in &replaced {
                if let Some(value) = value.eval(&map) {
                    map.insert(name.clone(), value);
                }
            }
            map.retain(|name, _| related.contains(name));
            map
        };
        let names: Vec<(String, i64)> =
            self.remaining(related).into_iter().map(|name| (name.clone(), case.low(&name))).collect();
        let facts = local.nonnegative.len() + local.zero.len() + local.nonzero.len() + replaced.len();
        let mut budget = SEARCH_BUDGET.min(SEARCH_EVALUATIONS / (facts + 1));
        let longest = if names.len() <= 1 { 600 } else { 64 };
        for total in 0..=longest {
            let mut map = BTreeMap::new();
            let mut accept = |map: &BTreeMap<String, i64>| {
                let map = extended(map);
                dim.eval(&map).is_some_and(&wanted) && local.admits(&map)
            };
            match distribute(&names, total, &mut map, &mut budget, &mut accept) {
                Some(true) => return Some(extended(&map)),
                Some(false) => {}
                None => return None,
            }
            if names.is_empty() {
                return None;
            }
        }
        None
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
