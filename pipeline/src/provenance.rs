//! By what, where and with what results are made.

use std::path::Path;

use store::Provenance;

/// Name of the processor, as the system gives it.
pub fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Words as a shell takes them.
pub fn words(words: impl Iterator<Item = String>) -> String {
    let quoted = words.map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%~".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The words that [`words`] made a text of.
pub fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\'' => quoted = !quoted,
            '\\' if !quoted => escaped = true,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.push(word);
    words
}

/// What was typed, quoted so that it can be typed again.
pub fn command() -> String {
    words(std::iter::once("pipeline".to_owned()).chain(std::env::args().skip(1)))
}

/// Of a run on this machine, whose steps run on `device`.
pub fn of_run(config: &str, device: &train::Device, threads: usize, data_fingerprint: &str) -> Provenance {
    Provenance {
        commit: env!("PIPELINE_COMMIT").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: device.description(),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpu: cpu(),
        command: command(),
        config: config.to_owned(),
        data_fingerprint: data_fingerprint.to_owned(),
    }
}

/// Name of this process among all that may work on one database, past ones included: its number, when it began and, where the system
/// tells, by whose count of processes.
pub fn process(started_ms: i64) -> String {
    format!("{}-{started_ms}-{}", std::process::id(), processes().unwrap_or_default())
}

/// Which boot and which space of process numbers this process lives in.
fn processes() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
    let digits: String = space.chars().filter(char::is_ascii_digit).collect();
    Some(format!("{}{digits}", boot.split('-').next()?))
}

/// Whether a worker's process has ended for certain, and not only gives no sign of life: it was one of this boot's and no longer is.
pub fn is_gone(worker: &str) -> bool {
    let mut parts = worker.split('-');
    let (number, place) = (parts.next(), parts.nth(1));
    match (number.and_then(|number| number.parse::<u32>().ok()), place, processes()) {
        (Some(number), Some(place), Some(here)) => place == here && !Path::new(&format!("/proc/{number}")).exists(),
        _ => false,
    }
}

/// Largest resident memory of this process so far, in bytes; 0 where the system does not tell.
pub fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_is_told_from_one_that_has_not() {
        let own = format!("{}-0", process(1));
        assert!(!is_gone(&own), "{own}");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let number = child.id();
        child.wait().unwrap();
        let other = own.replacen(&std::process::id().to_string(), &number.to_string(), 1);
        assert_eq!(is_gone(&other), processes().is_some(), "{other}");
        for unknown in ["", "worker", "7-1-0", "999999999-1-elsewhere-0"] {
            assert!(!is_gone(unknown), "{unknown}");
        }
    }

    #[test]
    fn quoted_words_come_back() {
        let all = ["plain", "", "two words", "it's", "a\\b", "x=\"y\"", "'", "λ=0.1"].map(str::to_owned);
        assert_eq!(split(&words(all.iter().cloned())), all);
    }
}
