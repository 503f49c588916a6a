//! Files made to exhaust the compiler.

use super::errors;

/// Functions that call each other `depth` deep, each `height` operations inside an expression.
fn tower(depth: usize, height: usize, point: &str) -> String {
    let mut text = String::new();
    for level in 0..depth {
        let inner = if level + 1 == depth { point.to_owned() } else { format!("f{}({point})", level + 1) };
        let body = format!("{inner}{}", " + 1".repeat(height));
        text += &if point == "x" {
            format!("fn f{level}(x) = {body}\n")
        } else {
            format!("fn f{level}(x) {{\n  y[n, c] = {body}\n  return y\n}}\n")
        };
    }
    text + "model M {\n  input x: [N, 4]\n  return f0(x)\n}\n"
}

#[test]
fn deep_definitions_of_deep_expressions_do_not_overflow_the_stack() {
    for point in ["x", "x[n, c]"] {
        super::good(&tower(46, 110, point));
        assert!(errors(&tower(60, 110, point)).iter().any(|error| error.0 == "too-deep"));
    }
}

#[test]
fn deep_blocks_do_not_overflow_the_stack() {
    let mut text = String::new();
    for level in 0..46 {
        let inner = if level == 45 { "relu".to_owned() } else { format!("L{}", level + 1) };
        let body = format!("{}{inner}{}", "residual { ".repeat(50), " }".repeat(50));
        text += &format!("layer L{level} {{\n  input x: [N, C]\n  return x -> {body}\n}}\n");
    }
    super::good(&(text + "model M {\n  input x: [N, 4]\n  return x -> L0\n}\n"));
}

#[test]
fn doubling_functions_meet_the_limit_soon() {
    let mut text = "fn f0(x) = x + 1\n".to_owned();
    for level in 1..40 {
        text += &format!("fn f{level}(x) = f{}(x) + f{0}(x + 1)\n", level - 1);
    }
    let found = errors(&(text + "model M {\n  input x: [N, 4]\n  return f39(x)\n}\n"));
    assert_eq!(found.iter().map(|error| error.0).collect::<Vec<_>>(), ["too-large"]);
}

#[test]
fn sizes_that_overflow_are_errors() {
    let text = "model M {\n  input x: [N, 4]\n  return x -> Linear(4 T) -> Linear(4 T)\n}\n";
    assert_eq!(errors(text)[0].0, "too-large");
    let text = "model M {\n  input x: [N, 9 T * 9 T * 9 T]\n  return x\n}\n";
    assert_eq!(errors(text).len(), 1);
    let text = "model M {\n  input x: [N, 4 / 0]\n  return x\n}\n";
    assert_eq!(errors(text).len(), 1);
}
