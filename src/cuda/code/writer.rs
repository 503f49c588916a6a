//! Indented text.
//!
//! Input: lines. Output: a text in which each line has the depth of the blocks around it.

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    /// Adds a line.
    pub fn line(&mut self, line: impl AsRef<str>) {
        self.text.extend(std::iter::repeat_n("  ", self.depth));
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// Adds a line that opens a block.
    pub fn open(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        self.line(if line.is_empty() { "{".to_string() } else { format!("{line} {{") });
        self.depth += 1;
    }

    /// Closes the last block.
    pub fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    /// Closes a block that ends a statement.
    pub fn close_statement(&mut self) {
        self.depth -= 1;
        self.line("};");
    }

    /// Closes so many blocks.
    pub fn close_all(&mut self, blocks: usize) {
        (0..blocks).for_each(|_| self.close());
    }

    /// All lines.
    pub fn into_text(self) -> String {
        self.text
    }
}
