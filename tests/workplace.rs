//! A folder to run the program in.

use std::{
    ffi::OsStr,
    fmt::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use store::{EpochRow, NewExperiment, NewTrial, Outcome, Provenance, Store, Value};
use tempfile::TempDir;

/// The database of a workplace, unless a test wants several.
pub const DB: &str = "results.db";

/// Longest that a test waits for something to happen; far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest that a program runs before it is killed, so that one that hangs fails its test and holds up no other.
const LIFETIME: Duration = Duration::from_secs(600);

/// A folder of its own for experiment files, databases, the cache and reports; gone at the end.
pub struct Workplace {
    folder: TempDir,
}

/// What a command left behind.
pub struct Finished {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    what: String,
}

impl Finished {
    /// Asserts the exit code, showing what was printed where it is another one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "exit code of {}\n{}\n{}",
            self.what,
            self.stderr,
            String::from_utf8_lossy(&self.stdout)
        );
        self
    }

    /// Standard output as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("what is printed here is text")
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// What a command's end was.
    pub fn of(output: Output, what: String) -> Self {
        let stderr = String::from_utf8(output.stderr).expect("messages are text");
        Self { code: output.status.code(), stdout: output.stdout, stderr, what }
    }
}

impl Workplace {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// One with an experiment file.
    pub fn with(toml: &str) -> Self {
        let workplace = Self::new();
        workplace.write("experiment.toml", toml);
        workplace
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).unwrap();
        std::fs::write(path, contents).unwrap();
    }

    /// Writes a folder of IDX files: 40 images to train on, 20 to test with, of ten classes.
    pub fn write_idx(&self, folder: &str, side: u32) {
        for (part, count) in [("train", 40), ("t10k", 20)] {
            let pixels: Vec<u8> = (0..count * side * side).map(|i| (i * 7 % 251) as u8).collect();
            let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
            self.write(&format!("{folder}/{part}-images-idx3-ubyte"), idx(&[count, side, side], &pixels));
            self.write(&format!("{folder}/{part}-labels-idx1-ubyte"), idx(&[count], &labels));
        }
    }

    /// The program, to be run here: with the cache of this folder and, unless `arguments` name another one, its database; and with no
    /// GPU, so that all machines do the same.
    pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("PIPELINE_DB", DB)
            .env("PIPELINE_CACHE", self.path("cache"))
            .env("PIPELINE_CUDA_DRIVER", "libno-such-driver.so")
            .env_remove("PIPELINE_NVRTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end. `line` is split at spaces.
    pub fn run(&self, line: &str) -> Finished {
        self.run_words(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs the program to its end.
    pub fn run_words<W: AsRef<OsStr> + std::fmt::Debug>(&self, words: &[W]) -> Finished {
        finish(self.command(words).spawn().expect("the program starts"), format!("{words:?}"))
    }

    /// Starts the program and goes on.
    pub fn start(&self, line: &str) -> Child {
        self.command(line.split_whitespace()).spawn().expect("the program starts")
    }

    /// Rows of a database of this folder.
    #[track_caller]
    pub fn rows(&self, db: &str, sql: &str) -> Vec<Vec<Value>> {
        let store = Store::open_read_only(self.path(db)).unwrap();
        store.query(sql, &[]).unwrap_or_else(|error| panic!("{error} in {sql}")).rows
    }

    /// The only value of a query, a whole number.
    #[track_caller]
    pub fn count(&self, db: &str, sql: &str) -> i64 {
        match self.rows(db, sql)[..] {
            [ref row] => match row[..] {
                [Value::Integer(count)] => count,
                ref other => panic!("{other:?} is not a number"),
            },
            ref other => panic!("{other:?} is not one row"),
        }
    }

    /// Waits until a query counts at least so much, while a sweep writes the database.
    #[track_caller]
    pub fn wait_for(&self, db: &str, sql: &str, least: i64, sweep: &mut Child) {
        let start = Instant::now();
        loop {
            // There is no database, or no table in it, until the sweep has got that far.
            let table = Store::open_read_only(self.path(db)).and_then(|store| store.query(sql, &[]));
            if table.is_ok_and(|table| matches!(table.rows[0][0], Value::Integer(count) if count >= least)) {
                return;
            }
            let ended = sweep.try_wait().unwrap();
            assert!(ended.is_none(), "the sweep ended ({ended:?}) before `{sql}` was {least}");
            assert!(start.elapsed() < PATIENCE, "`{sql}` is not {least} after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Records an experiment, made without training, whose name, question, label and variant are what a hostile database may
    /// hold: a formula, emoji, text from right to left, HTML, SQL, escapes of a terminal, a change of direction, a line break.
    /// Returns that text.
    pub fn record_hostile(&self) -> &'static str {
        const TEXT: &str =
            "=1+1🦀שלום<b>x</b><script>'; DROP TABLE runs; -- \u{1b}[31m\u{9b}2J\u{7f}\u{202e}gnp.\n| `q` \"&amp; \\";
        let store = Store::open(self.path(DB)).unwrap();
        let experiment =
            NewExperiment { name: TEXT.into(), question: TEXT.into(), file: TEXT.into(), ..Default::default() };
        let trial = NewTrial {
            identity: "0123456789abcdef0123456789abcdef".into(),
            canonical: serde_json::json!({ "seed": 1, "x": TEXT }).to_string(),
            label: TEXT.into(),
            variant: Some(TEXT.into()),
            architecture: "lenet5".into(),
            assignments: vec![("x".into(), serde_json::json!(TEXT).to_string())],
            ..Default::default()
        };
        let id = store.record_experiment(&experiment, &[trial]).unwrap();
        let provenance =
            Provenance { command: TEXT.into(), config: TEXT.into(), cpu: TEXT.into(), ..Default::default() };
        let run = store.claim_next(id, TEXT, Duration::from_secs(60), &provenance).unwrap().unwrap().run;
        let epoch = EpochRow { epoch: 1, validation_top1: Some(0.5), ..Default::default() };
        store.record_epoch(run, TEXT, &epoch).unwrap();
        let outcome = Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: 1.0, peak_memory_bytes: 1 };
        store.finish(run, TEXT, &outcome).unwrap();
        TEXT
    }

    /// Everything that trials came to but for times, as text that is equal to the last bit where it is equal: epochs, test,
    /// predictions and weights of the newest run of each trial, by trial.
    pub fn metrics(&self, db: &str) -> String {
        const NEWEST: &str = "r.attempt = (SELECT max(n.attempt) FROM runs AS n WHERE n.identity = r.identity)";
        let queries = [
            format!(
                "SELECT r.identity, e.epoch, e.learning_rate, e.train_loss, e.train_penalty, e.train_top1, e.train_top5, \
                 e.validation_loss, e.validation_top1, e.validation_top5, e.steps \
                 FROM runs AS r JOIN epochs AS e USING (run_id) WHERE {NEWEST} ORDER BY 1, 2"
            ),
            format!(
                "SELECT r.identity, v.split, v.epoch, v.loss, v.top1, v.top5, v.images, p.classes, r.tested_epoch, r.status \
                 FROM runs AS r JOIN evaluations AS v USING (run_id) JOIN predictions AS p USING (run_id, split) \
                 WHERE {NEWEST} ORDER BY 1, 2"
            ),
            format!(
                "SELECT r.identity, s.epoch, s.losses FROM runs AS r JOIN steps AS s USING (run_id) WHERE {NEWEST} ORDER BY 1, 2"
            ),
        ];
        let mut text = String::new();
        for query in &queries {
            for row in self.rows(db, query) {
                // A number's shortest digits that read back the same tell its bits, but for the sign of zero: `{:?}` has it.
                writeln!(text, "{row:?}").unwrap();
            }
        }
        for row in self.rows(db, &format!("SELECT r.identity, r.checkpoint FROM runs AS r WHERE {NEWEST} ORDER BY 1")) {
            let weights = std::fs::read(self.path(row[1].to_string())).unwrap();
            writeln!(text, "weights of {}: {}", row[0], blake3::hash(&weights)).unwrap();
        }
        assert!(text.lines().count() > 2, "there are metrics to compare: {text}");
        text
    }
}

/// Waits for a started program and takes what it printed.
#[track_caller]
pub fn wait(child: Child) -> Finished {
    let what = format!("process {}", child.id());
    finish(child, what)
}

#[track_caller]
fn finish(child: Child, what: String) -> Finished {
    let (ended, end) = mpsc::channel::<()>();
    let id = child.id().to_string();
    let watch = std::thread::spawn(move || {
        let hangs = end.recv_timeout(LIFETIME) == Err(RecvTimeoutError::Timeout);
        hangs.then(|| Command::new("kill").args(["-KILL", &id]).status())
    });
    let output = child.wait_with_output().expect("the program ends");
    drop(ended);
    let finished = Finished::of(output, what);
    let killed = watch.join().expect("it only waits").is_some();
    assert!(!killed, "{} did not end within {LIFETIME:?}\n{}", finished.what, finished.stderr);
    finished
}

/// An IDX file of unsigned bytes.
pub fn idx(dimensions: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    dimensions.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// Two epochs of LeNet-5 with two values of λ and two seeds, in a moment.
pub const SMALL: &str = r#"
name = "small"
question = "Does it run?"
seeds = 2
[dataset]
train_images = 300
test_images = 100
[train]
epochs = 2
batch_size = 32
[sweep.grid]
"train.weight_decay" = [0.0, 0.005]
"#;
