//! Packs and groups: how many indices `n..` stands for, and which ranges make up the dim of `(g o)`.
//!
//! Input: an equation's left side with its declared dims, and its right side. Output: a [`Plan`].
//! Rules: a tensor has as many dims as it is read at, so one pack of unknown length in a read follows from its rank; packs in one
//! subscript are of one length; a dim is the product of its group's ranges, so one unknown range follows from the others.
//! Invariant: nothing is proved here. What contradicts the plan is found when the equation is elaborated.

use super::node::{Known, Plan, Reduction};
use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::model::expander::{Expander, Factors, Meaning, Outcome, Scope};
use crate::model::expression::{BUILTINS, constant, entry_names, has_entries};
use crate::model::project::Project;
use crate::source::Span;
use crate::syntax::ast::{Bound, DefinitionKind, Expr, ExprKind, Ident, Place};

/// A member of a group.
#[derive(Clone, Copy, Debug)]
enum Member {
    Index(Span),
    Pack(Span),
    Number,
}

/// One subscript of a read, or one place of the left side.
#[derive(Clone, Debug)]
enum Subscript {
    /// One dim at a plain index.
    Plain(Span),
    /// `n..`.
    Pack(Span),
    /// One dim at anything else.
    Other,
    /// A dim for each entry of packs of indices, or of a list of so many.
    Entries { packs: Vec<Span>, length: Option<usize> },
    /// One dim made of several indices.
    Group(Vec<Member>),
    /// Such a dim for each entry.
    Groups(Vec<Member>),
}

/// A tensor's dims, as far as they are known, and the places at which it is read.
struct Read {
    dims: Vec<Option<Dim>>,
    factors: Vec<Factors>,
    subscripts: Vec<Subscript>,
}

/// Indices by name, innermost last.
type Names = Vec<(String, Span, bool)>;

/// The indices that the left side binds, place by place. The names in an affine place that stand for nothing else are indices;
/// one that an earlier place has bound is a use of it.
pub(super) fn bound_by(project: &Project, scope: &Scope, places: &[Place]) -> Vec<Vec<Bound>> {
    let is_known = |name: &str| {
        let is_word = name == "training" || constant(name).is_some() || BUILTINS.contains(&name);
        is_word || scope.names.contains_key(name) || project.find(scope.file, name).is_some()
    };
    let mut known: Vec<String> = Vec::new();
    let mut all = Vec::with_capacity(places.len());
    for place in places {
        let bound = match place {
            Place::Index(bound) => vec![bound.clone()],
            Place::Group { members, .. } => members.clone(),
            Place::Affine(expr) => {
                let mut found = Vec::new();
                indices_in(&is_known, expr, false, &mut found);
                found.retain(|bound: &Bound| !known.contains(&bound.name.name));
                found
            }
        };
        known.extend(bound.iter().map(|bound| bound.name.name.clone()));
        all.push(bound);
    }
    all
}

/// The names of an affine place that stand for nothing else, each once.
fn indices_in(is_known: &dyn Fn(&str) -> bool, expr: &Expr, each: bool, found: &mut Vec<Bound>) {
    match &expr.kind {
        ExprKind::Name(name) if !is_known(name) => {
            if found.iter().all(|bound| bound.name.name != *name) {
                found.push(Bound { name: Ident { name: name.clone(), span: expr.span }, each });
            }
        }
        ExprKind::Each(inner) => indices_in(is_known, inner, true, found),
        _ => expr.parts().into_iter().for_each(|part| indices_in(is_known, part, each, found)),
    }
}

/// True where a pack or a group is written.
fn is_marked(expr: &Expr) -> bool {
    let packs = |indices: &[Bound]| indices.iter().any(|bound| bound.each);
    match &expr.kind {
        ExprKind::Each(_) | ExprKind::Group(_) => true,
        ExprKind::Reduce { indices, .. } if packs(indices) => true,
        _ => expr.parts().into_iter().any(is_marked),
    }
}

fn has_reduction(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Reduce { .. }) || expr.parts().into_iter().any(has_reduction)
}

impl Expander<'_> {
    /// What is known before an equation is elaborated; `left` are the declared dims, if any are, and `declared` how many each
    /// part of the declared shape gives, and what it makes them of.
    pub(super) fn places(
        &mut self,
        scope: &mut Scope,
        places: &[Place],
        (left, declared): (&[Known], &[(usize, Factors)]),
        value: &Expr,
    ) -> Outcome<Plan> {
        let is_left_marked = places.iter().any(|place| match place {
            Place::Index(bound) => bound.each,
            Place::Group { .. } => true,
            Place::Affine(expr) => is_marked(expr),
        });
        if !is_left_marked && !is_marked(value) {
            return Ok(Plan::default());
        }
        let mut finder = Finder { names: Vec::new(), reads: Vec::new(), packs: Vec::new(), plan: Plan::default() };
        for bound in bound_by(self.project, scope, places).iter().flatten() {
            finder.bind(bound);
        }
        // `i` of `(i u)..` stands for a pack as well.
        for place in places {
            if let Place::Group { members, each: true, .. } = place {
                members.iter().for_each(|bound| finder.mark(bound));
            }
        }
        self.find_reads(scope, &mut finder, value);
        let subscripts: Vec<Subscript> = places.iter().map(|place| finder.place(scope, place)).collect();
        if declared.len() == places.len() {
            for (subscript, (length, _)) in subscripts.iter().zip(declared) {
                finder.learn(subscript, *length);
            }
        }
        if !left.is_empty() {
            let dims = left.iter().map(|dim| dim.as_ref().map(|(dim, _)| dim.clone())).collect();
            let factors = declared.iter().flat_map(|(length, factors)| vec![factors.clone(); *length]).collect();
            finder.reads.push(Read { dims, factors, subscripts });
        }
        finder.lengths();
        let missing = finder.packs.iter().find(|(_, span)| !finder.plan.lengths.contains_key(span));
        if let Some((name, span)) = missing.cloned() {
            self.unknown_bases(scope, value)?;
            let message = format!("nothing says for how many indices `{name}..` stands");
            let diagnostic = Diagnostic::error("unknown-length", span, message);
            return self.fail(diagnostic.hint(format!("read a tensor at `{name}..`, or declare the output's shape")));
        }
        finder.ranges();
        // A reduction over rows is one over one dim. Where nothing is reduced no view shall stand between one elementwise
        // equation and the next.
        if !has_reduction(value) {
            finder.plan.apart.extend(finder.packs.iter().map(|(_, span)| *span));
        }
        Ok(finder.plan)
    }

    /// Reports the names that are read at indices and stand for nothing.
    fn unknown_bases(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<()> {
        if let ExprKind::Index { base, .. } = &expr.kind
            && let Some(name) = base.as_name()
            && Reduction::named(name).is_none()
        {
            self.resolve(scope, name, base.span)?;
        }
        expr.parts().into_iter().try_for_each(|part| self.unknown_bases(scope, part))
    }

    fn find_reads(&mut self, scope: &mut Scope, finder: &mut Finder, expr: &Expr) {
        match &expr.kind {
            ExprKind::Index { base, indices } => {
                self.find_reads(scope, finder, base);
                for index in indices {
                    self.find_reads(scope, finder, index);
                }
                let subscripts = indices.iter().map(|index| finder.subscript(scope, index)).collect();
                let Some((dims, factors)) = self.known_dims(scope, base) else { return };
                finder.reads.push(Read { dims: dims.into_iter().map(Some).collect(), factors, subscripts });
            }
            ExprKind::Reduce { op, indices, body } => {
                let known = finder.names.len();
                if !Reduction::named(&op.name).is_some_and(Reduction::keeps_indices) {
                    indices.iter().for_each(|bound| finder.bind(bound));
                }
                self.find_reads(scope, finder, body);
                finder.names.truncate(known);
            }
            _ => {
                for part in expr.parts() {
                    self.find_reads(scope, finder, part);
                }
            }
        }
    }

    /// True for the name of a function, which owns and updates nothing.
    fn is_function(&self, scope: &Scope, callee: &Expr) -> bool {
        let Some(name) = callee.as_name().filter(|name| !scope.names.contains_key(*name)) else { return false };
        match self.project.find(scope.file, name) {
            Some(definition) => definition.ast.kind == DefinitionKind::Fn,
            None => BUILTINS.contains(&name),
        }
    }

    /// The dims of a tensor that is named, and how shapes have divided them.
    fn known_dims(&mut self, scope: &mut Scope, base: &Expr) -> Option<(Vec<Dim>, Vec<Factors>)> {
        let meaning = match &base.kind {
            ExprKind::Name(name) => scope.names.get(name).cloned()?,
            // A function's value is made again where it is read, and one of the two goes unused. A layer's would be used twice.
            ExprKind::Call { callee, .. } if !self.is_function(scope, callee) => return None,
            ExprKind::Field { .. } | ExprKind::Call { .. } => {
                let reported = self.diagnostics.len();
                let meaning = self.expression(scope, base);
                // Whatever is wrong with it is told where it is read.
                self.diagnostics.truncate(reported);
                meaning.ok()?
            }
            _ => return None,
        };
        let Meaning::Tensor(tensor) = meaning else { return None };
        let factors = base.as_name().and_then(|name| scope.factors.get(name)).cloned().unwrap_or_default();
        Some((self.graph.shape(tensor).to_vec(), factors))
    }
}

/// A walk over an equation.
struct Finder {
    names: Names,
    reads: Vec<Read>,
    /// The packs, by name and where they are bound.
    packs: Vec<(String, Span)>,
    plan: Plan,
}

impl Finder {
    fn bind(&mut self, bound: &Bound) {
        let (name, span) = (bound.name.name.clone(), bound.name.span);
        if bound.each {
            self.packs.push((name.clone(), span));
        }
        self.names.push((name, span, bound.each));
    }

    /// An index that is a pack because its group is followed by `..`.
    fn mark(&mut self, bound: &Bound) {
        let span = bound.name.span;
        self.names.iter_mut().filter(|(_, binder, _)| *binder == span).for_each(|name| name.2 = true);
        if !self.packs.iter().any(|(_, known)| *known == span) {
            self.packs.push((bound.name.name.clone(), span));
        }
        self.plan.apart.insert(span);
    }

    fn find(&self, name: &str) -> Option<(Span, bool)> {
        self.names.iter().rev().find(|(known, _, _)| known == name).map(|(_, span, each)| (*span, *each))
    }

    fn place(&mut self, scope: &Scope, place: &Place) -> Subscript {
        match place {
            Place::Affine(expr) if has_entries(expr) => self.entries(scope, expr),
            Place::Affine(_) => Subscript::Other,
            Place::Index(bound) if bound.each => Subscript::Pack(bound.name.span),
            Place::Index(bound) => Subscript::Plain(bound.name.span),
            Place::Group { members, each, .. } => {
                let member = |bound: &Bound| {
                    if bound.each { Member::Pack(bound.name.span) } else { Member::Index(bound.name.span) }
                };
                let members = members.iter().map(member).collect();
                if *each { Subscript::Groups(members) } else { Subscript::Group(members) }
            }
        }
    }

    fn subscript(&mut self, scope: &Scope, index: &Expr) -> Subscript {
        match &index.kind {
            ExprKind::Name(name) => self.find(name).map_or(Subscript::Other, |(span, _)| Subscript::Plain(span)),
            ExprKind::Group(members) => Subscript::Group(self.members(members)),
            ExprKind::Each(inner) => match &inner.kind {
                ExprKind::Name(name) => match self.find(name) {
                    Some((span, _)) => Subscript::Pack(span),
                    None => self.entries(scope, index),
                },
                ExprKind::Group(members) => {
                    let members = self.members(members);
                    for member in &members {
                        if let Member::Index(span) | Member::Pack(span) = member {
                            self.plan.apart.insert(*span);
                        }
                    }
                    Subscript::Groups(members)
                }
                _ => self.entries(scope, inner),
            },
            _ if has_entries(index) => self.entries(scope, index),
            _ => Subscript::Other,
        }
    }

    fn members(&self, members: &[Expr]) -> Vec<Member> {
        let member = |member: &Expr| match &member.kind {
            ExprKind::Name(name) => self.find(name).map_or(Member::Number, |(span, _)| Member::Index(span)),
            ExprKind::Each(inner) => {
                inner.as_name().and_then(|name| self.find(name)).map_or(Member::Number, |(span, _)| Member::Pack(span))
            }
            _ => Member::Number,
        };
        members.iter().map(member).collect()
    }

    fn entries(&mut self, scope: &Scope, expr: &Expr) -> Subscript {
        let mut names = Vec::new();
        entry_names(expr, &mut names);
        let (mut packs, mut length) = (Vec::new(), None);
        for (name, _) in names {
            match (self.find(name), scope.names.get(name)) {
                (Some((span, _)), _) => packs.push(span),
                (None, Some(Meaning::List(items))) => length = length.or(Some(items.len())),
                (None, _) => {}
            }
        }
        self.plan.apart.extend(&packs);
        Subscript::Entries { packs, length }
    }

    /// How many dims a subscript takes.
    fn length(&self, subscript: &Subscript) -> Option<usize> {
        let known = |span: &Span| self.plan.lengths.get(span).copied();
        match subscript {
            Subscript::Plain(_) | Subscript::Other | Subscript::Group(_) => Some(1),
            Subscript::Pack(span) => known(span),
            Subscript::Entries { packs, length } => packs.iter().find_map(known).or(*length),
            Subscript::Groups(members) => members.iter().find_map(|member| match member {
                Member::Index(span) | Member::Pack(span) if self.is_pack(span) => known(span),
                _ => None,
            }),
        }
    }

    fn is_pack(&self, span: &Span) -> bool {
        self.packs.iter().any(|(_, known)| known == span)
    }

    /// Notes that a subscript takes so many dims; true where that is news.
    fn learn(&mut self, subscript: &Subscript, length: usize) -> bool {
        let packs: Vec<Span> = match subscript {
            Subscript::Pack(span) => vec![*span],
            Subscript::Entries { packs, .. } => packs.clone(),
            Subscript::Groups(members) => members
                .iter()
                .filter_map(|member| match member {
                    Member::Index(span) | Member::Pack(span) => Some(*span),
                    Member::Number => None,
                })
                .collect(),
            Subscript::Plain(_) | Subscript::Other | Subscript::Group(_) => Vec::new(),
        };
        let mut news = false;
        for span in packs {
            if !self.is_pack(&span) {
                continue;
            }
            news |= !self.plan.lengths.contains_key(&span);
            self.plan.lengths.entry(span).or_insert(length);
        }
        news
    }

    fn lengths(&mut self) {
        let reads = std::mem::take(&mut self.reads);
        loop {
            let mut news = false;
            for Read { dims, subscripts, .. } in &reads {
                let lengths: Vec<Option<usize>> = subscripts.iter().map(|each| self.length(each)).collect();
                for (subscript, length) in subscripts.iter().zip(&lengths) {
                    news |= length.is_some_and(|length| self.learn(subscript, length));
                }
                let known: usize = lengths.iter().flatten().sum();
                let mut open = (0..subscripts.len()).filter(|place| lengths[*place].is_none());
                if let (Some(place), None) = (open.next(), open.next()) {
                    news |= self.learn(&subscripts[place], dims.len().saturating_sub(known));
                }
            }
            if !news {
                break;
            }
        }
        self.reads = reads;
    }

    /// The members of a group, entry by entry where they are packs of their own; `entry` of them otherwise.
    fn flat(&self, members: &[Member], entry: usize) -> Vec<Option<(Span, usize)>> {
        let mut flat = Vec::new();
        for member in members {
            match member {
                Member::Index(span) => flat.push(Some((*span, if self.is_pack(span) { entry } else { 0 }))),
                Member::Pack(span) => {
                    let length = self.plan.lengths.get(span).copied().unwrap_or(0);
                    flat.extend((0..length).map(|entry| Some((*span, entry))));
                }
                Member::Number => flat.push(None),
            }
        }
        flat
    }

    fn ranges(&mut self) {
        let reads = std::mem::take(&mut self.reads);
        loop {
            let before = self.plan.extents.len();
            for read in &reads {
                self.ranges_of(read);
            }
            if self.plan.extents.len() == before {
                break;
            }
        }
    }

    fn ranges_of(&mut self, Read { dims, factors, subscripts }: &Read) {
        let lengths: usize = subscripts.iter().filter_map(|each| self.length(each)).sum();
        if lengths != dims.len() {
            return;
        }
        let mut place = 0;
        for subscript in subscripts {
            let length = self.length(subscript).unwrap_or(1);
            for entry in 0..length {
                let Some(dim) = dims[place + entry].clone() else { continue };
                match subscript {
                    Subscript::Plain(span) | Subscript::Pack(span) => self.range((*span, entry), dim),
                    Subscript::Group(members) | Subscript::Groups(members) => {
                        let flat = self.flat(members, entry);
                        let known = factors.get(place + entry).and_then(Option::as_ref);
                        if let Some(known) = known.filter(|known| known.len() == flat.len()) {
                            for (member, dim) in flat.iter().zip(known) {
                                member.iter().for_each(|member| self.range(*member, dim.clone()));
                            }
                        }
                        self.quotient(&flat, &dim);
                    }
                    Subscript::Other | Subscript::Entries { .. } => {}
                }
            }
            place += length;
        }
    }

    fn range(&mut self, member: (Span, usize), dim: Dim) {
        self.plan.extents.entry(member).or_insert(dim);
    }

    /// The one range of a group that is not known yet.
    fn quotient(&mut self, flat: &[Option<(Span, usize)>], dim: &Dim) {
        let known = |member: &Option<(Span, usize)>| member.and_then(|member| self.plan.extents.get(&member)).cloned();
        let ranges: Vec<Option<Dim>> = flat.iter().map(known).collect();
        let mut open = (0..flat.len()).filter(|place| ranges[*place].is_none());
        if let (Some(place), None) = (open.next(), open.next())
            && let Some(member) = flat[place]
        {
            let others = Dim::product(ranges.iter().flatten());
            self.range(member, dim.floor_div(&others));
        }
    }
}
