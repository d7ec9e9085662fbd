//! A network as an ONNX file, operator set 17.
//!
//! Input `images` [N, C, H, W], normalised; output `logits` [N, K]; N is any. Every layer becomes one node of its name, dropout
//! none. Weights keep their names and layouts.

use std::path::Path;

use graph::{LayerKind, Network, State, operators::Activation, operators::batch_norm, step::Variables};
use prost::Message;

use crate::{
    ExportError, ModelCard,
    proto::{
        Attribute, Dimension, Entry, FLOAT, FLOAT32, Graph, INT, INTS, Model, Node, OperatorSet, Shape, Tensor,
        TensorType, Type, ValueInfo,
    },
    write_whole,
};

/// Version of the operator set that the file asks for.
pub const OPSET: i64 = 17;
/// Name of the input.
pub const IMAGES: &str = "images";
/// Name of the output.
pub const LOGITS: &str = "logits";

/// Version of the file format that came with the operator set.
const IR_VERSION: i64 = 8;
/// Largest message that protocol buffers hold, in bytes.
const LARGEST: usize = i32::MAX as usize;

fn attribute(name: &str, kind: i32) -> Attribute {
    Attribute { name: Some(name.to_owned()), kind: Some(kind), ..Attribute::default() }
}

fn float(name: &str, value: f32) -> Attribute {
    Attribute { f: Some(value), ..attribute(name, FLOAT) }
}

fn int(name: &str, value: usize) -> Attribute {
    Attribute { i: Some(value as i64), ..attribute(name, INT) }
}

fn ints(name: &str, values: &[usize]) -> Attribute {
    Attribute { ints: values.iter().map(|&value| value as i64).collect(), ..attribute(name, INTS) }
}

/// What ONNX calls a layer, with its attributes; none for layers that do nothing in inference.
fn operator(kind: &LayerKind) -> Result<Option<(&'static str, Vec<Attribute>)>, ExportError> {
    Ok(Some(match kind {
        LayerKind::Convolution { kernel, attributes: a, .. } => (
            "Conv",
            vec![
                ints("kernel_shape", &[*kernel; 2]),
                ints("strides", &[a.stride; 2]),
                ints("pads", &[a.padding; 4]),
                int("group", a.groups),
            ],
        ),
        LayerKind::BatchNorm => ("BatchNormalization", vec![float("epsilon", batch_norm::EPSILON as f32)]),
        LayerKind::LocalResponse(a) => {
            // With an even number ONNX's window leans the other way.
            if a.size % 2 == 0 {
                return Err(ExportError::Unsupported(format!(
                    "ONNX has no local response normalization over {} channels that lean down; an odd number is needed",
                    a.size
                )));
            }
            // ONNX divides α by the number of channels; the paper does not.
            let alpha = a.alpha * a.size as f32;
            ("LRN", vec![int("size", a.size), float("alpha", alpha), float("beta", a.beta), float("bias", a.k)])
        }
        LayerKind::Activation(Activation::Relu) => ("Relu", vec![]),
        LayerKind::Activation(Activation::Tanh) => ("Tanh", vec![]),
        LayerKind::Activation(Activation::Sigmoid) => ("Sigmoid", vec![]),
        LayerKind::MaxPool(pool) => {
            ("MaxPool", vec![ints("kernel_shape", &[pool.size; 2]), ints("strides", &[pool.stride; 2])])
        }
        LayerKind::AveragePool(pool) => {
            ("AveragePool", vec![ints("kernel_shape", &[pool.size; 2]), ints("strides", &[pool.stride; 2])])
        }
        LayerKind::Flatten => ("Flatten", vec![int("axis", 1)]),
        LayerKind::Linear { .. } => ("Gemm", vec![int("transB", 1)]),
        LayerKind::Dropout(_) => return Ok(None),
    }))
}

fn tensor(state: &State) -> Tensor {
    Tensor {
        dims: state.shape().iter().map(|&extent| extent as i64).collect(),
        data_type: Some(FLOAT32),
        name: Some(state.name().to_owned()),
        raw_data: Some(bytemuck::cast_slice(&state.read()).to_vec()),
    }
}

/// A tensor of f32 whose first dimension is the batch's.
fn value(name: &str, extents: &[usize], doc: &str) -> ValueInfo {
    let batch = Dimension { dim_param: Some("N".to_owned()), ..Dimension::default() };
    let fixed = extents.iter().map(|&extent| Dimension { dim_value: Some(extent as i64), ..Dimension::default() });
    let shape = Shape { dim: std::iter::once(batch).chain(fixed).collect() };
    ValueInfo {
        name: Some(name.to_owned()),
        kind: Some(Type { tensor_type: Some(TensorType { elem_type: Some(FLOAT32), shape: Some(shape) }) }),
        doc_string: Some(doc.to_owned()),
    }
}

fn graph(variables: &Variables) -> Result<Graph, ExportError> {
    let network = &variables.network;
    let mut nodes: Vec<Node> = Vec::new();
    let mut initializers = Vec::new();
    for layer in &network.layers {
        let Some((op_type, attribute)) = operator(&layer.kind)? else { continue };
        let own = variables.parameters.iter().filter(|p| p.layer == layer.name).map(|p| &p.values);
        // Weight, bias and then mean, variance: the order in which ONNX takes them, too.
        let running = variables
            .running
            .iter()
            .filter(|state| state.name().rsplit_once('.').is_some_and(|(owner, _)| owner == layer.name));
        let states: Vec<&State> = own.chain(running).collect();
        let x = nodes.last().map_or(IMAGES, |node| &node.output[0]).to_owned();
        nodes.push(Node {
            input: std::iter::once(x).chain(states.iter().map(|state| state.name().to_owned())).collect(),
            output: vec![layer.name.clone()],
            name: Some(layer.name.clone()),
            op_type: Some(op_type.to_owned()),
            attribute,
        });
        initializers.extend(states.into_iter().map(tensor));
    }
    if let Some(last) = nodes.last_mut() {
        last.output = vec![LOGITS.to_owned()];
    }
    Ok(Graph {
        node: nodes,
        name: Some(network.name.to_owned()),
        initializer: initializers,
        input: vec![value(
            IMAGES,
            &network.input,
            "normalised images [N, C, H, W]: (x/255 − mean) / std of each channel",
        )],
        output: vec![value(
            LOGITS,
            &[network.classes],
            "logits [N, K]; their softmax is the probability of each class",
        )],
    })
}

/// The network and its weights as an ONNX file; `card` becomes its metadata.
///
/// # Errors
/// A network that ONNX cannot describe, or that is too large for one file.
pub fn onnx_bytes(variables: &Variables, card: &ModelCard) -> Result<Vec<u8>, ExportError> {
    check_size(&variables.network)?;
    let entry = |key: &str, value: String| Entry { key: Some(key.to_owned()), value: Some(value) };
    let model = Model {
        ir_version: Some(IR_VERSION),
        producer_name: "pipeline".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph(variables)?),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: vec![entry("card", card.to_json())],
    };
    if model.encoded_len() > LARGEST {
        return Err(too_large());
    }
    Ok(model.encode_to_vec())
}

fn check_size(network: &Network) -> Result<(), ExportError> {
    if network.parameters().saturating_mul(size_of::<f32>()) > LARGEST { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> ExportError {
    ExportError::Unsupported(
        "the network is too large for an ONNX file, which holds at most 2 GiB; lower model.width".to_owned(),
    )
}

/// Writes [`onnx_bytes`] to `path`.
///
/// # Errors
/// As [`onnx_bytes`], or when the file cannot be written.
pub fn write_onnx(path: &Path, variables: &Variables, card: &ModelCard) -> Result<(), ExportError> {
    write_whole(path, &onnx_bytes(variables, card)?)
}

#[cfg(test)]
#[path = "onnx_tests.rs"]
mod tests;
