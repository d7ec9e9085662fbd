//! TensorBoard's event files: records of `tensorflow.Event` messages, framed as TFRecords.
//!
//! Sources: `tensorboard/compat/proto/{event,summary}.proto`, `tensorboard/plugins/hparams/plugin_data.proto`, and
//! `tensorboard/summary/writer/record_writer.py` for the framing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use prost::Message;

use crate::{ExportError, RecordStatus, RunRecord, record::folder_name, write_whole};

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

/// `tensorflow.TensorProto` of no elements, which stands where only the metadata counts.
#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    tensor_shape: Option<Shape>,
}

/// `tensorflow.TensorShapeProto`: a scalar's.
#[derive(Clone, PartialEq, Message)]
struct Shape {}

/// `tensorflow.SummaryMetadata`.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
}

/// `tensorflow.SummaryMetadata.PluginData`.
#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
    #[prost(bytes = "vec", tag = "2")]
    content: Vec<u8>,
}

/// `tensorboard.hparams.HParamsPluginData`.
#[derive(Clone, PartialEq, Message)]
struct HParams {
    #[prost(message, optional, tag = "3")]
    session_start_info: Option<SessionStart>,
    #[prost(message, optional, tag = "4")]
    session_end_info: Option<SessionEnd>,
}

/// `tensorboard.hparams.SessionStartInfo`.
#[derive(Clone, PartialEq, Message)]
struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    hparams: BTreeMap<String, Value>,
    #[prost(double, tag = "5")]
    start_time_secs: f64,
}

/// `tensorboard.hparams.SessionEndInfo`; status 1 is success, 2 failure, 3 running.
#[derive(Clone, PartialEq, Message)]
struct SessionEnd {
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(double, tag = "2")]
    end_time_secs: f64,
}

/// `google.protobuf.Value`, of which hyperparameters may be these.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(oneof = "Kind", tags = "2, 3, 4")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
}

/// DT_FLOAT.
const FLOAT: i32 = 1;

/// CRC-32C (Castagnoli, reflected 0x82F63B78), as TFRecords are checked with (RFC 3720, section 12.1).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0_u32; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

/// The checksum as TFRecords store it: turned and shifted, so that data that holds checksums does not look checked.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Appends one record: length, its checksum, the message, its checksum.
fn append(event: &Event, to: &mut Vec<u8>) {
    let message = event.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    to.extend(length);
    to.extend(masked(&length));
    to.extend(&message);
    to.extend(masked(&message));
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn hparams(tag: &str, at: f64, data: &HParams) -> Event {
    let plugin = PluginData { plugin_name: "hparams".to_owned(), content: data.encode_to_vec() };
    let value = SummaryValue {
        tag: tag.to_owned(),
        simple_value: None,
        tensor: Some(Tensor { dtype: FLOAT, tensor_shape: Some(Shape {}) }),
        metadata: Some(Metadata { plugin_data: Some(plugin) }),
    };
    Event { wall_time: at, step: 0, file_version: None, summary: Some(Summary { value: vec![value] }) }
}

/// An event file of one run: its settings as hyperparameters, its measures as scalars over the epochs.
pub fn event_file(run: &RunRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    let started = seconds(run.started_ms);
    append(
        &Event { wall_time: started, step: 0, file_version: Some("brain.Event:2".to_owned()), summary: None },
        &mut bytes,
    );
    let settings = run.settings.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| {
        let kind = match value {
            serde_json::Value::Bool(value) => Kind::Bool(*value),
            serde_json::Value::Number(value) => Kind::Number(value.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(value) => Kind::Text(value.clone()),
            other => Kind::Text(other.to_string()),
        };
        (key.clone(), Value { kind: Some(kind) })
    });
    let start = SessionStart { hparams: settings.collect(), start_time_secs: started };
    let data = HParams { session_start_info: Some(start), session_end_info: None };
    append(&hparams("_hparams_/session_start_info", started, &data), &mut bytes);
    for point in &run.points {
        let value = SummaryValue {
            tag: point.measure.clone(),
            simple_value: Some(point.value as f32),
            tensor: None,
            metadata: None,
        };
        let summary = Some(Summary { value: vec![value] });
        let step = i64::from(point.epoch);
        append(&Event { wall_time: seconds(point.at_ms), step, file_version: None, summary }, &mut bytes);
    }
    if let Some(finished) = run.finished_ms {
        let status = match run.status {
            RecordStatus::Done | RecordStatus::Left => 1,
            RecordStatus::Failed => 2,
            RecordStatus::Running => 3,
        };
        let end = SessionEnd { status, end_time_secs: seconds(finished) };
        let data = HParams { session_start_info: None, session_end_info: Some(end) };
        append(&hparams("_hparams_/session_end_info", seconds(finished), &data), &mut bytes);
    }
    bytes
}

/// Writes one folder for each run into `folder/EXPERIMENT`, for `tensorboard --logdir folder`. Files of an earlier export of the
/// same runs are replaced.
///
/// # Errors
/// [`ExportError::Write`] where a file cannot be written.
pub fn write_tensorboard(folder: &Path, experiment: &str, runs: &[RunRecord]) -> Result<PathBuf, ExportError> {
    let folder = folder.join(folder_name(experiment));
    for run in runs {
        let short: String = run.identity.chars().take(8).collect();
        let name = format!("{}-{short}", folder_name(&run.name));
        let file = format!("events.out.tfevents.{:010}.pipeline", run.started_ms / 1000);
        write_whole(&folder.join(name).join(file), &event_file(run))?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the check value of the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
