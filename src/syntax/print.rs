//! The formatter: one spacing, one indentation, lines of at most [`WIDTH`] columns where they can be broken.
//!
//! Input: a text that parses. Output: the same tokens and comments in canonical layout. Line breaks of the author stay;
//! longer lines are broken before `->` first, then before other operators, then inside of brackets.
//! Invariant: formatting is idempotent and changes no tree; significant tokens and comments keep their order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

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
    /// Its significant tokens, by number.
    pieces: Range<usize>,
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
    places: Places,
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
        let places = Places::new(source, &significant, &spacings);
        let mut reader = Self { source, tokens: significant, spacings, places, lines: Vec::new() };
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
                    line.pieces = carried.unwrap_or(next)..next;
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
                        line.pieces.start = next;
                    }
                    next += 1;
                    line.pieces.end = next;
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
        let last = line.pieces.clone().next_back()?;
        let infix = self.spacings[last].infix && next < self.tokens.len() && line.pieces.len() > 1;
        infix.then(|| {
            line.pieces.end = last;
            last
        })
    }
}

/// True when token `index` follows a `{` on its line or later.
fn follows_brace(source: &str, tokens: &[Token], index: usize) -> bool {
    index > 0 && tokens[index - 1].text(source) == "{"
}

/// Ways of breaking a line, those that are tried first before the others.
const BREAKS: usize = 4;

/// Where lines may be broken, and how wide they are, so that no line is read again for each of its breaks.
#[derive(Default)]
struct Places {
    /// Columns of the tokens before each, on one line.
    columns: Vec<usize>,
    /// For each token the next one in fewer brackets.
    outward: Vec<Option<usize>>,
    /// The tokens before which a line may be broken, in order, by the way and the brackets around them.
    breaks: [BTreeMap<usize, Vec<usize>>; BREAKS],
}

impl Places {
    fn new(source: &str, tokens: &[Token], spacings: &[Spacing]) -> Self {
        let text = |index: usize| tokens[index].text(source);
        let mut places = Self { columns: vec![0], outward: vec![None; tokens.len()], ..Self::default() };
        let mut open: Vec<usize> = Vec::new();
        for (index, spacing) in spacings.iter().enumerate() {
            let columns = places.columns[index] + usize::from(spacing.space) + text(index).chars().count();
            places.columns.push(columns);
            while let Some(inner) = open.pop_if(|inner| spacings[*inner].depth > spacing.depth) {
                places.outward[inner] = Some(index);
            }
            open.push(index);
            let ways: [bool; BREAKS] = [
                text(index) == "->",
                index > 0 && text(index - 1) == "," && !matches!(text(index), ")" | "]" | "}"),
                matches!(text(index), "else" | "and" | "or"),
                matches!(text(index), "+" | "-") && spacing.infix,
            ];
            for (breaks, _) in places.breaks.iter_mut().zip(ways).filter(|(_, is_break)| *is_break) {
                breaks.entry(spacing.depth).or_default().push(index);
            }
        }
        places
    }

    /// The fewest brackets around a token of a line.
    fn outside(&self, spacings: &[Spacing], pieces: &Range<usize>) -> usize {
        let mut outermost = pieces.start;
        while let Some(next) = self.outward[outermost].filter(|next| *next < pieces.end) {
            outermost = next;
        }
        spacings[outermost].depth
    }

    /// The last place in so many brackets at which what precedes it ends before a column, or the first place.
    fn place(&self, depth: usize, pieces: &Range<usize>, column: usize) -> Option<usize> {
        self.breaks.iter().find_map(|breaks| {
            let breaks = breaks.get(&depth)?;
            let from = breaks.partition_point(|place| *place <= pieces.start);
            let fitting = breaks.partition_point(|place| *place < pieces.end && self.columns[*place] <= column);
            let place = if fitting > from { breaks[fitting - 1] } else { *breaks.get(from)? };
            (place < pieces.end).then_some(place)
        })
    }
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
            if self.width(line.pieces.clone()) + indent > WIDTH {
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
        if matches!(self.first(line), ")" | "]" | "}") {
            return level.outer;
        }
        let continues = level.bracket == b'{' && !line.starts && !self.after_opener(line);
        level.inner + if continues { INDENT } else { 0 }
    }

    fn after_opener(&self, line: &Line) -> bool {
        let before = line.pieces.clone().next().and_then(|first| first.checked_sub(1));
        before.is_some_and(|before| self.text(before) == "{")
    }

    /// The first token of a line.
    fn first(&self, line: &Line) -> &str {
        line.pieces.clone().next().map_or("", |first| self.text(first))
    }

    fn width(&self, pieces: Range<usize>) -> usize {
        self.lines.places.columns[pieces.end] - self.start(&pieces)
    }

    /// The column before the first token of a line, without its blank.
    fn start(&self, pieces: &Range<usize>) -> usize {
        let blank = !pieces.is_empty() && self.lines.spacings[pieces.start].space;
        self.lines.places.columns[pieces.start] + usize::from(blank)
    }

    /// The line in two or more parts; one part where nothing can be broken.
    fn broken(&self, line: &Line, indent: usize) -> Vec<Line> {
        let pieces = &line.pieces;
        let Reader { places, spacings, .. } = self.lines;
        let outside = places.outside(spacings, pieces);
        let column = (self.start(pieces) + WIDTH).saturating_sub(indent);
        if let Some(place) = places.place(outside, pieces, column) {
            return split_line(line, &[place]);
        }
        match self.widest_bracket(pieces, indent, outside) {
            Some((open, close)) if close > open + 1 => split_line(line, &[open + 1, close]),
            _ => vec![line.clone()],
        }
    }

    /// The outermost pair of brackets that reaches over the margin, or else the last one.
    fn widest_bracket(&self, pieces: &Range<usize>, indent: usize, outside: usize) -> Option<(usize, usize)> {
        let mut open = None;
        let mut last = None;
        for index in pieces.clone() {
            let depth = self.lines.spacings[index].depth;
            match self.text(index) {
                "(" | "[" | "{" if depth == outside => open = Some(index),
                ")" | "]" | "}" if depth == outside + 1 => {
                    last = open.take().map(|open| (open, index)).or(last);
                    if indent + self.width(pieces.start..index + 1) > WIDTH {
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
        for piece in line.pieces.clone() {
            if piece > line.pieces.start && self.lines.spacings[piece].space {
                text.push(' ');
            }
            text.push_str(self.text(piece));
        }
        if outermost && line.starts && !line.pieces.is_empty() {
            self.settings = matches!(self.first(&line), "data" | "train");
        }
        let binding = if self.settings && self.levels.len() == 1 && line.starts { self.binding(&line) } else { None };
        let closes = self.first(&line) == "}";
        let after_opener = self.written.last().is_none_or(|last| last.text.ends_with('{'));
        for piece in line.pieces.clone() {
            match self.text(piece).as_bytes() {
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
        let equals = line.pieces.clone().find(|piece| self.text(*piece) == "=")?;
        let path = line.pieces.start..equals;
        let is_path = path.clone().enumerate().all(|(index, piece)| (self.text(piece) == ".") == (index % 2 == 1));
        if is_path { Some(path.map(|piece| self.text(piece).len()).sum()) } else { None }
    }
}

fn split_line(line: &Line, places: &[usize]) -> Vec<Line> {
    let mut parts = Vec::new();
    let mut from = line.pieces.start;
    for place in places.iter().copied().chain([line.pieces.end]) {
        parts.push(Line { pieces: from..place, ..Line::default() });
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
