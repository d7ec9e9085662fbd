//! One training run to be done: its settings, its seed, its identity.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::{Architecture, Settings};

/// A point of the experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Name of the variant, where the experiment has variants.
    pub variant: Option<String>,
    /// Decides everything random but the split, which is `dataset.seed`'s.
    pub seed: u64,
    /// Settings with defaults filled in ([`Settings::resolved`]).
    pub settings: Settings,
    /// The swept keys and their values, in the order of the file; what the variant sets is not among them. A schedule that is swept is
    /// given in its short form, such as `step(every_epochs=10)`.
    pub assignments: Vec<(String, Json)>,
    /// BLAKE3 of the contents of `train.initial_weights`, in hexadecimal. A plan reads no such file: whoever does fills it in, and
    /// only then has the trial its identity.
    pub initial_weights_hash: Option<String>,
}

impl Trial {
    /// Short name for people: `alexnet λ=0.0005 seed=1`.
    pub fn label(&self) -> String {
        format!("{} seed={}", self.configuration_label(), self.seed)
    }

    /// The label without the seed: `alexnet λ=0.0005`.
    pub fn configuration_label(&self) -> String {
        let architecture = match self.settings.model.architecture {
            Architecture::LeNet5 => "lenet5",
            Architecture::AlexNet => "alexnet",
        };
        let mut label = self.variant.as_deref().unwrap_or(architecture).to_owned();
        for (key, value) in &self.assignments {
            if self.variant.is_none() && key == "model.architecture" {
                continue;
            }
            let text = match value {
                Json::String(text) => text.clone(),
                Json::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
                other => other.to_string(),
            };
            // Writing to a string cannot fail.
            let _ = write!(label, " {}={text}", self.short_name(key));
        }
        label
    }

    /// λ and η by their letters; else the last part of the key path where it is enough to tell the keys apart.
    fn short_name<'a>(&self, key: &'a str) -> &'a str {
        match key {
            "train.weight_decay" => "λ",
            "train.learning_rate" => "η",
            "dataset.seed" => key,
            _ => {
                let last = |key: &'a str| key.rsplit('.').next().unwrap_or(key);
                let shared =
                    self.assignments.iter().filter(|(other, _)| other.rsplit('.').next() == Some(last(key))).count()
                        > 1;
                if shared { key } else { last(key) }
            }
        }
    }

    /// Canonical JSON of everything that decides the result but the data itself: keys sorted, defaults filled in, no white space.
    ///
    /// `train.device` is left out, which says how a trial is done and not what it is; `dataset.path` is left out, because the data set's
    /// fingerprint stands for it; the hash of the contents stands for the path of
    /// `train.initial_weights`; and left out is `train.learning_rate` where the schedule
    /// gives absolute rates.
    pub fn canonical(&self) -> String {
        let mut document = self.canonical_settings();
        if let Json::Object(document) = &mut document {
            document.insert("seed".to_owned(), self.seed.into());
        }
        sorted(&document)
    }

    /// Identity of the trial: 32 hexadecimal digits of the BLAKE3 hash of [`Self::canonical`] and the data set's fingerprint.
    pub fn identity(&self, data_fingerprint: &str) -> String {
        hash("trial", &self.canonical(), data_fingerprint)
    }

    /// The same without the seed: equal for trials that differ in their seed alone.
    pub fn configuration_identity(&self, data_fingerprint: &str) -> String {
        hash("configuration", &sorted(&self.canonical_settings()), data_fingerprint)
    }

    fn canonical_settings(&self) -> Json {
        let mut document = canonical_settings(&self.settings);
        let train = document.get_mut("train").and_then(Json::as_object_mut);
        if let (Some(train), Some(hash)) = (train, &self.initial_weights_hash) {
            train.insert("initial_weights".to_owned(), format!("blake3:{hash}").into());
        }
        document
    }
}

/// Canonical JSON of settings, to tell configurations apart.
pub(crate) fn canonical_text(settings: &Settings) -> String {
    sorted(&canonical_settings(settings))
}

fn canonical_settings(settings: &Settings) -> Json {
    let settings = settings.resolved();
    // Settings are plain structs, enums and numbers, which always serialize.
    let mut document = serde_json::to_value(&settings).unwrap_or_default();
    let mut leave_out = |section: &str, key: &str| {
        if let Some(section) = document.get_mut(section).and_then(Json::as_object_mut) {
            section.remove(key);
        }
    };
    leave_out("dataset", "path");
    leave_out("train", "device");
    if settings.train.schedule.is_absolute() {
        leave_out("train", "learning_rate");
    }
    document
}

/// Lengths go in too, so that no two pairs of texts run together to the same bytes.
pub(crate) fn hash(purpose: &str, canonical: &str, data_fingerprint: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("pipeline 2026 trial identity");
    for part in [purpose, canonical, data_fingerprint] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut hex = hasher.finalize().to_hex().to_string();
    hex.truncate(32);
    hex
}

/// JSON with sorted keys whatever features of `serde_json` are on, and no negative zero.
fn sorted(value: &Json) -> String {
    match value {
        Json::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Json::from(key.as_str()), sorted(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        Json::Number(number) if number.is_f64() && number.as_f64() == Some(0.0) => "0.0".to_owned(),
        other => other.to_string(),
    }
}
