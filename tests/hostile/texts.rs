//! Model files: sizes and numbers at which compilers of this field went wrong.

use super::{run, trouble, write};

/// Lines of a model with an input `x: [N, 3, 8, 8]`.
fn model(lines: &str) -> String {
    format!("model M {{\n  input x: [N, 3, 8, 8]\n  {lines}\n}}\n")
}

#[test]
fn model_texts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let deep = |open: &str, close: &str| model(&format!("return x * {}1{}", open.repeat(50_000), close.repeat(50_000)));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no UTF-8", b"model M {\xff}".to_vec(), "m.ansatz"),
        ("NUL", b"model M\0 {}\n".to_vec(), "m.ansatz"),
        ("parentheses", deep("(", ")").into(), "m.ansatz:3"),
        ("brackets", deep("[", "]").into(), "m.ansatz:3"),
        ("negations", deep("-", "").into(), "m.ansatz:3"),
        ("a size of 65 bits", model("return x -> Conv(18446744073709551616, 3)").into(), "m.ansatz:3"),
        (
            "a product of sizes beyond 64 bits",
            model("return x -> flatten -> Linear(9223372036854775807)").into(),
            "m.ansatz:3",
        ),
        (
            "layers beyond memory",
            model("return x -> flatten -> Linear(1000000000000) -> Linear(1000000000000)").into(),
            "m.ansatz:3",
        ),
        ("a filter of nothing", model("return x -> Conv(8, 0)").into(), "m.ansatz"),
        ("a stride of nothing", model("return x -> Conv(8, 3, stride = 0)").into(), "m.ansatz"),
        ("a negative padding", model("return x -> Conv(8, 3, pad = -9)").into(), "m.ansatz"),
        ("a pool of nothing", model("return x -> max_pool(0)").into(), "m.ansatz"),
        ("a negative pool", model("return x -> max_pool(-2)").into(), "m.ansatz"),
        ("no outputs", model("return x -> flatten -> Linear(0)").into(), "m.ansatz"),
        ("a division by zero", model("let y = 3 / 0\n  return x * y").into(), "m.ansatz"),
        ("a model of itself", "model M {\n  input x: [N, 3]\n  return x -> M\n}\n".into(), "m.ansatz:3"),
    ];
    let check = |(name, text, words): &(&str, Vec<u8>, &str)| {
        write(folder.path(), "m.ansatz", text);
        Some(format!("{name}: {}", trouble(folder.path(), &["check", "m.ansatz"], &[words])?))
    };
    let wrong: Vec<String> = cases.iter().filter_map(check).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    write(folder.path(), "m.ansatz", model("return x -> Conv(8, 3) -> flatten -> Linear(2)"));
    assert!(run(folder.path(), &["check", "m.ansatz"]).status.success());
}
