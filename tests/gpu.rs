//! Training on a GPU as a user meets it: where there is none, and with the emulated one of `tests/emulator`, sound and with faults.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use store::Value;

use crate::workplace::{DB, Workplace};

const SMALL: &str = r#"
name = "small"
seeds = 1
[dataset]
train_images = 48
test_images = 20
validation_fraction = 0.25
[train]
epochs = 2
batch_size = 16
device = "cuda"
"#;

/// The emulated driver, built once; none, said aloud, where there is no C++ compiler.
fn emulator() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/emulator").canonicalize().unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
        std::fs::create_dir_all(&folder).unwrap();
        let (library, own) = (folder.join("libemulated.so"), folder.join(format!("own-{}.so", std::process::id())));
        let compiler = std::env::var("CXX").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "c++".to_owned());
        let built = Command::new(&compiler)
            .args(["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-o"])
            .arg(&own)
            .arg(sources.join("driver.cpp"))
            .arg(format!("-DKERNEL_H=\"{}\"", sources.join("kernel.h").display()))
            .arg("-ldl")
            .output();
        // It switches threads of a block as glibc does.
        let (Ok(built), true) = (built, cfg!(all(target_os = "linux", target_env = "gnu"))) else {
            println!("SKIPPED: the emulated GPU: there is no C++ compiler ({compiler}), or no glibc");
            return None;
        };
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::rename(own, &library).unwrap();
        Some(library)
    };
    BUILT.get_or_init(build).as_deref()
}

/// The program with the emulated GPU, with these faults.
fn with_gpu(place: &Workplace, faults: &str, line: &str) -> Option<crate::workplace::Finished> {
    // A copy in the same folder, where compiled kernels are kept.
    let kind = faults.replace(['\n', '='], "-");
    let library = emulator()?.with_file_name(format!("lib{kind}{}.so", std::process::id()));
    if !library.exists() {
        std::fs::copy(emulator()?, &library).unwrap();
        std::fs::write(format!("{}.faults", library.display()), faults).unwrap();
    }
    let mut command = place.command(line.split_whitespace());
    command.env("PIPELINE_CUDA_DRIVER", &library).env("PIPELINE_NVRTC", &library);
    Some(crate::workplace::Finished::of(command.output().unwrap(), line.to_owned()))
}

fn texts(place: &Workplace, sql: &str) -> Vec<String> {
    place.rows(DB, sql).into_iter().map(|row| row[0].to_string()).collect()
}

fn reals(place: &Workplace, sql: &str) -> Vec<f64> {
    let real = |row: Vec<Value>| match row[0] {
        Value::Real(value) => value,
        ref other => panic!("{other:?} is not a real number"),
    };
    place.rows(DB, sql).into_iter().map(real).collect()
}

#[test]
fn without_a_gpu_cuda_is_refused_and_auto_takes_the_processor() {
    let place = Workplace::with(SMALL);
    let device = place.run("device --format json").exits(0).json();
    assert_eq!((&device[0]["what"], &device[0]["state"]), (&"processor".into(), &"usable".into()));
    assert_eq!((&device[1]["what"], &device[1]["state"]), (&"driver".into(), &"refused".into()));
    assert!(device[1]["found"].as_str().unwrap().starts_with("no NVIDIA driver was found"), "{device}");
    assert_eq!(device[2]["found"], "the processor");

    let refused = place.run("sweep experiment.toml").exits(2);
    assert!(refused.stderr.contains("train.device: no NVIDIA driver was found"), "{}", refused.stderr);
    assert!(!place.path(DB).exists(), "nothing was written");
    let refused = place.run("bench --device cuda --steps 1").exits(2);
    assert!(refused.stderr.contains("--device: train.device: no NVIDIA driver"), "{}", refused.stderr);
    let refused = place.run("sweep experiment.toml train.device=gpu").exits(2);
    assert!(refused.stderr.contains("train.device") && refused.stderr.contains("cuda"), "{}", refused.stderr);

    let sweep = place.run("sweep experiment.toml train.device=auto --no-report").exits(0);
    assert!(!sweep.stderr.contains("GPU"), "{}", sweep.stderr);
    assert_eq!(texts(&place, "SELECT DISTINCT device FROM claims"), ["cpu"]);
}

#[test]
fn a_gpu_trains_the_same_trial() {
    let place = Workplace::with(SMALL);
    let Some(sweep) = with_gpu(&place, "", "sweep experiment.toml --no-report") else { return };
    sweep.exits(0);
    assert_eq!(
        texts(&place, "SELECT DISTINCT device FROM claims"),
        ["cuda: Emulated GPU (compute capability 8.0, driver CUDA 13.0, NVRTC 13.0)"]
    );
    place.run("evaluate 1").exits(0);
    // It is the same trial on the processor, and so it is done.
    let again = place.run("sweep experiment.toml train.device=cpu --no-report").exits(0);
    assert!(again.stderr.contains("1 of 1 trials done (1 of them before)"), "{}", again.stderr);
    place.run("sweep experiment.toml train.device=cpu --no-report --again").exits(0);
    let of = |column: &str, run: i64| {
        reals(&place, &format!("SELECT {column} FROM epochs WHERE run_id = {run} ORDER BY epoch"))
    };
    for column in ["train_loss", "train_penalty", "validation_loss"] {
        let (gpu, cpu) = (of(column, 1), of(column, 2));
        assert_eq!(gpu.len(), 2);
        for (gpu, cpu) in gpu.into_iter().zip(cpu) {
            assert!((gpu - cpu).abs() <= 1e-5 * cpu.abs(), "{column}: {gpu} on the GPU, {cpu} on the processor");
        }
    }
    let loss = reals(&place, "SELECT loss FROM evaluations WHERE split = 'test' ORDER BY run_id");
    assert!((loss[0] - loss[1]).abs() <= 1e-5 * loss[1], "{loss:?}");
}

#[test]
fn a_gpu_trains_in_the_precision_that_is_asked_for() {
    let place = Workplace::with(SMALL);
    for precision in ["f32", "bf16", "tf32"] {
        let line = format!("sweep experiment.toml train.precision={precision} --no-report");
        let Some(sweep) = with_gpu(&place, "", &line) else { return };
        let sweep = sweep.exits(0);
        assert!(sweep.stderr.contains("1 of 1 trials done") && !sweep.stderr.contains("before"), "{}", sweep.stderr);
    }
    assert_eq!(place.count(DB, "SELECT count(DISTINCT identity) FROM runs"), 3, "a trial's precision is a part of it");
    let losses = reals(&place, "SELECT train_loss FROM epochs WHERE epoch = 2 ORDER BY run_id");
    for reduced in &losses[1..] {
        assert!(*reduced != losses[0] && (reduced - losses[0]).abs() < 0.01 * losses[0], "{losses:?}");
    }
}

#[test]
fn a_precision_that_a_device_does_not_have_is_refused_or_left_to_the_processor() {
    let place = Workplace::with(SMALL);
    let line = "sweep experiment.toml train.precision=bf16 --no-report";
    let Some(refused) = with_gpu(&place, "capability=75\n", line) else { return };
    let refused = refused.exits(2);
    let expected = "train.precision: Emulated GPU has compute capability 7.5, and products in bf16 need 8.0 or newer";
    assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    assert!(!place.path(DB).exists(), "nothing was written");

    let auto = with_gpu(&place, "capability=75\n", &format!("{line} train.device=auto")).unwrap().exits(0);
    assert!(auto.stderr.contains("the GPU is not used: Emulated GPU has compute capability 7.5"), "{}", auto.stderr);
    assert_eq!(texts(&place, "SELECT DISTINCT device FROM claims"), ["cpu"]);

    let processor = place.run("sweep experiment.toml train.device=cpu train.precision=tf32").exits(2);
    assert!(processor.stderr.contains("\"tf32\" is computed on GPUs only"), "{}", processor.stderr);
    let bench = place.run("bench --precision tf32 --steps 1").exits(2);
    assert!(bench.stderr.contains("\"tf32\" is computed on GPUs only"), "{}", bench.stderr);

    for (faults, precisions) in [("", "f32, tf32, bf16"), ("capability=75\n", "f32")] {
        let device = with_gpu(&place, faults, "device --format json").unwrap().exits(0).json();
        let found = device[3]["found"].as_str().unwrap();
        assert!(found.ends_with(&format!("precisions {precisions}")), "{device}");
    }
}

#[test]
fn what_a_gpu_began_the_processor_goes_on_with() {
    let place = Workplace::with(&SMALL.replace("epochs = 2", "epochs = 60"));
    let Some(library) = emulator() else { return };
    let mut command = place.command(["sweep", "experiment.toml", "--no-report"]);
    let mut sweep = command.env("PIPELINE_CUDA_DRIVER", library).env("PIPELINE_NVRTC", library).spawn().unwrap();
    place.wait_for(DB, "SELECT count(*) FROM epochs", 1, &mut sweep);
    Command::new("kill").args(["-INT", &sweep.id().to_string()]).status().unwrap();
    assert_eq!(sweep.wait().unwrap().code(), Some(130));
    let done = place.count(DB, "SELECT count(*) FROM epochs");
    assert!((1..60).contains(&done), "{done} epochs");
    place.run("sweep experiment.toml train.device=cpu --no-report").exits(0);
    assert_eq!(place.count(DB, "SELECT count(*) FROM epochs"), 60, "one run with both");
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs"), 1);
    assert_eq!(place.count(DB, "SELECT count(*) FROM claims WHERE device = 'cpu' AND from_epoch > 0"), 1);
}

#[test]
fn what_the_processor_began_a_gpu_goes_on_with() {
    let halving = "\n[sweep.grid]\n\"train.learning_rate\" = [0.001, 0.01, 0.05]\n[sweep.pruner]\nkind = \"halving\"\nminimum_epochs = 1\n";
    let place = Workplace::with(&(SMALL.replace("epochs = 2", "epochs = 3\nmomentum = 0.9") + halving));
    if emulator().is_none() {
        return;
    }
    place.run("sweep experiment.toml train.device=cpu ~sweep.pruner --no-report --db whole.db").exits(0);
    place.run("sweep experiment.toml train.device=cpu --no-report --jobs 1").exits(0);
    assert_eq!(place.count(DB, "SELECT count(*) FROM results WHERE status = 'pruned' AND epochs = 1"), 2);
    with_gpu(&place, "", "sweep experiment.toml --resume-pruned --no-report").unwrap().exits(0);
    let on_both = "SELECT count(*) FROM claims AS a JOIN claims AS b USING (run_id) \
                   WHERE a.device = 'cpu' AND b.device LIKE 'cuda%' AND b.from_epoch = 1";
    assert_eq!(place.count(DB, on_both), 2, "both were gone on with after their first epoch");
    let losses = "SELECT e.train_loss FROM results JOIN epochs AS e USING (run_id) ORDER BY position, e.epoch";
    let of = |db| place.rows(db, losses).into_iter().map(|row| row[0].to_string().parse::<f64>().unwrap());
    let (both, whole): (Vec<f64>, Vec<f64>) = (of(DB).collect(), of("whole.db").collect());
    assert_eq!((both.len(), whole.len()), (9, 9));
    for (both, whole) in both.iter().zip(&whole) {
        assert!((both - whole).abs() <= 1e-5 * whole, "{both} with both, {whole} on the processor alone");
    }
}

/// What happens to images, by recipe on the device or, with rotation, on the host: both train as the processor does.
#[test]
fn a_gpu_sees_the_distortions_that_the_processor_sees() {
    const AUGMENT: &str = "[augment]\npad = 2\nflip = 0.5\nbrightness = 0.3\ncontrast = 0.3\ncutout = 6\nmixup = 0.4\n";
    for (how, more) in [("by recipe", ""), ("by the host", "rotation_degrees = 10\nnoise = 0.05\n")] {
        let toml = SMALL.replace("epochs = 2", "epochs = 2\nevaluation_batch_size = 7") + AUGMENT + more;
        let place = Workplace::with(&toml);
        let Some(sweep) = with_gpu(&place, "", "sweep experiment.toml --no-report") else { return };
        sweep.exits(0);
        place.run("sweep experiment.toml train.device=cpu --no-report --again").exits(0);
        for column in ["train_loss", "validation_loss", "train_top1", "train_top5", "validation_top1"] {
            let of =
                |run: i64| reals(&place, &format!("SELECT {column} FROM epochs WHERE run_id = {run} ORDER BY epoch"));
            let (gpu, cpu) = (of(1), of(2));
            assert_eq!(gpu.len(), 2);
            for (gpu, cpu) in gpu.into_iter().zip(cpu) {
                assert!(
                    (gpu - cpu).abs() <= 1e-5 * cpu.abs(),
                    "{how}: {column}: {gpu} on the GPU, {cpu} on the processor"
                );
            }
        }
        // 36 images are three steps, 4 bytes each.
        assert_eq!(place.count(DB, "SELECT sum(length(losses)) FROM steps WHERE run_id = 1"), 2 * 3 * 4);
    }
}

/// Where a loss is no number is found out when it is read, but told as of its own step.
#[test]
fn a_divergence_on_a_gpu_is_told_with_its_own_step() {
    let place = Workplace::with(&SMALL.replace("epochs = 2", "epochs = 2\nlearning_rate = 1e30"));
    let Some(sweep) = with_gpu(&place, "", "sweep experiment.toml --no-report") else { return };
    sweep.exits(3);
    place.run("sweep experiment.toml train.device=cpu --no-report --again").exits(3);
    let of = |run: i64| {
        place.rows(DB, &format!("SELECT kind, epoch, step, learning_rate FROM failures WHERE run_id = {run}"))
    };
    assert_eq!(of(1).len(), 1);
    assert_eq!(of(1), of(2));
}

/// An image of 28 × 28 pixels, as the network sees them: a bitmap of 24 bits.
fn bitmap() -> Vec<u8> {
    let mut file = b"BM".to_vec();
    for word in [54 + 28 * 84, 0, 54, 40, 28, 28, 24 << 16 | 1, 0, 28 * 84, 2835, 2835, 0, 0_u32] {
        file.extend(word.to_le_bytes());
    }
    file.extend((0..28 * 84).map(|i: u32| (i * i / 7 % 251) as u8));
    file
}

#[test]
fn evaluate_and_predict_run_on_a_gpu() {
    let place = Workplace::with(SMALL);
    place.write("image.bmp", bitmap());
    place.run("sweep experiment.toml train.device=cpu --no-report").exits(0);
    let close = |lines: [&str; 2], key: &str| {
        let gpu = with_gpu(&place, "", lines[0])?.exits(0).json();
        let cpu = place.run(lines[1]).exits(0).json();
        let rows = [gpu, cpu].map(|table| table.as_array().unwrap().clone());
        assert_eq!(rows[0].len(), rows[1].len());
        for (gpu, cpu) in rows[0].iter().zip(&rows[1]) {
            let [gpu, cpu] = [gpu, cpu].map(|row| row[key].as_f64().unwrap());
            assert!((gpu - cpu).abs() <= 1e-5 * cpu.abs(), "{key}: {gpu} on the GPU, {cpu} on the processor");
        }
        Some(rows[0].len())
    };
    let evaluate = ["evaluate 1 --device cuda --format json", "evaluate 1 --format json"];
    let Some(rows) = close(evaluate, "loss") else { return };
    assert_eq!(rows, 1);
    close(["evaluate 1 --ten-crop train.device=cuda --format json", "evaluate 1 --ten-crop --format json"], "loss");
    let predict = ["predict 1 image.bmp --device auto --format json", "predict 1 image.bmp --format json"];
    assert_eq!(close(predict, "probability"), Some(5));

    // That it was the GPU shows where nothing compiles for it; but kernels that were compiled are kept in the cache.
    for line in ["evaluate 1 --device cuda", "evaluate 1 train.device=cuda", "predict 1 image.bmp --device cuda"] {
        with_gpu(&place, "compile=1\n", line).unwrap().exits(0);
        let refused = with_gpu(&place, "compile=1\n", &format!("{line} --cache other")).unwrap().exits(2);
        assert!(refused.stderr.contains("a kernel does not compile for sm_80"), "{line}: {}", refused.stderr);
        let refused = place.run(line).exits(2);
        assert!(refused.stderr.contains("train.device: no NVIDIA driver was found"), "{line}: {}", refused.stderr);
    }
    with_gpu(&place, "compile=1\n", "evaluate 1 --device cpu train.device=cuda").unwrap().exits(0);
}

#[test]
fn a_gpu_that_is_lost_ends_the_sweep_or_leaves_it_to_the_processor() {
    let toml = SMALL.replace("seeds = 1", "seeds = 3");
    let place = Workplace::with(&toml);
    let Some(sweep) = with_gpu(&place, "lose_after=100\n", "sweep experiment.toml --no-report --jobs 1") else {
        return;
    };
    let sweep = sweep.exits(3);
    assert!(sweep.stderr.contains("the GPU was lost to this process"), "{}", sweep.stderr);
    assert!(sweep.stderr.contains("train.device: the GPU was lost: "), "{}", sweep.stderr);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE failure_kind = 'device'"), 1);
    assert_eq!(place.count(DB, "SELECT count(*) FROM claims"), 1, "the others are left for another time");
    let auto = "sweep experiment.toml train.device=auto --no-report --jobs 1 --retry-failed";
    with_gpu(&place, "lose_after=100\n", auto).unwrap().exits(3);
    assert_eq!(place.count(DB, "SELECT count(*) FROM runs WHERE status = 'done'"), 2);
    assert_eq!(place.count(DB, "SELECT count(DISTINCT device) FROM claims"), 2, "they went on on the processor");
    place.run("sweep experiment.toml train.device=cpu --no-report --retry-failed").exits(0);
}

#[test]
fn a_gpu_without_room_is_told_and_one_that_is_refused_too() {
    let place = Workplace::with(SMALL);
    let Some(sweep) = with_gpu(&place, "memory_bytes=700000\n", "sweep experiment.toml --no-report") else { return };
    let sweep = sweep.exits(3);
    assert!(
        sweep.stderr.contains("out of GPU memory") && sweep.stderr.contains("train.batch_size"),
        "{}",
        sweep.stderr
    );
    assert_eq!(texts(&place, "SELECT failure_kind FROM runs"), ["device"]);

    let old = with_gpu(&place, "version=11080\n", "sweep experiment.toml --no-report --again").unwrap().exits(2);
    assert!(old.stderr.contains("serves CUDA 11.8, needed is 12.0 or newer"), "{}", old.stderr);
    let auto = "sweep experiment.toml train.device=auto --no-report --retry-failed";
    let auto = with_gpu(&place, "version=11080\n", auto).unwrap().exits(0);
    assert!(auto.stderr.contains("the GPU is not used: the NVIDIA driver serves CUDA 11.8"), "{}", auto.stderr);
    let device = with_gpu(&place, "version=11080\n", "device --format json").unwrap().exits(0).json();
    assert_eq!(device[1]["state"], "refused", "{device}");
}

#[test]
fn bench_measures_a_gpu() {
    let place = Workplace::new();
    let line = "bench --device cuda --batch 2 --steps 2 --kernels --format json";
    let Some(bench) = with_gpu(&place, "", line) else { return };
    let bench = bench.exits(0);
    let text = bench.text();
    assert!(
        text.contains("\"device\": \"cuda: Emulated GPU") || text.contains("\"device\":\"cuda: Emulated GPU"),
        "{text}"
    );
    assert!(text.contains("convolution dw"), "{text}");
    assert!(text.contains("\"latency_ms\"") && text.contains("\"gb_per_s\""), "{text}");
    for precision in ["tf32", "bf16"] {
        let line = format!("bench --device cuda --batch 2 --steps 2 --kernels --precision {precision} --format json");
        let bench = with_gpu(&place, "", &line).unwrap().exits(0);
        let text = bench.text();
        assert!(text.contains(&format!("\"{precision}\"")) && text.contains("\"pack\""), "{text}");
    }
}
