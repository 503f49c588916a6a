//! What the parser reads, what it recovers from, and what it costs.

use std::time::Instant;

use super::ast::{BinaryOp, Bound, Expr, ExprKind, File, ItemKind, Statement, StatementKind, Suffix};
use super::{parse, parse_expression};
use crate::diagnostics::Diagnostic;
use crate::settings::Direction;
use crate::source::FileId;

/// Programs that must parse without findings.
pub(super) const CORPUS: &[(&str, &str)] = &[
    ("text_mlp", include_str!("../../tests/corpus/text_mlp.ansatz")),
    ("seed_cnn", include_str!("../../tests/corpus/seed_cnn.ansatz")),
    ("resnet18", include_str!("../../tests/corpus/resnet18.ansatz")),
    ("gpt", include_str!("../../tests/corpus/gpt.ansatz")),
    ("conv2", include_str!("../../tests/corpus/conv2.ansatz")),
    ("training", include_str!("../../tests/corpus/training.ansatz")),
    ("forms", include_str!("../../tests/corpus/forms.ansatz")),
];

fn read(text: &str) -> (File, Vec<Diagnostic>) {
    parse(FileId(0), text)
}

fn clean(text: &str) -> File {
    let (file, diagnostics) = read(text);
    assert!(diagnostics.is_empty(), "{text}\n{diagnostics:#?}");
    file
}

fn body(text: &str) -> Vec<Statement> {
    let file = clean(&format!("layer T {{\n{text}\n}}"));
    match file.items.into_iter().next().map(|item| item.kind) {
        Some(ItemKind::Definition(definition)) => definition.body,
        other => panic!("{other:?}"),
    }
}

/// An expression with all its parentheses.
fn shape(text: &str) -> String {
    match parse_expression(FileId(0), text) {
        Ok(expression) => show(&expression),
        Err(diagnostics) => panic!("{text}: {diagnostics:#?}"),
    }
}

fn show(expression: &Expr) -> String {
    let list = |entries: &[Expr]| entries.iter().map(show).collect::<Vec<_>>().join(", ");
    match &expression.kind {
        ExprKind::Number { text, suffix: None, .. } => text.clone(),
        ExprKind::Number { text, suffix: Some(suffix), .. } => format!("{text}{suffix:?}"),
        ExprKind::Text(text) => format!("{text:?}"),
        ExprKind::Bool(value) => value.to_string(),
        ExprKind::Name(name) => name.clone(),
        ExprKind::List(entries) => format!("[{}]", list(entries)),
        ExprKind::Call { callee, arguments } => {
            let arguments: Vec<String> = arguments
                .iter()
                .map(|argument| match (&argument.name, &argument.label) {
                    (Some(name), _) => format!("{}={}", name.name, show(&argument.value)),
                    (_, Some(label)) => format!("{}:{}", label.name, show(&argument.value)),
                    _ => show(&argument.value),
                })
                .collect();
            format!("{}({})", show(callee), arguments.join(", "))
        }
        ExprKind::Index { base, indices } => format!("{}[{}]", show(base), list(indices)),
        ExprKind::Each(one) => format!("{}..", show(one)),
        ExprKind::Group(members) => format!("({})", members.iter().map(show).collect::<Vec<_>>().join(" ")),
        ExprKind::Field { base, name } => format!("{}.{}", show(base), name.name),
        ExprKind::Unary(op, operand) => format!("({op:?} {})", show(operand)),
        ExprKind::Binary(op, left, right) => format!("({op:?} {} {})", show(left), show(right)),
        ExprKind::Reduce { op, indices, body } => {
            let name = |index: &Bound| format!("{}{}", index.name.name, if index.each { ".." } else { "" });
            let indices: Vec<String> = indices.iter().map(name).collect();
            format!("({}[{}] {})", op.name, indices.join(","), show(body))
        }
        ExprKind::Conditional { then, condition, otherwise } => {
            format!("({} if {} else {})", show(then), show(condition), show(otherwise))
        }
        ExprKind::Guard { read, otherwise } => format!("({} else {})", show(read), show(otherwise)),
        ExprKind::Pipeline { head, stages } => {
            let head = head.as_ref().map(|head| show(head)).unwrap_or_default();
            let stages: Vec<String> = stages.iter().map(show_stage).collect();
            format!("<{head} -> {}>", stages.join(" -> "))
        }
        ExprKind::Residual(stages) => {
            let stages: Vec<String> = stages.iter().map(show_stage).collect();
            format!("residual<{}>", stages.join(" -> "))
        }
        ExprKind::Repeat { count, body } => format!("repeat({}) {}", show(count), show(body)),
    }
}

fn show_stage(stage: &super::ast::Stage) -> String {
    let label = stage.label.as_ref().map(|label| format!("{}:", label.name)).unwrap_or_default();
    label + &show(&stage.value)
}

#[test]
fn every_program_of_the_corpus_parses() {
    for (name, text) in CORPUS {
        let (file, diagnostics) = read(text);
        assert!(diagnostics.is_empty(), "{name}: {diagnostics:#?}");
        assert!(!file.items.is_empty(), "{name}");
    }
}

#[test]
fn operators_bind_as_documented() {
    assert_eq!(shape("a + b * c ^ d ^ e"), "(Add a (Mul b (Pow c (Pow d e))))");
    assert_eq!(shape("a - b - c"), "(Sub (Sub a b) c)");
    assert_eq!(shape("-x^2"), "(Neg (Pow x 2))");
    assert_eq!(shape("-a * b"), "(Mul (Neg a) b)");
    assert_eq!(shape("2 ^ -x"), "(Pow 2 (Neg x))");
    assert_eq!(shape("not a == b and c or d"), "(Or (And (Not (Eq a b)) c) d)");
    assert_eq!(shape("C % heads == 0"), "(Eq (Rem C heads) 0)");
    assert_eq!(shape("a < b + 1"), "(Lt a (Add b 1))");
}

#[test]
fn a_reduction_takes_the_product_that_follows() {
    assert_eq!(shape("sum[k] a * b + c"), "(Add (sum[k] (Mul a b)) c)");
    assert_eq!(shape("x - sum[d] q[i, d] * k[j, d] / sqrt(D)"), "(Sub x (sum[d] (Div (Mul q[i, d] k[j, d]) sqrt(D))))");
    assert_eq!(shape("a * sum[h, d] (sum[j] v[j]) * w"), "(Mul a (sum[h,d] (Mul (sum[j] v[j]) w)))");
    assert_eq!(shape("argmax[c] z[n, c] == label[n]"), "(Eq (argmax[c] z[n, c]) label[n])");
    assert_eq!(shape("mean[c] * 2 - max[c]"), "(Sub (Mul mean[c] 2) max[c])");
    assert_eq!(shape("mean(x)"), "mean(x)");
}

#[test]
fn conditionals_hold_pipelines_and_nest_to_the_right() {
    assert_eq!(shape("x if s == 1 and K == C else x -> d: f(C)"), "(x if (And (Eq s 1) (Eq K C)) else <x -> d:f(C)>)");
    assert_eq!(shape("a if p else b if q else c"), "(a if p else (b if q else c))");
    assert_eq!(shape("softmax[j] (s[i, j] if j <= i else -inf)"), "(softmax[j] (s[i, j] if (Le j i) else (Neg inf)))");
}

#[test]
fn a_guard_follows_a_read() {
    assert_eq!(shape("(x[S*i + u - P] else 0) * w[u]"), "(Mul (x[(Sub (Add (Mul S i) u) P)] else 0) w[u])");
    let error = parse_expression(FileId(0), "a + x[i] else 0").expect_err("the guard covers a sum");
    assert!(error[0].message.contains("read outside a tensor"), "{error:?}");
}

#[test]
fn pipelines_have_labels_waypoints_and_blocks() {
    assert_eq!(shape("x -> c: Conv(3, stride = 2) -> [N, 64]"), "<x -> c:Conv(3, stride=2) -> [N, 64]>");
    assert_eq!(shape("x -> residual { A -> b: B } -> C"), "<x -> residual<A -> b:B> -> C>");
    assert_eq!(
        shape("x -> h: repeat(2) B(3) -> repeat(n) { A -> B }"),
        "<x -> h:repeat(2) B(3) -> repeat(n) < -> A -> B>>"
    );
    assert_eq!(shape("chain(a, label: B, C(x = 1))"), "chain(a, label:B, C(x=1))");
    assert_eq!(shape("repeat(2) repeat(3) A"), "repeat(2) repeat(3) A");
    assert_eq!(shape("warmup(500 steps) -> cosine(to = 1e-6)"), "<warmup(500Steps) -> cosine(to=1e-6)>");
}

#[test]
fn numbers_carry_suffixes() {
    assert_eq!(
        shape("[1 k, 2 M, 512 MiB, 10 epochs, 1 epoch, 5 %, 2G]"),
        "[1Kilo, 2Mega, 512MiB, 10Epochs, 1Epochs, 5Percent, 2Giga]"
    );
    assert_eq!(shape("rotate(-10 deg, 10 deg)"), "rotate((Neg 10Deg), 10Deg)");
    assert_eq!(shape("5 % 3"), "(Rem 5 3)");
    assert_eq!(shape("5 % if p else 7 % x"), "(5Percent if p else (Rem 7 x))");
    let expression = parse_expression(FileId(0), "628_260 steps").expect("a number");
    let ExprKind::Number { value, suffix, text } = expression.kind else { panic!("not a number") };
    assert_eq!((value, suffix, text.as_str()), (628_260.0, Some(Suffix::Steps), "628_260"));
}

#[test]
fn leading_and_trailing_operators_continue_a_statement() {
    let statements = body(
        "y = x\n  -> A\n\n  # a comment\n  -> B\nz = y +\n  1\nw = a\n  if p\n  else b\nv = f(\n  1,\n  2\n)\nu = 1",
    );
    assert_eq!(statements.len(), 5);
}

#[test]
fn a_leading_if_with_a_block_is_a_statement() {
    let statements = body("y = x\nif training {\n  z = 1\n}\nelse if p {\n  z = 2\n} else {\n  z = 3\n}\nreturn y");
    assert_eq!(statements.len(), 3);
    let StatementKind::If { otherwise, .. } = &statements[1].kind else { panic!("{statements:?}") };
    let StatementKind::If { then, otherwise, .. } = &otherwise[0].kind else { panic!("{otherwise:?}") };
    assert_eq!((then.len(), otherwise.len()), (1, 1));
}

#[test]
fn commas_bind_a_list() {
    let file = clean("train M on d {\n metrics = accuracy, recall(macro)\n keep = best(valid.accuracy), last\n}");
    let ItemKind::Train(train) = &file.items[0].kind else { panic!("{file:?}") };
    let StatementKind::Bind { value, .. } = &train.body[0].kind else { panic!("{train:?}") };
    assert_eq!(show(value), "[accuracy, recall(macro)]");
}

#[test]
fn spans_cover_exactly_the_text() {
    let text = "layer T(A) {\n  y = f(x  ,  2)   # why\n  return y # é\n}\n";
    let file = clean(text);
    let ItemKind::Definition(definition) = &file.items[0].kind else { panic!("{file:?}") };
    let slice = |span: crate::source::Span| &text[span.start as usize..span.end as usize];
    assert_eq!(slice(definition.body[0].span), "y = f(x  ,  2)");
    let StatementKind::Bind { value, .. } = &definition.body[0].kind else { panic!("{definition:?}") };
    assert_eq!(slice(value.span), "f(x  ,  2)");
    assert_eq!(slice(definition.body[1].span), "return y");
    assert_eq!(slice(file.items[0].span), text.trim_end());
}

#[test]
fn docs_belong_to_the_item_below_or_to_the_file() {
    let file = clean("## About\n## the file.\n\n## A function.\nfn f(x) = x\n\n## not this one\n\nfn g(x) = x\n");
    assert_eq!(file.docs, ["About", "the file."]);
    assert_eq!(file.items[0].docs, ["A function."]);
    assert!(file.items[1].docs.is_empty());
}

#[test]
fn three_mistakes_give_three_diagnostics_and_keep_the_rest() {
    let text =
        "layer A(C) {\n  input x [N, C]\n  y = x -> \n  z = f(y\n  return z\n}\nfn g(x) = x\nlayr B {\n}\nfn h(x) = x";
    let (file, diagnostics) = read(text);
    let lines: Vec<usize> = diagnostics
        .iter()
        .map(|diagnostic| text[..diagnostic.span().start as usize].matches('\n').count() + 1)
        .collect();
    assert_eq!(lines, [2, 3, 4, 8], "{diagnostics:#?}");
    assert_eq!(file.items.len(), 3);
    let ItemKind::Definition(definition) = &file.items[0].kind else { panic!("{file:?}") };
    assert_eq!(definition.body.len(), 1, "the return statement stays");
}

#[test]
fn an_unclosed_brace_does_not_swallow_the_next_item() {
    let (file, diagnostics) = read("model A {\n  return x\n\nmodel B {\n  return x\n}\n");
    assert_eq!(diagnostics.len(), 1, "{diagnostics:#?}");
    assert_eq!(diagnostics[0].code, "unclosed");
    assert_eq!(file.items.len(), 2);
}

#[test]
fn nothing_is_told_of_places_behind_the_text() {
    for text in [
        "use A from {",
        "use A from {\n\nmodel B { return x }\n",
        "data d {\n  source = csv(",
        "model A { return { x ->",
    ] {
        let (_, diagnostics) = read(text);
        assert!(!diagnostics.is_empty(), "{text}");
        for diagnostic in diagnostics {
            assert!(diagnostic.span().end as usize <= text.len(), "{text}: {diagnostic:#?}");
            assert!(!diagnostic.message.contains("after `}`"), "{text}: {diagnostic:#?}");
        }
    }
}

#[test]
fn a_chained_comparison_is_an_error() {
    let error = parse_expression(FileId(0), "a < b < c").expect_err("chained");
    assert_eq!(error[0].message, "comparisons do not chain");
    assert_eq!(shape("(a < b) == c"), "(Eq (Lt a b) c)");
    assert!(matches!(parse_expression(FileId(0), "a < b").map(|e| e.kind), Ok(ExprKind::Binary(BinaryOp::Lt, ..))));
}

#[test]
fn less_than_a_negative_number_is_no_arrow() {
    assert_eq!(shape("a < -1"), "(Lt a (Neg 1))");
}

#[test]
fn an_empty_file_is_an_empty_tree() {
    for text in ["", "\n\n", "# only a comment", "## doc\n"] {
        let (file, diagnostics) = read(text);
        assert!(file.items.is_empty() && diagnostics.is_empty(), "{text:?}");
    }
}

/// Inputs that have made parsers overflow their stack or take exponential time.
fn hostile(bytes: usize) -> Vec<(&'static str, String)> {
    let wrap = |inner: String| format!("layer T {{\n y = {inner}\n}}\n");
    let fill = |unit: &str| unit.repeat(bytes / unit.len());
    vec![
        ("open parentheses", fill("(")),
        ("open brackets", fill("[")),
        ("open braces", fill("{")),
        ("closing parentheses", fill(")")),
        ("closing lines", fill("}\n")),
        ("open in a statement", wrap(fill("("))),
        ("sum chain", wrap(fill("1+") + "1")),
        ("power chain", wrap(fill("1^") + "1")),
        ("minus chain", wrap(fill("- ") + "1")),
        ("not chain", wrap(fill("not ") + "x")),
        ("sum[k] chain", wrap(fill("sum[k] ") + "x")),
        ("member chain", wrap("x".to_string() + &fill(".x"))),
        ("call chain", wrap("x".to_string() + &fill("()"))),
        ("index chain", wrap("x".to_string() + &fill("[0]"))),
        ("conditional chain", wrap(fill("a if b else ") + "c")),
        ("conditional without end", wrap(fill("a if b ") + "c")),
        ("else chain", wrap(fill("a else ") + "c")),
        ("arrow chain", wrap(fill("a -> ") + "c")),
        ("repeat chain", wrap(fill("repeat(2) ") + "c")),
        ("residual chain", wrap(fill("residual ") + "c")),
        ("else if chain", format!("layer T {{\n if a {{}} {}\n}}", fill("else if a {} "))),
        ("nested calls", wrap("f(a = ".repeat(90) + &"x ".repeat(bytes / 8) + &")".repeat(90))),
        ("nested lists", wrap("[x[".repeat(45) + "1 2" + &"]]".repeat(45))),
        ("deep sums", wrap((fill("(a+a+a+a+a+a+") + "a").chars().take(90 * 13).collect::<String>() + &")".repeat(90))),
        ("nested blocks", format!("layer T {}", fill("{ if a "))),
        ("nested stages", wrap("residual { repeat(2) { a -> ".repeat(47) + "1 2" + &"}}".repeat(47))),
        ("many commas", wrap(format!("f({}", fill(",")))),
        ("quotes", fill("\"")),
        ("open quotes", fill("\"\n")),
        ("newlines", fill("\n")),
        ("bad lines", format!("layer T {{\n{}}}", fill("1 2\n"))),
        ("bad items", fill("1 2\n")),
        ("digits", wrap(fill("9"))),
        ("name", fill("a")),
        ("not ASCII", fill("é")),
        ("control characters", fill("\u{0}")),
        ("backslashes", fill("\"\\\\")),
        ("comments", fill("#")),
        ("unclosed lines", fill("layer T {\n")),
        ("unclosed calls", format!("layer T {{\n{}", fill("y = f(\nreturn x\n"))),
    ]
}

fn on_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(1 << 20).spawn(work).expect("a thread").join().expect("no panic");
}

#[test]
fn hostile_input_is_read_in_bounded_time_on_a_small_stack() {
    on_small_stack(|| {
        for (name, text) in hostile(64 << 10) {
            let start = Instant::now();
            let (file, _) = read(&text);
            drop(file);
            assert!(start.elapsed().as_secs_f64() < 1.0, "{name}: {:?}", start.elapsed());
        }
    });
}

#[test]
fn a_megabyte_of_brackets_is_a_diagnostic() {
    on_small_stack(|| {
        for unit in ["(", "[", "{", "layer T { y = ("] {
            let (_, diagnostics) = read(&unit.repeat((1 << 20) / unit.len()));
            assert_eq!(diagnostics.last().map(|diagnostic| diagnostic.code), Some("too-deep"), "{unit}");
        }
    });
}

#[test]
fn chains_beyond_the_limit_are_diagnosed_and_long_ones_below_it_are_not() {
    let (_, diagnostics) = read(&format!("fn f(x) = {}1", "1+".repeat(400)));
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].code, "too-deep");
    clean(&format!("fn f(x) = {}1", "1+".repeat(100)));
    clean(&format!("fn f(x) = x{}", " -> relu".repeat(2000)));
}

#[test]
fn a_metric_says_which_figures_are_better() {
    let direction = |text: &str| {
        let (file, diagnostics) = parse(FileId(0), text);
        assert!(diagnostics.is_empty(), "{text}: {diagnostics:#?}");
        let ItemKind::Definition(definition) = &file.items[0].kind else { panic!("{file:?}") };
        definition.better.map(|better| (better.direction, better.span.start as usize..better.span.end as usize))
    };
    let text = "metric mae(y, t): lower is better {\n  return 1\n}\n";
    assert_eq!(direction(text).map(|(which, at)| (which, &text[at])), Some((Direction::Lower, ": lower is better")));
    assert_eq!(direction("metric a(y, t) : higher is better = 1\n").map(|found| found.0), Some(Direction::Higher));
    assert_eq!(direction("metric a(y, t) = 1\n"), None);
}
