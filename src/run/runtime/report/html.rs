//! What pages are made of: escaped texts, numbers, the frame.
//!
//! Input: texts of users, numbers. Output: HTML. Invariant: what [`text`] gives is inert in elements and in quoted
//! attributes: it opens no tag, ends no attribute, and shows control characters instead of obeying them.

use std::fmt::Display;

use crate::source::is_hidden;

/// The look of all pages; light or dark as the reader's system is.
const STYLE: &str = include_str!("style.css");

/// A text of anybody's, made inert.
pub fn text(words: impl Display) -> String {
    let mut escaped = String::new();
    for character in words.to_string().chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            hidden if is_hidden(hidden) => escaped.extend(hidden.escape_default()),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A whole page around a body that is HTML already.
pub fn page(title: &str, body: &str) -> String {
    let title = text(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// A table; cells are HTML already. Columns from `numbers` on hold numbers.
pub fn table(head: &[&str], rows: &[Vec<String>], numbers: usize) -> String {
    let class = |column: usize| if column >= numbers { " class=\"number\"" } else { "" };
    let heads =
        head.iter().enumerate().map(|(column, words)| format!("<th{} scope=\"col\">{words}</th>", class(column)));
    let row = |cells: &Vec<String>| {
        let cells = cells.iter().enumerate().map(|(column, cell)| format!("<td{}>{cell}</td>", class(column)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table></div>\n",
        heads.collect::<String>(),
        rows.iter().map(row).collect::<String>()
    )
}

/// A figure of merit or a loss, as short as it is readable.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        size if !(1e-4..1e6).contains(&size) => format!("{value:.3e}"),
        size if size >= 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

/// A value that may be missing.
pub fn figure_or_none(value: Option<f64>) -> String {
    value.map_or("–".to_string(), figure)
}

/// `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `48 s`, `12 min 5 s`, `3 h 20 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_inert() {
        let hostile = "</style><script>alert('1')</script>\" onload=\"x&\u{202e}\u{7}";
        let inert = text(hostile);
        assert!(!inert.contains(['<', '>', '"', '\'', '\u{202e}', '\u{7}']), "{inert}");
        assert!(page(hostile, "").contains(&format!("<title>{inert}</title>")));
        assert_eq!(text("a < b && c\n"), "a &lt; b &amp;&amp; c\n");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.98765, 12.5, 1234.56, 1e-7].map(figure), ["0", "0.9877", "12.5000", "1234.6", "1.000e-7"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.25, 59.6, 125.0, 12_000.0].map(duration), ["0.2 s", "1 min 0 s", "2 min 5 s", "3 h 20 min"]);
    }
}
