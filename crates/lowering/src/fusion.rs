//! Which elementwise operators join the kernel that makes their input, whatever the device.

use graph::Operator;

use crate::schedule::Item;

/// What an item of the schedule is to the fusion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Starts a kernel; these items are computed with it, in order.
    Head { members: Vec<usize> },
    /// Is computed with an earlier item.
    Member,
}

/// Position of the input that an elementwise operator transforms, given that `input` is the newest one.
pub(crate) fn primary(item: &Item) -> Option<usize> {
    match item.operator {
        Operator::Activation(_) | Operator::Dropout(_) => Some(item.inputs[0]),
        Operator::ActivationGrad(_) => Some(item.inputs[1]),
        Operator::Add if item.inputs[0] != item.inputs[1] => item.inputs.iter().max().copied(),
        _ => None,
    }
}

/// Operators whose kernels write each output range once and can go on with it.
pub(crate) fn takes_epilogue(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::Convolution(_)
            | Operator::ConvolutionInputGrad(..)
            | Operator::Linear
            | Operator::LinearInputGrad
            | Operator::MaxPool(_)
            | Operator::MaxPoolGrad(_)
            | Operator::AveragePool(_)
            | Operator::AveragePoolGrad(..)
            | Operator::BatchNormalize
            | Operator::BatchNormalizeInputGrad
            | Operator::LocalResponse(_)
            | Operator::LocalResponseGrad(_)
            | Operator::Add
            | Operator::Activation(_)
            | Operator::ActivationGrad(_)
            | Operator::Dropout(_)
    )
}

/// Groups of items that one kernel computes.
pub(crate) fn groups(items: &[Item]) -> Vec<Group> {
    let mut readers = vec![0; items.len()];
    for item in items {
        for &input in &item.inputs {
            readers[input] += 1;
        }
    }
    let mut groups = vec![Group::Head { members: Vec::new() }; items.len()];
    // Head whose kernel makes each item's values.
    let mut heads: Vec<usize> = (0..items.len()).collect();
    for i in 0..items.len() {
        if matches!(items[i].operator, Operator::Reshape(_)) && readers[items[i].inputs[0]] == 1 {
            heads[i] = heads[items[i].inputs[0]];
        }
        let Some(main) = primary(&items[i]) else { continue };
        let head = heads[main];
        let single =
            readers[main] == 1 && takes_epilogue(&items[head].operator) && items[main].output == items[i].output;
        let others_ready = items[i].inputs.iter().all(|&input| input == main || heads[input] < head);
        if single && others_ready {
            let Group::Head { members } = &mut groups[head] else { unreachable!("heads stay heads") };
            members.push(i);
            groups[i] = Group::Member;
            heads[i] = head;
        }
    }
    groups
}
