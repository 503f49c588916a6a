//! Which records train, which are held out, which test.
//!
//! Input: `split = random(valid = 0.1, test = 0.2, seed = 1)` or `split = in_order(valid = 0.1, test = 500)`.
//! Output: three lists of record numbers. Invariant: the lists are disjoint, cover all records, and depend only on
//! the rule, the seed and the number of records; whether the CPU has one thread or twenty does not matter.

use super::arguments::{self, Arguments};
use super::random::{Purpose, Stream, shuffle};
use crate::diagnostics::Diagnostic;
use crate::settings::{Literal, LiteralKind};

/// How much of the records: below 1 a fraction, from 1 a number of records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share(f64);

impl Share {
    /// True where it was written (and is not zero).
    pub(super) fn given(self) -> bool {
        self.0 > 0.0
    }

    fn of(self, records: usize) -> usize {
        match self.0 < 1.0 {
            true => (self.0 * records as f64).round() as usize,
            false => self.0 as usize,
        }
    }
}

/// In which order records are dealt out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Dealing {
    /// Shuffled by this seed, or the run's.
    Random(Option<u64>),
    /// The first train, the next are held out, the last test.
    InOrder,
}

/// A `split` entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SplitRule {
    /// In which order.
    pub dealing: Dealing,
    /// Held out.
    pub valid: Share,
    pub test: Share,
}

/// Record numbers of the three splits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Divided {
    pub train: Vec<u32>,
    pub valid: Vec<u32>,
    pub test: Vec<u32>,
}

impl Divided {
    /// Fowler, Noll and Vo's hash of the three lists, 64 bits.
    pub(super) fn digest(&self) -> u64 {
        let numbers = [&self.train, &self.valid, &self.test]
            .into_iter()
            .flat_map(|rows| std::iter::once(rows.len() as u32).chain(rows.iter().copied()));
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        numbers.flat_map(u32::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, step)
    }
}

impl SplitRule {
    /// Reads the entry.
    pub(super) fn parse(literal: &Literal, problems: &mut Vec<Diagnostic>) -> Option<Self> {
        let before = problems.len();
        if let LiteralKind::List(_) = literal.kind {
            let diagnostic = arguments::wrong(literal, "`random(…)` or `in_order(…)`");
            problems.push(diagnostic.hint("write `split = random(valid = 0.1, test = 0.2)`"));
            return None;
        }
        let mut call = Arguments::of(literal, "a split", problems)?;
        let dealing = match call.name {
            "random" => Dealing::Random(call.count("seed", None).map(|seed| seed as u64)),
            "in_order" => Dealing::InOrder,
            other => {
                let diagnostic = Diagnostic::error("data-split", call.span, format!("there is no split `{other}`"));
                call.problems.push(arguments::suggest(diagnostic, other, &["random", "in_order"]));
                return None;
            }
        };
        let valid = share(&mut call, "valid");
        let test = share(&mut call, "test");
        if !valid.given() && !test.given() && call.problems.len() == before {
            call.fail("the split leaves nothing out", "write `random(valid = 0.1, test = 0.2)`");
        }
        let fractions: f64 = [valid, test].iter().map(|share| share.0).filter(|share| *share < 1.0).sum();
        if fractions >= 1.0 {
            call.fail("the split leaves nothing to train on", "let the fractions add up to less than 1");
        }
        call.finish();
        (problems.len() == before).then_some(Self { dealing, valid, test })
    }

    /// Deals out `records`; an error says why it cannot.
    pub(super) fn divide(&self, records: usize, seed: u64) -> Result<Divided, String> {
        let (valid, test) = (self.valid.of(records), self.test.of(records));
        for (name, share, count) in [("valid", self.valid, valid), ("test", self.test, test)] {
            if share.given() && count == 0 {
                return Err(format!("a share of {} of {records} records leaves `{name}` empty", share.0));
            }
        }
        if valid.saturating_add(test) >= records {
            return Err(format!(
                "{valid} records held out and {test} for the test leave none of {records} to train on"
            ));
        }
        let mut order: Vec<u32> = (0..records as u32).collect();
        if let Dealing::Random(own) = self.dealing {
            shuffle(&mut order, &mut Stream::new(own.unwrap_or(seed), Purpose::Split, 0, 0));
        }
        let mut divided = Divided {
            test: order.split_off(records - test),
            valid: order.split_off(records - test - valid),
            train: order,
        };
        for part in [&mut divided.train, &mut divided.valid, &mut divided.test] {
            part.sort_unstable();
        }
        Ok(divided)
    }
}

fn share(call: &mut Arguments<'_, '_>, name: &'static str) -> Share {
    let value = call.number(name, None).unwrap_or(0.0);
    if value < 0.0 || (value >= 1.0 && value.fract() != 0.0) || value > f64::from(u32::MAX) {
        call.fail(
            format!("`{name}` is neither a fraction below 1 nor a number of records"),
            format!("write `{name} = 0.1` or `{name} = 500`"),
        );
        return Share(0.0);
    }
    Share(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_split_covers_all_records_once() {
        let rule = SplitRule { dealing: Dealing::Random(None), valid: Share(0.1), test: Share(25.0) };
        let divided = rule.divide(101, 3).expect("possible");
        assert_eq!((divided.train.len(), divided.valid.len(), divided.test.len()), (66, 10, 25));
        let mut all = [divided.train.clone(), divided.valid.clone(), divided.test.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..101).collect::<Vec<_>>());
        assert_ne!(rule.divide(101, 4).expect("possible"), divided);
        let fixed = SplitRule { dealing: Dealing::Random(Some(9)), ..rule };
        assert_eq!(fixed.divide(101, 3).expect("possible"), fixed.divide(101, 4).expect("possible"));
    }

    #[test]
    fn in_order_split_takes_the_last_records_for_the_test() {
        let rule = SplitRule { dealing: Dealing::InOrder, valid: Share(2.0), test: Share(0.3) };
        let divided = rule.divide(10, 0).expect("possible");
        assert_eq!(divided, Divided { train: (0..5).collect(), valid: vec![5, 6], test: vec![7, 8, 9] });
    }

    #[test]
    fn a_split_that_leaves_nothing_is_refused() {
        let rule = SplitRule { dealing: Dealing::InOrder, valid: Share(4.0), test: Share(6.0) };
        assert!(rule.divide(10, 0).expect_err("none left").contains("to train on"));
        let rule = SplitRule { dealing: Dealing::InOrder, valid: Share(0.1), test: Share(0.0) };
        assert!(rule.divide(3, 0).expect_err("valid is empty").contains("leaves `valid` empty"));
    }
}
