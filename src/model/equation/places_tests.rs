//! Random equations with packs and groups against a walk over all points, and random shapes against all small sizes.

use std::collections::BTreeMap;

use crate::graph::{Feeds, Tensor, evaluate};
use crate::model::expand::expand;
use crate::model::expander::Mode;
use crate::model::project::Project;

/// Numbers from one number.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// One part of a shape: how it is written as an index, the elementary indices that it stands for, and its dims.
#[derive(Clone)]
struct Part {
    text: String,
    /// The names that reductions bind for it.
    bound: Vec<String>,
    elements: Vec<(String, usize)>,
    dims: Vec<usize>,
}

/// The parts that an equation can be made of: indices, packs of 0 to 3, groups, packs of groups.
fn parts(random: &mut Random) -> Vec<Part> {
    let mut all = Vec::new();
    for name in ["a", "b"] {
        let size = 1 + random.below(4);
        let elements = vec![(name.to_string(), size)];
        all.push(Part { text: name.into(), bound: vec![name.into()], elements, dims: vec![size] });
    }
    for name in ["p", "q"] {
        let dims: Vec<usize> = (0..random.below(4)).map(|_| 1 + random.below(3)).collect();
        let elements = dims.iter().enumerate().map(|(entry, size)| (format!("{name}.{entry}"), *size)).collect();
        let text = format!("{name}..");
        all.push(Part { bound: vec![text.clone()], text, elements, dims });
    }
    let sizes = [1 + random.below(3), 1 + random.below(3)];
    all.push(Part {
        text: "(g d)".into(),
        bound: vec!["g".into(), "d".into()],
        elements: vec![("g".into(), sizes[0]), ("d".into(), sizes[1])],
        dims: vec![sizes[0] * sizes[1]],
    });
    let sizes: Vec<[usize; 2]> = (0..1 + random.below(2)).map(|_| [1 + random.below(3), 1 + random.below(3)]).collect();
    all.push(Part {
        text: "(u v)..".into(),
        bound: vec!["u..".into(), "v..".into()],
        elements: sizes
            .iter()
            .enumerate()
            .flat_map(|(entry, [u, v])| [(format!("u.{entry}"), *u), (format!("v.{entry}"), *v)])
            .collect(),
        dims: sizes.iter().map(|[u, v]| u * v).collect(),
    });
    all
}

/// The element of row-major `data` over these parts at a point.
fn at(data: &[f64], parts: &[Part], point: &BTreeMap<String, usize>) -> f64 {
    let elements = parts.iter().flat_map(|part| &part.elements);
    data[elements.fold(0, |place, (name, size)| place * size + point[name])]
}

fn points(elements: &[(String, usize)]) -> Vec<BTreeMap<String, usize>> {
    let mut points = vec![BTreeMap::new()];
    for (name, size) in elements {
        let extended = |point: BTreeMap<String, usize>| {
            (0..*size).map(move |value| {
                let mut point = point.clone();
                point.insert(name.clone(), value);
                point
            })
        };
        points = points.into_iter().flat_map(extended).collect();
    }
    points
}

fn list(texts: impl IntoIterator<Item = String>) -> String {
    texts.into_iter().collect::<Vec<_>>().join(", ")
}

/// The value of `y` for these inputs.
fn value(text: &str, inputs: &[(&str, Tensor)]) -> Result<Tensor, String> {
    let (project, file, found) = Project::from_text("test.ansatz", text);
    assert!(found.is_empty(), "{text}{found:#?}");
    let (expanded, _) = expand(&project, file, "M", &[], Mode::Eval, &BTreeMap::new())
        .map_err(|found| format!("{}: {}", found[0].code, found[0].message))?;
    let mut feeds = Feeds::default();
    for (name, tensor) in inputs {
        feeds.inputs.insert((*name).into(), tensor.clone());
    }
    Ok(evaluate(&expanded.graph, &feeds).outputs[0].1.clone())
}

fn tensor(random: &mut Random, dims: &[usize]) -> Tensor {
    Tensor::new(dims, (0..dims.iter().product()).map(|_| random.below(17) as f64 / 4.0 - 2.0).collect())
}

/// The shape of an operand: groups as such, where the equation could not know their ranges otherwise.
fn written(part: &Part) -> Vec<String> {
    if part.text == "(g d)" {
        return vec![format!("({} {})", part.elements[0].1, part.elements[1].1)];
    }
    let entries = part.elements.chunks(2).map(|pair| format!("({} {})", pair[0].1, pair[1].1));
    if part.text == "(u v).." { entries.collect() } else { part.dims.iter().map(usize::to_string).collect() }
}

#[test]
fn equations_with_packs_and_groups_agree_with_a_walk_over_all_points() {
    let (mut reduced, mut elementwise) = (0, 0);
    for seed in 0..1800 {
        let random = &mut Random(seed);
        let mut all = parts(random);
        // One operand has every part, so all ranges are known; the other has some.
        for place in (1..all.len()).rev() {
            let other = random.below(place + 1);
            all.swap(place, other);
        }
        let first: Vec<Part> = all[..1 + random.below(all.len())].to_vec();
        let choose = |random: &mut Random| -> Vec<Part> {
            let mut chosen: Vec<Part> = first.iter().filter(|_| random.below(2) == 0).cloned().collect();
            if random.below(2) == 0 {
                chosen.reverse();
            }
            chosen
        };
        let second = choose(random);
        let left = choose(random);
        let is_reduced = first.iter().any(|part| left.iter().all(|other| other.text != part.text));
        let bound: Vec<String> = first
            .iter()
            .filter(|part| left.iter().all(|other| other.text != part.text))
            .flat_map(|part| part.bound.clone())
            .collect();
        let has_dims = |parts: &[Part]| parts.iter().any(|part| !part.dims.is_empty());
        if left.is_empty() || !has_dims(&first) || !second.is_empty() && !has_dims(&second) {
            // An input has dims, and a left side indices.
            continue;
        }
        let read = |name: &str, parts: &[Part]| format!("{name}[{}]", list(parts.iter().map(|part| part.text.clone())));
        let shape = |parts: &[Part]| list(parts.iter().flat_map(written));
        let right = if second.is_empty() {
            read("x", &first)
        } else {
            format!("{} * {}", read("x", &first), read("z", &second))
        };
        let sum = if is_reduced { format!("sum[{}] ", list(bound)) } else { String::new() };
        let other = if second.is_empty() { String::new() } else { format!("  input z: [{}]\n", shape(&second)) };
        let text = format!(
            "model M {{\n  input x: [{}]\n{other}  {} = {sum}{right}\n  return y\n}}\n",
            shape(&first),
            read("y", &left)
        );
        let dims = |parts: &[Part]| parts.iter().flat_map(|part| part.dims.clone()).collect::<Vec<_>>();
        let (x, z) = (tensor(random, &dims(&first)), tensor(random, &dims(&second)));
        let found = match value(&text, &[("x", x.clone()), ("z", z.clone())]) {
            Ok(found) => found,
            Err(found) => {
                // The ranks of two tensors cannot say how long several packs are.
                let several = first.iter().filter(|part| part.text.ends_with("..")).count() > 1;
                assert!(several && found.starts_with("unknown-length"), "{text}{found}");
                continue;
            }
        };
        *(if is_reduced { &mut reduced } else { &mut elementwise }) += 1;
        assert_eq!(found.sizes, dims(&left), "{text}");
        let everything: Vec<(String, usize)> = first.iter().flat_map(|part| part.elements.clone()).collect();
        let mut expected = vec![0.0; found.data.len()];
        for point in points(&everything) {
            let left = left.iter().flat_map(|part| &part.elements);
            let place = left.fold(0, |place, (name, size)| place * size + point[name]);
            let factor = if second.is_empty() { 1.0 } else { at(&z.data, &second, &point) };
            expected[place] += at(&x.data, &first, &point) * factor;
        }
        let close = found.data.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-9 * (1.0 + b.abs()));
        assert!(close, "{text}{:?} instead of {expected:?}", found.data);
    }
    assert!(reduced + elementwise > 500 && elementwise > 100, "{reduced} and {elementwise}");
}

#[test]
fn windows_over_packs_agree_with_a_walk_over_all_points() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let rank = 1 + random.below(3);
        let entries = |random: &mut Random, low: usize, count: usize| -> Vec<usize> {
            let same = low + random.below(count);
            let uneven = random.below(2) == 0;
            (0..rank).map(|_| if uneven { low + random.below(count) } else { same }).collect()
        };
        let kernel = entries(random, 1, 3);
        let (stride, pad, dilation) = (entries(random, 1, 2), entries(random, 0, 2), entries(random, 1, 2));
        let groups = 1 + random.below(3);
        let (inside, outside) = (groups * (1 + random.below(2)), groups * (1 + random.below(2)));
        let sizes: Vec<usize> = (0..rank).map(|dim| dilation[dim] * (kernel[dim] - 1) + 1 + random.below(4)).collect();
        let argument = |values: &[usize]| {
            let same = values.iter().all(|value| *value == values[0]);
            if same { values[0].to_string() } else { format!("[{}]", list(values.iter().map(usize::to_string))) }
        };
        let text = format!(
            "model M {{\n  input x: [2, {inside}, {}]\n  return x -> Conv({outside}, {}, stride = {}, pad = {}, \
             dilation = {}, groups = {groups}, bias = false)\n}}\n",
            list(sizes.iter().map(usize::to_string)),
            argument(&kernel),
            argument(&stride),
            argument(&pad),
            argument(&dilation),
        );
        let (project, file, found) = Project::from_text("test.ansatz", &text);
        assert!(found.is_empty(), "{text}{found:#?}");
        let expanded = expand(&project, file, "M", &[], Mode::Eval, &BTreeMap::new());
        let graph = expanded.unwrap_or_else(|found| panic!("{text}{found:#?}")).0.graph;
        let x = tensor(random, &[&[2, inside][..], &sizes].concat());
        let w = tensor(random, &[&[outside, inside / groups][..], &kernel].concat());
        let mut feeds = Feeds::default();
        feeds.inputs.insert("x".into(), x.clone());
        feeds.params.insert(graph.params[0].name.clone(), w.clone());
        let found = evaluate(&graph, &feeds).outputs[0].1.clone();
        let results: Vec<usize> = (0..rank)
            .map(|dim| (sizes[dim] + 2 * pad[dim] - dilation[dim] * (kernel[dim] - 1) - 1) / stride[dim] + 1)
            .collect();
        assert_eq!(found.sizes, [&[2, outside][..], &results].concat(), "{text}");
        let axes = |name: &str, sizes: &[usize]| -> Vec<(String, usize)> {
            sizes.iter().enumerate().map(|(dim, size)| (format!("{name}{dim}"), *size)).collect()
        };
        let outer = [vec![("n".to_string(), 2), ("o".to_string(), outside)], axes("i", &results)].concat();
        let inner = [vec![("c".to_string(), inside / groups)], axes("u", &kernel)].concat();
        for (place, point) in points(&outer).into_iter().enumerate() {
            let mut sum = 0.0;
            'window: for window in points(&inner) {
                let group = point["o"] / (outside / groups);
                let mut read = point["n"] * inside + group * (inside / groups) + window["c"];
                let mut weight = point["o"] * (inside / groups) + window["c"];
                for dim in 0..rank {
                    let (i, u) = (point[&format!("i{dim}")], window[&format!("u{dim}")]);
                    let Some(at) = (stride[dim] * i + dilation[dim] * u).checked_sub(pad[dim]) else {
                        continue 'window;
                    };
                    if at >= sizes[dim] {
                        continue 'window;
                    }
                    read = read * sizes[dim] + at;
                    weight = weight * kernel[dim] + u;
                }
                sum += x.data[read] * w.data[weight];
            }
            assert!((found.data[place] - sum).abs() < 1e-9, "{text}{point:?}: {} instead of {sum}", found.data[place]);
        }
    }
}

/// Whether a program is accepted for all sizes; of one that is not, the code of the finding.
fn verdict(text: &str, sizes: &BTreeMap<String, i64>) -> Result<(), String> {
    let (project, file, found) = Project::from_text("test.ansatz", text);
    assert!(found.is_empty(), "{text}{found:#?}");
    let expanded = expand(&project, file, "M", &[], Mode::Eval, sizes);
    expanded.map(|_| ()).map_err(|found| found[0].code.to_string())
}

#[test]
fn what_is_proved_of_groups_holds_for_all_small_sizes() {
    let (mut proved, mut refuted, mut undecided) = (0, 0, 0);
    for seed in 0..500 {
        let random = &mut Random(seed + 1000);
        let number = |random: &mut Random| (1 + random.below(4)).to_string();
        let dims = ["C", "2 * C", "4 * C", "6 * C", "C + 2", "C * D", "C * C + C", "12", "3 * C + 3"];
        let dim = random.one(&dims);
        let other = random.one(&dims);
        let (a, b) = (number(random), number(random));
        let body = match random.below(5) {
            0 => format!("  y = x -> [N, ({a} G)]\n"),
            1 => format!("  y = x -> [N, ({a} {b} G)]\n"),
            2 => format!("  z = x -> [N, ({a} G)]\n  y[n, (h g)] = z[n, (g h)]\n"),
            3 => format!("  w = v -> [N, ({a} G)]\n  y[n, (g h)] = x[n, (g h)] * w[n, (g h)]\n"),
            _ => format!("  w = v -> [N, ({b} G)]\n  y[n, g] = sum[h] x[n, (g h)] * w[n, (g h)]\n"),
        };
        let required = match random.below(3) {
            0 => format!("  require C % {a} == 0\n"),
            1 => format!("  require C % {b} == 0\n"),
            _ => String::new(),
        };
        let text = format!(
            "model M {{\n  input s: [N, C, D]\n  input x: [N, {dim}]\n  input v: [N, {other}]\n{required}{body}  return y\n}}\n"
        );
        let outcome = verdict(&text, &BTreeMap::new());
        let mut failure = None;
        for c in 1..14 {
            for d in 1..4 {
                let sizes = BTreeMap::from([("N".into(), 2), ("C".into(), c), ("D".into(), d)]);
                // A size that the program's own line excludes says nothing.
                if !required.is_empty()
                    && c % required.split(['%', '=']).nth(1).map_or(1, |k| k.trim().parse().unwrap_or(1)) != 0
                {
                    continue;
                }
                if let Err(code) = verdict(&text, &sizes) {
                    failure = failure.or(Some((c, d, code)));
                }
            }
        }
        match outcome {
            Ok(()) => {
                proved += 1;
                assert_eq!(failure, None, "{text}");
            }
            Err(code) if code == "undecided" => undecided += 1,
            Err(code) => {
                refuted += 1;
                assert!(failure.is_some(), "{text}{code}");
            }
        }
    }
    assert!(proved > 100 && refuted > 100, "{proved} proved, {refuted} refuted, {undecided} undecided");
    assert!(undecided < 50, "{proved} proved, {refuted} refuted, {undecided} undecided");
}

#[test]
fn sums_at_affine_places_agree_with_a_walk_over_all_points() {
    for seed in 0..200 {
        let random = &mut Random(seed + 5000);
        let [inside, channels, window] = [1 + random.below(5), 1 + random.below(3), 1 + random.below(3)];
        let [stride, dilation, start, rest] =
            [1 + random.below(3), 1 + random.below(2), random.below(3), random.below(3)];
        let size = stride * (inside - 1) + dilation * (window - 1) + start + 1 + rest;
        // With one factor, with two, and with something that is no contraction.
        let (right, other) = match random.below(3) {
            0 => ("sum[c] x[c, i] * w[c, u]", true),
            1 => ("exp(x[0, i]) * w[0, u]", true),
            _ => ("sum[c] x[c, i]", false),
        };
        let window_part = if other { format!(" + {dilation} * u") } else { String::new() };
        let place = format!("{stride} * i{window_part} + {start}");
        let text = format!(
            "model M {{\n  input x: [{channels}, {inside}]\n  input w: [{channels}, {window}]\n  y[{place}] = {right} : [{size}]\n  \
             return y\n}}\n"
        );
        let (x, w) = (tensor(random, &[channels, inside]), tensor(random, &[channels, window]));
        let found = value(&text, &[("x", x.clone()), ("w", w.clone())]).unwrap_or_else(|found| panic!("{text}{found}"));
        let mut expected = vec![0.0; size];
        for i in 0..inside {
            for u in 0..if other { window } else { 1 } {
                let at = |c: usize| {
                    let factor = if other { w.data[c * window + u] } else { 1.0 };
                    if right.starts_with("exp") {
                        x.data[c * inside + i].exp() * factor
                    } else {
                        x.data[c * inside + i] * factor
                    }
                };
                let sum: f64 = if right.starts_with("exp") { at(0) } else { (0..channels).map(at).sum() };
                expected[stride * i + if other { dilation * u } else { 0 } + start] += sum;
            }
        }
        let close = found.data.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-9 * (1.0 + b.abs()));
        assert!(close, "{text}{:?} instead of {expected:?}", found.data);
    }
}
