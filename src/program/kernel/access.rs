//! What the parts of the loop IR read, write and compute with: asked here, spelled out nowhere else.
//!
//! Input: nodes, phases, nests, products and kernels. Output: the nodes, linear functions, locations and buffers in them,
//! to look at or to rewrite. Invariant: nothing is left out, so a new kind of node or kernel is added here once.

use super::{
    BufferId, Kernel, KernelKind, Linear, Location, Nest, NodeId, NodeOp, Phase, Product, ProductLoop, Store, Winograd,
};

impl NodeOp {
    /// The nodes that it reads, in the order of its arguments.
    pub fn operands(&self) -> Vec<NodeId> {
        match self {
            NodeOp::Const(_) | NodeOp::Index(_) | NodeOp::Random { .. } | NodeOp::Reduced { .. } => Vec::new(),
            NodeOp::Load(location) => location.indirect.iter().map(|term| term.node).collect(),
            NodeOp::Unary(_, x) | NodeOp::Cast(x) => vec![*x],
            NodeOp::Binary(_, a, b) | NodeOp::Compare(_, a, b) => vec![*a, *b],
            NodeOp::Select(condition, then, otherwise) => vec![*condition, *then, *otherwise],
        }
    }

    /// The same, to rename them.
    pub fn operands_mut(&mut self) -> Vec<&mut NodeId> {
        match self {
            NodeOp::Const(_) | NodeOp::Index(_) | NodeOp::Random { .. } | NodeOp::Reduced { .. } => Vec::new(),
            NodeOp::Load(location) => location.nodes_mut().collect(),
            NodeOp::Unary(_, x) | NodeOp::Cast(x) => vec![x],
            NodeOp::Binary(_, a, b) | NodeOp::Compare(_, a, b) => vec![a, b],
            NodeOp::Select(condition, then, otherwise) => vec![condition, then, otherwise],
        }
    }

    /// The element that it loads.
    pub fn location(&self) -> Option<&Location> {
        if let NodeOp::Load(location) = self { Some(location) } else { None }
    }

    /// The same, to move it.
    pub fn location_mut(&mut self) -> Option<&mut Location> {
        if let NodeOp::Load(location) = self { Some(location) } else { None }
    }

    /// Its functions of loop indices.
    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            NodeOp::Index(linear) | NodeOp::Random { element: linear, .. } => vec![linear],
            NodeOp::Load(location) => location.linears().collect(),
            NodeOp::Const(_) | NodeOp::Reduced { .. } | NodeOp::Unary(..) | NodeOp::Cast(_) => Vec::new(),
            NodeOp::Binary(..) | NodeOp::Compare(..) | NodeOp::Select(..) => Vec::new(),
        }
    }

    /// The same, to rewrite them.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            NodeOp::Index(linear) | NodeOp::Random { element: linear, .. } => vec![linear],
            NodeOp::Load(location) => location.linears_mut().collect(),
            NodeOp::Const(_) | NodeOp::Reduced { .. } | NodeOp::Unary(..) | NodeOp::Cast(_) => Vec::new(),
            NodeOp::Binary(..) | NodeOp::Compare(..) | NodeOp::Select(..) => Vec::new(),
        }
    }
}

impl Location {
    /// The functions of loop indices in it: the index, then the guards.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        std::iter::once(&self.index).chain(self.guards.iter().map(|(guard, _)| guard))
    }

    /// The same, to rewrite them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        std::iter::once(&mut self.index).chain(self.guards.iter_mut().map(|(guard, _)| guard))
    }

    /// The nodes of its data-dependent parts, to rename them.
    fn nodes_mut(&mut self) -> impl Iterator<Item = &mut NodeId> {
        self.indirect.iter_mut().map(|term| &mut term.node)
    }
}

impl Store {
    /// The nodes that it reads, to rename them.
    pub fn operands_mut(&mut self) -> impl Iterator<Item = &mut NodeId> {
        std::iter::once(&mut self.value).chain(self.location.nodes_mut())
    }
}

impl Phase {
    /// The elements that its nodes load at a point.
    pub fn loads(&self) -> impl Iterator<Item = &Location> {
        self.nodes.iter().filter_map(|node| node.op.location())
    }

    /// The elements that it loads and then those that it stores.
    pub fn locations(&self) -> impl Iterator<Item = &Location> {
        self.loads().chain(self.stores.iter().map(|store| &store.location))
    }

    /// The same, to move them.
    pub fn locations_mut(&mut self) -> impl Iterator<Item = &mut Location> {
        let loads = self.nodes.iter_mut().filter_map(|node| node.op.location_mut());
        loads.chain(self.stores.iter_mut().map(|store| &mut store.location))
    }

    /// Its functions of loop indices.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let nodes = self.nodes.iter().flat_map(|node| node.op.linears());
        nodes.chain(self.stores.iter().flat_map(|store| store.location.linears()))
    }

    /// The same, to rewrite them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let nodes = self.nodes.iter_mut().flat_map(|node| node.op.linears_mut());
        nodes.chain(self.stores.iter_mut().flat_map(|store| store.location.linears_mut()))
    }

    /// Whether all its functions walk through two neighbouring loops, the second of this extent, as through one.
    fn joins(&self, number: usize, extent: usize) -> bool {
        self.linears().all(|linear| linear.coefficient(number) == linear.coefficient(number + 1) * extent as i64)
    }

    /// Joins neighbouring inner loops that all functions walk through as one. `outer` is the number of outer loops.
    fn join_loops(&mut self, outer: usize) {
        for index in (0..self.inner.len().saturating_sub(1)).rev() {
            if self.joins(outer + index, self.inner[index + 1]) {
                self.linears_mut().for_each(|linear| linear.remove(outer + index));
                self.inner[index] *= self.inner.remove(index + 1);
            }
        }
    }
}

impl Nest {
    /// The elements that its phases load.
    pub fn loads(&self) -> impl Iterator<Item = &Location> {
        self.phases.iter().flat_map(Phase::loads)
    }

    /// Its phases' stores.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        self.phases.iter().flat_map(|phase| &phase.stores)
    }

    /// Its functions of loop indices, to rewrite them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.phases.iter_mut().flat_map(Phase::linears_mut)
    }

    /// Forgets an outer loop whose index is 0, or whose part another loop has taken over.
    pub fn remove_outer(&mut self, number: usize) {
        self.linears_mut().for_each(|linear| linear.remove(number));
        self.outer.remove(number);
        self.parallel -= usize::from(number < self.parallel);
    }

    /// Joins neighbouring loops that all functions walk through as one, parallel ones with parallel ones.
    pub fn join_loops(&mut self) {
        for index in (0..self.outer.len().saturating_sub(1)).rev() {
            let (own, extent) = (self.outer[index], self.outer[index + 1]);
            let same_side = (index < self.parallel) == (index + 1 < self.parallel);
            if same_side && self.phases.iter().all(|phase| phase.joins(index, extent)) {
                self.outer[index + 1] *= own;
                self.remove_outer(index);
            }
        }
        let outer = self.outer.len();
        self.phases.iter_mut().for_each(|phase| phase.join_loops(outer));
    }
}

impl Product {
    /// The elements of A, B and C as functions of batch, m, n and k loops.
    pub fn functions(&self) -> [Linear; 3] {
        let function = |offset: i64, stride: fn(&ProductLoop) -> i64| {
            let strides = self.loops().map(stride).enumerate();
            Linear { terms: strides.filter(|(_, stride)| *stride != 0).collect(), offset }
        };
        [function(self.a.1, |each| each.a), function(self.b.1, |each| each.b), function(self.c.1, |each| each.c)]
    }
}

impl KernelKind {
    /// The nest, if it is one.
    pub fn nest(&self) -> Option<&Nest> {
        if let KernelKind::Nest(nest) = self { Some(nest) } else { None }
    }

    /// The product, if it is one that runs as such.
    pub fn product(&self) -> Option<&Product> {
        if let KernelKind::Product(product) = self { Some(product) } else { None }
    }

    /// The same, to rewrite it.
    pub fn product_mut(&mut self) -> Option<&mut Product> {
        if let KernelKind::Product(product) = self { Some(product) } else { None }
    }
}

impl Kernel {
    /// The buffers that it reads, once for each access; those that it adds to are among them.
    pub fn reads(&self) -> Vec<BufferId> {
        let operands = |product: &Product| {
            let result = product.accumulate.then_some(product.c.0);
            [product.a.0, product.b.0].into_iter().chain(result)
        };
        match &self.kind {
            KernelKind::Nest(nest) => {
                let added = nest.stores().filter(|store| store.accumulate).map(|store| store.location.buffer);
                nest.loads().map(|location| location.buffer).chain(added).collect()
            }
            KernelKind::Product(product) => operands(product).collect(),
            KernelKind::Winograd(Winograd { product, filter, .. }) => operands(product).chain(*filter).collect(),
            KernelKind::Filter(winograd) => vec![winograd.taps()],
            KernelKind::Zero(_) => Vec::new(),
            KernelKind::Copy { from, .. } => vec![*from],
        }
    }

    /// The buffers that it writes, once for each store.
    pub fn writes(&self) -> Vec<BufferId> {
        match &self.kind {
            KernelKind::Nest(nest) => nest.stores().map(|store| store.location.buffer).collect(),
            KernelKind::Product(product) | KernelKind::Winograd(Winograd { product, .. }) => vec![product.c.0],
            KernelKind::Filter(winograd) => winograd.filter.into_iter().collect(),
            KernelKind::Zero(buffer) | KernelKind::Copy { to: buffer, .. } => vec![*buffer],
        }
    }

    /// The buffers that it reads or writes, in ascending order.
    pub fn buffers(&self) -> Vec<BufferId> {
        let mut buffers = [self.reads(), self.writes()].concat();
        buffers.sort_unstable();
        buffers.dedup();
        buffers
    }
}
