//! A run as other programs' records of experiments want it: names, settings, and measures over the epochs.

/// What is told of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRecord {
    /// What tells it apart for ever: the same run gives the same text, on any machine.
    pub identity: String,
    /// Short name for people.
    pub name: String,
    /// Where it stands.
    pub status: RecordStatus,
    /// When it was started, in milliseconds since 1970-01-01 UTC.
    pub started_ms: i64,
    /// When it ended, in milliseconds since 1970-01-01 UTC.
    pub finished_ms: Option<i64>,
    /// Key paths and values of its settings.
    pub settings: Vec<(String, serde_json::Value)>,
    /// Other things to know about it: seed, commit, device.
    pub notes: Vec<(String, String)>,
    /// Its measures, in the order of the epochs.
    pub points: Vec<Point>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordStatus {
    /// Not over.
    #[default]
    Running,
    /// Over, with its test.
    Done,
    /// Over, left before its end because others did better.
    Left,
    /// Over, with an error or given up.
    Failed,
}

/// A measure at an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name of the measure, such as `validation/top1`.
    pub measure: String,
    /// The epoch, from 1.
    pub epoch: u32,
    /// When it was measured, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Its value; accuracies are fractions, losses are in nats per image.
    pub value: f64,
}

/// A name that is a folder's on any system; what tells two names apart that become the same must be added to it.
pub(crate) fn folder_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.=,+".contains(c) { c } else { '_' };
    let name: String = name.chars().take(100).map(plain).collect();
    match name.trim_start_matches('.') {
        "" => "_".to_owned(),
        name => name.to_owned(),
    }
}
