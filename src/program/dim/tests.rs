//! Normal forms, their text, and the soundness of proofs.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Compare, Dim, Facts, Verdict};

fn v(name: &str) -> Dim {
    Dim::var(name)
}

fn c(value: i64) -> Dim {
    Dim::constant(value)
}

#[test]
fn equal_polynomials_are_equal_dims() {
    assert_eq!(v("H") + v("W"), v("W") + v("H"));
    assert_eq!((v("H") + c(1)) * (v("H") - c(1)), v("H") * v("H") - c(1));
    assert_eq!(v("H") - v("H"), c(0));
    assert_ne!(v("H"), v("W"));
}

#[test]
fn floor_division_cancels_exact_factors() {
    assert_eq!((c(4) * v("C")).floor_div(&c(4)), v("C"));
    assert_eq!((v("a") * v("b")).floor_div(&v("b")), v("a"));
    assert_eq!((v("a") * v("b") + v("b")).floor_div(&(v("a") + c(1))), v("b"));
    assert_eq!(v("H").floor_div(&c(2)).floor_div(&c(2)), v("H").floor_div(&c(4)));
    assert_eq!((v("H") - c(1)).floor_div(&c(2)) + c(1), (v("H") + c(1)).floor_div(&c(2)));
    assert_eq!((c(2) * v("H") + c(1)).floor_div(&c(4)), v("H").floor_div(&c(2)));
    assert_eq!((c(6) * v("H")).rem(&c(3)), c(0));
    assert_eq!(c(-7).floor_div(&c(2)), c(-4));
    assert_eq!(c(7).rem(&c(-2)), c(-1));
}

#[test]
fn dims_read_as_a_person_writes_them() {
    let shown = |dim: Dim| dim.to_string();
    assert_eq!(shown(v("H") - c(2)), "H - 2");
    assert_eq!(shown(c(4) * v("C")), "4*C");
    assert_eq!(shown((v("H") + c(1)).floor_div(&c(2))), "(H + 1)/2");
    assert_eq!(shown(v("C").floor_div(&v("heads"))), "C/heads");
    assert_eq!(shown(c(2) - v("H")), "2 - H");
    assert_eq!(shown(v("K") * v("K") * c(3)), "3*K^2");
    assert_eq!(shown(c(2) * v("H").floor_div(&c(3))), "2*(H/3)");
}

#[test]
fn overflow_and_division_by_zero_are_marked_and_never_panic() {
    assert!((c(i64::MAX) + c(1)).is_overflow());
    assert!((c(i64::MIN) * c(-1)).is_overflow());
    assert!(c(1).floor_div(&c(0)).is_overflow());
    assert!(c(i64::MIN).floor_div(&c(-1)).is_overflow());
    assert_eq!(Facts::new().prove_eq(&c(1).floor_div(&c(0)), &c(1)), Verdict::Undecided);
    let mut power = v("a") + v("b") + v("c") + v("d");
    for _ in 0..12 {
        power = &power * &power;
    }
    assert!(power.is_overflow());
    let mut nested = v("H");
    for _ in 0..10_000 {
        nested = (nested * v("W") + c(1)).floor_div(&v("S"));
    }
    assert!(nested.is_overflow());
}

#[test]
fn questions_get_proofs_and_counterexamples() {
    let mut facts = Facts::new();
    assert!(facts.prove_ge(&v("H"), &c(1)).is_proved());
    assert_eq!(facts.prove_ge(&v("H"), &c(3)), Verdict::Refuted(BTreeMap::from([("H".into(), 1)])));
    assert_eq!(facts.prove_eq(&v("H"), &(v("H") - c(2))), Verdict::Refuted(BTreeMap::new()));
    facts.assume_ge(&v("H"), &c(32));
    assert!(facts.prove_ge(&(v("H") - c(5)), &c(27)).is_proved());
    let halves = v("H").floor_div(&c(2)) + (v("H") + c(1)).floor_div(&c(2));
    assert!(facts.prove_eq(&halves, &v("H")).is_proved());
    let twice = c(2) * v("H").floor_div(&c(2));
    assert_eq!(facts.prove_eq(&twice, &v("H")).counterexample().as_deref(), Some("H = 33"));
    assert!(facts.prove_ge(&v("H"), &twice).is_proved());
    assert_eq!(facts.always(Compare::Gt, &v("H"), &c(40)), None);
    assert_eq!(facts.always(Compare::Lt, &v("H"), &c(40)), None);
    assert_eq!(facts.always(Compare::Lt, &v("H"), &c(4)), Some(false));
}

#[test]
fn a_required_remainder_settles_the_division() {
    let heads = Dim::var("heads");
    let width = v("C").floor_div(&heads) * &heads;
    let mut facts = Facts::new();
    assert!(matches!(facts.prove_eq(&width, &v("C")), Verdict::Refuted(_)));
    facts.assume(Compare::Eq, &v("C").rem(&heads), &c(0));
    assert!(facts.prove_eq(&width, &v("C")).is_proved());
    let mut by_four = Facts::new();
    by_four.assume_divides(&c(4), &v("C"));
    assert!(by_four.prove_eq(&(c(4) * v("C").floor_div(&c(4))), &v("C")).is_proved());
}

#[test]
fn a_window_stays_inside_for_symbolic_strides() {
    // The last window starts at S*((H - K)/S) and has K elements.
    let quotient = (v("H") - v("K")).floor_div(&v("S"));
    let mut facts = Facts::new();
    facts.assume_ge(&v("H"), &v("K"));
    let last = v("S") * quotient + v("K") - c(1);
    assert!(facts.prove_ge(&(v("H") - c(1)), &last).is_proved());
}

#[test]
fn equations_between_names_are_used() {
    let mut facts = Facts::new();
    facts.assume_eq(&v("H"), &v("W"));
    assert!(facts.prove_eq(&(v("H") * c(2)), &(v("W") + v("H"))).is_proved());
    assert!(facts.prove_eq(&v("H").floor_div(&c(2)), &v("W").floor_div(&c(2))).is_proved());
    assert!(facts.prove_ge(&v("A").min(&v("B")), &c(1)).is_proved());
    assert!(facts.prove_ge(&v("A").max(&v("B")), &v("A")).is_proved());
}

#[test]
fn equations_and_divisibility_reach_every_claim() {
    let mut facts = Facts::new();
    facts.assume_eq(&v("W"), &c(2));
    facts.assume_ge(&(v("H") - v("W") - c(4)), &c(1));
    assert!(facts.prove_ge(&v("H"), &c(7)).is_proved());
    assert_eq!(facts.prove_ge(&v("H"), &c(8)).counterexample().as_deref(), Some("H = 7, W = 2"));
    let mut facts = Facts::new();
    facts.assume_divides(&c(4), &v("H"));
    assert!(facts.prove_ge(&v("H").floor_div(&c(3)), &c(1)).is_proved());
    assert_eq!(facts.prove_ge(&v("H"), &c(5)).counterexample().as_deref(), Some("H = 4"));
    facts.assume_divides(&c(6), &v("H"));
    assert!(facts.prove_eq(&v("H").rem(&c(12)), &c(0)).is_proved());
    let mut facts = Facts::new();
    facts.assume_ge(&(v("H") * v("H")), &c(5));
    assert!(facts.prove_ge(&v("H"), &c(3)).is_proved());
}

#[test]
fn assumptions_without_an_assignment_are_a_contradiction() {
    let names = || ["H".to_owned(), "W".to_owned()].into();
    let mut facts = Facts::new();
    facts.assume_ge(&v("H"), &(v("W") + c(1)));
    assert!(!facts.contradict(&names()));
    facts.assume_ge(&v("W"), &v("H"));
    assert!(facts.contradict(&names()));
    let mut facts = Facts::new();
    facts.assume_divides(&c(4), &v("H"));
    facts.assume_ge(&c(3), &v("H"));
    assert!(facts.contradict(&names()));
    assert!(!facts.contradict(&["W".to_owned()].into()));
}

#[test]
fn many_assumptions_take_bounded_work() {
    // Every question goes through all of them; a minute would be a search without a bound.
    let started = std::time::Instant::now();
    let name = |number: usize| v(&format!("a{number}"));
    let mut facts = Facts::new();
    for number in 0..600 {
        match number % 3 {
            0 => facts.assume_ge(&name(number), &(name(number + 1) * name(number + 2))),
            1 => facts.assume_divides(&name(number + 1), &name(number)),
            _ => facts.assume_eq(&name(number), &(name(number + 1) + name(number + 4).floor_div(&c(7)))),
        }
    }
    assert!(!facts.prove_ge(&c(1), &name(0)).is_proved());
    facts.contradict(&["a0".to_owned()].into());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// A random expression beside its own direct evaluation.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Const(i64),
    Var(usize),
    Node(u8, Box<Tree>, Box<Tree>),
}

pub(super) const NAMES: [&str; 3] = ["A", "B", "C"];

impl Tree {
    pub fn dim(&self) -> Dim {
        match self {
            Tree::Const(value) => c(*value),
            Tree::Var(index) => v(NAMES[*index]),
            Tree::Node(op, a, b) => {
                let (a, b) = (a.dim(), b.dim());
                match op {
                    0 => a + b,
                    1 => a - b,
                    2 => a * b,
                    3 => a.floor_div(&b),
                    4 => a.rem(&b),
                    5 => a.min(&b),
                    _ => a.max(&b),
                }
            }
        }
    }

    pub fn eval(&self, values: [i64; 3]) -> Option<i64> {
        match self {
            Tree::Const(value) => Some(*value),
            Tree::Var(index) => Some(values[*index]),
            Tree::Node(op, a, b) => {
                let (a, b) = (a.eval(values)?, b.eval(values)?);
                let floor = |a: i64, b: i64| (b != 0).then(|| (a as f64 / b as f64).floor() as i64);
                match op {
                    0 => a.checked_add(b),
                    1 => a.checked_sub(b),
                    2 => a.checked_mul(b),
                    3 => floor(a, b),
                    4 => Some(a - b * floor(a, b)?),
                    5 => Some(a.min(b)),
                    _ => Some(a.max(b)),
                }
            }
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![(-6i64..12).prop_map(Tree::Const), (0usize..3).prop_map(Tree::Var)];
    leaf.prop_recursive(4, 16, 2, |inner| {
        (0u8..7, inner.clone(), inner).prop_map(|(op, a, b)| Tree::Node(op, Box::new(a), Box::new(b)))
    })
}

fn assignment(values: [i64; 3]) -> BTreeMap<String, i64> {
    NAMES.iter().zip(values).map(|(name, value)| (name.to_string(), value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_normal_form_evaluates_like_the_expression(tree in tree(), values in [1i64..9, 1i64..9, 1i64..9]) {
        let dim = tree.dim();
        if let (Some(expected), Some(found)) = (tree.eval(values), dim.eval(&assignment(values)))
            && expected.abs() < 1 << 40
        {
            prop_assert_eq!(found, expected, "{}", dim);
        }
    }

    #[test]
    fn proofs_and_counterexamples_hold(
        left in tree(), right in tree(), bound in tree(), samples in prop::collection::vec([1i64..14, 1i64..14, 1i64..14], 24)
    ) {
        let (a, b) = (left.dim(), right.dim());
        let mut facts = Facts::new();
        facts.assume_ge(&v("A"), &bound.dim());
        for (relation, holds) in [
            (Compare::Eq, (|x, y| x == y) as fn(i64, i64) -> bool),
            (Compare::Ge, |x, y| x >= y),
            (Compare::Ne, |x, y| x != y),
        ] {
            match facts.prove(relation, &a, &b) {
                Verdict::Proved => {
                    for values in &samples {
                        let map = assignment(*values);
                        if let (true, Some(x), Some(y)) = (facts.admits(&map), a.eval(&map), b.eval(&map)) {
                            prop_assert!(holds(x, y), "{} against {} at {:?}", a, b, map);
                        }
                    }
                }
                Verdict::Refuted(mut map) if !map.is_empty() => {
                    for name in NAMES {
                        map.entry(name.to_string()).or_insert(1);
                    }
                    if let (Some(x), Some(y)) = (a.eval(&map), b.eval(&map)) {
                        prop_assert!(!holds(x, y), "{} against {} at {:?}", a, b, map);
                    }
                }
                Verdict::Refuted(_) | Verdict::Undecided => {}
            }
        }
    }
}
