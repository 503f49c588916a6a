//! Tokens: what `layout`, `explain` and `print` need to know of a text without parsing it.
//!
//! Input: any text. Output: tokens in order; together with the blanks between them they cover the text.
//! Invariant: never fails; a character that belongs to no token of the language is [`TokenKind::Unknown`].

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name or keyword.
    Word,
    /// Digits with fraction and exponent, without suffix.
    Number,
    /// A text in double quotes, closed on its line.
    Text,
    /// A text whose closing quote is missing on its line.
    OpenText,
    /// Brackets and operators; the longest match.
    Symbol,
    /// The end of a line.
    Newline,
    /// `# …` without the newline.
    Comment,
    /// `## …` without the newline.
    Doc,
    /// Anything else, one character.
    Unknown,
}

/// One token: bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Token {
    /// The token's characters.
    pub(crate) fn text<'t>(&self, source: &'t str) -> &'t str {
        &source[self.start..self.end]
    }

    /// False for newlines and comments.
    pub(crate) fn is_significant(&self) -> bool {
        !matches!(self.kind, TokenKind::Newline | TokenKind::Comment | TokenKind::Doc)
    }
}

/// Symbols of the language and of common mistakes, longest first.
const SYMBOLS: &[&str] = &[
    "...", "**=", "->", "<-", "<=", ">=", "==", "!=", ":=", "=>", "**", "&&", "||", "|>", "+=", "-=", "*=", "/=", "//",
    "..", "::", "(", ")", "[", "]", "{", "}", ",", ":", "=", "~", "+", "-", "*", "/", "%", "^", "<", ">", ".", ";",
    "!", "&", "|", "@", "?", "'", "`", "$", "\\",
];

/// The tokens of a text without comments and line breaks; one space where there was any gap between two.
pub(crate) fn on_one_line(source: &str) -> String {
    let (mut text, mut end) = (String::new(), 0);
    for token in tokens(source) {
        if matches!(token.kind, TokenKind::Newline | TokenKind::Comment) {
            continue;
        }
        if !text.is_empty() && token.start > end {
            text.push(' ');
        }
        text.push_str(token.text(source));
        end = token.end;
    }
    text
}

/// Splits `source` into tokens.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b' ' || byte == b'\t' || byte == b'\r' {
            at += 1;
            continue;
        }
        let (kind, end) = match byte {
            b'\n' => (TokenKind::Newline, at + 1),
            b'#' => {
                let kind = if bytes.get(at + 1) == Some(&b'#') { TokenKind::Doc } else { TokenKind::Comment };
                (kind, line_end(bytes, at))
            }
            b'"' => text_token(bytes, at),
            b'0'..=b'9' => (TokenKind::Number, number_end(bytes, at)),
            byte if byte.is_ascii_alphabetic() || byte == b'_' => (TokenKind::Word, skip(bytes, at, is_word_byte)),
            // A byte order mark at the head is no part of the text.
            _ if at == 0 && source.starts_with('\u{feff}') => (TokenKind::Comment, '\u{feff}'.len_utf8()),
            _ => symbol_token(source, at),
        };
        found.push(Token { kind, start: at, end });
        at = end;
    }
    found
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn skip(bytes: &[u8], mut at: usize, accepts: impl Fn(u8) -> bool) -> usize {
    while at < bytes.len() && accepts(bytes[at]) {
        at += 1;
    }
    at
}

/// The end of the line's text, before `\n` or `\r\n`.
fn line_end(bytes: &[u8], at: usize) -> usize {
    let end = skip(bytes, at, |byte| byte != b'\n');
    if end > at && bytes[end - 1] == b'\r' { end - 1 } else { end }
}

fn text_token(bytes: &[u8], start: usize) -> (TokenKind, usize) {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return (TokenKind::Text, at + 1),
            b'\n' => break,
            b'\\' if at + 1 < bytes.len() && bytes[at + 1] != b'\n' => at += 2,
            _ => at += 1,
        }
    }
    (TokenKind::OpenText, line_end(bytes, start))
}

fn number_end(bytes: &[u8], start: usize) -> usize {
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'_';
    let mut at = skip(bytes, start, is_digit);
    if bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        at = skip(bytes, at + 1, is_digit);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = matches!(bytes.get(at + 1), Some(b'+' | b'-')) as usize;
        if bytes.get(at + 1 + sign).is_some_and(u8::is_ascii_digit) {
            at = skip(bytes, at + 1 + sign, |byte| byte.is_ascii_digit());
        }
    }
    at
}

fn symbol_token(source: &str, at: usize) -> (TokenKind, usize) {
    let rest = &source[at..];
    match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        Some(symbol) => (TokenKind::Symbol, at + symbol.len()),
        None => (TokenKind::Unknown, at + rest.chars().next().map_or(1, char::len_utf8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).iter().map(|token| token.text(source)).collect()
    }

    #[test]
    fn longest_symbol_wins() {
        assert_eq!(texts("a->b <- c<=d ** e"), ["a", "->", "b", "<-", "c", "<=", "d", "**", "e"]);
    }

    #[test]
    fn numbers_keep_fraction_and_exponent_but_not_suffix() {
        assert_eq!(texts("1e-3 628_260 0.02 2M 1.x"), ["1e-3", "628_260", "0.02", "2", "M", "1", ".", "x"]);
    }

    #[test]
    fn hash_inside_a_text_is_no_comment() {
        assert_eq!(texts("\"a # b\" # c"), ["\"a # b\"", "# c"]);
        assert_eq!(tokens("\"a # b").first().map(|token| token.kind), Some(TokenKind::OpenText));
    }

    #[test]
    fn unknown_characters_stay_on_character_boundaries() {
        assert_eq!(texts("é→x"), ["é", "→", "x"]);
    }
}
