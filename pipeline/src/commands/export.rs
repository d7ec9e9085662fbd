//! `pipeline export`: a network for other programs.

use ::export::{ModelCard, Preprocessing, Training};
use ::train::{Device, Names, Predictor};
use anyhow::Context;
use serde_json::{Map, Value as Json};
use store::{Store, Value};

use crate::{
    cli::{self, Format, Global, Rows},
    exit::Exit,
    output::{integer, rows, text},
    trained::{Run, Trained},
};

/// Writes the files and prints where they are.
pub fn run(to: &cli::Export, global: &Global) -> anyhow::Result<Exit> {
    let out = to.out.as_deref().context("--out: where the files go")?;
    let trained = Trained::find(&to.network, global)?;
    let (card, variables) = ::train::load_weights(trained.weights())?;
    let resize = card.image.unwrap_or([card.input[1], card.input[2]]);
    let preprocessing = Preprocessing::new(resize, card.input, &card.mean, &card.std);
    let mut described = ModelCard::new(&variables.network, &card.model, preprocessing, &card.classes);
    let names = match to.names {
        cli::Names::Layers => Names::Layers,
        cli::Names::Torchvision => {
            described.tensor_names = "torchvision".to_owned();
            Names::Torchvision
        }
    };
    if let Trained::Run(run) = &trained {
        described.training = Some(training(run, global)?);
    }
    let weights = out.join("weights.safetensors");
    ::train::save_weights(&weights, &variables, &card, names)?;
    let onnx = out.join("model.onnx");
    ::export::write_onnx(&onnx, &variables, &described)?;
    let described_in = out.join("card.json");
    described.write(&described_in)?;
    let mut written = vec![(weights, "weights"), (onnx, "network and weights"), (described_in, "description")];
    if let Some(path) = &to.filters {
        ::export::write_filters(path, &variables)?;
        written.push((path.clone(), "filters of conv1"));
    }
    if let Some(images) = to.sample {
        let path = out.join("sample.safetensors");
        Predictor::new(card, variables, &Device::Cpu, 0)?.write_sample(&path, images.into())?;
        written.push((path, "noise images and their logits"));
    }
    let mut table = Vec::new();
    for (path, what) in written {
        let bytes = std::fs::metadata(&path)?.len();
        table.push(vec![text(path.display().to_string()), integer(bytes), text(what)]);
    }
    rows(&["file", "bytes", "holds"], &table, &Rows { format: Format::Table, out: None })?;
    Ok(Exit::Fine)
}

/// What the database tells of a run's making.
fn training(run: &Run, global: &Global) -> anyhow::Result<Training> {
    let store = Store::open_read_only(&global.db)?;
    let objects = |sql: &str| -> anyhow::Result<Vec<Json>> {
        let table = store.query(sql, &[Value::Integer(run.id)])?;
        let object = |row: Vec<Value>| {
            Json::Object(
                table.columns.iter().map(|column| column.name.clone()).zip(row.into_iter().map(json)).collect(),
            )
        };
        Ok(table.rows.into_iter().map(object).collect())
    };
    let last = objects(
        "SELECT epoch, learning_rate, train_loss, train_penalty, train_top1, train_top5, \
         validation_loss, validation_top1, validation_top5 FROM epochs WHERE run_id = ?1 ORDER BY epoch DESC LIMIT 1",
    )?;
    let evaluations = objects("SELECT split, epoch, loss, top1, top5, images FROM evaluations WHERE run_id = ?1")?;
    let provenance = objects(
        "SELECT claim, claimed_ms, from_epoch, commit_hash, version, device, threads, os, cpu, command, config \
         FROM claims WHERE run_id = ?1 ORDER BY claim",
    )?;
    let metrics = Map::from_iter([
        ("last_epoch".to_owned(), last.into_iter().next().unwrap_or(Json::Null)),
        ("evaluations".to_owned(), evaluations.into()),
    ]);
    Ok(Training {
        run: run.id,
        experiment: run.experiment.clone(),
        label: run.label.clone(),
        specification: serde_json::from_str(&run.canonical)?,
        data_fingerprint: run.fingerprint.clone(),
        metrics: metrics.into(),
        provenance: provenance.into(),
    })
}

fn json(value: Value) -> Json {
    match value {
        Value::Null | Value::Blob(_) => Json::Null,
        Value::Integer(value) => value.into(),
        Value::Real(value) => value.into(),
        Value::Text(value) => value.into(),
    }
}
