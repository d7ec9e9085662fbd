//! Trained networks for other programs: ONNX files, cards that describe them, pictures of filters. And what is known of their
//! runs, for programs that keep records of experiments: TensorBoard, MLflow.
//!
//! It knows what a network is ([`graph::Network`] and its [`graph::step::Variables`]) and nothing of data sets, devices, training
//! or records: what is to be said about those is handed in as a [`ModelCard`] or a [`RunRecord`].

mod card;
mod filters;
mod mlflow;
mod onnx;
mod proto;
mod record;
mod tensorboard;

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

pub use card::{FORMAT_VERSION, ModelCard, Preprocessing, Training};
pub use filters::write_filters;
pub use mlflow::write_mlflow;
pub use onnx::{IMAGES, LOGITS, OPSET, onnx_bytes, write_onnx};
pub use record::{Point, RecordStatus, RunRecord};
pub use tensorboard::{event_file, write_tensorboard};

/// Why a network cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The format cannot hold the network.
    #[error("{0}")]
    Unsupported(String),
}

/// Writes beside `path`, then renames: the file is whole or not there.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let fail = |source| ExportError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&temporary, path)).map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        fail(source)
    })
}
