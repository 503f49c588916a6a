use super::super::Mode;
use super::{bound, errors, good, one_error, output_shape};
use crate::graph::Init;

#[test]
fn inputs_bind_sizes_and_prove_constants() {
    let layer = "layer L {\n  input x: [N, 4]\n  return x\n}\n";
    let text = format!("{layer}model M {{\n  input x: [N, 5]\n  return x -> L\n}}\n");
    one_error(&text, "shape-mismatch", "L");
    let text = format!("{layer}model M {{\n  input x: [N, C]\n  return x -> L\n}}\n");
    one_error(&text, "shape-mismatch", "L");
    let text = format!("{layer}model M {{\n  input x: [N, C]\n  require C == 4\n  return x -> L\n}}\n");
    assert_eq!(output_shape(&good(&text)), "[N, C]");
}

#[test]
fn element_types_are_checked_at_inputs() {
    let text = "layer L {\n  input x: i32[N, C]\n  return x\n}\nmodel M {\n  input x: [N, 4]\n  return x -> L\n}\n";
    one_error(text, "type-mismatch", "L");
    one_error("model M {\n  input x: f16[N, 4]\n  return x\n}\n", "unknown-type", "f16");
}

#[test]
fn a_layer_takes_several_inputs_by_position_or_name() {
    let layer = "layer Cross {\n  input a: [N, C]\n  input b: [N, C]\n  return a + 2 * b\n}\n";
    let model = |call: &str| format!("{layer}model M {{\n  input x: [N, 4]\n  cross = Cross\n  return {call}\n}}\n");
    for call in ["cross(x, x)", "cross(x, b = x)", "x -> cross(x)"] {
        assert_eq!(output_shape(&good(&model(call))), "[N, 4]", "{call}");
    }
    assert_eq!(errors(&model("cross(x)"))[0].0, "missing-input");
    assert_eq!(errors(&model("cross(x, x, x)"))[0].0, "too-many-inputs");
    assert_eq!(errors(&model("cross(x, c = x)"))[0].0, "missing-input");
}

#[test]
fn several_results_flow_on_and_are_read_by_name() {
    let text = "layer Two {\n  input x: [N, C]\n  low = x * 2\n  return low, x + 1\n}\n\
                layer Sum {\n  input a: [N, C]\n  input b: [N, C]\n  return a + b\n}\n\
                model M {\n  input x: [N, 4]\n  t = x -> Two\n  s = x -> Two -> Sum\n  return t.low, s\n}\n";
    let expanded = good(text);
    let names: Vec<String> = expanded.graph.outputs.iter().map(|output| output.name.to_string()).collect();
    assert_eq!(names, ["output0", "s"]);
}

#[test]
fn initialisations_are_read_with_defaults_and_names() {
    let text = "model M {\n  input x: [N, 4]\n  param a: [4] ~ normal(0, 0.02)\n  param b: [4] ~ kaiming\n  param c: [4] ~ uniform(high = 2, low = -1)\n  param d: [4] ~ ones\n  return x * (a + b + c + d)\n}\n";
    let inits: Vec<Init> = good(text).graph.params.iter().map(|param| param.init.clone()).collect();
    assert_eq!(
        inits,
        [
            Init::Normal { mean: 0.0, std: 0.02 },
            Init::Kaiming { gain: std::f64::consts::SQRT_2, normal: false },
            Init::Uniform { low: -1.0, high: 2.0 },
            Init::Constant(1.0),
        ]
    );
    let wrong = |init: &str| format!("model M {{\n  input x: [N, 4]\n  param a: [4] ~ {init}\n  return x * a\n}}\n");
    one_error(&wrong("kaimin"), "unknown-name", "kaimin");
    one_error(&wrong("normal(0, 1, 2)"), "too-many-arguments", "2");
    one_error(&wrong("constant"), "missing-argument", "constant");
    one_error(&wrong("uniform(lo = 1, high = 2)"), "unknown-argument", "lo");
}

#[test]
fn sizes_below_one_are_refused() {
    one_error("model M(C = 0) {\n  input x: [N, 4]\n  return x -> Linear(C)\n}\n", "bad-size", "Linear(C)");
    one_error("model M {\n  input x: [N, 0 - 3]\n  return x\n}\n", "bad-size", "0 - 3");
}

#[test]
fn a_written_quotient_that_is_not_whole_is_no_size() {
    one_error("model M {\n  input x: [N, 4]\n  return x -> [N, 8 / 3]\n}\n", "not-a-size", "8 / 3");
    assert_eq!(output_shape(&good("model M(C = 4) {\n  input x: [N, C]\n  return x -> Linear(8 / C)\n}\n")), "[N, 2]");
}

#[test]
fn a_window_that_may_not_fit_asks_for_a_require() {
    let text = "model M {\n  input x: [N, 3, H, W]\n  return x -> Conv(8, 3)\n}\n";
    assert_eq!(errors(text)[0].0, "require-failed");
    let text = "model M {\n  input x: [N, 3, H, W]\n  require H >= 3 and W >= 3\n  return x -> Conv(8, 3)\n}\n";
    assert_eq!(output_shape(&good(text)), "[N, 8, H - 2, W - 2]");
}

#[test]
fn require_is_an_assumption_in_a_model_and_a_demand_in_a_layer() {
    let layer = "layer L {\n  input x: [N, C]\n  require C % 4 == 0, \"four must divide the width\"\n  return x\n}\n";
    let free = format!("{layer}model M {{\n  input x: [N, C]\n  return x -> L\n}}\n");
    assert_eq!(errors(&free)[0].0, "require-failed");
    let required = format!("{layer}model M {{\n  input x: [N, C]\n  require C % 4 == 0\n  return x -> L\n}}\n");
    assert_eq!(output_shape(&good(&required)), "[N, C]");
    let failing = format!("{layer}model M {{\n  input x: [N, 6]\n  return x -> L\n}}\n");
    one_error(&failing, "require-failed", "require C % 4 == 0, \"four must divide the width\"");
}

#[test]
fn one_mistake_gives_one_diagnostic_and_three_give_three() {
    let text = "model M {\n  input x: [N, 4]\n  a = x -> Liner(3)\n  b = a * 2\n  c = b + a\n  return c\n}\n";
    assert_eq!(errors(text).len(), 1);
    let text = "model M {\n  input x: [N, 4]\n  a = x -> Liner(3)\n  b = x -> Linear(3, bais = true)\n  c = undefined + 1\n  return a + b + c\n}\n";
    let codes: Vec<&str> = errors(text).iter().map(|error| error.0).collect();
    assert_eq!(codes, ["unknown-name", "unknown-argument", "unknown-name"]);
}

#[test]
fn functions_own_no_weights_and_no_state() {
    one_error(
        "fn f(x) {\n  y = x -> Linear(3)\n  return y\n}\nmodel M {\n  input x: [N, 4]\n  return f(x)\n}\n",
        "weights-in-function",
        "Linear(3)",
    );
    let text = "fn f(x) {\n  state s = 0\n  return x + s\n}\nmodel M {\n  input x: [N, 4]\n  return f(x)\n}\n";
    one_error(text, "state-in-function", "s");
}

#[test]
fn a_layer_without_return_is_an_error() {
    one_error("model M {\n  input x: [N, 4]\n  y = x\n}\n", "missing-return", "M");
}

#[test]
fn training_is_a_static_condition() {
    let text = "model M {\n  input x: [N, 4]\n  return x -> Dropout(0.5)\n}\n";
    let draws = |mode| {
        let expanded = bound(text, &[("N", 2)], mode);
        expanded.graph.values().filter(|(_, value)| matches!(value.op, crate::graph::Op::Random { .. })).count()
    };
    assert_eq!((draws(Mode::Train), draws(Mode::Eval)), (1, 0));
}

#[test]
fn a_declared_return_shape_gives_ranges_to_windows() {
    let text = "layer Conv2(O, K, S = 1, P = 0) {\n  input x: [N, C, H, W]\n  param weight: [O, C, K, K] ~ kaiming\n  y[n, o, i, j] = sum[c, u, v] (x[n, c, S*i + u - P, S*j + v - P] else 0) * weight[o, c, u, v]\n  return y : [N, O, (H + 2*P - K) / S + 1, (W + 2*P - K) / S + 1]\n}\n\
                model M {\n  input x: [N, 3, 8, 8]\n  return x -> Conv2(5, 3, P = 1)\n}\n";
    assert_eq!(output_shape(&good(text)), "[N, 5, 8, 8]");
}

#[test]
fn weights_may_depend_on_features_but_not_on_the_batch() {
    let text = |shape: &str| format!("model M {{\n  input x: [N, C]\n  param w: {shape} ~ ones\n  return x * w\n}}\n");
    assert_eq!(output_shape(&good(&text("[C]"))), "[N, C]");
    one_error(&text("[N, C]"), "batch-sized-weight", "[N, C]");
}
