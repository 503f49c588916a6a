//! Contractions to views, reductions, scatters and products.
//!
//! Input: a [`Contract`] and the sizes it meets. Output: form values. Every choice follows from sizes and the target's
//! numbers.
//!
//! A contraction written at affine places is turned around where each output dim holds a domain index of
//! coefficient ±1 that occurs nowhere else on the left (`y = i + u - p` gives `i = y - u + p`): then it is read
//! only, and the input gradient of a convolution of stride 1 is a convolution again. What cannot be turned around
//! (strided windows) is scattered from a temporary.

use super::form::{ELEMENT_BYTES, Form, FormOp, GatherIndex, Guard, Id, Piece, ProductForm, linear};
use super::pieces;
use super::target::Products;
use crate::graph::{Binary, Contract, DType};
use crate::kernel::{Linear, ReductionKind};
use crate::source::Span;

/// Domain indices expressed by output dims.
pub(super) struct Inverse {
    /// For each domain index its function of the output's dims followed by the `summed` ones.
    pub indices: Vec<Linear>,
    /// Extents of the domain indices that stay, numbered behind the output's dims.
    pub summed: Vec<usize>,
    /// What must hold for a point of the output and the summed indices to stem from the domain.
    pub guards: Vec<Guard>,
}

/// Turns the output access around; `None` entries of `output` give no index back.
/// None where an output dim has only indices that cannot be expressed, or the inverse visits far more points.
pub(super) fn invert(domain: &[usize], output: &[Option<Linear>], sizes: &[usize]) -> Option<Inverse> {
    let plain: Vec<Option<Linear>> =
        output.iter().map(|each| each.as_ref().map(|l| without_units(l, domain))).collect();
    let mut solved: Vec<Option<usize>> = vec![None; domain.len()];
    for (dim, linear) in plain.iter().enumerate() {
        let Some(linear) = linear else { continue };
        if linear.terms.is_empty() {
            continue;
        }
        let others = |index: usize| {
            plain
                .iter()
                .enumerate()
                .any(|(other, each)| other != dim && each.as_ref().is_some_and(|each| each.coefficient(index) != 0))
        };
        let candidates = linear.terms.iter().filter(|term| term.1.abs() == 1 && !others(term.0));
        let best = candidates.max_by_key(|term| (domain[term.0], std::cmp::Reverse(term.0)))?;
        solved[best.0] = Some(dim);
    }
    let rank = sizes.len();
    let mut summed = Vec::new();
    let mut indices = vec![Linear::constant(0); domain.len()];
    for index in 0..domain.len() {
        if solved[index].is_none() && domain[index] > 1 {
            indices[index] = Linear::index(rank + summed.len());
            summed.push(domain[index]);
        }
    }
    let mut guards = Vec::new();
    for (index, dim) in solved.iter().enumerate() {
        let Some(dim) = *dim else { continue };
        let linear = plain[dim].as_ref().expect("a solved dim is affine");
        let sign = linear.coefficient(index);
        let rest = linear.plus(&Linear::index(index).scaled(-sign));
        let rest = rest.compose(|other| indices[other].clone());
        indices[index] = Linear::index(dim).plus(&rest.scaled(-1)).scaled(sign);
        guards.push((indices[index].clone(), domain[index] as i64));
    }
    for (dim, linear) in plain.iter().enumerate() {
        if let Some(offset) = linear.as_ref().and_then(Linear::as_constant) {
            guards.push((Linear::index(dim).shifted(-offset), 1));
        }
    }
    let extents = [sizes, &summed[..]].concat();
    guards.retain(|(linear, extent)| !linear.is_within(&extents, *extent));
    let (before, after) = (domain.iter().product::<usize>(), extents.iter().product::<usize>());
    let affordable = after <= 4 * (before + sizes.iter().product::<usize>());
    affordable.then_some(Inverse { indices, summed, guards })
}

/// Indices of extent 1 are 0.
fn without_units(linear: &Linear, domain: &[usize]) -> Linear {
    let terms = linear.terms.iter().copied().filter(|term| domain[term.0] > 1).collect();
    Linear { terms, offset: linear.offset }
}

/// Lowers a contraction whose result has these sizes.
pub(super) fn lower(form: &mut Form, contract: &Contract, sizes: &[usize], args: &[Id], span: Span) -> Id {
    let dtype = form.value(args[0]).dtype;
    let domain: Vec<usize> =
        contract.domain.iter().map(|dim| dim.as_const().expect("sizes are bound before scheduling") as usize).collect();
    if domain.contains(&0) || args.iter().any(|&arg| form.sizes(arg).contains(&0)) {
        return form.constant(0.0, sizes, dtype, span);
    }
    let operands: Vec<Vec<Linear>> =
        contract.operands.iter().map(|access| access.iter().map(linear).collect()).collect();
    let output: Vec<Linear> = contract.output.iter().map(linear).collect();
    written(form, &domain, operands, output, sizes, args, span)
}

/// A contraction over a domain without empty ranges.
pub(super) fn written(
    form: &mut Form,
    domain: &[usize],
    operands: Vec<Vec<Linear>>,
    output: Vec<Linear>,
    sizes: &[usize],
    args: &[Id],
    span: Span,
) -> Id {
    let output: Vec<Option<Linear>> = output.into_iter().map(Some).collect();
    match invert(domain, &output, sizes) {
        Some(inverse) => {
            let operands = operands.iter().map(|access| substitute(access, &inverse.indices)).collect();
            let (summed, guards) = (inverse.summed, inverse.guards);
            gathered(form, Task { sizes: sizes.to_vec(), summed, operands, guards, padding: Vec::new(), span }, args)
        }
        None => scattered(form, domain, operands, &output, sizes, args, span),
    }
}

fn substitute(access: &[Linear], indices: &[Linear]) -> Vec<Linear> {
    access.iter().map(|linear| linear.compose(|index| indices[index].clone())).collect()
}

/// A contraction whose output is plain: output dims first, then summed indices.
struct Task {
    sizes: Vec<usize>,
    summed: Vec<usize>,
    operands: Vec<Vec<Linear>>,
    guards: Vec<Guard>,
    /// The guards that an operand's own range implies: its padding multiplies by zero.
    padding: Vec<Guard>,
    span: Span,
}

impl Task {
    fn extents(&self) -> Vec<usize> {
        [&self.sizes[..], &self.summed[..]].concat()
    }
}

/// Over the indices that the output names, then a scatter to the output.
fn scattered(
    form: &mut Form,
    domain: &[usize],
    operands: Vec<Vec<Linear>>,
    output: &[Option<Linear>],
    sizes: &[usize],
    args: &[Id],
    span: Span,
) -> Id {
    let output: Vec<Linear> = output.iter().flatten().map(|linear| without_units(linear, domain)).collect();
    let named = |index: &usize| output.iter().any(|linear| linear.coefficient(*index) != 0);
    let kept: Vec<usize> = (0..domain.len()).filter(named).collect();
    let rest: Vec<usize> = (0..domain.len()).filter(|index| !named(index) && domain[*index] > 1).collect();
    let order: Vec<usize> = kept.iter().chain(&rest).copied().collect();
    let renumbered: Vec<Linear> = (0..domain.len())
        .map(|index| match order.iter().position(|&each| each == index) {
            Some(place) => Linear::index(place),
            None => Linear::constant(0),
        })
        .collect();
    let task = Task {
        sizes: kept.iter().map(|&index| domain[index]).collect(),
        summed: rest.iter().map(|&index| domain[index]).collect(),
        operands: operands.iter().map(|access| substitute(access, &renumbered)).collect(),
        guards: Vec::new(),
        padding: Vec::new(),
        span,
    };
    let kept_sizes = task.sizes.clone();
    let source = gathered(form, task, args);
    let index = substitute(&output, &renumbered);
    let injective = is_injective(&index, &kept_sizes);
    let dtype = form.value(source).dtype;
    let index = index.into_iter().map(GatherIndex::Linear).collect();
    form.push(FormOp::Scatter { index, injective }, &[source], sizes, dtype, span)
}

/// True if different points have different places: each index occurs in one dim only, and within a dim each
/// coefficient exceeds the reach of the smaller ones (a mixed-radix number).
fn is_injective(access: &[Linear], extents: &[usize]) -> bool {
    let occurrences = |index: usize| access.iter().filter(|linear| linear.coefficient(index) != 0).count();
    let mixed_radix = |linear: &Linear| {
        let mut terms: Vec<(i64, i64)> =
            linear.terms.iter().map(|&(index, by)| (by.abs(), extents[index] as i64 - 1)).collect();
        terms.sort_unstable();
        let mut reach = 0;
        terms.into_iter().all(|(coefficient, last)| {
            let separate = coefficient > reach;
            reach += coefficient * last;
            separate
        })
    };
    (0..extents.len()).all(|index| extents[index] == 1 || occurrences(index) == 1) && access.iter().all(mixed_radix)
}

/// A contraction that only reads at affine places.
fn gathered(form: &mut Form, task: Task, args: &[Id]) -> Id {
    match args {
        [arg] => {
            let view = form.view(*arg, &task.extents(), task.operands[0].clone(), &task.guards, task.span);
            sum(form, view, task.summed.len(), task.span)
        }
        [a, b] => two_operands(form, task, *a, *b),
        _ => unreachable!("a verified contraction has one or two operands"),
    }
}

/// Sum over the trailing axes; one with few results and many summands is split by size into leaves.
pub(super) fn sum(form: &mut Form, arg: Id, axes: usize, span: Span) -> Id {
    let sizes = form.sizes(arg).to_vec();
    let rank = sizes.len() - axes;
    let (results, summands) = (sizes[..rank].iter().product::<usize>(), sizes[rank..].iter().product::<usize>());
    let few_long = results < form.target.tasks && summands >= form.target.small_work;
    let long_columns = has_long_columns(form, arg, rank);
    if axes == 0 || !(few_long || long_columns) {
        return form.reduce(ReductionKind::Sum, arg, axes, span);
    }
    let widest = (rank..sizes.len()).max_by_key(|&axis| (sizes[axis], std::cmp::Reverse(axis)));
    let axis = widest.expect("a sum has a summed axis");
    let leaves = divisor(sizes[axis], form.target.tasks);
    if leaves == 1 {
        return form.reduce(ReductionKind::Sum, arg, axes, span);
    }
    // Element [o…, leaf, …] of the parts is element [o…, leaf · part + within, …] of the argument; leaves of columns come
    // before o…, so that a leaf is walked through row by row.
    let part = sizes[axis] / leaves;
    let leaf = if long_columns { 0 } else { rank };
    let mut split = sizes.clone();
    split[axis] = part;
    split.insert(leaf, leaves);
    let moved = |dim: usize| if dim < leaf { dim } else { dim + 1 };
    let access = (0..sizes.len())
        .map(|dim| match dim {
            dim if dim == axis => Linear::index(leaf).scaled(part as i64).plus(&Linear::index(moved(dim))),
            dim => Linear::index(moved(dim)),
        })
        .collect();
    let view = form.view(arg, &split, access, &[], span);
    let partial = form.reduce(ReductionKind::Sum, view, axes, span);
    let last = [&sizes[..rank], &[leaves]].concat();
    let access = (0..=rank).map(|dim| {
        Linear::index(if dim == leaf {
            rank
        } else if dim < leaf {
            dim
        } else {
            dim - 1
        })
    });
    let partial = form.view(partial, &last, access.collect(), &[], span);
    form.reduce(ReductionKind::Sum, partial, 1, span)
}

/// Whether results are neighbours in memory, summands are far apart, and all are far more than stays near: tasks that share
/// the results would read pieces of rows; those that share leaves read whole rows.
fn has_long_columns(form: &Form, arg: Id, rank: usize) -> bool {
    let value = form.value(arg);
    let FormOp::View(view) = &value.op else { return false };
    let Some(neighbours) = view.access.last() else { return false };
    let is_long = value.elements() * ELEMENT_BYTES >= 2 * form.target.near_bytes;
    is_long && neighbours.terms.iter().all(|(dim, _)| *dim < rank)
}

/// The greatest divisor of an extent that is at most `most`.
fn divisor(extent: usize, most: usize) -> usize {
    (1..=most.min(extent)).rev().find(|leaves| extent.is_multiple_of(*leaves)).unwrap_or(1)
}

fn two_operands(form: &mut Form, mut task: Task, a: Id, b: Id) -> Id {
    let elements = [a, b].map(|arg| form.value(arg).elements());
    let is_product = task.summed.iter().any(|&extent| extent > 1) && is_large(&task, elements, &form.target.products);
    if !is_product {
        return as_nest(form, &task, a, b);
    }
    task.padding = task.guards.iter().filter(|guard| is_range_of(form, &task, guard, [a, b])).cloned().collect();
    let extents = task.extents();
    let mut pieces = vec![pieces::whole(&extents)];
    if task.padding.len() == task.guards.len() {
        let reads = task.operands.iter().zip([a, b]).flat_map(|(access, arg)| access.iter().zip(form.sizes(arg)));
        pieces = pieces::without_zeros(&extents, task.sizes.len(), reads, &form.target.products);
    }
    let (a, access_a) = plain_operand(form, &task, &pieces, 0, a);
    let (b, access_b) = plain_operand(form, &task, &pieces, 1, b);
    task.operands = vec![access_a, access_b];
    if pieces == [pieces::whole(&extents)] {
        split_product(form, task, a, b)
    } else {
        product(form, &task, pieces, a, b)
    }
}

/// The product of two views over the whole domain, summed: fuses with its neighbours.
fn as_nest(form: &mut Form, task: &Task, a: Id, b: Id) -> Id {
    let extents = task.extents();
    let a = form.view(a, &extents, task.operands[0].clone(), &task.guards, task.span);
    let b = form.view(b, &extents, task.operands[1].clone(), &[], task.span);
    let product = form.binary(Binary::Mul, a, b, task.span);
    sum(form, product, task.summed.len(), task.span)
}

/// True where the product primitive pays: every index is of one of its four kinds, and there are real rows, columns and
/// depth; or, if one side is thin, elements are read several times (`elements`: of each operand), as those of a depthwise
/// convolution are.
fn is_large(task: &Task, elements: [usize; 2], products: &Products) -> bool {
    let extents = task.extents();
    let rank = task.sizes.len();
    let uses = |operand: usize, index: usize| task.operands[operand].iter().any(|l| l.coefficient(index) != 0);
    let (mut batch, mut m, mut n, mut k) = (1, 1, 1, 1);
    for (index, &extent) in extents.iter().enumerate().filter(|(_, extent)| **extent > 1) {
        match (uses(0, index), uses(1, index), index < rank) {
            (true, true, true) => batch *= extent,
            (true, false, true) => m *= extent,
            (false, true, true) => n *= extent,
            (true, true, false) => k *= extent,
            (false, false, _) | (true, false, false) | (false, true, false) => return false,
        }
    }
    let [shorter, longer, depth] = products.sides;
    let points = batch * m * n * k;
    let (many, largest) = (points / products.thin >= products.least, elements[0].max(elements[1]));
    let thin = m.min(n) < shorter && many && points >= products.reuse * largest;
    let wide = m.min(n) >= shorter && m * n * k >= products.least;
    (wide || thin) && m.max(n) >= longer && k >= depth
}

/// True if the guard says just that one dim of an operand is read in range.
fn is_range_of(form: &Form, task: &Task, guard: &Guard, args: [Id; 2]) -> bool {
    task.operands.iter().zip(args).any(|(access, arg)| {
        let dims = access.iter().zip(form.sizes(arg));
        dims.into_iter().any(|(linear, &size)| *linear == guard.0 && size as i64 == guard.1)
    })
}

/// An operand without reads out of range: a padded copy where there are any.
/// The left one also takes the guards that no operand's range implies.
fn plain_operand(form: &mut Form, task: &Task, pieces: &[Piece], operand: usize, arg: Id) -> (Id, Vec<Linear>) {
    let extents = task.extents();
    let access = &task.operands[operand];
    let sizes = form.sizes(arg).to_vec();
    let open: Vec<&Guard> = task.guards.iter().filter(|guard| !task.padding.contains(guard)).collect();
    let ranges: Vec<(i64, i64)> = access.iter().map(|linear| pieces::range(linear, pieces)).collect();
    let inside = ranges.iter().zip(&sizes).all(|(&(least, greatest), &size)| least >= 0 && greatest < size as i64);
    let masked = operand == 0 && !open.is_empty();
    if inside && !masked {
        return (arg, access.clone());
    }
    if masked {
        // One element for every point that the access or a guard distinguishes.
        let used: Vec<usize> = (0..extents.len())
            .filter(|&index| {
                let mentions = |linear: &Linear| linear.coefficient(index) != 0;
                access.iter().any(mentions) || open.iter().any(|guard| mentions(&guard.0))
            })
            .collect();
        let place =
            |index: usize| used.iter().position(|&each| each == index).map_or(Linear::constant(0), Linear::index);
        let view_sizes: Vec<usize> = used.iter().map(|&index| extents[index]).collect();
        let guards: Vec<Guard> = open.iter().map(|(linear, extent)| (linear.compose(place), *extent)).collect();
        let access = access.iter().map(|linear| linear.compose(place)).collect();
        let view = form.view(arg, &view_sizes, access, &guards, task.span);
        return (view, used.into_iter().map(Linear::index).collect());
    }
    let padded: Vec<usize> = ranges.iter().map(|(least, greatest)| (greatest - least + 1) as usize).collect();
    let shifted = ranges.iter().enumerate().map(|(dim, range)| Linear::index(dim).shifted(range.0)).collect();
    let view = form.view(arg, &padded, shifted, &[], task.span);
    let access = access.iter().zip(&ranges).map(|(linear, range)| linear.shifted(-range.0)).collect();
    (view, access)
}

/// A whole product; one of few results and great depth is split by size into leaves, which are then summed.
fn split_product(form: &mut Form, task: Task, a: Id, b: Id) -> Id {
    let results: usize = task.sizes.iter().product();
    let depth: usize = task.summed.iter().product();
    let widest = (0..task.summed.len()).max_by_key(|&axis| (task.summed[axis], std::cmp::Reverse(axis)));
    let axis = widest.expect("a product has a summed index");
    let Products { many_results, leaf, .. } = form.target.products;
    let most = if results >= many_results { 1 } else { form.target.tasks.min(depth / leaf).max(1) };
    let leaves = divisor(task.summed[axis], most);
    if leaves == 1 {
        let pieces = vec![pieces::whole(&task.extents())];
        return product(form, &task, pieces, a, b);
    }
    let rank = task.sizes.len();
    let part = task.summed[axis] / leaves;
    // The leaf is a new leading output dim; every other index moves by one.
    let indices: Vec<Linear> = (0..rank + task.summed.len())
        .map(|index| match index {
            index if index == rank + axis => Linear::index(0).scaled(part as i64).plus(&Linear::index(index + 1)),
            index => Linear::index(index + 1),
        })
        .collect();
    let operands: Vec<Vec<Linear>> = task.operands.iter().map(|access| substitute(access, &indices)).collect();
    let mut summed = task.summed.clone();
    summed[axis] = part;
    let sizes = [&[leaves], &task.sizes[..]].concat();
    let leaf = Task { sizes, summed, operands, guards: Vec::new(), padding: Vec::new(), span: task.span };
    let pieces = vec![pieces::whole(&leaf.extents())];
    let partial = product(form, &leaf, pieces, a, b);
    let moved = [&task.sizes[..], &[leaves]].concat();
    let access = std::iter::once(rank).chain(0..rank).map(Linear::index).collect();
    let view = form.view(partial, &moved, access, &[], task.span);
    form.reduce(ReductionKind::Sum, view, 1, task.span)
}

fn product(form: &mut Form, task: &Task, pieces: Vec<Piece>, a: Id, b: Id) -> Id {
    let [left, right] = [0, 1].map(|operand| task.operands[operand].clone());
    let product = ProductForm { summed: task.summed.clone(), a: left, b: right, pieces };
    form.push(FormOp::Product(product), &[a, b], &task.sizes, DType::F32, task.span)
}
