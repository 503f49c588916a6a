//! Places of temporaries: buffers that are never alive together share bytes.
//!
//! Input: sizes and lifetimes. Output: byte offsets. Invariant: buffers whose lifetimes meet do not overlap; offsets are
//! multiples of 64. Method: largest first, each at the lowest place that is free over its lifetime (Pisarchyk and Lee,
//! "Efficient memory management for deep neural net inference", 2020, greedy by size).

use crate::kernel::persistent::round_up;

/// A buffer to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Its size.
    pub bytes: usize,
    /// The kernel that first writes it.
    pub first: usize,
    /// The kernel that last reads or writes it.
    pub last: usize,
}

/// Offsets from 0, and the bytes that all take together.
pub fn place(requests: &[Request]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&number| (std::cmp::Reverse(requests[number].bytes), requests[number].first, number));
    let mut offsets = vec![0; requests.len()];
    // Places by offset, with what lies there.
    let mut placed: Vec<(usize, usize, Request)> = Vec::new();
    let mut total = 0;
    for number in order {
        let request = requests[number];
        let bytes = round_up(request.bytes);
        let mut offset = 0;
        for (start, end, other) in &placed {
            if *start >= offset + bytes {
                break;
            }
            if other.first <= request.last && request.first <= other.last {
                offset = offset.max(*end);
            }
        }
        offsets[number] = offset;
        total = total.max(offset + bytes);
        let end = offset + bytes;
        let place = placed.partition_point(|other| (other.0, other.1) < (offset, end));
        placed.insert(place, (offset, end, request));
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_alive_together_never_overlap() {
        // A fixed linear congruential sequence stands for many programs.
        let mut state = 12_345u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % bound) as usize
        };
        for _ in 0..50 {
            let requests: Vec<Request> = (0..40)
                .map(|_| {
                    let first = next(30);
                    Request { bytes: next(5000) + 1, first, last: first + next(8) }
                })
                .collect();
            let (offsets, total) = place(&requests);
            for a in 0..requests.len() {
                assert_eq!(offsets[a] % 64, 0);
                assert!(offsets[a] + requests[a].bytes <= total);
                for b in 0..a {
                    let together = requests[a].first <= requests[b].last && requests[b].first <= requests[a].last;
                    let apart =
                        offsets[a] + requests[a].bytes <= offsets[b] || offsets[b] + requests[b].bytes <= offsets[a];
                    assert!(!together || apart, "{:?} and {:?}", requests[a], requests[b]);
                }
            }
        }
    }

    #[test]
    fn a_dead_buffers_bytes_are_used_again() {
        let chain = [0, 1, 2, 3].map(|first| Request { bytes: 640, first, last: first + 1 });
        assert_eq!(place(&chain).1, 1280);
    }
}
