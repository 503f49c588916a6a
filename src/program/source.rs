//! Source files and the spans that point into them.
//!
//! Input: text and a display name. Output: a [`SourceMap`] that turns a [`Span`] into file, line and column.
//! Invariant: a span's offsets are byte offsets on character boundaries of its file's text.

/// Text of strangers (a file's name, a cell of a table) as it may be printed within a line: what a terminal or a log's
/// reader would act on instead of showing it (control characters, marks that turn the direction of writing) is written
/// as Rust writes it, such as `\n` or `\u{1b}`. See [`inert`] for the rest.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    inert(&shown)
}

/// Several lines of text, each [`visible`]; a line that would begin with `::`, which GitHub Actions takes for a command,
/// is joined to the one before.
pub fn visible_lines(text: &str) -> String {
    let mut lines = text.split('\n');
    let mut shown = visible(lines.next().unwrap_or_default());
    for line in lines {
        shown.push_str(if line.trim_start().starts_with("::") { "\\n" } else { "\n" });
        shown.push_str(&visible(line));
    }
    shown
}

/// Breaks what GitHub Actions takes for a command wherever it stands in a line, `##[error]`.
pub fn inert(text: &str) -> String {
    text.replace("##[", "## [")
}

/// Whether a character acts on what shows it: control characters, line and paragraph separators, directional marks,
/// and those of no width.
pub fn is_hidden(character: char) -> bool {
    let acts = '\u{200b}'..='\u{200f}';
    let turns = '\u{2028}'..='\u{202e}';
    let isolates = '\u{2060}'..='\u{206f}';
    character.is_control()
        || acts.contains(&character)
        || turns.contains(&character)
        || isolates.contains(&character)
        || matches!(character, '\u{61c}' | '\u{feff}')
}

/// At most `most` characters of a text of strangers, [`visible`].
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", visible(&text[..end])),
        None => visible(text),
    }
}

/// `512 MiB`, with one decimal from KiB on.
pub fn bytes_text(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} B"),
    }
}

/// Identifies one file of a [`SourceMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct FileId(pub u32);

/// A range of bytes in one source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A span over `start..end` of `file`.
    pub fn new(file: FileId, start: usize, end: usize) -> Self {
        Self { file, start: start as u32, end: end as u32 }
    }

    /// The smallest span that covers both; `self` where the files differ.
    pub fn to(self, other: Span) -> Span {
        if self.file != other.file {
            return self;
        }
        Span { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// One source text with its display name.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct SourceFile {
    /// The name shown in diagnostics: the path as the user gave it, made [`visible`], or `library/losses.ansatz`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// All the texts of one compilation.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

impl SourceMap {
    /// Adds a file and returns its identifier.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        self.files.push(SourceFile { name: visible(&name.into()), text: text.into() });
        FileId(self.files.len() as u32 - 1)
    }

    /// The file with this identifier.
    pub fn file(&self, id: FileId) -> &SourceFile {
        &self.files[id.0 as usize]
    }

    /// The file with this identifier, if it is one of this map.
    pub fn get(&self, id: FileId) -> Option<&SourceFile> {
        self.files.get(id.0 as usize)
    }

    /// All files in the order they were added.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &SourceFile)> {
        self.files.iter().enumerate().map(|(index, file)| (FileId(index as u32), file))
    }

    /// One-based line and column (in characters) of the first byte of `span`.
    pub fn position(&self, span: Span) -> (usize, usize) {
        let text = &self.file(span.file).text;
        let mut start = (span.start as usize).min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// `name:line:column` of a span.
    pub fn location(&self, span: Span) -> String {
        let (line, column) = self.position(span);
        format!("{}:{line}:{column}", self.file(span.file).name)
    }
}
