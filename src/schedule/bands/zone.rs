//! Zones: the points of a loop nest outside some half spaces, and the same elements as another nest's points.
//!
//! Input: affine functions of loop indices. Output: zones. Invariant: every operation gives at most the zone that it names,
//! never more.

use std::collections::BTreeMap;

use crate::kernel::Linear;

/// Most points that are tried one by one.
const MANY_POINTS: usize = 1 << 20;

/// Where one of some functions is negative; none: everywhere.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Zone(Option<Vec<Linear>>);

/// Elements of a buffer as a function of loops of these extents.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    pub index: Linear,
    pub extents: Vec<usize>,
}

impl Default for Zone {
    fn default() -> Zone {
        Zone::nowhere()
    }
}

impl Zone {
    pub fn everywhere() -> Zone {
        Zone(None)
    }

    pub fn nowhere() -> Zone {
        Zone(Some(Vec::new()))
    }

    /// Where one of the functions is negative.
    pub fn outside(functions: impl IntoIterator<Item = Linear>) -> Zone {
        Zone(Some(functions.into_iter().collect()))
    }

    /// The functions; none for a zone that is everywhere.
    pub fn functions(&self) -> &[Linear] {
        self.0.as_deref().unwrap_or(&[])
    }

    /// What lies in one of both.
    pub fn or(&self, other: &Zone) -> Zone {
        let (Some(own), Some(others)) = (&self.0, &other.0) else { return Zone::everywhere() };
        let new = others.iter().filter(|function| !own.contains(function));
        Zone(Some(own.iter().chain(new).cloned().collect()))
    }

    /// Some of what lies in both.
    pub fn and(&self, other: &Zone) -> Zone {
        match (&self.0, &other.0) {
            (None, _) => other.clone(),
            (_, None) => self.clone(),
            (Some(own), Some(others)) => {
                Zone(Some(own.iter().filter(|function| others.contains(function)).cloned().collect()))
            }
        }
    }

    /// Whether each point of the first `outer` loops has a point of the others that is not in the zone.
    pub fn leaves_some_in_each_row(&self, extents: &[usize], outer: usize) -> bool {
        let Some(functions) = &self.0 else { return false };
        let mut used: Vec<usize> = functions.iter().flat_map(|f| f.terms.iter().map(|term| term.0)).collect();
        used.sort_unstable();
        used.dedup();
        let (rows, inner): (Vec<usize>, Vec<usize>) = used.into_iter().partition(|number| *number < outer);
        let count = rows.iter().try_fold(1usize, |count, row| count.checked_mul(extents[*row]));
        let (Some(count), [] | [_]) = (count.filter(|count| *count <= MANY_POINTS), &inner[..]) else { return false };
        let length = inner.first().map_or(1, |number| extents[*number] as i64);
        let mut point = vec![0; extents.len()];
        (0..count).all(|mut row| {
            for number in &rows {
                point[*number] = row % extents[*number];
                row /= extents[*number];
            }
            let (mut low, mut high) = (0, length - 1);
            for function in functions {
                let rest = function.at(&point);
                match inner.first().map_or(0, |number| function.coefficient(*number)) {
                    0 if rest < 0 => high = -1,
                    0 => {}
                    by if by > 0 => low = low.max(-rest.div_euclid(by)),
                    by => high = high.min(rest.div_euclid(-by)),
                }
            }
            low <= high
        })
    }

    /// The zone of the same elements in another nest, without functions that are never negative there. A zone that is
    /// everywhere is lost.
    pub fn carried(&self, from: &Access, to: &Access) -> Zone {
        let mut used: Vec<usize> = self.functions().iter().flat_map(|f| f.terms.iter().map(|term| term.0)).collect();
        used.sort_unstable();
        if used.is_empty() {
            return Zone::nowhere();
        }
        let Some(indices) = indices(from, to, &used) else { return Zone::nowhere() };
        let carry = |function: &Linear| {
            let known = function.terms.iter().all(|(number, _)| indices.contains_key(number));
            known.then(|| function.compose(|number| indices[&number].clone()))
        };
        let carried = self.functions().iter().filter_map(carry);
        Zone::outside(carried.filter(|function| function.range(&to.extents).0 < 0))
    }
}

/// A digit of an address.
struct Digit {
    stride: i64,
    extent: i64,
    number: usize,
}

/// The loop indices of one nest that touches an element, as functions of those of another nest that touches the same one;
/// the `used` ones at least, where the address names them. None where strides do not tell.
fn indices(from: &Access, to: &Access, used: &[usize]) -> Option<BTreeMap<usize, Linear>> {
    if from.index.offset != to.index.offset {
        return None;
    }
    let digits = digits(from, used)?;
    let mut indices: BTreeMap<usize, Linear> = BTreeMap::new();
    for (number, extent) in from.extents.iter().enumerate() {
        if *extent == 1 || digits.iter().any(|digit| digit.number == number) {
            indices.insert(number, Linear::constant(0));
        }
    }
    let mut reach: Vec<i64> = vec![0; digits.len()];
    let mut below = 0;
    for &(number, stride) in to.index.terms.iter().filter(|(number, _)| to.extents[*number] > 1) {
        let last = to.extents[number] as i64 - 1;
        if stride < 0 {
            return None;
        }
        let Some(place) = digits.iter().rposition(|digit| digit.stride <= stride) else {
            below += stride * last;
            continue;
        };
        let digit = &digits[place];
        if stride % digit.stride != 0 {
            return None;
        }
        let by = stride / digit.stride;
        reach[place] += by * last;
        let index = indices.get_mut(&digit.number).expect("a digit is among the indices");
        *index = index.plus(&Linear::index(number).scaled(by));
    }
    let fits = digits.iter().zip(&reach).all(|(digit, reach)| *reach < digit.extent);
    let above = digits.first().is_none_or(|digit| below < digit.stride);
    (fits && above).then_some(indices)
}

/// The digits of an address, lowest first: each stride is a multiple of all that lower ones reach. Neighbours of which none
/// is used are one digit (with the index of its lowest loop).
fn digits(access: &Access, used: &[usize]) -> Option<Vec<Digit>> {
    let loops = access.index.terms.iter().filter(|(number, _)| access.extents[*number] > 1);
    let digit = |&(number, stride): &(usize, i64)| Digit { stride, extent: access.extents[number] as i64, number };
    let mut loops: Vec<Digit> = loops.map(digit).collect();
    loops.sort_by_key(|digit| digit.stride);
    let mut digits: Vec<Digit> = Vec::new();
    for digit in loops {
        let is_free = |number: usize| !used.contains(&number);
        match digits.last_mut() {
            _ if digit.stride <= 0 => return None,
            Some(last) if digit.stride % (last.stride * last.extent) != 0 => return None,
            Some(last)
                if digit.stride == last.stride * last.extent && is_free(last.number) && is_free(digit.number) =>
            {
                last.extent *= digit.extent;
            }
            Some(_) | None => digits.push(digit),
        }
    }
    Some(digits)
}
