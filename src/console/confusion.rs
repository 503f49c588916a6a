//! How often samples of one class are taken for another, in the words of the data, and a line of figures a class.
//!
//! Input: true and chosen classes. Output: text, or plain data for JSON. Invariant: labels outside the classes are not
//! counted; a share of nothing is 0.

use serde::Serialize;

/// Counts by true class, then by chosen class.
pub struct Confusion {
    words: Vec<String>,
    counts: Vec<u64>,
}

/// The figures of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// Its word or number.
    pub class: String,
    /// Of what is taken for it, the share that is.
    pub precision: f64,
    /// Of what is, the share that is found.
    pub recall: f64,
    /// The harmonic mean of the two.
    pub f1: f64,
    /// How many are.
    pub support: u64,
}

/// More classes than this make no readable matrix.
const MATRIX: usize = 24;

impl Confusion {
    /// No counts.
    pub fn new(words: Vec<String>) -> Self {
        let counts = vec![0; words.len() * words.len()];
        Self { words, counts }
    }

    /// Counts one sample.
    pub fn add(&mut self, truth: usize, chosen: usize) {
        let side = self.words.len();
        if truth < side && chosen < side {
            self.counts[truth * side + chosen] += 1;
        }
    }

    /// The classes.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Rows of true classes.
    pub fn rows(&self) -> Vec<&[u64]> {
        self.counts.chunks(self.words.len().max(1)).collect()
    }

    /// The figures of each class.
    pub fn classes(&self) -> Vec<Class> {
        let side = self.words.len();
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let class = |(which, word): (usize, &String)| {
            let hit = self.counts[which * side + which];
            let support: u64 = self.counts[which * side..(which + 1) * side].iter().sum();
            let found: u64 = self.counts.iter().skip(which).step_by(side).sum();
            Class {
                class: word.clone(),
                precision: share(hit, found),
                recall: share(hit, support),
                f1: share(2 * hit, support + found),
                support,
            }
        };
        self.words.iter().enumerate().map(class).collect()
    }

    /// The matrix, where it is small, and the table.
    pub fn text(&self) -> String {
        let wide = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let head = wide(&mut self.words.iter().map(|word| word.chars().count())).max(5);
        let mut text = String::new();
        if self.words.len() <= MATRIX {
            let digits = wide(&mut self.counts.iter().map(|count| count.to_string().len()));
            let width = |word: &String| word.chars().count().max(digits) + 2;
            text.push_str("\n  true class down, chosen class across\n");
            let titles: String = self.words.iter().map(|word| format!("{word:>0$}", width(word))).collect();
            text.push_str(&format!("  {:head$}{titles}\n", ""));
            for (word, row) in self.words.iter().zip(self.rows()) {
                let cells = self.words.iter().zip(row).map(|(title, count)| format!("{count:>0$}", width(title)));
                text.push_str(&format!("  {word:head$}{}\n", cells.collect::<String>()));
            }
        }
        text.push_str(&format!("\n  {:head$}  precision  recall      f1  support\n", "class"));
        for Class { class, precision, recall, f1, support } in self.classes() {
            text.push_str(&format!("  {class:head$}  {precision:>9.4}  {recall:>6.4}  {f1:>6.4}  {support:>7}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_class_are_those_of_its_row_and_column() {
        let mut confusion = Confusion::new(vec!["cat".into(), "ox".into(), "emu".into()]);
        for (truth, chosen, count) in [(0, 0, 3), (0, 1, 1), (1, 1, 2), (2, 0, 1)] {
            (0..count).for_each(|_| confusion.add(truth, chosen));
        }
        confusion.add(7, 0);
        let classes = confusion.classes();
        assert_eq!((classes[0].precision, classes[0].recall, classes[0].support), (0.75, 0.75, 4));
        assert_eq!((classes[1].recall, classes[1].f1), (1.0, 0.8));
        assert_eq!((classes[2].precision, classes[2].f1), (0.0, 0.0));
        let text = confusion.text();
        assert!(
            text.contains("  cat      3   1    0\n") && text.contains("  emu       0.0000  0.0000  0.0000        1\n"),
            "{text}"
        );
    }
}
