//! What can be typed.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Prepare data, train AlexNet and LeNet-5, sweep hyperparameters, compare.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PIPELINE_COMMIT"), ")"))]
#[command(after_help = "Exit codes: 0 fine, 2 bad usage or configuration, 3 some trials failed, 130 interrupted \
(the same command goes on), 70 a bug.\n\nStart with: pipeline sweep experiments/quickstart.toml\nWhat \
experiment files can say: pipeline keys")]
pub struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where `--help` puts what all commands share, below the options of the command itself.
const EVERYWHERE: &str = "Options of all commands";

/// What all commands share.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Results database
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "PIPELINE_DB", value_name = "FILE", default_value = "results.db")]
    pub db: PathBuf,
    /// Folder for prepared data sets [default: the user's cache folder]
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "PIPELINE_CACHE", value_name = "FOLDER", hide_env_values = true)]
    pub cache: Option<PathBuf>,
    /// No progress on stderr, only results and errors
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// Comma-separated values with a header
    Csv,
    /// An array of objects, one a line
    Json,
    /// Apache Parquet
    Parquet,
    /// A Markdown table
    Markdown,
}

/// Where and how rows are printed.
#[derive(Clone, Debug, Args)]
pub struct Rows {
    /// How to print rows
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// An experiment and changes to it.
#[derive(Clone, Debug, Args)]
pub struct Experiment {
    /// Experiment file (TOML)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Overrides of any key of the file (`pipeline keys`), such as train.epochs=2; ~KEY removes one
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// How to share the machine out.
#[derive(Clone, Copy, Debug, Args)]
pub struct Machine {
    /// Trials side by side [default: one per core while trials are small, else one]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Threads of each trial [default: the cores divided by the jobs]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prepare an experiment's or a public data set: download it if asked to, then decode, resize and pack it once
    #[command(after_help = public_sets())]
    Prepare(Prepare),
    /// Show what a sweep would do, and do nothing
    Plan {
        #[command(flatten)]
        experiment: Experiment,
        /// Estimate the time too: from recorded runs of such networks on these data, else from a few steps
        #[arg(long)]
        estimate: bool,
        #[command(flatten)]
        machine: Machine,
        #[command(flatten)]
        rows: Rows,
    },
    /// Train one trial of an experiment
    Train {
        #[command(flatten)]
        experiment: Experiment,
        /// Which trial, by its number in `pipeline plan`, where there are several
        #[arg(long, value_name = "N")]
        trial: Option<usize>,
        /// Train it anew, though it is done
        #[arg(long)]
        again: bool,
        /// Threads [default: one per core]
        #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
        threads: Option<u16>,
        /// How the epochs and the test are printed; csv and parquet hold the epochs alone.
        #[command(flatten)]
        rows: Rows,
    },
    /// Run all trials of an experiment that have not been run yet, then report
    Sweep {
        #[command(flatten)]
        experiment: Experiment,
        /// Run trials anew, though they are done; results are kept beside the old ones
        #[arg(long)]
        again: bool,
        /// Run failed trials once more
        #[arg(long)]
        retry_failed: bool,
        /// Train what a pruner left to its end
        #[arg(long)]
        resume_pruned: bool,
        /// No report at the end
        #[arg(long)]
        no_report: bool,
        #[command(flatten)]
        machine: Machine,
    },
    /// Evaluate a run's final weights on a split of its own or another data set
    Evaluate(Evaluate),
    /// Show where the trials of a database stand, drawn anew again and again; only reads
    Watch(Watch),
    /// Train a run again and name the first step that differs from its record, or say that none does
    Verify(Verify),
    /// Say what image files show: the most probable classes
    Predict(Predict),
    /// Write a run's network for other programs (safetensors, ONNX, a card that describes it), or an experiment's records for
    /// TensorBoard, MLflow or Optuna
    Export(Export),
    /// Ask the results database, in SQL or by a named query
    #[command(after_help = named_queries())]
    Query {
        /// SQL, or the name of a query
        #[arg(value_name = "SQL|NAME", required_unless_present = "schema")]
        query: Option<String>,
        /// Arguments of a named query
        #[arg(value_name = "ARGUMENT")]
        arguments: Vec<String>,
        /// Explain tables, columns and units
        #[arg(long)]
        schema: bool,
        #[command(flatten)]
        rows: Rows,
    },
    /// List experiments, or the runs of one
    List(commands::list::List),
    /// Show a run: settings, provenance, result, epochs, files
    Show {
        /// Number of the run (`pipeline list --runs`)
        #[arg(value_parser = parse_run)]
        run: i64,
        #[command(flatten)]
        rows: Rows,
    },
    /// Show what differs between two runs: settings, result, provenance
    Diff {
        /// Number of a run
        #[arg(value_name = "RUN")]
        #[arg(value_parser = parse_run)]
        a: i64,
        /// Number of another one
        #[arg(value_name = "RUN")]
        #[arg(value_parser = parse_run)]
        b: i64,
        #[command(flatten)]
        rows: Rows,
    },
    /// Give a run or an experiment tags, by which `pipeline list --tag` finds it
    Tag {
        /// Number of a run, or name of an experiment
        #[arg(value_name = "RUN|EXPERIMENT")]
        target: String,
        /// Words
        #[arg(required = true, value_name = "TAG")]
        tags: Vec<String>,
        /// Take them away
        #[arg(long)]
        remove: bool,
    },
    /// Write a note on a run or an experiment, or print the one that is there
    Note {
        /// Number of a run, or name of an experiment
        #[arg(value_name = "RUN|EXPERIMENT")]
        target: String,
        /// Replaces the note [default: print it]
        #[arg(value_name = "TEXT", conflicts_with = "remove")]
        text: Option<String>,
        /// Take it away
        #[arg(long)]
        remove: bool,
    },
    /// Put runs or experiments away: `pipeline list` leaves them out; reports count them as before
    Archive {
        /// Numbers of runs, or names of experiments
        #[arg(required = true, value_name = "RUN|EXPERIMENT")]
        targets: Vec<String>,
    },
    /// Take runs or experiments out of the archive
    Unarchive {
        /// Numbers of runs, or names of experiments
        #[arg(required = true, value_name = "RUN|EXPERIMENT")]
        targets: Vec<String>,
    },
    /// Delete runs, or experiments with their runs, and their files; asks first
    Delete {
        /// Numbers of runs, or names of experiments
        #[arg(required = true, value_name = "RUN|EXPERIMENT")]
        targets: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// List files that no run needs any more, and remove them with --yes
    Gc(commands::gc::Gc),
    /// Write experiments into one archive: rows, experiment files, reports, weights
    Bundle(commands::bundle::Bundle),
    /// Take over the results of other machines: bundles, or databases
    Merge(commands::merge::Merge),
    /// Show the results in a browser: experiments, runs, curves that grow while a sweep runs, reports; reads only
    Serve(commands::serve::Serve),
    /// Write the report of experiments: which network is better, by how much, and whether it is real
    Report {
        /// Names of experiments
        #[arg(required = true, value_name = "EXPERIMENT")]
        experiments: Vec<String>,
        /// Folder for the pages, pictures and tables [default: reports/EXPERIMENT]
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Show a network layer by layer: output shapes, parameters, multiply-accumulates
    Model {
        /// lenet5 or alexnet, or an experiment file
        #[arg(value_name = "NAME|FILE")]
        model: String,
        /// Which trial's network, by its number in `pipeline plan`, of an experiment file [default: the first one's]
        #[arg(long, value_name = "N")]
        trial: Option<usize>,
        /// Image size as CHANNELSxHEIGHTxWIDTH [default: the file's, or the network's own]
        #[arg(long, value_name = "CxHxW", value_parser = parse_input)]
        input: Option<[usize; 3]>,
        /// Number of classes [default: the file's, or the network's own]
        #[arg(long, value_name = "N")]
        classes: Option<usize>,
        /// Overrides, such as model.towers=2
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Measure training steps: images per second, GFLOP/s, time per kernel
    Bench(Bench),
    /// Say what training can run on here: processor, GPU, driver and libraries, and why one is refused
    Device {
        #[command(flatten)]
        rows: Rows,
    },
    /// List what experiment files can say: every key, what it takes, its default, its unit
    Keys {
        /// Only keys that have this in their path, such as `train.` or `decay`, or else in their meaning
        #[arg(value_name = "WORD")]
        word: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Print shell completions
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Prepare a data set.
#[derive(Clone, Debug, Args)]
pub struct Prepare {
    /// Experiment file (TOML), or the name of a public data set
    #[arg(value_name = "FILE|NAME")]
    pub source: PathBuf,
    /// Overrides of any key of the file, such as dataset.image_size=64; ~KEY removes one
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Fetch the files of a public data set that are not there yet; without it nothing asks the network
    #[arg(long)]
    pub download: bool,
    /// Where the files of a public data set lie or are to lie [default: data/NAME]
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
    /// Fetch from this mirror, which holds the files under their published names
    #[arg(long, value_name = "URL", requires = "download")]
    pub base_url: Option<String>,
    /// Draw originals beside their augmentations into a PNG
    #[arg(long, value_name = "PNG")]
    pub preview: Option<PathBuf>,
    /// Read every prepared image once more and compare it with the fingerprint
    #[arg(long)]
    pub verify: bool,
}

/// Evaluate weights on images.
#[derive(Clone, Debug, Args)]
pub struct Evaluate {
    /// Number of the run (`pipeline query trials`)
    #[arg(value_parser = parse_run)]
    pub run: i64,
    /// Which images
    #[arg(long, value_enum, default_value_t = Split::Test)]
    pub split: Split,
    /// Take the images of this experiment file instead of the run's own
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Overrides of the run's (or the file's) settings, such as dataset.path=FOLDER
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Average the probabilities of ten views: corners and centre, and mirrored
    #[arg(long)]
    pub ten_crop: bool,
    /// Precision, recall and F1 of each class and the most confused pairs too
    #[arg(long)]
    pub details: bool,
    /// Write the confusion matrix as CSV: a row for each true class, a column for each predicted one
    #[arg(long, value_name = "FILE")]
    pub confusion: Option<PathBuf>,
    /// Where the network runs [default: train.device of the overrides or the file, else cpu]
    #[arg(long, value_enum)]
    pub device: Option<Device>,
    /// How rows are printed.
    #[command(flatten)]
    pub rows: Rows,
    /// Threads [default: one per core]
    #[arg(long, short, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
}

/// Watch a database.
#[derive(Clone, Debug, Args)]
pub struct Watch {
    /// Names of experiments [default: all]
    #[arg(value_name = "EXPERIMENT")]
    pub experiments: Vec<String>,
    /// Draw once and end
    #[arg(long)]
    pub once: bool,
    /// Time between two pictures, in seconds
    #[arg(long = "interval", value_name = "SECONDS", default_value_t = 1.0)]
    pub interval_s: f64,
}

/// Train a run again and compare.
#[derive(Clone, Debug, Args)]
pub struct Verify {
    /// Number of the run (`pipeline query trials`), whatever became of it
    #[arg(value_parser = parse_run)]
    pub run: i64,
    /// Start from its last checkpoint instead of from the beginning: replays a divergence quickly
    #[arg(long)]
    pub from_checkpoint: bool,
    /// Where its data or initial weights are now: dataset.path=FOLDER, train.initial_weights=FILE
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// How differences are printed.
    #[command(flatten)]
    pub rows: Rows,
    /// Threads; the result does not depend on them [default: one per core]
    #[arg(long, short, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
}

/// Classify image files.
#[derive(Clone, Debug, Args)]
pub struct Predict {
    /// Number of a run (`pipeline query trials`), or a weights file of this program
    #[arg(value_name = "RUN|WEIGHTS")]
    pub network: String,
    /// Image files: JPEG, PNG, BMP or WebP
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// How many classes of each image, the most probable first
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,
    /// Where the network runs
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: Option<Device>,
    /// How rows are printed.
    #[command(flatten)]
    pub rows: Rows,
    /// Threads [default: one per core]
    #[arg(long, short, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
}

/// Write a network, or an experiment's records, for other programs.
#[derive(Clone, Debug, Args)]
pub struct Export {
    /// Number of a run (`pipeline query trials`), or a weights file of this program; for records, name of an experiment
    #[arg(value_name = "RUN|WEIGHTS|EXPERIMENT")]
    pub network: String,
    /// Folder for weights.safetensors, model.onnx and card.json
    #[arg(long, value_name = "FOLDER", conflicts_with_all = RECORDS)]
    pub out: Option<PathBuf>,
    /// Write the experiment's curves and settings as TensorBoard's event files
    #[arg(long, value_name = "FOLDER", conflicts_with_all = NETWORK)]
    pub tensorboard: Option<PathBuf>,
    /// Write the experiment's runs into a file store of MLflow (mlruns)
    #[arg(long, value_name = "FOLDER", conflicts_with_all = NETWORK)]
    pub mlflow: Option<PathBuf>,
    /// Write the experiment as a study of Optuna, a SQLite file
    #[arg(long, value_name = "FILE", conflicts_with_all = NETWORK)]
    pub optuna: Option<PathBuf>,
    /// Names of the tensors in weights.safetensors
    #[arg(long, value_enum, default_value_t = Names::Layers)]
    pub names: Names,
    /// Draw the filters of conv1 into a PNG
    #[arg(long, value_name = "PNG")]
    pub filters: Option<PathBuf>,
    /// Write sample.safetensors too: N noise images and the logits that this program computes from them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub sample: Option<u16>,
}

/// Options of an export that are about a network, not about records.
const NETWORK: [&str; 4] = ["out", "names", "filters", "sample"];
/// Those that are about records.
const RECORDS: [&str; 3] = ["tensorboard", "mlflow", "optuna"];

/// What tensors are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Names {
    /// conv1.weight … fc8.bias
    Layers,
    /// features.0.weight … classifier.6.bias, where torchvision's AlexNet computes the same
    Torchvision,
}

/// Measure training steps.
#[derive(Clone, Debug, Args)]
pub struct Bench {
    /// Network
    #[arg(long, value_enum, default_value_t = Network::Lenet5)]
    pub model: Network,
    /// Images per step
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: u32,
    /// Where steps run [default: train.device, which is cpu unless it is overridden]
    #[arg(long, value_enum)]
    pub device: Option<Device>,
    /// Threads [default: one per core]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Arithmetic of the products of convolutions and linear layers
    #[arg(long, value_enum, default_value_t = BenchPrecision::F32)]
    pub precision: BenchPrecision,
    /// Forward only, as in evaluation
    #[arg(long)]
    pub forward: bool,
    /// Measured steps [default: as many as fit into 5 s, at least 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: Option<u32>,
    /// Each kind of kernel too: its time, the multiply-adds that it does a second against the peak, and those that define it
    #[arg(long)]
    pub kernels: bool,
    /// Overrides of the model, such as model.normalization=local-response
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// How rows are printed.
    #[command(flatten)]
    pub rows: Rows,
}

/// Where steps run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The processor
    Cpu,
    /// An NVIDIA GPU where one can be used, else the processor
    Auto,
    /// An NVIDIA GPU
    Cuda,
}

impl Device {
    /// As `train.device` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Auto => "auto",
            Self::Cuda => "cuda",
        }
    }

    /// What was asked for on the command line, else what the settings say.
    pub fn or(asked: Option<Self>, setting: ::plan::Device) -> anyhow::Result<::train::Device> {
        let Some(asked) = asked else { return Ok(::train::Device::resolve(setting)?) };
        let asked = match asked {
            Self::Cpu => ::plan::Device::Cpu,
            Self::Auto => ::plan::Device::Auto,
            Self::Cuda => ::plan::Device::Cuda,
        };
        ::train::Device::resolve(asked).context("--device")
    }
}

/// Arithmetic of products, as `train.precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchPrecision {
    /// 32-bit floating point
    F32,
    /// Operands rounded to 10 bits of mantissa on a GPU's tensor cores, sums in 32 bits
    Tf32,
    /// Operands rounded to bfloat16, sums in 32 bits
    Bf16,
}

/// A network by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// LeNet-5, 1×28×28, 10 classes
    #[value(name = "lenet5", alias = "lenet")]
    Lenet5,
    /// AlexNet, 3×227×227, 1000 classes
    Alexnet,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Split {
    /// What it is trained on
    Train,
    /// What is held back for choices
    Validation,
    /// What is tested once
    Test,
}

fn parse_run(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "expected the number of a run; `pipeline list EXPERIMENT` shows them".to_owned())
}

fn parse_input(text: &str) -> Result<[usize; 3], String> {
    let extents: Vec<usize> = text.split('x').filter_map(|part| part.parse().ok()).collect();
    match extents[..] {
        [c, h, w] if c > 0 && h > 0 && w > 0 && text.split('x').count() == 3 => Ok([c, h, w]),
        _ => Err("expected CHANNELSxHEIGHTxWIDTH, such as 3x227x227".to_owned()),
    }
}

fn public_sets() -> String {
    let mut text = "Public data sets:\n".to_owned();
    for set in download::all() {
        let megabytes = (set.bytes() as f64 / 1e6).ceil();
        text.push_str(&format!("  {:<14} {megabytes:>4} MB  {}\n", set.name, set.source));
    }
    text
}

fn named_queries() -> String {
    let mut text = "Named queries:\n".to_owned();
    for query in store::named::all() {
        text.push_str(&format!("  {:<34} {}\n", query.usage(), query.summary));
    }
    text
}
