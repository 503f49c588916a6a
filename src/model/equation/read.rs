//! Reads of tensors: `x[n.., (g c), 2*i + u]`, from syntax to subscripts of a view.
//!
//! Input: a tensor and what stands in its brackets. Output: a [`Node`] that reads the tensor, or a view of it in which each group is
//! as many dims as it has members, and a pack that is never taken apart is one.
//! Invariant: the ranges of a group are proved to make up the dim; those of a pack are proved dim by dim.

use super::node::{AffineIndex, Index, Indices, Node, NodeKind, Reduction, Subscript, Var};
use crate::diagnostics::Diagnostic;
use crate::dim::{Dim, Verdict};
use crate::model::expander::{Expander, Factors, Meaning, Outcome, Scope};
use crate::model::expression::{entry_names, has_entries};
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind};

/// The subscripts of a read so far, and the dims of the view that they read.
#[derive(Default)]
struct View {
    subscripts: Vec<Subscript>,
    shape: Vec<Dim>,
    /// The view is not the tensor as it is.
    differs: bool,
    /// What the tensor's dims are made of, where a shape has said so.
    factors: Vec<Factors>,
    /// The tensor's dims that have been read.
    read: usize,
}

/// A member of a group: an index with its range, as far as it is known, or a number.
struct Member {
    var: Option<Var>,
    number: Option<Dim>,
    range: Option<Dim>,
    /// How many dims it stands for.
    dims: usize,
    span: Span,
}

fn plain(var: Var) -> AffineIndex {
    AffineIndex { terms: vec![(var, 1)], offset: Dim::constant(0) }
}

/// What the verdict on two sizes that should be equal adds to a finding.
pub(super) fn unequal(mut diagnostic: Diagnostic, verdict: &Verdict, a: &Dim, b: &Dim) -> Diagnostic {
    match (verdict, verdict.counterexample()) {
        (_, Some(example)) => diagnostic.hint(format!("they differ at {example}")),
        (Verdict::Undecided, None) => {
            diagnostic.code = "undecided";
            diagnostic.hint(format!("settle it by `require {a} == {b}`"))
        }
        (Verdict::Proved | Verdict::Refuted(_), None) => diagnostic,
    }
}

impl Expander<'_> {
    pub(super) fn read(
        &mut self,
        table: &mut Indices,
        scope: &mut Scope,
        base: &Expr,
        indices: &[Expr],
        guard: Option<Node>,
        span: Span,
    ) -> Outcome<Node> {
        if guard.is_none()
            && let Some(item) = self.list_item(scope, base, indices)?
        {
            return Ok(Node::fixed(item, span));
        }
        if let ExprKind::Name(name) = &base.kind
            && Reduction::named(name).is_some()
            && !scope.names.contains_key(name)
        {
            let message = format!("the reduction `{name}` is followed by nothing that it could extend over");
            let diagnostic = Diagnostic::error("bad-reduction", span, message);
            return self.fail(diagnostic.hint(format!("put what it reduces into parentheses: `{name}[…] (-x[…])`")));
        }
        let tensor = match self.expression(scope, base)? {
            Meaning::Tensor(id) => id,
            other => {
                return self.refuse("type-mismatch", base.span, format!("{} cannot be indexed", self.describe(&other)));
            }
        };
        let dims = self.graph.shape(tensor).to_vec();
        let mut lengths = Vec::with_capacity(indices.len());
        for index in indices {
            lengths.push(self.length_of(table, scope, index)?);
        }
        let count: usize = lengths.iter().sum();
        if dims.len() != count {
            let message = format!("{} is read at {count} indices", self.describe(&Meaning::Tensor(tensor)));
            return self.refuse("rank-mismatch", span, message);
        }
        let factors = base.as_name().and_then(|name| scope.factors.get(name)).cloned().unwrap_or_default();
        let mut view = View { factors, ..View::default() };
        let mut place = 0;
        for (index, length) in indices.iter().zip(lengths) {
            view.read = place;
            self.subscript(table, scope, index, &dims[place..place + length], &mut view)?;
            place += length;
        }
        let View { subscripts, shape, differs, .. } = view;
        let tensor = if differs { self.graph.reshape(tensor, &shape, span) } else { tensor };
        let mut free: Vec<Var> = guard.iter().flat_map(|guard| guard.free.iter().copied()).collect();
        for subscript in &subscripts {
            match subscript {
                Subscript::Affine(affine, _) => free.extend(affine.terms.iter().map(|term| term.0)),
                Subscript::Value(node) => free.extend(&node.free),
            }
        }
        free.sort_unstable();
        free.dedup();
        let kind = NodeKind::Read { tensor, subscripts, guard: guard.map(Box::new) };
        Ok(Node { kind, span, free })
    }

    /// How many dims a subscript takes.
    pub(super) fn length_of(&mut self, table: &Indices, scope: &Scope, index: &Expr) -> Outcome<usize> {
        if !has_entries(index) {
            return Ok(1);
        }
        let mut names = Vec::new();
        match &index.kind {
            ExprKind::Each(inner) if let ExprKind::Group(members) = &inner.kind => {
                names.extend(members.iter().filter_map(|member| Some((member.as_name()?, member.span))));
            }
            _ => entry_names(index, &mut names),
        }
        let mut found: Option<(usize, Span)> = None;
        for (name, span) in names {
            if let Some(seen) = table.find(name).filter(|seen| !seen.each).cloned() {
                return self.wrong_pack(name, &seen, span);
            }
            let length = match (table.find(name), scope.names.get(name)) {
                (Some(seen), _) if seen.whole => table.plan.lengths.get(&seen.binder).copied(),
                (Some(seen), _) => Some(seen.vars.len()),
                (None, Some(Meaning::List(items))) => Some(items.len()),
                (None, _) => None,
            };
            let Some(length) = length else { continue };
            if let Some((first, place)) = found.filter(|(first, _)| *first != length) {
                let message = format!("`{name}` has {length} entries, and another one here has {first}");
                return self
                    .fail(Diagnostic::error("bad-pack", span, message).label(place, format!("{first} entries")));
            }
            found = found.or(Some((length, span)));
        }
        match found {
            Some((length, _)) => Ok(length),
            None => {
                let message = "nothing here says for how many dims this stands";
                let hint = "`..` follows an index that is bound with `..`, or a list";
                self.fail(Diagnostic::error("unknown-length", index.span, message).hint(hint))
            }
        }
    }

    fn subscript(
        &mut self,
        table: &mut Indices,
        scope: &mut Scope,
        index: &Expr,
        dims: &[Dim],
        view: &mut View,
    ) -> Outcome<()> {
        if let ExprKind::Each(inner) = &index.kind {
            match &inner.kind {
                ExprKind::Name(name) if table.find(name).is_some_and(|seen| seen.whole) => {
                    return self.whole_pack(table, name, dims, index.span, view);
                }
                ExprKind::Group(members) => {
                    for (entry, dim) in dims.iter().enumerate() {
                        self.group(table, members, Some(entry), dim, index.span, view)?;
                    }
                    return Ok(());
                }
                _ => {}
            }
        }
        if let ExprKind::Group(members) = &index.kind {
            return self.group(table, members, None, &dims[0], index.span, view);
        }
        let entries = has_entries(index);
        let around = table.entry;
        for (entry, dim) in dims.iter().enumerate() {
            table.entry = if entries { Some(entry) } else { around };
            let node = self.elaborate(table, scope, index);
            table.entry = around;
            let node = node?;
            view.subscripts.push(match node.as_affine() {
                Some(affine) => {
                    if let Some(var) = affine.plain() {
                        self.unify(&mut table.vars[var], dim, index.span)?;
                    }
                    Subscript::Affine(affine, index.span)
                }
                None => Subscript::Value(node),
            });
            view.shape.push(dim.clone());
        }
        Ok(())
    }

    /// `n..` where it is one index over all of its dims.
    fn whole_pack(
        &mut self,
        table: &mut Indices,
        name: &str,
        dims: &[Dim],
        span: Span,
        view: &mut View,
    ) -> Outcome<()> {
        let var = table.find(name).expect("the caller has found it").vars[0];
        self.unify_all(&mut table.vars[var], dims, span)?;
        view.subscripts.push(Subscript::Affine(plain(var), span));
        view.shape.push(Dim::product(dims));
        view.differs = true;
        Ok(())
    }

    /// The dims of a whole pack, each of which must be the one that is known.
    fn unify_all(&mut self, index: &mut Index, dims: &[Dim], span: Span) -> Outcome<()> {
        let Some(known) = index.dims.clone() else {
            // A group may have said how many places there are in all.
            self.unify(index, &Dim::product(dims), span)?;
            index.dims = Some(dims.to_vec());
            return Ok(());
        };
        let place = index.extent.as_ref().map_or(index.span, |(_, place)| *place);
        if known.len() != dims.len() {
            let message = format!("`{}..` stands for {} dims, and here for {}", index.name, known.len(), dims.len());
            return self.fail(Diagnostic::error("bad-pack", span, message).label(place, "there"));
        }
        for (entry, (known, dim)) in known.into_iter().zip(dims).enumerate() {
            let name = format!("{}.{entry}", index.name);
            let mut one = Index { name, span: index.span, extent: Some((known, place)), dims: None };
            self.unify(&mut one, dim, span)?;
        }
        Ok(())
    }

    /// `(g c)`: the dim is read as one dim a member.
    fn group(
        &mut self,
        table: &mut Indices,
        members: &[Expr],
        entry: Option<usize>,
        dim: &Dim,
        span: Span,
        view: &mut View,
    ) -> Outcome<()> {
        let mut flat = Vec::new();
        for member in members {
            self.member(table, member, entry, &mut flat)?;
        }
        let declared = view.factors.get(view.read + entry.unwrap_or(0)).cloned().flatten();
        let count: usize = flat.iter().map(|member| member.dims).sum();
        if let Some(declared) = declared.as_ref().filter(|declared| declared.len() == count) {
            let mut place = 0;
            for member in &mut flat {
                let factors = &declared[place..place + member.dims];
                place += member.dims;
                member.range = Some(Dim::product(factors));
                if let Some(var) = member.var.filter(|_| member.dims != 1) {
                    self.unify_all(&mut table.vars[var], factors, member.span)?;
                }
            }
        }
        let mut open = (0..flat.len()).filter(|place| flat[*place].range.is_none());
        match (open.next(), open.next()) {
            (Some(place), None) => {
                let others = Dim::product(flat.iter().filter_map(|member| member.range.as_ref()));
                flat[place].range = Some(dim.floor_div(&others));
            }
            (Some(_), Some(_)) => {
                let message = format!("nothing says how the indices of this group divide {dim} places");
                let hint = "give all ranges but one: by a shape such as `[N, (groups D)]`, or by another read";
                return self.fail(Diagnostic::error("unknown-range", span, message).hint(hint));
            }
            (None, _) => {}
        }
        let ranges: Vec<Dim> = flat.iter().filter_map(|member| member.range.clone()).collect();
        self.agree_on_dim(&Dim::product(&ranges), dim, span, span)?;
        if let Some(declared) = declared.filter(|declared| declared.len() != count) {
            self.agree_on_parts(&ranges, &declared, span)?;
        }
        let is_one = |range: &Dim| range.as_const() == Some(1);
        let mut count = 0;
        for (member, range) in flat.iter().zip(&ranges) {
            // An index with one place needs no dim of its own.
            if let Some(var) = member.var.filter(|_| is_one(range)) {
                self.unify(&mut table.vars[var], range, member.span)?;
                continue;
            }
            count += 1;
            let affine = match (member.var, &member.number) {
                (Some(var), _) => {
                    self.unify(&mut table.vars[var], range, member.span)?;
                    plain(var)
                }
                (None, number) => {
                    AffineIndex { terms: Vec::new(), offset: number.clone().unwrap_or_else(|| Dim::constant(0)) }
                }
            };
            view.subscripts.push(Subscript::Affine(affine, member.span));
            view.shape.push(range.clone());
        }
        view.differs |= count != 1;
        Ok(())
    }

    /// Proves that one division of a dim is the other, with some parts joined.
    fn agree_on_parts(&mut self, read: &[Dim], declared: &[Dim], span: Span) -> Outcome<()> {
        let ends = |parts: &[Dim]| (1..parts.len()).map(|from| Dim::product(&parts[from..])).collect::<Vec<Dim>>();
        let (ours, theirs) = (ends(read), ends(declared));
        let within = |some: &[Dim], all: &[Dim]| {
            some.iter().all(|end| all.iter().any(|other| self.facts.prove_eq(end, other).is_proved()))
        };
        if within(&ours, &theirs) || within(&theirs, &ours) {
            return Ok(());
        }
        let text = |parts: &[Dim]| parts.iter().map(Dim::to_string).collect::<Vec<_>>().join(" by ");
        let message =
            format!("the shape divides this dim into {}, and here it is read as {}", text(declared), text(read));
        self.refuse("shape-mismatch", span, message)
    }

    fn member(
        &mut self,
        table: &mut Indices,
        member: &Expr,
        entry: Option<usize>,
        flat: &mut Vec<Member>,
    ) -> Outcome<()> {
        let span = member.span;
        let (name, each) = match &member.kind {
            ExprKind::Number { value, .. } => {
                let number = Some(Dim::constant(*value as i64));
                flat.push(Member { var: None, number, range: None, dims: 1, span });
                return Ok(());
            }
            ExprKind::Each(inner) => (inner.as_name().unwrap_or_default(), true),
            _ => (member.as_name().unwrap_or_default(), false),
        };
        let Some(seen) = table.find(name).cloned() else {
            let message = format!("the index `{name}` is neither on the left nor named by a reduction");
            let diagnostic = Diagnostic::error("unbound-index", span, message);
            return self.fail(diagnostic.hint(format!("to sum over it, write `sum[{name}]` before the product")));
        };
        let vars: Vec<(Var, usize)> = match (each, entry) {
            (true, _) => seen.vars.iter().copied().zip(0..).collect(),
            (false, Some(entry)) if seen.each => seen.vars.get(entry).map(|var| (*var, entry)).into_iter().collect(),
            (false, _) => seen.vars.iter().copied().zip(0..).collect(),
        };
        if each != seen.each && (each || entry.is_none()) {
            return self.wrong_pack(name, &seen, span);
        }
        for (var, place) in vars {
            if seen.whole {
                // All of its dims, of which the shapes or the group's own dim tell.
                let length = table.plan.lengths.get(&seen.binder).copied().unwrap_or(0);
                if table.vars[var].dims.is_none() {
                    let hints = (0..length).map(|entry| table.plan.extents.get(&(seen.binder, entry)).cloned());
                    if let Some(dims) = hints.collect::<Option<Vec<Dim>>>() {
                        self.unify_all(&mut table.vars[var], &dims, span)?;
                    }
                }
                let range = table.vars[var].extent.as_ref().map(|(range, _)| range.clone());
                flat.push(Member { var: Some(var), number: None, range, dims: length, span });
                continue;
            }
            let known = table.vars[var].extent.as_ref().map(|(range, _)| range.clone());
            let range = known.or_else(|| table.plan.extents.get(&(seen.binder, place)).cloned());
            flat.push(Member { var: Some(var), number: None, range, dims: 1, span });
        }
        Ok(())
    }

    /// `n` or `n..` as a number: the index itself.
    pub(super) fn index_named(&mut self, table: &Indices, name: &str, each: bool, span: Span) -> Outcome<Node> {
        let seen = table.find(name).expect("the caller has found it").clone();
        let var = match (each, seen.each, table.entry) {
            (false, false, _) => seen.vars.first(),
            (true, true, Some(entry)) if !seen.whole => seen.vars.get(entry),
            _ => None,
        };
        match var {
            Some(var) => Ok(Node::index(plain(*var), span)),
            None if each == seen.each => {
                let message = format!("`{name}..` stands for several indices, and here is one number");
                let hint = "packs of indices stand in the brackets of reads";
                self.fail(Diagnostic::error("bad-pack", span, message).label(seen.binder, "bound here").hint(hint))
            }
            None => self.wrong_pack(name, &seen, span),
        }
    }

    fn wrong_pack<T>(&mut self, name: &str, seen: &super::node::Seen, span: Span) -> Outcome<T> {
        let (message, hint) = if seen.each {
            (format!("`{name}` stands for several indices"), format!("write `{name}..`"))
        } else {
            (format!("`{name}` is one index"), format!("write `{name}`, or bind it as `{name}..`"))
        };
        self.fail(Diagnostic::error("bad-pack", span, message).label(seen.binder, "bound here").hint(hint))
    }

    /// `stride..` of a list, at the entry that is being read.
    pub(super) fn entry(&mut self, table: &mut Indices, scope: &mut Scope, inner: &Expr, span: Span) -> Outcome<Node> {
        let Some(entry) = table.entry else {
            let message = "this stands for several values, and here is one number";
            let hint = "packs stand in the brackets of reads, in shapes, lists and arguments";
            return self.fail(Diagnostic::error("bad-pack", span, message).hint(hint));
        };
        if inner.as_name().is_none() {
            return self.elaborate(table, scope, inner);
        }
        match self.expression(scope, inner)? {
            Meaning::List(items) => match items.get(entry) {
                Some(item) => Ok(Node::fixed(item.clone(), span)),
                None => self.refuse("bad-pack", span, format!("the list has {} entries", items.len())),
            },
            value @ (Meaning::Size(_) | Meaning::Number(_) | Meaning::Flag(_)) => Ok(Node::fixed(value, span)),
            other => self.misfit("bad-pack", span, "`..` follows indices, lists and numbers", &other),
        }
    }

    fn unify(&mut self, index: &mut Index, dim: &Dim, span: Span) -> Outcome<()> {
        let Some((known, place)) = &index.extent else {
            index.extent = Some((dim.clone(), span));
            return Ok(());
        };
        let verdict = self.facts.prove_eq(known, dim);
        if verdict.is_proved() {
            return Ok(());
        }
        let message = format!("the index `{}` runs over {known} and over {dim}", index.name);
        let diagnostic = Diagnostic::error("shape-mismatch", span, message)
            .at(format!("here it runs over {dim}"))
            .label(*place, format!("here it runs over {known}"));
        self.fail(unequal(diagnostic, &verdict, known, dim))
    }
}
