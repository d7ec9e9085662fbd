//! Preparing: killed, stopped, out of room, in little memory, twice at once.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    resume::signal,
    workplace::{Workplace, wait},
};

/// Enough glyphs that preparing them can be interrupted.
const MANY: &str = "seeds = 1\n[dataset]\ntrain_images = 20_000\ntest_images = 1_000\n";

/// The folder of a cache that ends in `ending`.
fn folder(cache: &Path, ending: &str) -> Option<PathBuf> {
    let folders = std::fs::read_dir(cache).ok()?.map(|entry| entry.unwrap().path());
    folders.into_iter().find(|path| path.is_dir() && path.to_string_lossy().ends_with(ending))
}

/// Hash of the two files of the only entry in a cache.
fn entry(cache: &Path) -> String {
    let manifests = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path().join("manifest.json"));
    let manifests: Vec<_> = manifests.filter(|path| path.is_file()).collect();
    assert_eq!(manifests.len(), 1, "one entry in {}", cache.display());
    let mut hasher = blake3::Hasher::new();
    for path in [&manifests[0], &manifests[0].with_file_name("data.safetensors")] {
        hasher.update(&std::fs::read(path).unwrap());
    }
    hasher.finalize().to_hex().to_string()
}

fn undisturbed(place: &Workplace) -> String {
    place.run("prepare experiment.toml --cache undisturbed").exits(0);
    entry(&place.path("undisturbed"))
}

/// Runs the program in a shell that sets a limit first.
fn run_limited(place: &Workplace, limit: &str, line: &str) -> crate::workplace::Finished {
    let program = place.command(line.split(' '));
    let script = format!("{limit}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(program.get_program()).args(program.get_args());
    command.current_dir(place.path("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    wait(command.spawn().expect("there is a shell"))
}

#[test]
fn a_changed_pixel_is_told_by_verify_and_a_changed_label_is_prepared_anew() {
    let place = Workplace::with("seeds = 1\n[dataset]\ntrain_images = 60\ntest_images = 20\n");
    let expected = undisturbed(&place);
    let sound = place.run("prepare experiment.toml --verify").exits(0);
    let table = String::from_utf8_lossy(&sound.stdout);
    assert!(table.contains("verified"), "{table}");
    let entries = std::fs::read_dir(place.path("cache")).unwrap();
    let mut files = entries.map(|entry| entry.unwrap().path().join("data.safetensors")).filter(|path| path.is_file());
    let data = files.next().expect("an entry");
    let flip = |at: usize| {
        let mut bytes = std::fs::read(&data).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&data, bytes).unwrap();
    };
    // Behind the header and 80 labels lie the pixels.
    flip(4096 + 80 * 8 + 5);
    place.run("prepare experiment.toml").exits(0);
    let changed = place.run("prepare experiment.toml --verify").exits(2);
    assert!(changed.stderr.contains("data.safetensors: corrupt: the images do not have"), "{}", changed.stderr);
    flip(4096);
    place.run("prepare experiment.toml --verify").exits(0);
    assert_eq!(entry(&place.path("cache")), expected);
}

#[test]
fn a_preparation_that_is_killed_again_and_again_comes_to_the_same_bytes() {
    let place = Workplace::with(MANY);
    let expected = undisturbed(&place);
    let cache = place.path("cache");
    let mut noted = 0;
    for how in ["-KILL", "-INT", "-KILL"] {
        let child = place.start("prepare experiment.toml");
        let start = Instant::now();
        let journal =
            || folder(&cache, ".unfinished").and_then(|folder| std::fs::metadata(folder.join("journal")).ok());
        // Until it is further than the one before.
        while journal().map_or(0, |journal| journal.len()) <= noted {
            assert!(start.elapsed() < Duration::from_secs(120), "it does not get on");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, how);
        let ended = wait(child);
        if how == "-INT" {
            let ended = ended.exits(130);
            assert!(ended.stderr.contains("the same command goes on where it stopped"), "{}", ended.stderr);
        } else {
            assert_eq!(ended.code, None);
        }
        let now = journal().expect("it was not done yet").len();
        assert!(now > noted, "it went on where it was");
        noted = now;
    }
    place.run("prepare experiment.toml").exits(0);
    assert_eq!(entry(&cache), expected);
    assert_eq!(folder(&cache, ".unfinished"), None);
}

#[test]
fn no_room_is_told_and_nothing_half_is_believed() {
    let place = Workplace::with(MANY);
    let expected = undisturbed(&place);
    // A file may not grow beyond some megabytes; the signal that tells so is ignored, as it does not come from a full disk.
    let full = run_limited(&place, "trap '' XFSZ; ulimit -f 8000", "prepare experiment.toml").exits(2);
    assert!(full.stderr.contains("error: no room to write ") && full.stderr.contains("data.safetensors"));
    assert!(full.stderr.contains("what is prepared is kept"), "{}", full.stderr);
    assert_eq!(full.text(), "");
    assert!(folder(&place.path("cache"), ".unfinished").is_some());
    let plan = place.run("plan experiment.toml").exits(0);
    assert!(plan.stderr.contains("the data set is not prepared yet"), "{}", plan.stderr);
    place.run("prepare experiment.toml").exits(0);
    assert_eq!(entry(&place.path("cache")), expected);
}

#[test]
fn two_at_once_come_to_one_data_set() {
    let place = Workplace::with(MANY);
    let expected = undisturbed(&place);
    let both = [(); 2].map(|()| place.start("prepare experiment.toml"));
    let [first, second] = both.map(|child| wait(child).exits(0));
    assert_eq!(first.text(), second.text());
    assert_eq!(entry(&place.path("cache")), expected);
}

#[test]
fn memory_does_not_grow_with_the_images() {
    // 120 MB of pixels in a third of that for everything.
    let toml = "seeds = 1\n[dataset]\ntrain_images = 600\ntest_images = 10\nimage_size = 256\ncolor = \"rgb\"\n";
    let place = Workplace::with(toml);
    let limit = "ulimit -d 40000; export RAYON_NUM_THREADS=2";
    let prepared = run_limited(&place, limit, "prepare experiment.toml").exits(0);
    assert!(prepared.text().contains("3×256×256"), "{}", prepared.text());
    // One such image alone has 50 MB.
    let large = "prepare experiment.toml --cache other dataset.image_size=4096 dataset.train_images=10";
    let starved = run_limited(&place, limit, large);
    assert_ne!(starved.code, Some(0), "the limit is one");
}

#[test]
fn no_room_for_threads_is_told_and_ends() {
    let place = Workplace::with("seeds = 1\n[dataset]\ntrain_images = 60\ntest_images = 20\n");
    // Whatever else fails for lack of memory ends the process at once; where a machine's own needs lie, nobody knows. A thread that
    // starts but has no room for its signal stack is aborted by the standard library, whose backtrace, were it asked for, would
    // wait for ever for memory.
    let told = (3000..20_000).step_by(1000).any(|limit| {
        let limit = format!("ulimit -d {limit}; export RUST_BACKTRACE=0");
        let ended = run_limited(&place, &limit, "prepare experiment.toml");
        assert!(matches!(ended.code, None | Some(0 | 2)), "{:?}: {}", ended.code, ended.stderr);
        assert_eq!(ended.code == Some(2), ended.stderr.contains("error: "), "{}", ended.stderr);
        ended.stderr.contains("error: cannot start the threads")
    });
    assert!(told, "no limit lies between those of the program and of its threads");
}
