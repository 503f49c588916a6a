//! Values as expressions over the indices of a line, with no more parentheses than the grammar needs.
//!
//! Input: a value and the place (an expression) at which each of its dims is read. Output: text with its precedence.
//! Invariant: a read that may leave its tensor carries `else 0`.

use super::Printer;
use crate::dim::Dim;
use crate::graph::scalar::{binary_symbol, compare_symbol, unary_name};
use crate::graph::{Access, Affine, Binary, DType, Graph, IndirectIndex, Op, Unary, ValueId};

/// Precedences, loosest first.
pub(super) const CONDITIONAL: u8 = 0;
pub(super) const GUARD: u8 = 1;
pub(super) const OR: u8 = 2;
pub(super) const AND: u8 = 3;
pub(super) const NOT: u8 = 4;
pub(super) const COMPARISON: u8 = 5;
pub(super) const SUM: u8 = 6;
pub(super) const PRODUCT: u8 = 7;
pub(super) const SIGN: u8 = 8;
pub(super) const POWER: u8 = 9;
pub(super) const ATOM: u8 = 10;

/// An expression.
pub(super) struct Term {
    pub(super) text: String,
    level: u8,
}

impl Term {
    fn new(level: u8, text: impl Into<String>) -> Self {
        Self { text: text.into(), level }
    }

    /// The text, in parentheses where it binds looser than `level`.
    pub(super) fn above(&self, level: u8) -> String {
        if self.level >= level { self.text.clone() } else { format!("({})", self.text) }
    }
}

/// Where a dim is read.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) text: String,
    level: u8,
}

impl Place {
    /// A plain index.
    pub(super) fn index(name: &str) -> Self {
        Self { text: name.to_string(), level: ATOM }
    }

    fn of(term: Term) -> Self {
        Self { text: term.text, level: term.level }
    }

    fn term(&self) -> Term {
        Term::new(self.level, self.text.clone())
    }
}

/// An affine function with its indices at these places.
pub(super) fn affine(affine: &Affine, places: &[Place]) -> Term {
    let offset = affine.offset.to_string();
    if affine.terms.is_empty() {
        return Term::new(if affine.offset.as_const().is_some_and(|value| value >= 0) { ATOM } else { SUM }, offset);
    }
    let mut text = String::new();
    let mut level = ATOM;
    for &(index, coefficient) in &affine.terms {
        let size = coefficient.unsigned_abs();
        let place = places[index].term();
        let factor = match size {
            1 if text.is_empty() && coefficient > 0 => place.text.clone(),
            1 => place.above(PRODUCT),
            _ => format!("{size}*{}", place.above(SIGN)),
        };
        level = match (text.is_empty(), size == 1, coefficient < 0) {
            (true, true, false) => place.level,
            (true, false, false) => PRODUCT,
            (true, _, true) => SIGN,
            (false, _, _) => SUM,
        };
        text += match (text.is_empty(), coefficient < 0) {
            (true, false) => "",
            (true, true) => "-",
            (false, false) => " + ",
            (false, true) => " - ",
        };
        text += &factor;
    }
    if affine.offset.as_const() == Some(0) {
        return Term::new(level, text);
    }
    match affine.offset.as_const() {
        Some(value) if value < 0 => Term::new(SUM, format!("{text} - {}", value.unsigned_abs())),
        Some(_) | None => match offset.strip_prefix('-') {
            Some(size) if !size.contains(['+', '-']) => Term::new(SUM, format!("{text} - {size}")),
            Some(_) | None => Term::new(SUM, format!("{text} + {offset}")),
        },
    }
}

/// `id` read at `access` over a domain whose indices stand at `places`; guarded where that may leave it.
pub(super) fn read(printer: &Printer, id: ValueId, access: &Access, domain: &[Dim], places: &[Place]) -> Term {
    let shape = printer.graph.shape(id);
    let place = |(entry, extent): (&Affine, &Dim)| {
        let place = Place::of(affine(entry, places));
        match entry.as_index() {
            // A plain index would have to run over the whole dim.
            Some(index) if domain[index] != *extent => {
                Place::index(&format!("{}[{}]", printer.ranges[&domain[index].to_string()], place.text))
            }
            Some(_) | None => place,
        }
    };
    let inner: Vec<Place> = access.iter().zip(shape).map(place).collect();
    let inside = access.iter().zip(shape).all(|(entry, extent)| entry.is_within(domain, extent));
    let term = term(printer, id, &inner);
    if inside { term } else { Term::new(GUARD, format!("{} else 0", term.above(OR))) }
}

/// A value by its name, or as the expression that it is.
pub(super) fn term(printer: &Printer, id: ValueId, places: &[Place]) -> Term {
    match printer.names.get(&id) {
        Some(name) if places.is_empty() => Term::new(ATOM, name.clone()),
        Some(name) => {
            let list: Vec<&str> = places.iter().map(|place| place.text.as_str()).collect();
            Term::new(ATOM, format!("{name}[{}]", list.join(", ")))
        }
        None => expanded(printer, id, places),
    }
}

/// A value as the expression that it is.
pub(super) fn expanded(printer: &Printer, id: ValueId, places: &[Place]) -> Term {
    let value = printer.graph.value(id);
    let arg = |position: usize| term(printer, value.args[position], places);
    match &value.op {
        Op::Const(number) => constant(*number, value.dtype),
        Op::Size(dim) => Term::new(if dim.as_const().is_some() { ATOM } else { SUM }, dim.to_string()),
        Op::Index { axis } => places[*axis].term(),
        Op::Random { .. } => Term::new(ATOM, "uniform()"),
        Op::Unary(Unary::Neg) => Term::new(SIGN, format!("-{}", arg(0).above(POWER))),
        Op::Unary(Unary::Not) => Term::new(NOT, format!("not {}", arg(0).above(COMPARISON))),
        Op::Unary(op) => Term::new(ATOM, format!("{}({})", unary_name(*op), arg(0).text)),
        Op::Binary(op) => binary(*op, arg(0), arg(1)),
        Op::Compare(op) => {
            let text = format!("{} {} {}", arg(0).above(SUM), compare_symbol(*op), arg(1).above(SUM));
            Term::new(COMPARISON, text)
        }
        Op::Select => {
            let text = format!("{} if {} else {}", arg(1).above(OR), arg(0).above(OR), arg(2).above(OR));
            Term::new(CONDITIONAL, text)
        }
        Op::Cast => {
            let from = printer.graph.value(value.args[0]).dtype;
            match (from, value.dtype) {
                (DType::Bool, _) => Term::new(CONDITIONAL, format!("1 if {} else 0", arg(0).above(OR))),
                (_, DType::Bool) => Term::new(COMPARISON, format!("{} != 0", arg(0).above(SUM))),
                (_, DType::F32) => Term::new(ATOM, format!("f32({})", arg(0).text)),
                (_, DType::I32) => Term::new(ATOM, format!("i32({})", arg(0).text)),
            }
        }
        Op::Contract(contract) => {
            let mut inner = vec![Place::index("0"); contract.domain.len()];
            for (entry, place) in contract.output.iter().zip(places) {
                inner[entry.as_index().expect("only moves are read through")] = place.clone();
            }
            read(printer, value.args[0], &contract.operands[0], &contract.domain, &inner)
        }
        Op::Gather(indirect) => {
            let inner: Vec<Place> = indirect
                .index
                .iter()
                .map(|index| match index {
                    IndirectIndex::Affine(entry) => Place::of(affine(entry, places)),
                    IndirectIndex::Tensor { arg, access } => {
                        Place::of(read(printer, value.args[*arg], access, &indirect.domain, places))
                    }
                })
                .collect();
            Term::new(GUARD, format!("{} else 0", term(printer, value.args[0], &inner).text))
        }
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => unreachable!("%{} has a name", id.0),
        Op::Detach | Op::Reshape | Op::ReduceMax { .. } | Op::ArgMax { .. } | Op::Scatter(_) => {
            unreachable!("%{} has a line", id.0)
        }
    }
}

fn constant(number: f64, dtype: DType) -> Term {
    let text = match dtype {
        DType::Bool => return Term::new(ATOM, if number != 0.0 { "true" } else { "false" }),
        DType::I32 | DType::F32 if number == f64::INFINITY => "inf".to_string(),
        DType::I32 | DType::F32 if number == f64::NEG_INFINITY => "-inf".to_string(),
        DType::I32 | DType::F32 if number.is_nan() => "(inf - inf)".to_string(),
        DType::I32 | DType::F32 => plain_number(number),
    };
    Term::new(if text.starts_with('-') { SIGN } else { ATOM }, text)
}

/// The shortest digits that read back as the number.
fn plain_number(number: f64) -> String {
    let (plain, scientific) = (number.to_string(), format!("{number:e}"));
    if plain.len() <= scientific.len() + 3 { plain } else { scientific }
}

fn binary(op: Binary, a: Term, b: Term) -> Term {
    let (level, left, right) = match op {
        Binary::Add => (SUM, SUM, SUM),
        Binary::Sub => (SUM, SUM, PRODUCT),
        Binary::Mul => (PRODUCT, PRODUCT, SIGN),
        Binary::Div | Binary::Rem => (PRODUCT, PRODUCT, SIGN),
        Binary::Pow => (POWER, ATOM, ATOM),
        Binary::And => (AND, AND, AND),
        Binary::Or => (OR, OR, OR),
        Binary::Max | Binary::Min => {
            let name = if op == Binary::Max { "max" } else { "min" };
            return Term::new(ATOM, format!("{name}({}, {})", a.text, b.text));
        }
    };
    let symbol = binary_symbol(op).expect("all but max and min have one");
    Term::new(level, format!("{} {symbol} {}", a.above(left), b.above(right)))
}

/// The arguments of a value that it reads at places which an expression cannot stand for.
pub(super) fn read_by_name(graph: &Graph, id: ValueId) -> Vec<ValueId> {
    let value = graph.value(id);
    match &value.op {
        Op::Contract(contract) => {
            let operands = contract.operands.iter().zip(&value.args);
            let guarded = operands.filter(|(access, arg)| {
                !access.iter().zip(graph.shape(**arg)).all(|(entry, extent)| entry.is_within(&contract.domain, extent))
            });
            guarded.map(|(_, arg)| *arg).collect()
        }
        Op::Gather(_) | Op::Scatter(_) | Op::Reshape | Op::Detach => value.args.clone(),
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => Vec::new(),
        Op::Const(_) | Op::Size(_) | Op::Index { .. } | Op::Random { .. } => Vec::new(),
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => Vec::new(),
        // Where nothing written in place gives the reduced indices a range, a line of its own does.
        Op::ReduceMax { .. } | Op::ArgMax { .. } if gives_ranges(graph, value.args[0]) => Vec::new(),
        Op::ReduceMax { .. } | Op::ArgMax { .. } => value.args.clone(),
    }
}

/// Whether a value, written in place, reads some tensor at plain indices over all of its own dims.
fn gives_ranges(graph: &Graph, id: ValueId) -> bool {
    let value = graph.value(id);
    match &value.op {
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => true,
        // These have a line.
        Op::Random { .. } | Op::Detach | Op::Reshape | Op::Scatter(_) => true,
        Op::ReduceMax { .. } | Op::ArgMax { .. } => true,
        Op::Contract(_) if !super::is_move(graph, id) => true,
        Op::Contract(contract) => {
            let shape = graph.shape(value.args[0]);
            let whole = |index: usize| {
                let mut reads = contract.operands[0].iter().zip(shape);
                reads.any(|(entry, extent)| entry.as_index() == Some(index) && contract.domain[index] == *extent)
            };
            (0..contract.domain.len()).all(whole) && gives_ranges(graph, value.args[0])
        }
        Op::Const(_) | Op::Size(_) | Op::Index { .. } | Op::Gather(_) => false,
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => {
            value.args.iter().any(|arg| gives_ranges(graph, *arg))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affine_places_are_written_with_few_parentheses() {
        let places = [Place::index("i"), Place::of(Term::new(SUM, "j - 1"))];
        let entry = Affine { terms: vec![(0, 2), (1, -1)], offset: Dim::constant(-3) };
        assert_eq!(affine(&entry, &places).text, "2*i - (j - 1) - 3");
        assert_eq!(affine(&Affine::index(1), &places).text, "j - 1");
        assert_eq!(affine(&Affine::constant(-4), &places).text, "-4");
    }

    #[test]
    fn operators_keep_their_grouping() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Term::new(ATOM, name));
        let difference = binary(Binary::Sub, a, binary(Binary::Sub, b, c));
        assert_eq!(difference.text, "a - (b - c)");
        let product = binary(Binary::Mul, Term::new(ATOM, "x"), difference);
        assert_eq!(product.text, "x * (a - (b - c))");
    }
}
