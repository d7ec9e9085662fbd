use plan::{Architecture, Layout, Model as Keys, Normalization, Optimizer};

use super::*;
use crate::Preprocessing;

fn variables(model: &Keys, input: [usize; 3], classes: usize) -> Variables {
    let network = Network::new(model, input, classes).unwrap();
    let variables = Variables::new(&network, Optimizer::Sgd);
    let states = variables.parameters.iter().map(|p| &p.values).chain(&variables.running);
    for (i, state) in states.enumerate() {
        state.write().iter_mut().enumerate().for_each(|(j, value)| *value = (i * 1000 + j) as f32);
    }
    variables
}

fn card(variables: &Variables, keys: &Keys) -> ModelCard {
    let input = variables.network.input;
    let (mean, std) = (vec![0.5; input[0]], vec![0.25; input[0]]);
    let preprocessing = Preprocessing::new([input[1], input[2]], input, &mean, &std);
    ModelCard::new(&variables.network, keys, preprocessing, &["a".to_owned(), "b".to_owned()])
}

/// What a reader finds in the file.
fn written(keys: &Keys, input: [usize; 3], classes: usize) -> (Variables, Model) {
    let variables = variables(keys, input, classes);
    let bytes = onnx_bytes(&variables, &card(&variables, keys)).unwrap();
    (variables, Model::decode(bytes.as_slice()).unwrap())
}

fn attribute<'a>(node: &'a Node, name: &str) -> &'a Attribute {
    node.attribute.iter().find(|a| a.name.as_deref() == Some(name)).unwrap_or_else(|| panic!("{name} of {node:?}"))
}

fn operators(graph: &Graph) -> Vec<&str> {
    graph.node.iter().map(|node| node.op_type.as_deref().unwrap()).collect()
}

fn extents(value: &ValueInfo) -> Vec<Result<i64, &str>> {
    let shape = value.kind.as_ref().unwrap().tensor_type.as_ref().unwrap().shape.as_ref().unwrap();
    shape.dim.iter().map(|d| d.dim_value.ok_or_else(|| d.dim_param.as_deref().unwrap())).collect()
}

#[test]
fn lenet5_is_a_chain_of_its_layers() {
    let (variables, model) = written(&Keys::default(), [1, 28, 28], 10);
    assert_eq!((model.ir_version, model.opset_import[0].version), (Some(8), Some(17)));
    let graph = model.graph.unwrap();
    let expected = [
        "Conv",
        "Tanh",
        "AveragePool",
        "Conv",
        "Tanh",
        "AveragePool",
        "Conv",
        "Tanh",
        "Flatten",
        "Gemm",
        "Tanh",
        "Gemm",
    ];
    assert_eq!(operators(&graph), expected);
    assert_eq!(extents(&graph.input[0]), [Err("N"), Ok(1), Ok(28), Ok(28)]);
    assert_eq!(extents(&graph.output[0]), [Err("N"), Ok(10)]);
    assert_eq!(graph.node[0].input, ["images", "conv1.weight", "conv1.bias"]);
    assert_eq!(attribute(&graph.node[0], "pads").ints, [2, 2, 2, 2]);
    for pair in graph.node.windows(2) {
        assert_eq!(pair[1].input[0], pair[0].output[0], "each layer takes what the one before gives");
    }
    assert_eq!(graph.node.last().unwrap().output, ["logits"]);
    assert_eq!(attribute(graph.node.last().unwrap(), "transB").i, Some(1));
    let numbers: usize = graph.initializer.iter().map(|t| t.raw_data.as_ref().unwrap().len() / 4).sum();
    assert_eq!(numbers, 61_706);
    for (tensor, parameter) in graph.initializer.iter().zip(&variables.parameters) {
        assert_eq!(tensor.name.as_deref(), Some(parameter.values.name()));
        let shape: Vec<i64> = parameter.values.shape().iter().map(|&e| e as i64).collect();
        assert_eq!(tensor.dims, shape);
        let bytes = tensor.raw_data.as_ref().unwrap();
        let last = f32::from_le_bytes(bytes[bytes.len() - 4..].try_into().unwrap());
        assert_eq!(Some(&last), parameter.values.read().last());
    }
    let metadata = &model.metadata_props[0];
    let card: ModelCard = serde_json::from_str(metadata.value.as_ref().unwrap()).unwrap();
    assert_eq!((metadata.key.as_deref(), card.parameters), (Some("card"), 61_706));
}

#[test]
fn batch_normalization_takes_scale_shift_mean_and_variance() {
    let keys = Keys { architecture: Architecture::AlexNet, width: Some(0.0625), ..Keys::default() };
    let graph = written(&keys, [3, 32, 32], 10).1.graph.unwrap();
    let norm = graph.node.iter().find(|node| node.name.as_deref() == Some("norm2")).unwrap();
    assert_eq!(norm.op_type.as_deref(), Some("BatchNormalization"));
    assert_eq!(norm.input, ["conv2", "norm2.weight", "norm2.bias", "norm2.running_mean", "norm2.running_var"]);
    assert_eq!(attribute(norm, "epsilon").f, Some(1e-5));
    assert!(graph.node.iter().all(|node| !node.name.as_deref().unwrap().starts_with("dropout")));
    assert_eq!(graph.node.iter().find(|node| node.name.as_deref() == Some("fc7")).unwrap().input[0], "act6");
}

#[test]
fn the_papers_alpha_is_multiplied_by_what_onnx_divides_it_by() {
    let keys = Keys {
        architecture: Architecture::AlexNet,
        normalization: Some(Normalization::LocalResponse),
        towers: Some(2),
        width: Some(0.0625),
        ..Keys::default()
    };
    let graph = written(&keys, [3, 67, 67], 10).1.graph.unwrap();
    let norm = graph.node.iter().find(|node| node.op_type.as_deref() == Some("LRN")).unwrap();
    assert_eq!(attribute(norm, "size").i, Some(5));
    assert!((attribute(norm, "alpha").f.unwrap() - 5e-4).abs() < 1e-10);
    assert_eq!((attribute(norm, "beta").f, attribute(norm, "bias").f), (Some(0.75), Some(2.0)));
    let convolutions: Vec<&Node> = graph.node.iter().filter(|node| node.op_type.as_deref() == Some("Conv")).collect();
    let groups: Vec<_> = convolutions.iter().map(|node| attribute(node, "group").i.unwrap()).collect();
    assert_eq!(groups, [1, 2, 1, 2, 2]);
    assert_eq!(attribute(convolutions[0], "strides").ints, [4, 4]);
    assert_eq!(attribute(convolutions[0], "pads").ints, [0; 4], "zeros are written");
}

#[test]
fn what_no_file_can_hold_is_refused_before_it_is_copied() {
    let keys =
        Keys { architecture: Architecture::AlexNet, layout: Some(Layout::Paper), width: Some(4.0), ..Keys::default() };
    let network = Network::new(&keys, [3, 227, 227], 1000).unwrap();
    // Its memory is not taken: the states are never read.
    let variables = Variables::new(&network, Optimizer::Sgd);
    let error = onnx_bytes(&variables, &card(&variables, &keys)).unwrap_err().to_string();
    assert!(error.contains("2 GiB") && error.contains("model.width"), "{error}");
}
