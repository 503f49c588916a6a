//! Several runs side by side: a table as text, and a page with their curves on one another.
//!
//! Input: [`Run`]s. Output: text and HTML. Invariants: a setting is shown where two runs differ in it; a run is marked as the
//! best only if all are judged by the same figure.

use super::super::about::Judge;
use super::chart::{COLORS, Scale, Series, chart};
use super::html::{duration, figure_or_none, page, table, text};
use super::run::{Run, SPLITS};

/// What is compared, in cells of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The columns' names; the first two are the mark and the run.
    pub head: Vec<String>,
    /// A line for each run, in the order of the runs.
    pub rows: Vec<Vec<String>>,
    /// From this column on cells are numbers.
    pub numbers: usize,
    /// The best run and why it is.
    pub best: Option<(usize, Judge)>,
    /// Whether runs have model texts that differ.
    pub is_mixed: bool,
}

/// A column of numbers: its name, and the cell of a run.
type Column<'a> = (String, Box<dyn Fn(&Run) -> String + 'a>);

/// Compares runs: the settings that differ, final and best figures, steps, time, how each ended.
pub fn compare(runs: &[Run]) -> Comparison {
    let judge = shared_judge(runs);
    let best = judge.clone().and_then(|judge| Some((best_run(runs, &judge)?, judge)));
    let settings = differing(runs);
    let mut columns: Vec<Column<'_>> = Vec::new();
    for (split, name) in finals(runs) {
        let key = (split.clone(), name.clone());
        columns
            .push((format!("{split} {name}"), Box::new(move |run| figure_or_none(final_value(run, &key.0, &key.1)))));
    }
    if let Some(judge) = &judge {
        let shown = |run: &Run| figure_or_none(run.best(judge).map(|(value, _)| value));
        columns.push((format!("best {}", judge.figure.replacen('.', " ", 1)), Box::new(shown)));
        let epoch = |run: &Run| {
            run.best(judge).map_or("–".to_string(), |(_, epoch)| format!("{}", (epoch * 100.0).round() / 100.0))
        };
        columns.push(("at epoch".to_string(), Box::new(epoch)));
    }
    columns.push(("steps".to_string(), Box::new(|run| run.steps().to_string())));
    columns.push(("time".to_string(), Box::new(|run| duration(run.seconds()))));
    let named = ["".to_string(), "run".to_string()].into_iter().chain(settings.clone());
    let head = named.chain(columns.iter().map(|column| column.0.clone())).chain(["ended".to_string()]).collect();
    let row = |(place, run): (usize, &Run)| -> Vec<String> {
        let mark = if best.as_ref().is_some_and(|(which, _)| *which == place) { "*" } else { "" };
        let start = [mark.to_string(), run.name()].into_iter();
        let own = settings.iter().map(|key| setting(run, key).unwrap_or("–".to_string()));
        start.chain(own).chain(columns.iter().map(|column| (column.1)(run))).chain([run.state()]).collect()
    };
    let rows = runs.iter().enumerate().map(row).collect();
    let hashes: Vec<&String> = runs.iter().filter_map(|run| Some(&run.story.as_ref()?.about.hash)).collect();
    let is_mixed = hashes.iter().any(|hash| *hash != hashes[0]);
    Comparison { head, rows, numbers: 2 + settings.len(), best, is_mixed }
}

impl Comparison {
    /// The table as text, with a line that says what is marked.
    pub fn text(&self) -> String {
        let last = self.head.len() - 1;
        let shown = |cell: &str| crate::source::shortened(cell, 60);
        let lines: Vec<Vec<String>> = std::iter::once(&self.head)
            .chain(&self.rows)
            .map(|row| row.iter().map(|cell| shown(cell)).collect())
            .collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..=last).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let cell = |(column, words): (usize, &String)| match column {
                number if number >= self.numbers && number < last => format!("{words:>0$}", widths[column]),
                _ => format!("{words:<0$}", widths[column]),
            };
            let cells: Vec<String> = line.iter().enumerate().map(cell).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        self.remarks().iter().for_each(|words| text.push_str(&format!("{words}\n")));
        text
    }

    /// What is to be known of the table.
    fn remarks(&self) -> Vec<String> {
        let mixed = self.is_mixed.then(|| "the runs have model texts that differ".to_string());
        self.reason().into_iter().chain(mixed).collect()
    }

    fn reason(&self) -> Option<String> {
        let (which, Judge { figure, direction }) = self.best.as_ref()?;
        let words = if *direction == crate::settings::Direction::Lower { "lowest" } else { "highest" };
        Some(format!("* best: {}, by the {words} {figure}", self.rows[*which][1]))
    }

    /// The page: the table, then a chart for each figure of each split with a line for each run.
    pub fn page(&self, title: &str, runs: &[Run]) -> String {
        let cells = |row: &Vec<String>| row.iter().map(text).collect::<Vec<String>>();
        let head: Vec<String> = cells(&self.head);
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        let mut html = table(&head, &rows, self.numbers);
        if let Some((which, _)) = self.best {
            // The row of the best is the one behind as many others.
            let place = html.match_indices("<tr><td").nth(which).map(|(place, _)| place);
            place.into_iter().for_each(|place| html.insert_str(place + 3, " class=\"best\""));
        }
        let remark = |words: &String| format!("<p class=\"dim small\">{}</p>\n", text(words));
        let reason: String = self.remarks().iter().map(remark).collect();
        let body = format!(
            "<header>\n<h1>{}</h1>\n<p class=\"dim\">{} runs</p>\n</header>\n<h2>Runs</h2>\n{html}{reason}\
             <h2>Curves</h2>\n<div class=\"charts\">\n{}</div>\n",
            text(title),
            runs.len(),
            self.charts(runs)
        );
        page(title, &body)
    }

    fn charts(&self, runs: &[Run]) -> String {
        let mut charts = String::new();
        for (split, name) in measured(runs) {
            let line = |(place, run): (usize, &Run)| Series {
                name: self.label(place, run),
                color: place % COLORS,
                dashed: place / COLORS % 2 == 1,
                points: run.series(&format!("{split}.{name}")),
            };
            let lines: Vec<Series> = runs.iter().enumerate().map(line).collect();
            charts.push_str(&chart(&format!("{split} {name}"), &lines, Scale::Fitting));
        }
        charts
    }

    /// A run's name with what it alone has.
    fn label(&self, place: usize, run: &Run) -> String {
        let settings = self.head[2..self.numbers].iter().zip(&self.rows[place][2..self.numbers]);
        let own: Vec<String> = settings.map(|(key, value)| format!("{} {value}", short_key(key))).collect();
        if own.is_empty() { run.name() } else { format!("{}: {}", run.name(), own.join(", ")) }
    }
}

/// `optimizer.lr` as `lr`.
fn short_key(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// The figure that all runs are judged by, if it is one.
fn shared_judge(runs: &[Run]) -> Option<Judge> {
    let judges: Vec<Judge> = runs.iter().filter_map(Run::judge).collect();
    let first = judges.first()?;
    judges.iter().all(|judge| judge == first).then(|| first.clone())
}

fn best_run(runs: &[Run], judge: &Judge) -> Option<usize> {
    let values = runs.iter().enumerate().filter_map(|(place, run)| Some((place, run.best(judge)?.0)));
    let best = values.reduce(|best, now| if judge.prefers(now.1, best.1) { now } else { best });
    best.filter(|_| runs.len() > 1).map(|(place, _)| place)
}

/// The settings that held in a run, those that were compiled into its trainer among them; of a version that noted no others,
/// those of its command.
fn held(run: &Run) -> impl DoubleEndedIterator<Item = &(String, String)> {
    run.story.as_ref().map_or(&run.command.overrides, |story| &story.about.settings).iter()
}

/// A setting of a run; the last of several of one name holds.
fn setting(run: &Run, key: &str) -> Option<String> {
    let found = held(run).rev().find(|(name, _)| bare(name) == key).map(|(_, value)| value.clone());
    // Who does not give a seed has one all the same.
    let seed = || run.story.as_ref().filter(|_| key == "seed").map(|story| story.about.seed.to_string());
    found.or_else(seed)
}

/// Of `train.batch` and `batch` one name.
fn bare(key: &str) -> &str {
    key.strip_prefix("train.").unwrap_or(key)
}

/// Settings that not all runs have alike, in the order of their first use.
fn differing(runs: &[Run]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for (name, _) in runs.iter().flat_map(held) {
        if !keys.iter().any(|key| key == bare(name)) {
            keys.push(bare(name).to_string());
        }
    }
    keys.retain(|key| runs.iter().any(|run| setting(run, key) != setting(&runs[0], key)));
    keys
}

/// The split and name of each final figure that some run has.
fn finals(runs: &[Run]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for ended in runs.iter().filter_map(|run| run.ended.as_ref()) {
        let Some(split) = &ended.split else { continue };
        for (name, _) in &ended.figures {
            if !found.iter().any(|(known, figure)| known == split && figure == name) {
                found.push((split.clone(), name.clone()));
            }
        }
    }
    found
}

fn final_value(run: &Run, split: &str, name: &str) -> Option<f64> {
    let ended = run.ended.as_ref().filter(|ended| ended.split.as_deref() == Some(split))?;
    ended.figures.iter().find(|(figure, _)| figure == name)?.1
}

/// The splits and figures that some run has a curve of: of each figure the held-out splits first.
fn measured(runs: &[Run]) -> Vec<(&'static str, String)> {
    let mut names: Vec<String> = Vec::new();
    for name in runs.iter().flat_map(Run::figures) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let both = names.into_iter().flat_map(|name| ["valid", "test", "train"].map(|split| (split, name.clone())));
    debug_assert_eq!(SPLITS.len(), 3);
    both.filter(|(split, name)| runs.iter().any(|run| !run.series(&format!("{split}.{name}")).is_empty())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::about::{About, Ended};
    use super::super::run::tests::folder;
    use super::*;

    fn runs(parent: &std::path::Path) -> Vec<Run> {
        let make = |name: &str, lr: &str, loss: f64| {
            let line = |epoch: u32, loss: f64| {
                format!(
                    "{{\"epoch\":{epoch}.0,\"step\":{epoch},\"lr\":0.1,\"seconds\":3.0,\"train.loss\":{loss},\"valid.loss\":{loss}}}\n"
                )
            };
            let mut run = folder(&parent.join(name), About::default(), &(line(1, loss) + &line(2, loss * 2.0)));
            let settings = vec![("optimizer.lr".into(), lr.into()), ("train.batch".into(), "8".into())];
            run.story.as_mut().expect("a story").about.settings = settings;
            let figures = vec![("loss".to_string(), Some(loss * 2.0))];
            run.ended = Some(Ended {
                how: "complete".into(),
                step: 2,
                split: Some("test".into()),
                figures,
                ..Ended::default()
            });
            run
        };
        vec![make("a", "0.1", 0.5), make("b<script>", "0.01", 0.25)]
    }

    #[test]
    fn what_differs_and_the_best_are_shown() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let runs = runs(parent.path());
        let table = compare(&runs);
        let expected =
            ["", "run", "optimizer.lr", "test loss", "best valid loss", "at epoch", "steps", "time", "ended"];
        assert_eq!(table.head, expected);
        assert_eq!(table.rows[1], ["*", "b<script>", "0.01", "0.5000", "0.2500", "1", "2", "3.0 s", "complete"]);
        assert_eq!(table.rows[0][0], "");
        assert!(table.text().ends_with("* best: b<script>, by the lowest valid.loss\n"), "{}", table.text());
    }

    #[test]
    fn the_page_has_a_line_for_each_run_and_is_inert() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let runs = runs(parent.path());
        let html = compare(&runs).page("lr <script>", &runs);
        assert!(!html.contains("<script") && html.contains("b&lt;script&gt;: lr 0.01"), "{html}");
        assert_eq!(html.matches("<polyline").count(), 4, "two figures of two runs");
        assert_eq!(html.matches("<tr class=\"best\">").count(), 1);
    }

    #[test]
    fn runs_of_different_judges_have_no_best() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let mut runs = runs(parent.path());
        let judged_by = Some(Judge { figure: "valid.accuracy".into(), direction: crate::settings::Direction::Higher });
        if let Some(story) = &mut runs[0].story {
            story.about.judged_by = judged_by;
        }
        assert_eq!(compare(&runs).best, None);
        assert!(!compare(&runs).is_mixed);
        if let Some(story) = &mut runs[0].story {
            story.about.hash = "0badcafe".into();
        }
        assert!(compare(&runs).text().ends_with("the runs have model texts that differ\n"));
    }
}
