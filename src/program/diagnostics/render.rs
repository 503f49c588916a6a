//! Renderers: the same findings for a terminal, for programs, and for annotations on a pull request.
//!
//! Input: findings and the texts they point into. Output: text that ends with a newline, or nothing for no findings.
//! Invariant: errors come before warnings, each in order of position; a span that lies outside of its text is shown
//! at the nearest place inside; texts and names of files never reach a terminal's control nor begin a line, so that they
//! cannot colour it and are no commands to what reads a log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use super::{Diagnostic, Severity};
use crate::source::{FileId, SourceMap, Span, inert, is_hidden, shortened};

/// A label over more lines than this is shown on its first line only.
const MAX_LABEL_LINES: usize = 3;

/// Of a longer line only the neighbourhood of its label is shown.
const MAX_LINE_BYTES: usize = 400;

/// Characters of a message that are shown.
const LONGEST_WORDS: usize = 2000;

/// Width that messages and source lines are cut to, in columns.
const WIDTH: usize = 120;

/// Findings in the order they are shown: errors first, then by file and position.
pub fn sorted(diagnostics: &[Diagnostic]) -> Vec<&Diagnostic> {
    let mut order: Vec<&Diagnostic> = diagnostics.iter().collect();
    order.sort_by_key(|diagnostic| (diagnostic.severity, diagnostic.span().file, diagnostic.span().start));
    order
}

/// `2 errors, 1 warning`; empty without findings.
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let count = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let counts = [count(errors, "error"), count(diagnostics.len() - errors, "warning")];
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// For a terminal: each finding with its source lines, then a summary line.
pub fn human(diagnostics: &[Diagnostic], sources: &SourceMap, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(WIDTH);
    let mut out = String::new();
    for diagnostic in sorted(diagnostics) {
        let rendered = renderer.render(&[group(diagnostic, sources)]);
        // The renderer puts a lone `:::` between a place and the cut line that belongs to it.
        for line in rendered.lines().filter(|line| line.trim() != ":::" && !line.ends_with("::: \u{1b}[0m")) {
            // The renderer replaces the control characters of source lines but for those above ASCII.
            let shown = line.chars().map(|c| if c != '\u{1b}' && is_hidden(c) { '\u{fffd}' } else { c });
            out.push_str(&inert(&shown.collect::<String>()));
            out.push('\n');
        }
        out.push('\n');
    }
    if !diagnostics.is_empty() {
        out.push_str(&summary(diagnostics));
        out.push('\n');
    }
    out
}

fn group<'a>(diagnostic: &Diagnostic, sources: &'a SourceMap) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(words(&diagnostic.message)).id(diagnostic.code);
    let mut group = Group::with_title(title);
    let mut files: Vec<FileId> = Vec::new();
    for label in &diagnostic.labels {
        if !files.contains(&label.span.file) {
            files.push(label.span.file);
        }
    }
    for file in files {
        group = snippet(group, diagnostic, file, sources);
    }
    for hint in hints(diagnostic) {
        group = group.element(Level::HELP.message(words(&hint)));
    }
    group
}

/// Words of a finding within a line.
fn words(text: &str) -> String {
    shortened(text, LONGEST_WORDS)
}

/// The hints; for a finding that has only fixes, what they write.
fn hints(diagnostic: &Diagnostic) -> Vec<String> {
    if !diagnostic.hints.is_empty() {
        return diagnostic.hints.clone();
    }
    let words = |fix: &super::Fix| match fix.replacement.trim() {
        "" => "leave it out".to_string(),
        text => format!("write `{text}`"),
    };
    diagnostic.fixes.iter().map(words).collect()
}

/// Adds the lines of one file that the labels point to.
fn snippet<'a>(group: Group<'a>, diagnostic: &Diagnostic, file: FileId, sources: &'a SourceMap) -> Group<'a> {
    let Some(source) = sources.get(file) else { return group };
    let text = source.text.as_str();
    if text.is_empty() {
        return group.element(Origin::path(source.name.as_str()));
    }
    let primary = diagnostic.span();
    let labels: Vec<(Range<usize>, String, bool)> = diagnostic
        .labels
        .iter()
        .enumerate()
        .filter(|(_, label)| label.span.file == file)
        .map(|(index, label)| (shown_range(text, label.span), words(&label.text), index == 0))
        .collect();
    let first = labels.iter().map(|(range, ..)| range.start).min().unwrap_or(0);
    let last = labels.iter().map(|(range, ..)| range.end).max().unwrap_or(0);
    let start = text[..first].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[last..].find('\n').map_or(text.len(), |newline| last + newline);
    let line = text[..start].matches('\n').count() + 1;
    let longest = text[start..end].split('\n').map(str::len).max().unwrap_or(0);
    if longest > MAX_LINE_BYTES {
        // The renderer would count columns in the cut line, so the place is given apart.
        let anchor = if primary.file == file { primary } else { Span::new(file, first, first) };
        let (line, column) = sources.position(anchor);
        let place = Origin::path(source.name.as_str()).line(line).char_column(column);
        let (range, words, _) = &labels[0];
        let (cut, inside) = cut_line(text, range.clone());
        let annotation = AnnotationKind::Primary.span(inside).label(words.clone());
        return group.element(place).element(Snippet::source(cut).line_start(line).annotation(annotation));
    }
    let annotations = labels.into_iter().map(|(range, words, is_primary)| {
        let kind = if is_primary { AnnotationKind::Primary } else { AnnotationKind::Context };
        let annotation = kind.span(range.start - start..range.end - start);
        if words.is_empty() { annotation } else { annotation.label(words) }
    });
    let snippet = Snippet::source(&text[start..end]).line_start(line).path(source.name.as_str());
    group.element(snippet.annotations(annotations))
}

/// A span as bytes of its text: inside of it, on character boundaries, and not over many lines.
fn shown_range(text: &str, span: Span) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (floor(span.start as usize), floor(span.end.max(span.start) as usize));
    let inside = &text[start..end];
    match inside.match_indices('\n').nth(MAX_LABEL_LINES - 1) {
        Some(_) => start..start + inside.find('\n').unwrap_or(inside.len()),
        None => start..end,
    }
}

/// The neighbourhood of a place in a long line, and the place in it.
fn cut_line(text: &str, range: Range<usize>) -> (String, Range<usize>) {
    let line_start = text[..range.start].rfind('\n').map_or(0, |newline| newline + 1);
    let before: Vec<char> = text[line_start..range.start].chars().rev().take(WIDTH / 3).collect();
    let inside: String = text[range.clone()].chars().take_while(|c| *c != '\n').take(WIDTH / 3).collect();
    let shown_end = range.start + inside.len();
    let after: String = text[shown_end..].chars().take_while(|c| *c != '\n').take(WIDTH / 3).collect();
    let mut cut = String::new();
    if before.len() == WIDTH / 3 {
        cut.push('…');
    }
    cut.extend(before.into_iter().rev());
    let start = cut.len();
    cut.push_str(&inside);
    let end = cut.len();
    cut.push_str(&after);
    if after.chars().count() == WIDTH / 3 {
        cut.push('…');
    }
    (cut, start..end)
}

/// For programs: one JSON object a line. Lines and columns count from 1, columns in characters.
pub fn json(diagnostics: &[Diagnostic], sources: &SourceMap) -> String {
    let mut out = String::new();
    for diagnostic in sorted(diagnostics) {
        let labels: Vec<Value> = diagnostic
            .labels
            .iter()
            .map(|label| with_place(label.span, sources, [("text", json!(label.text))]))
            .collect();
        let fixes: Vec<Value> = diagnostic
            .fixes
            .iter()
            .map(|fix| with_place(fix.span, sources, [("replacement", json!(fix.replacement))]))
            .collect();
        let fields = [
            ("code", json!(diagnostic.code)),
            ("severity", json!(diagnostic.severity)),
            ("message", json!(diagnostic.message)),
            ("labels", json!(labels)),
            ("hints", json!(diagnostic.hints)),
            ("fixes", json!(fixes)),
        ];
        let object = with_place(diagnostic.span(), sources, fields).to_string();
        // JSON's own escapes mean the same to a program and nothing to a terminal or a log's reader.
        for character in object.replace("##[", "#\\u0023[").chars() {
            match is_hidden(character) {
                true => out.extend(character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
                false => out.push(character),
            }
        }
        out.push('\n');
    }
    out
}

fn with_place<const N: usize>(span: Span, sources: &SourceMap, fields: [(&str, Value); N]) -> Value {
    let mut object: BTreeMap<&str, Value> = fields.into_iter().collect();
    if let Some(file) = sources.get(span.file) {
        let (line, column) = sources.position(span);
        let (end_line, end_column) = sources.position(Span { start: span.end, ..span });
        object.insert("file", json!(file.name));
        object.insert("line", json!(line));
        object.insert("column", json!(column));
        object.insert("end_line", json!(end_line));
        object.insert("end_column", json!(end_column));
    }
    json!(object)
}

/// For GitHub Actions: one workflow command a finding, which annotates the diff of a pull request.
pub fn github(diagnostics: &[Diagnostic], sources: &SourceMap) -> String {
    let mut out = String::new();
    for diagnostic in sorted(diagnostics) {
        let command = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut place = String::new();
        if let Some(file) = sources.get(diagnostic.span().file) {
            let span = diagnostic.span();
            let (line, column) = sources.position(span);
            let (end_line, end_column) = sources.position(Span { start: span.end, ..span });
            let _ = write!(place, "file={},line={line},endLine={end_line},col={column}", github_property(&file.name));
            if end_line == line {
                let _ = write!(place, ",endColumn={end_column}");
            }
            place.push(',');
        }
        let mut message = words(&diagnostic.message);
        for label in diagnostic.labels.iter().filter(|label| !label.text.is_empty()) {
            let location = sources.get(label.span.file).map(|_| sources.location(label.span)).unwrap_or_default();
            let _ = write!(message, "\n{location}: {}", words(&label.text));
        }
        for hint in hints(diagnostic) {
            let _ = write!(message, "\nhelp: {}", words(&hint));
        }
        let _ = writeln!(out, "::{command} {place}title={}::{}", diagnostic.code, github_data(&message));
    }
    out
}

fn github_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn github_property(text: &str) -> String {
    github_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "layer A(C) {\n\ty = x -> conv2: Conv(C, 3)\n\n\n\n\n  return relu(y + skip)\n}\n";

    fn sources(text: &str) -> SourceMap {
        let mut sources = SourceMap::default();
        sources.add("models/a,b.ansatz", text);
        sources
    }

    fn at(text: &str, part: &str) -> Span {
        let start = text.find(part).expect("the part is in the text");
        Span::new(FileId(0), start, start + part.len())
    }

    fn mismatch() -> Diagnostic {
        Diagnostic::error("shape-mismatch", at(TEXT, "y + skip"), "the residual sum needs equal shapes")
            .at("`skip` is [N, 512, H, W]")
            .label(at(TEXT, "Conv(C, 3)"), "gives [N, 512, H - 2, W - 2]")
            .hint("add `pad = 1`")
    }

    #[test]
    fn human_shows_both_places_of_a_mismatch() {
        let shown = human(&[mismatch()], &sources(TEXT), false);
        let expected = "\
error[shape-mismatch]: the residual sum needs equal shapes
 --> models/a,b.ansatz:7:15
  |
2 |     y = x -> conv2: Conv(C, 3)
  |                     ---------- gives [N, 512, H - 2, W - 2]
...
7 |   return relu(y + skip)
  |               ^^^^^^^^ `skip` is [N, 512, H, W]
  |
  = help: add `pad = 1`

1 error
";
        assert_eq!(shown, expected, "{shown}");
    }

    #[test]
    fn errors_come_first_then_positions() {
        let late = Diagnostic::error("b", at(TEXT, "relu"), "late");
        let early = Diagnostic::error("a", at(TEXT, "A"), "early");
        let warning = Diagnostic::warning("w", at(TEXT, "layer"), "warning");
        let shown = human(&[warning, late, early], &sources(TEXT), false);
        let titles: Vec<&str> = shown.lines().filter(|line| line.contains("]: ")).collect();
        assert_eq!(titles, ["error[a]: early", "error[b]: late", "warning[w]: warning"]);
        assert!(shown.ends_with("2 errors, 1 warning\n"));
    }

    #[test]
    fn a_long_line_is_cut_and_keeps_its_position() {
        let text = format!("{}HERE{}", "é".repeat(100_000), "x".repeat(100_000));
        let diagnostic = Diagnostic::error("syntax", at(&text, "HERE"), "here").at("this");
        let found = [diagnostic];
        let shown = human(&found, &sources(&text), false);
        assert!(shown.contains("models/a,b.ansatz:1:100001"), "{shown}");
        assert!(shown.contains("HERE") && shown.len() < 1000, "{shown}");
        for color in [false, true] {
            assert!(!human(&found, &sources(&text), color).contains(":::"));
        }
    }

    #[test]
    fn spans_outside_of_the_text_are_shown_inside() {
        for span in [Span::new(FileId(0), 999, 1000), Span::new(FileId(0), 5, 2), Span::new(FileId(9), 0, 1)] {
            let diagnostic = Diagnostic::error("syntax", span, "odd").label(span, "odd");
            let found = [diagnostic];
            assert!(human(&found, &sources("é\n"), false).contains("error[syntax]: odd"));
            assert!(json(&found, &sources("é\n")).contains("\"odd\""));
            assert!(github(&found, &sources("é\n")).starts_with("::error "));
        }
        assert!(
            human(&[Diagnostic::error("empty", Span::new(FileId(0), 0, 0), "e")], &sources(""), false).contains("e")
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = "a \u{1b}[31m \u{202e} b\n";
        let diagnostic = Diagnostic::error("syntax", at(text, "b"), "odd \u{1b}[0m").at("here \u{7}");
        let shown = human(&[diagnostic], &sources(text), false);
        assert!(!shown.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{shown:?}");
    }

    #[test]
    fn texts_of_strangers_are_no_commands() {
        let text = "a \u{9b}31m ##[error]x b\n";
        let mut sources = SourceMap::default();
        sources.add("a\n::error::x\u{1b}##[error]", text);
        let odd = "x\n::error::x \u{2066} \u{9b}";
        let found = [Diagnostic::error("syntax", at(text, "b"), odd).at(odd).hint(odd)];
        for color in [false, true] {
            let shown = human(&found, &sources, color);
            assert!(!shown.contains(|c| c != '\n' && c != '\u{1b}' && is_hidden(c)), "{shown:?}");
            assert!(
                !shown.contains("##[") && !shown.lines().any(|line| line.trim_start().starts_with("::")),
                "{shown}"
            );
        }
        let shown = json(&found, &sources);
        assert!(!shown.trim_end().contains(is_hidden) && !shown.contains("##["), "{shown:?}");
        let value: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(value["message"], odd, "a program reads what was said");
        assert_eq!(github(&found, &sources).lines().count(), 1);
    }

    #[test]
    fn a_message_is_cut() {
        let found = [Diagnostic::error("syntax", at("b", "b"), "x".repeat(100_000)).hint("y".repeat(100_000))];
        let mut sources = SourceMap::default();
        sources.add("a", "b");
        assert!(human(&found, &sources, false).len() < 5000);
        assert!(github(&found, &sources).len() < 5000);
    }

    #[test]
    fn json_is_one_object_a_line() {
        let lines = json(&[mismatch(), mismatch()], &sources(TEXT));
        assert_eq!(lines.lines().count(), 2);
        let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
        assert_eq!(first["code"], "shape-mismatch");
        assert_eq!((&first["line"], &first["column"]), (&json!(7), &json!(15)));
        assert_eq!(first["labels"][1]["line"], json!(2));
        assert_eq!(first["hints"], json!(["add `pad = 1`"]));
    }

    #[test]
    fn github_commands_are_escaped() {
        let diagnostic = Diagnostic::warning("w", at(TEXT, "A"), "50 % of\nwhat").hint("this");
        let shown = github(&[diagnostic], &sources(TEXT));
        let expected = "::warning file=models/a%2Cb.ansatz,line=1,endLine=1,col=7,endColumn=8,title=w::50 %25 of\\nwhat%0Ahelp: this\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn nothing_found_is_nothing_shown() {
        assert!(human(&[], &sources(TEXT), true).is_empty());
    }
}
