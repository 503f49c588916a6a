//! The formatter: one spacing, one indentation, lines of at most [`WIDTH`] columns where they can be broken.
//!
//! Input: a text that parses. Output: the same tokens and comments in canonical layout. Line breaks of the author stay;
//! longer lines are broken before `->` first, then before other operators, then inside of brackets.
//! Invariant: formatting is idempotent and changes no tree; significant tokens and comments keep their order.

use std::collections::VecDeque;

use super::layout::layout;
use super::parse::parse;
use super::spacing::{Spacing, spacing};
use super::token::{Token, TokenKind, tokens};
use crate::diagnostics::Diagnostic;
use crate::source::FileId;

/// The widest line, comments apart, in columns.
const WIDTH: usize = 100;

/// Columns of one level.
const INDENT: usize = 2;

/// Formats a file.
///
/// # Errors
/// What the parser finds wrong; nothing is formatted then.
pub fn format(text: &str) -> Result<String, Vec<Diagnostic>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (_, diagnostics) = parse(FileId(0), text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let lines = Reader::read(text);
    let mut printer = Printer { lines: &lines, levels: Vec::new(), written: Vec::new(), settings: false };
    printer.run();
    let mut written = printer.written;
    align_bindings(&mut written);
    Ok(show(&written))
}

/// A line of the author after its breaks were put where they belong.
#[derive(Clone, Debug, Default)]
struct Line {
    /// Significant tokens, as indices.
    pieces: Vec<usize>,
    /// The comment at its end, or alone on it.
    comment: Option<String>,
    /// It begins a statement or an item, or stands between two.
    starts: bool,
    /// A blank line stands before it.
    blank_before: bool,
}

/// The file as lines of significant tokens.
struct Reader<'s> {
    source: &'s str,
    tokens: Vec<Token>,
    spacings: Vec<Spacing>,
    lines: Vec<Line>,
}

impl<'s> Reader<'s> {
    fn read(source: &'s str) -> Self {
        let all = tokens(source);
        let blanked = layout(FileId(0), source).blanked;
        let ends = |token: &Token| blanked.as_bytes().get(token.start) == Some(&b'\n');
        let significant: Vec<Token> = all.iter().copied().filter(Token::is_significant).collect();
        let mut starts = Vec::with_capacity(significant.len());
        let mut fresh = true;
        for token in &all {
            match token.kind {
                TokenKind::Newline => fresh |= ends(token),
                TokenKind::Comment | TokenKind::Doc => {}
                _ => {
                    starts.push(fresh || starts.last().is_some() && follows_brace(source, &significant, starts.len()));
                    fresh = false;
                }
            }
        }
        let spacings = spacing(source, &significant, &starts);
        let mut reader = Self { source, tokens: significant, spacings, lines: Vec::new() };
        reader.split(&all, &starts, ends);
        reader
    }

    fn text(&self, index: usize) -> &'s str {
        self.tokens.get(index).map_or("", |token| token.text(self.source))
    }

    fn split(&mut self, all: &[Token], starts: &[bool], ends: impl Fn(&Token) -> bool) {
        let mut line = Line { starts: true, ..Line::default() };
        let mut next = 0;
        let mut newlines = 0;
        let mut between = true;
        for token in all {
            match token.kind {
                TokenKind::Newline => {
                    newlines += 1;
                    between |= ends(token);
                    let commented = line.comment.is_some();
                    if !commented && (line.pieces.is_empty() || self.joins(next)) {
                        continue;
                    }
                    let carried = if commented { None } else { self.carried(&mut line, next) };
                    self.lines.push(std::mem::take(&mut line));
                    line.pieces.extend(carried);
                }
                TokenKind::Comment | TokenKind::Doc => {
                    if line.pieces.is_empty() {
                        line.starts = between;
                        line.blank_before = between && newlines > 1;
                    }
                    line.comment = Some(token.text(self.source).trim_end().to_string());
                    newlines = 0;
                }
                _ => {
                    if line.pieces.is_empty() {
                        line.starts = starts[next];
                        line.blank_before = between && newlines > 1;
                    }
                    line.pieces.push(next);
                    next += 1;
                    newlines = 0;
                    between = false;
                }
            }
        }
        if !line.pieces.is_empty() || line.comment.is_some() {
            self.lines.push(line);
        }
    }

    /// True when the break before token `next` is dropped.
    fn joins(&self, next: usize) -> bool {
        let Some(previous) = next.checked_sub(1).map(|previous| self.text(previous)) else { return false };
        let text = self.text(next);
        next < self.tokens.len() && (text == "=" || previous == "=" || text == "{" || previous == "}" && text == "else")
    }

    /// The infix operator that ends a line moves to the next one.
    fn carried(&self, line: &mut Line, next: usize) -> Option<usize> {
        let last = *line.pieces.last()?;
        let infix = self.spacings[last].infix && next < self.tokens.len() && line.pieces.len() > 1;
        if infix { line.pieces.pop() } else { None }
    }
}

/// True when token `index` follows a `{` on its line or later.
fn follows_brace(source: &str, tokens: &[Token], index: usize) -> bool {
    index > 0 && tokens[index - 1].text(source) == "{"
}

/// A bracket that is open at the end of a written line.
struct Level {
    bracket: u8,
    /// Indentation of the line that opens it.
    outer: usize,
    /// Indentation inside.
    inner: usize,
}

/// A finished line.
#[derive(Debug)]
struct Written {
    indent: usize,
    text: String,
    comment: Option<String>,
    blank_before: bool,
    starts: bool,
    /// Bytes before the `=` of a setting in a `data` or `train` item.
    binding: Option<usize>,
}

struct Printer<'r, 's> {
    lines: &'r Reader<'s>,
    levels: Vec<Level>,
    written: Vec<Written>,
    /// Inside of a `data` or `train` item.
    settings: bool,
}

impl Printer<'_, '_> {
    fn run(&mut self) {
        let mut queue: VecDeque<Line> = self.lines.lines.iter().cloned().collect();
        while let Some(line) = queue.pop_front() {
            let indent = self.indent(&line);
            if self.width(&line.pieces) + indent > WIDTH {
                let parts = self.broken(&line, indent);
                if parts.len() > 1 {
                    for part in parts.into_iter().rev() {
                        queue.push_front(part);
                    }
                    continue;
                }
            }
            self.write(line, indent);
        }
    }

    fn text(&self, index: usize) -> &str {
        self.lines.text(index)
    }

    fn indent(&self, line: &Line) -> usize {
        let Some(level) = self.levels.last() else {
            return if line.starts { 0 } else { INDENT };
        };
        let first = line.pieces.first().map_or("", |first| self.text(*first));
        if matches!(first, ")" | "]" | "}") {
            return level.outer;
        }
        let continues = level.bracket == b'{' && !line.starts && !self.after_opener(line);
        level.inner + if continues { INDENT } else { 0 }
    }

    fn after_opener(&self, line: &Line) -> bool {
        let before = line.pieces.first().and_then(|first| first.checked_sub(1));
        before.is_some_and(|before| self.text(before) == "{")
    }

    fn width(&self, pieces: &[usize]) -> usize {
        let blanks = pieces.iter().skip(1).filter(|piece| self.lines.spacings[**piece].space).count();
        blanks + pieces.iter().map(|piece| self.text(*piece).chars().count()).sum::<usize>()
    }

    /// The line in two or more parts; one part where nothing can be broken.
    fn broken(&self, line: &Line, indent: usize) -> Vec<Line> {
        let pieces = &line.pieces;
        let outside = pieces.iter().map(|piece| self.lines.spacings[*piece].depth).min().unwrap_or(0);
        let at_outside = |index: usize| self.lines.spacings[pieces[index]].depth == outside;
        let fits = |index: usize| indent + self.width(&pieces[..index]) <= WIDTH;
        let breaks: [&dyn Fn(usize) -> bool; 4] = [
            &|index| self.text(pieces[index]) == "->",
            &|index| self.text(pieces[index - 1]) == "," && !matches!(self.text(pieces[index]), ")" | "]" | "}"),
            &|index| matches!(self.text(pieces[index]), "else" | "and" | "or"),
            &|index| matches!(self.text(pieces[index]), "+" | "-") && self.lines.spacings[pieces[index]].infix,
        ];
        for is_break in breaks {
            let places: Vec<usize> = (1..pieces.len()).filter(|index| at_outside(*index) && is_break(*index)).collect();
            if let Some(place) = places.iter().rev().find(|place| fits(**place)).or(places.first()) {
                return split_line(line, &[*place]);
            }
        }
        match self.widest_bracket(pieces, indent, outside) {
            Some((open, close)) if close > open + 1 => split_line(line, &[open + 1, close]),
            _ => vec![line.clone()],
        }
    }

    /// The outermost pair of brackets that reaches over the margin, or else the last one.
    fn widest_bracket(&self, pieces: &[usize], indent: usize, outside: usize) -> Option<(usize, usize)> {
        let mut open = None;
        let mut last = None;
        for (index, piece) in pieces.iter().enumerate() {
            let depth = self.lines.spacings[*piece].depth;
            match self.text(*piece) {
                "(" | "[" | "{" if depth == outside => open = Some(index),
                ")" | "]" | "}" if depth == outside + 1 => {
                    last = open.take().map(|open| (open, index)).or(last);
                    if indent + self.width(&pieces[..=index]) > WIDTH {
                        break;
                    }
                }
                _ => {}
            }
        }
        last
    }

    fn write(&mut self, line: Line, indent: usize) {
        let outermost = self.levels.is_empty();
        let mut text = String::new();
        for (index, piece) in line.pieces.iter().enumerate() {
            if index > 0 && self.lines.spacings[*piece].space {
                text.push(' ');
            }
            text.push_str(self.text(*piece));
        }
        if outermost && line.starts && !line.pieces.is_empty() {
            self.settings = matches!(self.text(line.pieces[0]), "data" | "train");
        }
        let binding = if self.settings && self.levels.len() == 1 && line.starts { self.binding(&line) } else { None };
        let closes = matches!(line.pieces.first().map(|first| self.text(*first)), Some("}"));
        let after_opener = self.written.last().is_none_or(|last| last.text.ends_with('{'));
        for piece in &line.pieces {
            match self.text(*piece).as_bytes() {
                [bracket @ (b'(' | b'[' | b'{')] => {
                    self.levels.push(Level { bracket: *bracket, outer: indent, inner: indent + INDENT });
                }
                b")" | b"]" | b"}" => {
                    self.levels.pop();
                }
                _ => {}
            }
        }
        let blank_before = line.blank_before && !closes && !after_opener;
        self.written.push(Written { indent, text, comment: line.comment, blank_before, starts: line.starts, binding });
    }

    /// Bytes before the `=` of `name.name = …`.
    fn binding(&self, line: &Line) -> Option<usize> {
        let equals = line.pieces.iter().position(|piece| self.text(*piece) == "=")?;
        let path = &line.pieces[..equals];
        let is_path = path.iter().enumerate().all(|(index, piece)| (self.text(*piece) == ".") == (index % 2 == 1));
        if is_path { Some(path.iter().map(|piece| self.text(*piece).len()).sum()) } else { None }
    }
}

fn split_line(line: &Line, places: &[usize]) -> Vec<Line> {
    let mut parts = Vec::new();
    let mut from = 0;
    for place in places.iter().copied().chain([line.pieces.len()]) {
        parts.push(Line { pieces: line.pieces[from..place].to_vec(), ..Line::default() });
        from = place;
    }
    parts[0].starts = line.starts;
    parts[0].blank_before = line.blank_before;
    if let Some(last) = parts.last_mut() {
        last.comment = line.comment.clone();
    }
    parts
}

/// Puts the `=` of neighbouring settings below each other.
fn align_bindings(written: &mut [Written]) {
    let mut run: Vec<usize> = Vec::new();
    for index in 0..=written.len() {
        let ends_run = match written.get(index) {
            None => true,
            Some(line) => line.blank_before || line.starts && line.binding.is_none(),
        };
        if ends_run {
            let widest = run.iter().filter_map(|line| written[*line].binding).max().unwrap_or(0);
            for line in run.drain(..) {
                if let Some(width) = written[line].binding {
                    written[line].text.insert_str(width, &" ".repeat(widest - width));
                }
            }
        }
        if written.get(index).is_some_and(|line| line.binding.is_some()) {
            run.push(index);
        }
    }
}

/// Comments at the ends of neighbouring lines begin at the same column, two blanks after the longest.
fn show(written: &[Written]) -> String {
    let columns = |line: &Written| line.indent + line.text.chars().count();
    let trails = |line: &Written| line.comment.is_some() && !line.text.is_empty();
    let mut shown = String::new();
    let mut comment_column = 0;
    for (index, line) in written.iter().enumerate() {
        if line.blank_before {
            shown.push('\n');
        }
        if trails(line) && (index == 0 || line.blank_before || !trails(&written[index - 1])) {
            let rest = &written[index + 1..];
            let run = rest.iter().take_while(|next| trails(next) && !next.blank_before);
            comment_column = run.map(columns).fold(columns(line), usize::max) + 2;
        }
        shown.push_str(&" ".repeat(line.indent));
        shown.push_str(&line.text);
        if let Some(comment) = &line.comment {
            if trails(line) {
                shown.push_str(&" ".repeat(comment_column - columns(line)));
            }
            shown.push_str(comment);
        }
        shown.push('\n');
    }
    shown
}
