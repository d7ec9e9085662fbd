//! What a sweep will take: memory, which is planned exactly, and time, from recorded runs or a short probe.

use std::collections::HashMap;

use anyhow::Context;
use plan::{Settings, Train, Trial};
use store::{Store, Value};

/// Memory of training steps, computed once for trials alike.
#[derive(Default)]
pub struct Memory(Vec<(graph::Network, Train, usize)>);

impl Memory {
    /// Bytes that a trial's training on so many images takes, the images left out: those are mapped, not loaded. No batch is
    /// larger than the split that it comes from.
    pub fn of(&mut self, network: &graph::Network, train: &Train, images: usize, threads: usize) -> usize {
        let mut train = train.clone();
        train.batch_size = train.batch_size.min(images.max(1));
        let train = &train;
        let alike = |(other, settings, _): &&(graph::Network, Train, usize)| {
            let shape = |train: &Train| {
                let moments = (train.optimizer, train.average_decay.is_some(), train.gradient_clip.is_some());
                (train.batch_size, train.evaluation_batch_size, train.precision, train.freeze.clone(), moments)
            };
            other == network && shape(settings) == shape(train)
        };
        if let Some((.., memory)) = self.0.iter().find(alike) {
            return *memory;
        }
        let memory = ::train::memory(network, train, threads).total_bytes();
        self.0.push((network.clone(), train.clone(), memory));
        memory
    }
}

/// Memory that this process may come to use, in bytes: the machine's, or what its control group is allowed. None where the system does
/// not tell.
pub fn memory_limit() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok();
    let kibibytes = |info: String| {
        let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:").map(str::to_owned))?;
        line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()
    };
    let machine = info.and_then(kibibytes).map(|kibibytes| kibibytes.saturating_mul(1024));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<usize>().ok());
    machine.into_iter().chain(group).min()
}

/// What to do about trials that need so much memory each, so many of them side by side: the number that fits, or a message.
pub fn fitting(need: usize, jobs: usize, asked: bool, label: &str, limit: Option<usize>) -> Result<usize, String> {
    let Some(limit) = limit else { return Ok(jobs) };
    let gigabytes = |bytes: usize| format!("{:.1} GB", bytes as f64 / 1e9);
    let most = limit.checked_div(need).unwrap_or(jobs);
    if most == 0 {
        return Err(format!(
            "trial {label} needs {} of memory, and there are {}: lower train.batch_size, the images' size or the network's width",
            gigabytes(need),
            gigabytes(limit)
        ));
    }
    if most < jobs && asked {
        return Err(format!(
            "{jobs} trials side by side need {} of memory each, and there are {} in all: at most --jobs {most}",
            gigabytes(need),
            gigabytes(limit)
        ));
    }
    Ok(jobs.min(most))
}

/// Time of training steps, their share of validation included.
pub struct Pace {
    /// Seconds of a step by parameters, multiply-accumulates, batch size, arithmetic with frozen layers, and data.
    recorded: HashMap<(i64, i64, i64, String, String), f64>,
    probed: Vec<(graph::Network, Train, f64)>,
}

/// Where an estimate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Runs of such networks on these data.
    Recorded,
    /// Some steps, just now.
    Probe,
}

impl Pace {
    /// What the database knows.
    pub fn read(store: Option<&Store>) -> anyhow::Result<Self> {
        let mut recorded = HashMap::new();
        let sql = "SELECT t.parameters, t.macs_per_image, t.canonical ->> '$.train.batch_size', \
                   json_array(coalesce(t.canonical ->> '$.train.precision', 'f32'), \
                              json(coalesce(t.canonical -> '$.train.freeze', '[]'))), \
                   t.data_fingerprint, sum(e.epoch_seconds) / sum(e.steps) \
                   FROM trials AS t JOIN runs AS r USING (identity) JOIN epochs AS e USING (run_id) \
                   WHERE e.epoch_seconds > 0 GROUP BY 1, 2, 3, 4, 5";
        let rows = match store {
            Some(store) => store.query(sql, &[])?.rows,
            None => Vec::new(),
        };
        for row in rows {
            if let [
                Value::Integer(parameters),
                Value::Integer(macs),
                Value::Integer(batch),
                Value::Text(kind),
                Value::Text(data),
                Value::Real(step_s),
            ] = &row[..]
            {
                recorded.insert((*parameters, *macs, *batch, kind.clone(), data.clone()), *step_s);
            }
        }
        Ok(Self { recorded, probed: Vec::new() })
    }

    /// Seconds of a step of a trial.
    pub fn step_s(
        &mut self,
        network: &graph::Network,
        trial: &Trial,
        fingerprint: Option<&str>,
        threads: usize,
    ) -> anyhow::Result<(f64, Basis)> {
        let settings = &trial.settings;
        let batch = i64::try_from(settings.train.batch_size).context("a batch size is small")?;
        let kind = serde_json::json!([settings.train.precision, settings.train.freeze]).to_string();
        let key = (
            i64::try_from(network.parameters())?,
            i64::try_from(network.macs())?,
            batch,
            kind,
            fingerprint.unwrap_or_default().to_owned(),
        );
        if let Some(step_s) = self.recorded.get(&key) {
            return Ok((*step_s, Basis::Recorded));
        }
        let alike = |(other, train, _): &&(graph::Network, Train, f64)| {
            other == network
                && train.batch_size == settings.train.batch_size
                && train.optimizer == settings.train.optimizer
                && train.precision == settings.train.precision
                && train.freeze == settings.train.freeze
        };
        if let Some((.., step_s)) = self.probed.iter().find(alike) {
            return Ok((*step_s, Basis::Probe));
        }
        let step_s = probe(network, settings, threads)?;
        self.probed.push((network.clone(), settings.train.clone(), step_s));
        Ok((step_s, Basis::Probe))
    }
}

/// Seconds of a step and its share of validation, from a few steps. Validation passes forward only: about a third of a training step.
fn probe(network: &graph::Network, settings: &Settings, threads: usize) -> anyhow::Result<f64> {
    const STEPS: u32 = 10;
    let held_back = settings.dataset.validation_fraction;
    let share = if held_back < 1.0 { held_back / (1.0 - held_back) / 3.0 } else { 0.0 };
    let device = ::train::Device::for_training(&settings.train)?;
    let measured = ::train::bench::measure(network, settings, &device, threads, false, Some(STEPS))?;
    Ok(measured.step_s * (1.0 + share))
}

/// A length of time for people.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_defaults_give_way() {
        let limit = Some(10_000_000_000);
        assert_eq!(fitting(1_000_000_000, 4, true, "t", limit), Ok(4));
        assert_eq!(fitting(4_000_000_000, 4, false, "t", limit), Ok(2));
        let refusal = fitting(4_000_000_000, 4, true, "t", limit).unwrap_err();
        assert!(refusal.contains("at most --jobs 2"), "{refusal}");
        let refusal = fitting(11_000_000_000, 1, false, "t", limit).unwrap_err();
        assert!(refusal.contains("trial t needs 11.0 GB of memory, and there are 10.0 GB"), "{refusal}");
        assert_eq!(
            fitting(usize::MAX, 3, true, "t", None),
            Ok(3),
            "where the system does not tell, nothing is refused"
        );
    }

    #[test]
    fn durations_are_short() {
        assert_eq!([5.0, 120.0, 9000.0, 200_000.0].map(duration), ["5 s", "2 min", "2.5 h", "2.3 days"]);
    }
}
