//! The nearest known name to one that is unknown.
//!
//! Input: a name and the names that could stand there. Output: at most one suggestion. Invariant: a suggestion differs
//! by at most a third of its letters, so unrelated names are never suggested.

/// The candidate with the least edit distance (insertions, deletions, substitutions, swaps of neighbours; letter case
/// counts half) if that is at most a third of the name's length, and at least one; of equals the first by alphabet.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let letters: Vec<char> = name.chars().take(MAX_LETTERS + 1).collect();
    if letters.len() > MAX_LETTERS {
        return None;
    }
    let limit = 2 * (letters.len() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate: &&str| *candidate != name && candidate.len() <= MAX_LETTERS)
        .map(|candidate| (distance(&letters, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < 2 * candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Longer names get no suggestion.
const MAX_LETTERS: usize = 64;

/// Twice the optimal string alignment distance, where a change of letter case costs one.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).map(|column| 2 * column).collect();
    for (row, from) in left.iter().enumerate() {
        let mut current = vec![2 * (row + 1)];
        for (column, to) in right.iter().enumerate() {
            let substitution = match (from == to, from.eq_ignore_ascii_case(to)) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            let mut best = (above[column] + substitution).min(above[column + 1] + 2).min(current[column] + 2);
            let swapped = row > 0 && column > 0 && *from == right[column - 1] && left[row - 1] == *to;
            if swapped {
                best = best.min(before[column - 1] + 2);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_name() {
        assert_eq!(nearest("Lineer", ["Conv", "Linear", "LayerNorm"]), Some("Linear"));
        assert_eq!(nearest("retrun", ["return", "require"]), Some("return"));
        assert_eq!(nearest("relu", ["ReLU", "gelu"]), Some("gelu"));
        assert_eq!(nearest("linear", ["Linear", "lines"]), Some("Linear"));
        assert_eq!(nearest("smoothng", ["smoothing"]), Some("smoothing"));
    }

    #[test]
    fn unrelated_names_are_not_suggested() {
        assert_eq!(nearest("banana", ["Conv", "Linear"]), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("", ["y"]), None);
        assert_eq!(nearest(&"a".repeat(1000), ["a"]), None);
    }
}
