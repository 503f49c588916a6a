//! What reads at values ask of the inputs of a graph.
//!
//! Input: made by `index_range`. Output: ranges of inputs. Invariant: an absent end is open.

use crate::dim::Dim;
use crate::graph::{InputId, ValueId};

/// Whole numbers from `low` to `high`, an absent end being open, and some more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Range {
    pub low: Option<Dim>,
    pub high: Option<Dim>,
    /// Further values that are admitted, because a condition sorts them out.
    pub except: Vec<Dim>,
}

impl Range {
    /// `0..extent`.
    pub(crate) fn of(extent: &Dim) -> Self {
        Range { low: Some(Dim::constant(0)), high: Some(extent - Dim::constant(1)), except: Vec::new() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.low.is_none() && self.high.is_none()
    }

    /// The same with the ends of 32 bits in place of open ones: sums beyond them would wrap around.
    pub(crate) fn closed(&self) -> Self {
        let end = |end: &Option<Dim>, limit: i32| Some(end.clone().unwrap_or_else(|| Dim::constant(i64::from(limit))));
        Range { low: end(&self.low, i32::MIN), high: end(&self.high, i32::MAX), except: self.except.clone() }
    }

    /// Opens ends that no integer of 32 bits passes.
    pub(crate) fn opened(mut self) -> Self {
        self.low = self.low.filter(|end| end.as_const().is_none_or(|end| end > i64::from(i32::MIN)));
        self.high = self.high.filter(|end| end.as_const().is_none_or(|end| end < i64::from(i32::MAX)));
        self
    }

    pub(crate) fn low_only(&self) -> Self {
        Range { low: self.low.clone(), ..Range::default() }
    }

    pub(crate) fn high_only(&self) -> Self {
        Range { high: self.high.clone(), ..Range::default() }
    }

    /// The range of `x` where `f(x)` keeps this one and `f` is monotonous; `down` where it falls.
    pub(crate) fn through(&self, down: bool, low: impl Fn(&Dim) -> Dim, high: impl Fn(&Dim) -> Dim) -> Self {
        let (first, last) = if down { (&self.high, &self.low) } else { (&self.low, &self.high) };
        Range { low: first.as_ref().map(low), high: last.as_ref().map(high), except: Vec::new() }
    }
}

/// What a read asks of an input: that every element lie in `range`.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    pub input: InputId,
    pub range: Range,
    /// The value that is right only if they do.
    pub reader: ValueId,
}
