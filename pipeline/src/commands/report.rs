//! `pipeline report`: the comparison as pages, pictures and tables.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use ::train::{Device, Predictor};
use dataset::Prepared;
use report::{Evidence, Examination, Filters, Picture, Truth};
use store::Store;

use crate::{cli::Global, data, exit::Exit, output, trained::Run};

/// The folder that reports go to where no other is named.
pub const REPORTS: &str = "reports";

/// Writes the report of some experiments.
pub fn run(experiments: &[String], out: Option<&Path>, global: &Global) -> anyhow::Result<Exit> {
    write(experiments, out, global)?;
    Ok(Exit::Fine)
}

/// Writes the report and prints the comparison and where the pages are.
pub fn write(experiments: &[String], out: Option<&Path>, global: &Global) -> anyhow::Result<()> {
    let store = Store::open_read_only(&global.db)?;
    let out = out.map_or_else(|| PathBuf::from(REPORTS).join(folder(experiments)), Path::to_path_buf);
    let written = make(&store, experiments, &out, global)?;
    output::line(&format!("{}\n\nreport: {}", written.summary.trim_end(), written.html.display()))
}

/// Writes the pages, pictures and tables into a folder.
pub fn make(store: &Store, experiments: &[String], out: &Path, global: &Global) -> anyhow::Result<report::Written> {
    let tests = tested(store, experiments)?;
    let kept = Kept { store, global, cache: data::cache(global)?, tests, found: RefCell::default() };
    Ok(report::write_with(store, experiments, out, &kept)?)
}

/// Data sets that the experiments' trials were tested on: fingerprint and settings.
fn tested(store: &Store, experiments: &[String]) -> anyhow::Result<Vec<(String, plan::Dataset)>> {
    let mut tests: Vec<(String, plan::Dataset)> = Vec::new();
    for experiment in experiments {
        let sql = "SELECT t.data_fingerprint, min(t.canonical) FROM trials AS t \
                   JOIN experiment_trials AS p ON p.identity = t.identity \
                   JOIN experiments AS e ON e.experiment_id = p.experiment_id \
                   WHERE e.name = ?1 AND p.position IS NOT NULL GROUP BY t.data_fingerprint";
        for row in store.query(sql, &[experiment.as_str().into()])?.rows {
            let [fingerprint, canonical] = [row[0].to_string(), row[1].to_string()];
            let document: serde_json::Value = serde_json::from_str(&canonical)?;
            if let Ok(settings) = serde_json::from_value(document["dataset"].clone()) {
                tests.push((fingerprint, settings));
            }
        }
    }
    Ok(tests)
}

/// Multiply-accumulate operations that looking at single images may take for each network: some seconds.
const MOST_MACS: u64 = 60_000_000_000;

/// Images that are looked at even where one of them takes long.
const LEAST_IMAGES: usize = 100;

/// What the database does not hold, from the cache of prepared data sets and the weights beside the database.
struct Kept<'a> {
    store: &'a Store,
    global: &'a Global,
    cache: PathBuf,
    /// Data sets that the trials were tested on: fingerprint and settings.
    tests: Vec<(String, plan::Dataset)>,
    /// Those that have been looked for in the cache, with the indices of their test part.
    found: RefCell<HashMap<String, Option<Rc<TestPart>>>>,
}

/// A prepared data set and its test part.
struct TestPart {
    prepared: Prepared,
    indices: Vec<u32>,
}

impl Kept<'_> {
    /// The test part of the data with this fingerprint, if the cache still has it.
    fn test_part(&self, fingerprint: &str) -> Option<Rc<TestPart>> {
        let find = || {
            let (_, settings) = self.tests.iter().find(|(known, _)| known == fingerprint)?;
            let entries = std::fs::read_dir(&self.cache).ok()?.flatten().map(|entry| entry.path());
            let prepared = entries
                .filter(|path| path.is_dir())
                .filter_map(|path| Prepared::open(&path).ok())
                .find(|prepared| prepared.manifest().fingerprint == fingerprint)?;
            let indices = prepared.splits(settings).test;
            Some(Rc::new(TestPart { prepared, indices }))
        };
        self.found.borrow_mut().entry(fingerprint.to_owned()).or_insert_with(find).clone()
    }

    fn try_examine(&self, run: i64) -> anyhow::Result<Option<Examination>> {
        let run = Run::find(self.store, run, &self.global.db)?;
        let Some(test) = self.test_part(&run.fingerprint) else { return Ok(None) };
        let settings = run.canonical_settings()?;
        let (card, variables) = ::train::load_weights(&run.weights)?;
        let loader = dataset::Loader::new(&test.prepared, &settings.augment)?;
        if loader.sample_values() != card.input.iter().product::<usize>() || loader.classes() != card.classes.len() {
            return Ok(None);
        }
        let filters = filters(&variables);
        let macs = variables.network.macs().max(1);
        let most = usize::try_from(MOST_MACS / macs)?.max(LEAST_IMAGES);
        // Evenly over the test part, so that all classes are among them.
        let every = test.indices.len().div_ceil(most).max(1);
        let places: Vec<usize> = (0..test.indices.len()).step_by(every).collect();
        let mut predictor = Predictor::new(card, variables, &Device::Cpu, 0)?;
        let classes = loader.classes();
        let mut examination = Examination { filters, ..Examination::default() };
        for part in places.chunks(::train::PREDICTION_BATCH) {
            let mut images = vec![0.0; part.len() * loader.sample_values()];
            for (image, &place) in images.chunks_exact_mut(loader.sample_values()).zip(part) {
                loader.evaluation_sample(test.indices[place], image);
            }
            for (guesses, &place) in predictor.guesses(&images, classes)?.iter().zip(part) {
                let actual = test.prepared.label(test.indices[place]) as usize;
                let truth = guesses.iter().find(|guess| guess.class == actual);
                examination.places.push(u32::try_from(place)?);
                examination.predicted.push(guesses[0].class as u16);
                examination.actual.push(actual as u16);
                examination.confidence.push(guesses[0].probability);
                examination.probability_of_truth.push(truth.map_or(0.0, |guess| guess.probability));
            }
        }
        Ok(Some(examination))
    }

    fn try_memory(&self, run: i64) -> anyhow::Result<Option<u64>> {
        let run = Run::find(self.store, run, &self.global.db)?;
        let settings = run.canonical_settings()?;
        let Some(test) = self.test_part(&run.fingerprint) else { return Ok(None) };
        let (channels, height, width) = dataset::Loader::new(&test.prepared, &settings.augment)?.input_size();
        let network = graph::Network::new(&settings.model, [channels, height, width], test.prepared.classes())?;
        Ok(Some(::train::memory(&network, &settings.train, 1).total_bytes() as u64))
    }
}

impl Evidence for Kept<'_> {
    fn truth(&self, fingerprint: &str) -> Option<Truth> {
        let test = self.test_part(fingerprint)?;
        let labels = test.indices.iter().map(|&index| test.prepared.label(index) as u16).collect();
        Some(Truth { labels, classes: test.prepared.manifest().classes.clone() })
    }

    fn examine(&self, run: i64) -> Option<Examination> {
        // Weights may have been removed, and data sets too: the page then says less.
        self.try_examine(run).ok().flatten()
    }

    fn memory_bytes(&self, run: i64) -> Option<u64> {
        self.try_memory(run).ok().flatten()
    }

    fn picture(&self, fingerprint: &str, place: u32) -> Option<Picture> {
        let test = self.test_part(fingerprint)?;
        let index = *test.indices.get(place as usize)?;
        let manifest = test.prepared.manifest();
        let pixels = test.prepared.image(index).to_vec();
        Some(Picture { channels: manifest.channels, height: manifest.height, width: manifest.width, pixels })
    }
}

/// The weights of the first convolution.
fn filters(variables: &graph::step::Variables) -> Option<Filters> {
    let layers = &variables.network.layers;
    let first = layers.iter().find(|layer| matches!(layer.kind, graph::LayerKind::Convolution { .. }))?;
    let parameter = variables.parameters.iter().find(|parameter| parameter.layer == first.name)?;
    let state = parameter.evaluated();
    let shape = <[usize; 4]>::try_from(state.shape()).ok()?;
    let weights = state.read().to_vec();
    Some(Filters { shape, weights })
}

/// Names joined into one that any file system takes.
pub fn folder(experiments: &[String]) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = experiments.join("+").chars().map(|c| if c == '+' { c } else { plain(c) }).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "report".to_owned() } else { name.chars().take(100).collect() }
}
