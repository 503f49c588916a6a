use super::super::Mode;
use super::{bound, errors, good, one_error, output_shape, param_names};

#[test]
fn labels_and_bound_names_name_weights() {
    let text = "model M {\n  input x: [N, 4]\n  wide = Linear(8)\n  return x -> wide -> fc: Linear(2)\n}\n";
    assert_eq!(param_names(&good(text)), ["wide.weight", "wide.bias", "fc.weight", "fc.bias"]);
}

#[test]
fn unlabelled_stages_are_named_after_their_layer_and_counted() {
    let text = "model M {\n  input x: [N, 4]\n  return x -> Linear(8, bias = false) -> LayerNorm -> Linear(2, bias = false) -> Linear(2, bias = false)\n}\n";
    let names = ["linear.weight", "layer_norm.weight", "layer_norm.bias", "linear_2.weight", "linear_3.weight"];
    assert_eq!(param_names(&good(text)), names);
}

#[test]
fn chain_and_repeat_number_their_members_and_labels_replace_numbers() {
    let text = "layer L(O) {\n  input x: [N, C]\n  param w: [O, C] ~ zeros\n  y[n, o] = sum[c] x[n, c] * w[o, c]\n  return y\n}\n\
                model M {\n  input x: [N, 4]\n  return x -> body: chain(L(4), relu, head: L(4), L(4)) -> h: repeat(2) L(4)\n}\n";
    assert_eq!(param_names(&good(text)), ["body.0.w", "body.head.w", "body.3.w", "h.0.w", "h.1.w"]);
}

#[test]
fn a_stage_that_is_bound_once_and_used_twice_shares_its_weights() {
    let text = "model M {\n  input x: [N, 4]\n  same = Linear(4)\n  return x -> same -> relu -> same\n}\n";
    assert_eq!(param_names(&good(text)), ["same.weight", "same.bias"]);
}

#[test]
fn a_nested_layer_that_is_used_twice_shares_all_inner_weights() {
    let text = "layer Two {\n  input x: [N, C]\n  return x -> Linear(C) -> Linear(C)\n}\n\
                model M {\n  input x: [N, 4]\n  t = Two\n  return x -> t -> t\n}\n";
    let names = ["t.linear.weight", "t.linear.bias", "t.linear_2.weight", "t.linear_2.bias"];
    assert_eq!(param_names(&good(text)), names);
}

#[test]
fn shared_weights_of_another_shape_are_an_error() {
    let text = "model M {\n  input x: [N, 4]\n  same = Linear(3)\n  return x -> same -> same\n}\n";
    one_error(text, "shape-mismatch", "same");
}

#[test]
fn a_residual_adds_what_flowed_in() {
    let text = "model M {\n  input x: [N, T, 4]\n  return x -> residual { LayerNorm -> Linear(4) }\n}\n";
    assert_eq!(output_shape(&good(text)), "[N, T, 4]");
    let wrong = "model M {\n  input x: [N, 4]\n  return x -> residual { Linear(5) }\n}\n";
    one_error(wrong, "shape-mismatch", "residual { Linear(5) }");
}

#[test]
fn a_waypoint_binds_new_names_and_proves_known_ones() {
    let text = "model M {\n  input x: [N, 4, 5]\n  return x -> flatten -> [N, D] -> Linear(D)\n}\n";
    assert_eq!(output_shape(&good(text)), "[N, 20]");
    let wrong = "model M {\n  input x: [N, 4, 5]\n  return x -> flatten -> [N, 21] -> Linear(2)\n}\n";
    one_error(wrong, "shape-mismatch", "[N, 21]");
    let rank = "model M {\n  input x: [N, 4, 5]\n  return x -> [N, 20]\n}\n";
    one_error(rank, "shape-mismatch", "[N, 20]");
}

#[test]
fn a_function_stage_takes_what_flows_in_first() {
    let text = "fn scaled(x, by) = x * by\nmodel M {\n  input x: [N, 4]\n  return x -> scaled(2) -> relu\n}\n";
    assert_eq!(output_shape(&good(text)), "[N, 4]");
}

#[test]
fn a_static_condition_chooses_the_branch_of_a_stage() {
    let layer = "layer L(C) {\n  input x: [N, K]\n  skip = x if K == C else x -> down: Linear(C)\n  return skip\n}\n";
    let same = format!("{layer}model M {{\n  input x: [N, 4]\n  return x -> L(4)\n}}\n");
    assert!(param_names(&good(&same)).is_empty());
    let other = format!("{layer}model M {{\n  input x: [N, 4]\n  return x -> l: L(5)\n}}\n");
    assert_eq!(param_names(&good(&other)), ["l.down.weight", "l.down.bias"]);
}

#[test]
fn weights_of_a_used_stage_are_read_by_name() {
    let text = "model M {\n  input ids: i32[N, T]\n  wte = Embedding(10, 4)\n  x = wte(ids)\n  logits[n, t, v] = sum[c] x[n, t, c] * wte.weight[v, c]\n  return logits\n}\n";
    let expanded = good(text);
    assert_eq!(param_names(&expanded), ["wte.weight"]);
    assert_eq!(output_shape(&expanded), "[N, T, 10]");
    let wrong = "model M {\n  input ids: i32[N, T]\n  wte = Embedding(10, 4)\n  x = wte(ids)\n  y[n, t, v] = sum[c] x[n, t, c] * wte.wieght[v, c]\n  return y\n}\n";
    one_error(wrong, "unknown-member", "wieght");
}

#[test]
fn arguments_are_checked_by_name_and_number() {
    let model = |stage: &str| format!("model M {{\n  input x: [N, 4]\n  return x -> {stage}\n}}\n");
    one_error(&model("Linear"), "missing-argument", "Linear");
    one_error(&model("Linear(3, true, 5)"), "too-many-arguments", "5");
    one_error(&model("Linear(3, bais = false)"), "unknown-argument", "bais");
    one_error(&model("Linear(3, O = 4)"), "duplicate-argument", "4");
    one_error(&model("Liner(3)"), "unknown-name", "Liner");
    one_error(&model("4"), "not-a-stage", "4");
}

#[test]
fn defaults_see_earlier_arguments() {
    let text = "layer L(A, B = 2 * A) {\n  input x: [N, C]\n  return x -> Linear(B)\n}\nmodel M {\n  input x: [N, 4]\n  return x -> L(3)\n}\n";
    assert_eq!(output_shape(&good(text)), "[N, 6]");
}

#[test]
fn a_bare_layer_given_as_an_argument_makes_new_weights_at_each_use() {
    let text = "layer L(norm = LayerNorm) {\n  input x: [N, C]\n  return x -> norm -> norm\n}\nmodel M {\n  input x: [N, 4]\n  return x -> l: L\n}\n";
    assert_eq!(param_names(&good(text)), ["l.norm.weight", "l.norm.bias", "l.norm_2.weight", "l.norm_2.bias"]);
}

#[test]
fn definitions_that_use_themselves_are_refused() {
    let text = "layer L {\n  input x: [N, C]\n  return x -> L\n}\nmodel M {\n  input x: [N, 4]\n  return x -> L\n}\n";
    assert_eq!(errors(text)[0].0, "recursive-layer");
    let text = "fn f(x) = g(x)\nfn g(x) = f(x)\nmodel M {\n  input x: [N, 4]\n  return f(x)\n}\n";
    assert_eq!(errors(text)[0].0, "recursive-layer");
}

#[test]
fn a_layer_may_use_itself_with_other_arguments() {
    let text = "layer Net(depth, C) {\n  input x: [N, K]\n  if depth == 0 { return x -> Linear(C) }\n  \
                return x -> first: Linear(C) -> inner: Net(depth - 1, 2 * C) -> last: Linear(C)\n}\nmodel M {\n  \
                input x: [N, 4]\n  return x -> net: Net(2, 3)\n}\n";
    let expanded = good(text);
    let names = param_names(&expanded);
    assert_eq!(names.len(), 10);
    assert!(names.contains(&"net.inner.inner.linear.weight"), "{names:?}");
    let endless = text.replace("depth - 1, 2 * C", "depth + 1, C");
    let found = errors(&endless);
    assert_eq!(found[0].0, "too-deep");
}

#[test]
fn a_layer_that_is_read_at_a_pack_is_used_once() {
    let text = "model M {\n  input x: [N, 4, 5]\n  norm = BatchNorm\n  y[n, s.., c] = norm(x)[n, c, s..] * x[n, c, s..]\n  \
                return y\n}\n";
    let expanded = good(text);
    assert_eq!(expanded.layers.iter().filter(|call| call.layer == "BatchNorm").count(), 1);
}

#[test]
fn a_layer_may_wrap_another_use_of_itself() {
    let text = "layer Wrap(inner) {\n  input x: [N, C]\n  return x -> inner\n}\nmodel M {\n  input x: [N, 4]\n  return x -> Wrap(Wrap(Linear(3)))\n}\n";
    assert_eq!(output_shape(&good(text)), "[N, 3]");
}

#[test]
fn expansions_without_end_are_refused() {
    let repeat = |count: &str| format!("model M {{\n  input x: [N, 4]\n  return x -> repeat({count}) Linear(4)\n}}\n");
    assert_eq!(errors(&repeat("1e9"))[0].0, "too-large");
    let nested = "model M {\n  input x: [N, 4]\n  return x -> repeat(10000) repeat(10000) repeat(10000) relu\n}\n";
    assert_eq!(errors(nested)[0].0, "too-large");
    assert_eq!(errors(&repeat("0 - 1"))[0].0, "not-static");
}

#[test]
fn named_axes_are_reduced_where_their_sizes_were_bound() {
    let text =
        "model M {\n  input x: [N, 3, H, W]\n  return x -> Conv(8, 3, stride = 2, pad = 1) -> mean_over(H, W)\n}\n";
    assert_eq!(output_shape(&good(text)), "[N, 8]");
    one_error("model M {\n  input x: [N, 3]\n  return x -> mean_over(Q)\n}\n", "not-an-axis", "Q");
}

#[test]
fn errors_inside_the_library_point_at_the_use() {
    let text = "model M {\n  input x: [N, 10]\n  return x -> Conv(8, 3)\n}\n";
    one_error(text, "require-failed", "Conv(8, 3)");
}

#[test]
fn layers_list_parents_before_children() {
    let text = "layer L {\n  input x: [N, C]\n  return x -> Linear(C) -> relu\n}\nmodel M {\n  input x: [N, 4]\n  return x -> l: L\n}\n";
    let expanded = good(text);
    let rows: Vec<(&str, &str, usize)> =
        expanded.layers.iter().map(|call| (call.path.as_str(), call.layer.as_str(), call.depth)).collect();
    assert_eq!(rows, [("l", "L", 0), ("l.linear", "Linear", 1), ("l.relu", "relu", 1)]);
}

#[test]
fn running_statistics_are_updated_in_training_only() {
    let text = "model M {\n  input x: [N, 4]\n  return x -> bn: BatchNorm\n}\n";
    let states = |mode| {
        let expanded = bound(text, &[("N", 8)], mode);
        let names: Vec<String> = expanded.graph.states.iter().map(|state| state.name.clone()).collect();
        (names, expanded.graph.updates.len())
    };
    let names = vec!["bn.running_mean".to_owned(), "bn.running_var".to_owned()];
    assert_eq!(states(Mode::Train), (names.clone(), 2));
    assert_eq!(states(Mode::Eval), (names, 0));
}

#[test]
fn a_number_as_a_label_names_a_sequential_at_the_top() {
    let expanded =
        good("model M {\n  input x: [N, 4]\n  return x -> 0: Linear(3) -> relu -> 2: Linear(2, bias = false)\n}\n");
    assert_eq!(param_names(&expanded), ["0.weight", "0.bias", "2.weight"]);
    let inside = good(
        "model M {\n  input x: [N, 4]\n  return x -> features: { 3: Linear(3) -> relu } -> head: chain(Linear(2), 4: Linear(1))\n}\n",
    );
    let names =
        ["features.3.weight", "features.3.bias", "head.0.weight", "head.0.bias", "head.4.weight", "head.4.bias"];
    assert_eq!(param_names(&inside), names);
}

#[test]
fn a_label_with_the_number_of_another_stage_is_an_error() {
    one_error(
        "model M {\n  input x: [N, 4]\n  return x -> c: chain(1: Linear(4), Linear(4))\n}\n",
        "duplicate-name",
        "Linear(4)",
    );
    one_error(
        "model M {\n  input x: [N, 4]\n  return x -> c: chain(Linear(4), 0: Linear(4))\n}\n",
        "duplicate-name",
        "0",
    );
}
