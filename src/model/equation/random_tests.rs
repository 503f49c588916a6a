//! Random equations: the lowered graph against a direct evaluation of the syntax tree, point by point.

use std::collections::HashMap;

use proptest::prelude::*;

use crate::dim::Dim;
use crate::graph::{self, DType, Feeds, Input, Output, Tensor};
use crate::model::expander::{Expander, Meaning, Mode, Scope};
use crate::model::project::Project;
use crate::source::Span;
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind, StatementKind, UnaryOp};

/// Index names with their ranges.
const RANGES: [(&str, usize); 3] = [("i", 3), ("j", 4), ("k", 2)];
/// Tensors with the ranges they are indexed by.
const TENSORS: [(&str, &[usize]); 5] = [("a", &[0, 1]), ("b", &[1, 2]), ("c", &[2, 0]), ("v", &[0]), ("w", &[1])];

fn tensors() -> HashMap<String, Tensor> {
    TENSORS
        .iter()
        .enumerate()
        .map(|(number, (name, axes))| {
            let sizes: Vec<usize> = axes.iter().map(|axis| RANGES[*axis].1).collect();
            let count: usize = sizes.iter().product();
            let value = |element: usize| ((element * 7 + number * 3) as f64 * 0.37).sin();
            (name.to_string(), Tensor::new(&sizes, (0..count).map(value).collect()))
        })
        .collect()
}

fn range(name: &str) -> i64 {
    RANGES.iter().find(|(index, _)| *index == name).expect("an index").1 as i64
}

/// The value of an expression at a point.
fn at(expr: &Expr, point: &HashMap<String, i64>, tensors: &HashMap<String, Tensor>) -> f64 {
    let go = |expr: &Expr| at(expr, point, tensors);
    let read = |expr: &Expr| -> Option<f64> {
        let ExprKind::Index { base, indices } = &expr.kind else { panic!("a read") };
        let ExprKind::Name(name) = &base.kind else { panic!("a name") };
        let tensor = &tensors[name];
        let mut place = 0;
        for (index, size) in indices.iter().zip(&tensor.sizes) {
            let index = at(index, point, tensors) as i64;
            place = place * size + usize::try_from(index).ok().filter(|index| index < size)?;
        }
        Some(tensor.data[place])
    };
    match &expr.kind {
        ExprKind::Number { value, .. } => *value,
        ExprKind::Name(name) => point[name] as f64,
        ExprKind::Index { .. } => read(expr).expect("in range"),
        ExprKind::Guard { read: inner, otherwise } => read(inner).unwrap_or_else(|| go(otherwise)),
        ExprKind::Unary(UnaryOp::Neg, x) => -go(x),
        ExprKind::Binary(op, a, b) => match op {
            BinaryOp::Add => go(a) + go(b),
            BinaryOp::Sub => go(a) - go(b),
            BinaryOp::Mul => go(a) * go(b),
            BinaryOp::Div => go(a) / go(b),
            BinaryOp::Pow => go(a).powf(go(b)),
            BinaryOp::Le => f64::from(u8::from(go(a) <= go(b))),
            other => panic!("{other:?}"),
        },
        ExprKind::Conditional { then, condition, otherwise } => {
            if go(condition) != 0.0 {
                go(then)
            } else {
                go(otherwise)
            }
        }
        ExprKind::Call { callee, arguments } => match &callee.kind {
            ExprKind::Name(name) if name == "tanh" => go(&arguments[0].value).tanh(),
            other => panic!("{other:?}"),
        },
        ExprKind::Reduce { op, indices, body } => {
            let values = |names: &[ast::Bound]| -> Vec<(HashMap<String, i64>, f64)> {
                let mut points = vec![point.clone()];
                for ast::Bound { name, .. } in names {
                    let extend = |known: HashMap<String, i64>| {
                        (0..range(&name.name)).map(move |value| {
                            let mut known = known.clone();
                            known.insert(name.name.clone(), value);
                            known
                        })
                    };
                    points = points.into_iter().flat_map(extend).collect();
                }
                points.into_iter().map(|point| (point.clone(), at(body, &point, tensors))).collect()
            };
            let all: Vec<f64> = values(indices).into_iter().map(|(_, value)| value).collect();
            match op.name.as_str() {
                "sum" => all.iter().sum(),
                "mean" => all.iter().sum::<f64>() / all.len() as f64,
                "max" => all.into_iter().fold(f64::NEG_INFINITY, f64::max),
                "softmax" => at(body, point, tensors).exp() / all.iter().map(|x| x.exp()).sum::<f64>(),
                other => panic!("{other}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

/// Makes texts from one number.
struct Writer(u64);

impl Writer {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    /// A number, an index, or a read, over the indices in `bound` (bits of [`RANGES`]).
    fn leaf(&mut self, bound: u8) -> String {
        let has = |axis: &usize| bound & (1 << *axis) != 0;
        let readable: Vec<_> = TENSORS.iter().filter(|(_, axes)| axes.iter().all(has)).collect();
        let indices: Vec<usize> = (0..3).filter(has).collect();
        match self.below(6) {
            0 => ["0.7", "2"][self.below(2)].to_owned(),
            1 if !indices.is_empty() => RANGES[indices[self.below(indices.len())]].0.to_owned(),
            _ if readable.is_empty() => "1.5".to_owned(),
            kind => {
                let (name, axes) = readable[self.below(readable.len())];
                let rest: String = axes[1..].iter().map(|axis| format!(", {}", RANGES[*axis].0)).collect();
                let first = RANGES[axes[0]].0;
                match kind {
                    2 => format!("({name}[{first} - 1{rest}] else 0)"),
                    3 => format!("({name}[2*{first} - 1{rest}] else 0.5)"),
                    _ => format!("{name}[{first}{rest}]"),
                }
            }
        }
    }

    fn expression(&mut self, bound: u8, depth: u32) -> String {
        if depth == 0 {
            return self.leaf(bound);
        }
        let axis = self.below(3);
        let (name, inside) = (RANGES[axis].0, bound & (1 << axis) != 0);
        match self.below(12) {
            0 | 1 => self.leaf(bound),
            2..=4 => format!("({} * {})", self.expression(bound, depth - 1), self.expression(bound, depth - 1)),
            5 => format!("({} + {})", self.expression(bound, depth - 1), self.expression(bound, depth - 1)),
            6 => format!("(-{} / 3.0)", self.expression(bound, depth - 1)),
            7 => format!("(0.5 + tanh({}))^2", self.expression(bound, depth - 1)),
            8 if inside => {
                format!(
                    "({} if {name} <= 1 else {})",
                    self.expression(bound, depth - 1),
                    self.expression(bound, depth - 1)
                )
            }
            _ if inside => {
                format!("(softmax[{name}] (tanh({}) + {}))", self.expression(bound, depth - 1), reader(axis))
            }
            _ => {
                let op = ["sum", "sum", "mean", "max"][self.below(4)];
                format!("({op}[{name}] ({} * {}))", self.expression(bound | 1 << axis, depth - 1), reader(axis))
            }
        }
    }
}

/// A read of ones-like range: gives an index its range wherever it stands.
fn reader(axis: usize) -> String {
    format!("(0 * r{0}[{0}] + 1)", RANGES[axis].0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn lowered_equations_equal_their_definition(left in 1u8..8, seed in any::<u64>()) {
        let text = Writer(seed).expression(left, 5);
        let indices: Vec<&str> = (0..3).filter(|axis| left & (1 << axis) != 0).map(|axis| RANGES[axis].0).collect();
        let cover: String = (0..3).filter(|axis| left & (1 << axis) != 0).map(|axis| format!(" + 0 * r{0}[{0}]", RANGES[axis].0)).collect();
        let source = format!("layer L {{\n  y[{}] = {text}{cover}\n  return y\n}}\n", indices.join(", "));
        let (project, file, found) = Project::from_text("test.ansatz", &source);
        prop_assert!(found.is_empty(), "{source}: {found:?}");
        let mut all = tensors();
        for (name, size) in RANGES {
            all.insert(format!("r{name}"), Tensor::full(&[size], 1.0));
        }
        let mut expander = Expander::new(&project, Mode::Train);
        let mut scope = Scope::new(file, String::new());
        let span = Span::new(file, 0, 1);
        let mut names: Vec<&String> = all.keys().collect();
        names.sort();
        for name in names {
            let shape = all[name].sizes.iter().map(|size| Dim::from(*size)).collect();
            let value = expander.graph.input(Input { name: name.clone(), shape, dtype: DType::F32, span });
            scope.bind(&ast::Ident { name: name.clone(), span }, Meaning::Tensor(value));
        }
        let ast::ItemKind::Definition(definition) = &project.tree(file).items[0].kind else { panic!("a layer") };
        let StatementKind::Equation { name, places: left_side, value, .. } = &definition.body[0].kind else {
            // Without indices the statement is a plain binding, which other tests cover.
            return Ok(());
        };
        let result = expander.equation(&mut scope, name, left_side, value, None);
        prop_assert!(result.is_ok(), "{source}: {:?}", expander.diagnostics);
        let result = expander.graph.cast(result.expect("checked"), DType::F32, span);
        expander.graph.outputs.push(Output { name: "y".into(), value: result });
        prop_assert_eq!(graph::verify(&expander.graph), Ok(()));
        let evaluation = graph::evaluate(&expander.graph, &Feeds { inputs: all.clone(), ..Feeds::default() });
        let found = evaluation.output("y").expect("an output");
        let count: usize = found.data.len();
        for (place, found) in found.data.iter().enumerate() {
            let mut rest = place;
            let mut point = HashMap::new();
            for index in indices.iter().rev() {
                point.insert(index.to_string(), rest as i64 % range(index));
                rest /= range(index) as usize;
            }
            let expected = at(value, &point, &all);
            prop_assert!((found - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{} at {:?} of {}: {} against {}", source, point, count, found, expected);
        }
    }
}
