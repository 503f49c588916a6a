//! The report of one run, `report.html`.
//!
//! Input: a [`Run`]. Output: a page. Invariant: what is not known of a run is left out; nothing is made up for it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::super::about::{About, Classes, Ended, Session, date};
use super::super::checkpoint::write_atomically;
use super::super::files::named;
use super::chart::{Scale, Series, chart};
use super::html::{count, duration, figure, figure_or_none, page, table, text};
use super::picture::{MOST_BLOCKS, picture};
use super::run::{Run, SPLITS};
use crate::diagnostics::Refusal;
use crate::source::bytes_text;

/// The name of the page in a run folder.
pub const NAME: &str = "report.html";

/// More classes than this make no readable matrix, and more than that no table.
const MOST_IN_MATRIX: usize = 24;
const MOST_CLASSES: usize = 500;

/// Passes and kernels of which a line is shown.
const MOST_ROWS: usize = 200;

/// Writes the report of a run folder into it, and says where.
///
/// # Errors
/// The folder is not one of a run, is damaged, or cannot be written.
pub fn write(folder: &Path) -> Result<PathBuf, Refusal> {
    let run = Run::read(folder)?;
    let path = folder.join(NAME);
    write_atomically(&path, report(&run).as_bytes()).map_err(|error| named(&path, &error))?;
    Ok(path)
}

/// The whole page.
pub fn report(run: &Run) -> String {
    let about = run.story.as_ref().map(|story| &story.about);
    let classes = run.ended.as_ref().and_then(|ended| ended.classes.as_ref());
    let body = [
        head(run),
        cards(run),
        curves(run),
        classes.map(confusion).unwrap_or_default(),
        about.map(model).unwrap_or_default(),
        about.map(plan).unwrap_or_default(),
        environment(run),
        about.map(sources).unwrap_or_default(),
    ];
    page(&format!("{} – {}", run.model(), run.name()), &body.concat())
}

fn head(run: &Run) -> String {
    let mut words = vec![text(run.name())];
    if let Some(session) = run.story.as_ref().and_then(|story| story.sessions.last()) {
        words.push(date(session.began));
    }
    words.push(text(run.state()));
    format!("<header>\n<h1>{}</h1>\n<p class=\"dim\">{}</p>\n</header>\n", text(run.model()), words.join(" · "))
}

/// The figures of the end, or of the last pass, then size, length and time.
fn cards(run: &Run) -> String {
    let mut cards: Vec<(String, String)> = Vec::new();
    let ended = run.ended.as_ref().filter(|ended| !ended.figures.is_empty());
    match ended {
        Some(Ended { split: Some(split), figures, .. }) => {
            let named = figures.iter().map(|(name, value)| (figure_or_none(*value), format!("{split} {name}")));
            cards.extend(named);
        }
        _ => {
            let split = SPLITS.iter().rev().find(|split| run.last(&format!("{split}.loss")).is_some());
            let of = |name: String| {
                let split = split?;
                Some((figure(run.last(&format!("{split}.{name}"))?), format!("{split} {name}, last pass")))
            };
            cards.extend(run.figures().into_iter().filter_map(of));
        }
    }
    if let Some((name, value, step)) = run.ended.as_ref().and_then(|ended| ended.best.clone()) {
        cards.push((figure(value), format!("best {}, after step {}", name.replace('.', " "), count(step))));
    }
    if let Some(story) = &run.story {
        cards.push((count(story.about.parameters), "parameters".to_string()));
    }
    cards.push((count(run.steps()), "steps".to_string()));
    if !run.rows().is_empty() {
        cards.push((duration(run.seconds()), "training, to the last pass".to_string()));
    }
    let card =
        |(value, words): &(String, String)| format!("<div><b>{}</b><span>{}</span></div>\n", text(value), text(words));
    format!("<section class=\"cards\">\n{}</section>\n", cards.iter().map(card).collect::<String>())
}

/// A chart for each figure and one for the learning rate, and the numbers behind them.
fn curves(run: &Run) -> String {
    let lines = |name: &str| -> Vec<Series> {
        let line = |(color, split): (usize, &&str)| Series {
            name: split.to_string(),
            color,
            dashed: false,
            points: run.series(&format!("{split}.{name}")),
        };
        SPLITS.iter().enumerate().map(line).collect()
    };
    let mut charts: String = run.figures().iter().map(|name| chart(name, &lines(name), Scale::Fitting)).collect();
    let rate = Series { name: "last step of the pass".into(), color: 3, dashed: false, points: run.series("lr") };
    charts.push_str(&chart("learning rate", &[rate], Scale::Linear));
    if charts.is_empty() {
        return "<h2>Curves</h2>\n<p class=\"dim\">No pass is done yet.</p>\n".to_string();
    }
    format!("<h2>Curves</h2>\n<div class=\"charts\">\n{charts}</div>\n{}", numbers(run))
}

/// The figures of each pass as a table.
fn numbers(run: &Run) -> String {
    let keys: Vec<String> = run
        .figures()
        .iter()
        .flat_map(|name| SPLITS.map(|split| format!("{split}.{name}")))
        .filter(|key| run.rows().iter().any(|row| row.contains_key(key)))
        .collect();
    let rows = run.rows();
    let skipped = rows.len().saturating_sub(MOST_ROWS);
    let row = |row: &serde_json::Map<String, serde_json::Value>| -> Vec<String> {
        let number = |key: &str| row.get(key).and_then(serde_json::Value::as_f64);
        let epoch = number("epoch").map_or("–".into(), |epoch| format!("{}", (epoch * 100.0).round() / 100.0));
        let step = row.get("step").and_then(serde_json::Value::as_u64).map_or("–".into(), count);
        [epoch, step, figure_or_none(number("lr"))]
            .into_iter()
            .chain(keys.iter().map(|key| figure_or_none(number(key))))
            .collect()
    };
    let keys_shown: Vec<String> = keys.iter().map(|key| text(key.replacen('.', " ", 1))).collect();
    let head: Vec<&str> = ["epoch", "step", "lr"].into_iter().chain(keys_shown.iter().map(String::as_str)).collect();
    let rows: Vec<Vec<String>> = rows[skipped..].iter().map(row).collect();
    let which = if skipped > 0 { format!("Last {MOST_ROWS} passes as numbers") } else { "Passes as numbers".into() };
    format!("<details><summary>{which}</summary>\n{}</details>\n", table(&head, &rows, 0))
}

/// Which classes are taken for which, and a line for each.
fn confusion(classes: &Classes) -> String {
    let Classes { words, counts } = classes;
    let whole = words.len();
    let at = |row: usize, column: usize| counts.get(row).and_then(|row| row.get(column)).copied().unwrap_or(0);
    let mut html = "<h2>Classes</h2>\n".to_string();
    let is_small = whole <= MOST_IN_MATRIX;
    if is_small {
        html.push_str(
            "<p class=\"dim small\">True class down, chosen class across; shaded by the share of the true class.</p>\n",
        );
        let _ = write!(html, "<div class=\"columns\">\n<div>\n{}</div>\n<div>\n", matrix(words, &at));
    }
    if whole > MOST_CLASSES {
        let _ = writeln!(html, "<p class=\"dim\">{whole} classes; the first {MOST_CLASSES} are shown.</p>");
    }
    let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    let line = |class: usize| {
        let support: u64 = (0..whole).map(|column| at(class, column)).sum();
        let found: u64 = (0..whole).map(|row| at(row, class)).sum();
        let hit = at(class, class);
        let shares = [share(hit, found), share(hit, support), share(2 * hit, support + found)];
        let mut cells = vec![text(&words[class])];
        cells.extend(shares.map(|share| format!("{share:.4}")));
        cells.push(count(support));
        cells
    };
    let rows: Vec<Vec<String>> = (0..whole.min(MOST_CLASSES)).map(line).collect();
    html.push_str(&table(&["class", "precision", "recall", "F1", "support"], &rows, 1));
    html.push_str(if is_small { "</div>\n</div>\n" } else { "" });
    html
}

fn matrix(words: &[String], at: &dyn Fn(usize, usize) -> u64) -> String {
    let heads: String = words.iter().map(|word| format!("<th scope=\"col\">{}</th>", text(word))).collect();
    let mut html =
        format!("<div class=\"scroll\"><table class=\"matrix\">\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>\n");
    for (row, word) in words.iter().enumerate() {
        let sum: u64 = (0..words.len()).map(|column| at(row, column)).sum();
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", text(word));
        for column in 0..words.len() {
            let (hits, color) = (at(row, column), if row == column { "37 99 235" } else { "217 70 50" });
            let share = hits as f64 / sum.max(1) as f64;
            let class = if hits == 0 {
                " class=\"zero\""
            } else if share > 0.5 {
                " class=\"hot\""
            } else {
                ""
            };
            // A single mistake among thousands is seen too.
            let shade = if hits == 0 { 0.0 } else { 8.0 + 84.0 * share };
            let _ = write!(html, "<td{class} style=\"background:rgb({color}/{shade:.0}%)\">{}</td>", count(hits));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn model(about: &About) -> String {
    let drawn = picture(&about.blocks);
    if drawn.is_empty() {
        return String::new();
    }
    let more = match about.blocks.len() {
        many if many > MOST_BLOCKS => format!("<p class=\"dim\">The first {MOST_BLOCKS} of {many} stages.</p>\n"),
        _ => String::new(),
    };
    let tall = if about.blocks.len() > 30 { " tall" } else { "" };
    format!("<h2>Model</h2>\n{more}<div class=\"scroll{tall}\">\n{drawn}</div>\n")
}

/// Memory and kernels of the training step.
fn plan(about: &About) -> String {
    if about.kernels.is_empty() {
        return String::new();
    }
    let memory: Vec<Vec<String>> =
        about.memory.iter().map(|(name, bytes)| vec![text(name), bytes_text(*bytes)]).collect();
    let kernel = |(number, kernel): (usize, &super::super::about::Kernel)| {
        let flops = format!("{:.3}", kernel.flops as f64 / 1e6);
        let bytes = bytes_text(kernel.bytes);
        vec![number.to_string(), text(&kernel.name), text(&kernel.place), text(&kernel.shape), flops, bytes]
    };
    let rows: Vec<Vec<String>> = about.kernels.iter().take(MOST_ROWS).enumerate().map(kernel).collect();
    let flops: u64 = about.kernels.iter().map(|kernel| kernel.flops).sum();
    let shown =
        if about.kernels.len() > MOST_ROWS { format!("; the first {MOST_ROWS} are listed") } else { String::new() };
    format!(
        "<h2>Plan</h2>\n<p>A training step runs {} kernels with {:.3} Gflop of arithmetic{shown}.</p>\n{}\
         <details><summary>Kernels in order</summary>\n{}</details>\n",
        count(about.kernels.len() as u64),
        flops as f64 / 1e9,
        table(&["memory", "bytes"], &memory, 1),
        table(&["", "kernel", "place", "loops", "Mflop", "traffic"], &rows, 4)
    )
}

/// Where and how it ran.
fn environment(run: &Run) -> String {
    let mut entries: Vec<(&str, String)> = Vec::new();
    if let Some(story) = &run.story {
        let about = &story.about;
        let settings: Vec<String> = about.settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        entries.push(("data", about.data.clone()));
        entries.push(("seed", about.seed.to_string()));
        if !settings.is_empty() {
            entries.push(("settings", settings.join(", ")));
        }
        for session in &story.sessions {
            entries.extend(of_session(session));
        }
        entries.push(("version", format!("ansatz {}", about.version)));
        entries.push(("sources", format!("CRC-32 {}", about.hash)));
    }
    entries.push(("model file", run.command.model.display().to_string()));
    let entry = |(name, value): &(&str, String)| format!("<dt>{name}</dt><dd>{}</dd>\n", text(value));
    format!("<h2>Run</h2>\n<dl>\n{}</dl>\n", entries.iter().map(entry).collect::<String>())
}

fn of_session(session: &Session) -> [(&'static str, String); 3] {
    let Session { began, command, machine, system, level, threads, after_step } = session;
    let start = if *after_step == 0 { "began" } else { "went on" };
    let from = if *after_step == 0 { String::new() } else { format!(", after step {}", count(*after_step)) };
    let threads = if *threads == 1 { "1 thread".to_string() } else { format!("{threads} threads") };
    [
        (start, format!("{}{from}", date(*began))),
        ("command", command.clone()),
        ("machine", format!("{machine}, {system}, {level}, {threads}")),
    ]
}

/// The model files with line numbers.
fn sources(about: &About) -> String {
    let file = |file: &crate::source::SourceFile| {
        let line = |line: &str| format!("<span>{}</span>", text(line));
        let lines: String = file.text.lines().map(line).collect();
        format!("<h3>{}</h3>\n<pre><code>{lines}</code></pre>\n", text(&file.name))
    };
    format!("<h2>Model text</h2>\n{}", about.sources.iter().map(file).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::super::about::{Block, Kernel};
    use super::super::run::tests::folder;
    use super::*;
    use crate::source::SourceFile;

    const HOSTILE: &str = "<script>alert(1)</script>\"'";

    /// Everything that somebody else's words can be in.
    fn hostile() -> About {
        let words = || HOSTILE.to_string();
        About {
            version: words(),
            model: words(),
            sources: vec![SourceFile { name: words(), text: format!("model {HOSTILE}\n\n  second line") }],
            hash: words(),
            settings: vec![(words(), words())],
            data: words(),
            blocks: vec![Block { name: words(), kind: words(), shape: words(), parameters: 4, from: Vec::new() }],
            memory: vec![(words(), 1 << 20)],
            kernels: vec![Kernel { name: words(), shape: words(), place: words(), flops: 1, bytes: 2 }],
            ..About::default()
        }
    }

    const LINE: &str =
        "{\"epoch\":1.0,\"step\":5,\"lr\":0.1,\"seconds\":2.0,\"train.loss\":2.0,\"train.<script>\":0.5}\n";

    #[test]
    fn nothing_of_a_user_is_more_than_text() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let path = parent.path().join("<script>alert(2)");
        folder(&path, hostile(), LINE);
        let classes = Classes { words: vec![HOSTILE.into(), "b".into()], counts: vec![vec![1, 0], vec![0, 2]] };
        let figures = vec![(HOSTILE.to_string(), Some(0.5))];
        let split = Some(HOSTILE.to_string());
        let best = Some((HOSTILE.to_string(), 0.25, 3));
        let ended = Ended { how: HOSTILE.into(), classes: Some(classes), figures, split, best, ..Ended::default() };
        ended.write(&path).expect("written");
        let text = std::fs::read_to_string(write(&path).expect("written")).expect("text");
        assert!(!text.contains("<script") && !text.contains("\"'"), "{text}");
        assert!(text.matches("&lt;script&gt;").count() > 20);
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!text.contains(outside), "{outside} asks for something outside the file");
        }
    }

    #[test]
    fn the_page_has_every_part_that_the_folder_knows() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let path = parent.path().join("net");
        let run = folder(&path, hostile(), LINE);
        let text = report(&run);
        for part in
            ["<h2>Curves", "<h2>Model<", "<h2>Plan", "<h2>Run", "<h2>Model text", "train loss, last pass", "not ended"]
        {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("<h2>Classes") && text.contains("<span>  second line</span>"));
        let classes = Classes { words: vec!["cat".into(), "ox".into()], counts: vec![vec![3, 1], vec![0, 2]] };
        let figures = vec![("loss".to_string(), Some(0.125)), ("accuracy".to_string(), None)];
        let split = Some("test".to_string());
        let ended =
            Ended { how: "complete".into(), step: 5, classes: Some(classes), figures, split, ..Ended::default() };
        ended.write(&path).expect("written");
        let text = report(&Run::read(&path).expect("a run"));
        assert!(
            text.contains("<b>0.1250</b><span>test loss</span>") && text.contains("<b>–</b><span>test accuracy</span>")
        );
        // Of three that are taken for a cat all are; of four cats three are found.
        assert!(
            text.contains("<td>cat</td><td class=\"number\">1.0000</td><td class=\"number\">0.7500</td>"),
            "{text}"
        );
        std::fs::remove_file(path.join("about.json")).expect("removed");
        std::fs::remove_file(path.join("metrics.jsonl")).expect("removed");
        let text = report(&Run::read(&path).expect("a run of an older version"));
        assert!(text.contains("No pass is done yet") && !text.contains("<h2>Plan"));
    }
}
