//! The formatter on the corpus, on single forms, and on mangled layouts.

use proptest::prelude::*;
use serde_json::Value;

use super::tests::CORPUS;
use super::{format, parse};
use crate::source::FileId;

fn formatted(text: &str) -> String {
    format(text).unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics:#?}"))
}

/// The tree as JSON without spans.
fn tree(text: &str) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|key, _| key != "span" && key != "path_span");
                fields.values_mut().for_each(strip);
            }
            Value::Array(entries) => entries.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let (file, diagnostics) = parse(FileId(0), text);
    assert!(diagnostics.is_empty(), "{text}\n{diagnostics:#?}");
    let mut value = serde_json::to_value(&file).expect("the tree is plain data");
    strip(&mut value);
    value
}

fn comments(text: &str) -> Vec<String> {
    use super::token::{TokenKind, tokens};
    let is_comment = |kind| matches!(kind, TokenKind::Comment | TokenKind::Doc);
    let found = tokens(text).into_iter().filter(|token| is_comment(token.kind));
    found.map(|token| token.text(text).trim_end().to_string()).collect()
}

/// Formats and holds the three promises: same tree, same comments, idempotent.
fn check(text: &str) -> String {
    let once = formatted(text);
    assert_eq!(tree(&once), tree(text), "the tree changed:\n{text}\n=>\n{once}");
    assert_eq!(comments(&once), comments(text), "comments changed:\n{once}");
    let twice = formatted(&once);
    assert_eq!(twice, once, "not idempotent");
    once
}

#[test]
fn the_corpus_keeps_its_trees_and_comments() {
    for (_, text) in CORPUS {
        check(text);
    }
}

#[test]
fn the_text_classifier_is_already_formatted() {
    let (_, text) = CORPUS[0];
    assert_eq!(check(text), text);
}

#[test]
fn spaces_are_canonical() {
    let text = "fn  f( x,y:[N,C]=2 )=x*2+y [ S*i+u-P , 2*i ]^2-(-x)*sum[k](a [k])-4*C\n";
    let wanted = "fn f(x, y: [N, C] = 2) = x * 2 + y[S*i + u - P, 2 * i]^2 - (-x) * sum[k] (a[k]) - 4 * C\n";
    assert_eq!(check(text), wanted);
    assert_eq!(check("assert M{params<2M,\"why\"}\n"), "assert M { params < 2 M, \"why\" }\n");
    assert_eq!(
        check("layer A {\nreturn y:[N,(H+2*P-K)/S+1]\n}"),
        "layer A {\n  return y : [N, (H + 2*P - K) / S + 1]\n}\n"
    );
}

#[test]
fn settings_are_aligned_in_runs() {
    let text = "train M on d {\n loss = f\n  batch=64\n\n keep   = last\n # c\n length = 1 epoch\n}\ndata d {\n source = s(1)\n image: u8[3]\n prepare.image = a\n augment.x = b\n}\n";
    let wanted = "\
train M on d {
  loss  = f
  batch = 64

  keep = last
  # c
  length = 1 epoch
}
data d {
  source = s(1)
  image: u8[3]
  prepare.image = a
  augment.x     = b
}
";
    assert_eq!(check(text), wanted);
}

#[test]
fn long_pipelines_break_before_arrows() {
    let stage = " -> Linear(1000) -> relu".repeat(6);
    let wanted = "\
model M {
  return words -> Linear(1000) -> relu -> Linear(1000) -> relu -> Linear(1000) -> relu
    -> Linear(1000) -> relu -> Linear(1000) -> relu -> Linear(1000) -> relu
}
";
    assert_eq!(check(&format!("model M {{\nreturn words{stage}\n}}")), wanted);
}

#[test]
fn a_line_of_thousands_of_stages_is_not_read_again_for_each_break() {
    let start = std::time::Instant::now();
    let (stages, terms) = (" -> relu".repeat(2000), " + x * relu(x)".repeat(60));
    let text = check(&format!("model M {{\nreturn x{stages}\n}}\nfn f(x) = x{terms}\n"));
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    assert_eq!(text.matches("relu").count(), 2060);
    // Reading the rest of the line for each place of each break takes minutes.
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn long_calls_break_inside_of_their_brackets() {
    let arguments = (0..12).map(|index| format!("argument{index} = {index}")).collect::<Vec<_>>().join(", ");
    let shown = check(&format!("fn f(x) = call({arguments})\n"));
    assert!(shown.lines().all(|line| line.len() <= 100), "{shown}");
    assert!(shown.starts_with("fn f(x) = call(\n  argument0 = 0,"), "{shown}");
    assert!(shown.ends_with("\n)\n"), "{shown}");
}

#[test]
fn comments_stay_where_they_are() {
    let text = "\
# head
layer A { # opening
  # first

  y = x # one
    # inside
    -> B(1, # two
      2) # three
  z = 1 # four
  # last
}
# tail
";
    let wanted = "\
# head
layer A {  # opening
  # first

  y = x  # one
    # inside
    -> B(1,  # two
      2)     # three
  z = 1      # four
  # last
}
# tail
";
    assert_eq!(check(text), wanted);
}

#[test]
fn trailing_operators_move_to_the_next_line() {
    let text = "layer A {\n  y =\n    a +\n    b ->\n    f\n  if p\n  {\n    z = 1\n  }\n  else\n  {\n z = 2 }\n}\n";
    let wanted = "layer A {\n  y = a\n    + b\n    -> f\n  if p {\n    z = 1\n  } else {\n    z = 2 }\n}\n";
    assert_eq!(check(text), wanted);
}

#[test]
fn a_broken_file_is_not_formatted() {
    assert!(format("layer A {\n").is_err());
}

/// Replaces each blank between tokens, choosing from layouts that keep the tree.
fn mangled(text: &str, choices: &[u8]) -> String {
    use super::token::{TokenKind, tokens};
    let mut mangled = String::new();
    let mut open: Vec<&str> = Vec::new();
    let mut end = 0;
    for (index, token) in tokens(text).into_iter().enumerate() {
        let gap = &text[end..token.start];
        let choice = choices[index % choices.len()];
        let word = token.text(text);
        let in_brackets = open.last().is_some_and(|open| *open != "{");
        match (choice % 8, token.kind) {
            (0, TokenKind::Newline) if in_brackets => {}
            (1, TokenKind::Newline) => mangled.push_str("  # note"),
            (2, _) if word == "->" => mangled.push_str("\n "),
            (3, _) if in_brackets && token.kind != TokenKind::Newline => mangled.push_str("\n\t"),
            (4, _) if in_brackets => mangled.push_str("# inside\n"),
            (5, _) => mangled.push_str("   "),
            _ => mangled.push_str(gap),
        }
        match word {
            "(" | "[" | "{" => open.push(word),
            ")" | "]" | "}" => drop(open.pop()),
            _ => {}
        }
        mangled.push_str(word);
        end = token.end;
    }
    mangled
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_layout_of_the_corpus_keeps_its_tree(which in 0..CORPUS.len(), choices in prop::collection::vec(any::<u8>(), 1..200)) {
        let (_, text) = CORPUS[which];
        let mangled = mangled(text, &choices);
        let (_, diagnostics) = parse(FileId(0), &mangled);
        prop_assume!(diagnostics.is_empty());
        prop_assert_eq!(tree(&formatted(&mangled)), tree(&mangled));
        check(&mangled);
    }

    #[test]
    fn damaged_text_never_panics(which in 0..CORPUS.len(), cuts in prop::collection::vec((any::<u16>(), 0..12usize), 1..8)) {
        const PIECES: [&str; 12] = ["", "(", ")", "{", "}", "[", "\n", "->", "\"", "é", " else ", "= "];
        let mut text = CORPUS[which].1.to_string();
        for (at, piece) in cuts {
            let mut at = at as usize % (text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let end = text[at..].chars().next().map_or(at, |character| at + character.len_utf8());
            text.replace_range(at..end, PIECES[piece]);
        }
        let (_, diagnostics) = parse(FileId(0), &text);
        for diagnostic in &diagnostics {
            let span = diagnostic.span();
            prop_assert!(text.get(span.start as usize..span.end as usize).is_some(), "{:?}", diagnostic);
        }
        if diagnostics.is_empty() {
            check(&text);
        }
    }
}

#[test]
fn the_direction_of_a_metric_stands_close_to_its_parameters() {
    let text = "metric mae(a, b) :lower   is better = a\n";
    assert_eq!(check(text), "metric mae(a, b): lower is better = a\n");
}
