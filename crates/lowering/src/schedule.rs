//! The order in which a graph's operators run, whatever the device.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use graph::{Node, Operator, node};
use luminal::prelude::{
    Graph, NodeIndex,
    petgraph::Direction::{Incoming, Outgoing},
};

/// An operator with its inputs as positions in the schedule.
pub(crate) struct Item {
    pub(crate) operator: Operator,
    pub(crate) inputs: Vec<usize>,
    pub(crate) shapes: Vec<Vec<usize>>,
    pub(crate) output: Vec<usize>,
}

/// All operators of a graph, each after what it depends on.
///
/// Among those that could run, sources come first, then writes to states (they free the gradient that they consume),
/// then what was built first: forward in layer order, then gradients in reverse.
pub(crate) fn schedule(graph: &Graph) -> Vec<Item> {
    let ours = |index: NodeIndex| -> &Node { node(graph, index).expect("a training graph holds only our operators") };
    let mut waiting: HashMap<NodeIndex, usize> =
        graph.graph.node_indices().map(|index| (index, graph.graph.edges_directed(index, Incoming).count())).collect();
    let class = |operator: &Operator| match operator {
        Operator::Source(_) => 0,
        writer if !writer.writes().is_empty() => 1,
        _ => 2,
    };
    let priority = |index: NodeIndex| Reverse((class(&ours(index).operator), ours(index).sequence(), index));
    let mut ready: BinaryHeap<_> =
        waiting.iter().filter(|(_, count)| **count == 0).map(|(&index, _)| priority(index)).collect();
    let mut positions = HashMap::new();
    let mut items = Vec::new();
    while let Some(Reverse((_, _, index))) = ready.pop() {
        let here = ours(index);
        positions.insert(index, items.len());
        items.push(Item {
            operator: here.operator.clone(),
            inputs: graph.get_sources(index).into_iter().map(|(source, _, _)| positions[&source]).collect(),
            shapes: here.inputs.clone(),
            output: here.output.clone(),
        });
        for target in graph.graph.neighbors_directed(index, Outgoing) {
            let count = waiting.get_mut(&target).expect("every node waits");
            *count -= 1;
            if *count == 0 {
                ready.push(priority(target));
            }
        }
    }
    assert_eq!(items.len(), graph.graph.node_count(), "a training graph has no cycle");
    items
}
