//! Public data sets: which one an experiment means, and how its files come here.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use download::{Event, Options, PublicSet};
use plan::{Dataset, Experiment, Source};

use crate::{
    cli::Global,
    output::{self, bytes},
    progress,
};

/// Names of all sets, for messages.
pub fn names() -> String {
    download::all().iter().map(|set| set.name).collect::<Vec<_>>().join(", ")
}

fn source(set: &PublicSet<'_>) -> Source {
    if set.files[0].name.ends_with(".tar.gz") { Source::Cifar } else { Source::Idx }
}

/// What `dataset.path` must be for a set whose files lie in `folder`: the folder of IDX files, or the one archive.
fn dataset_path(set: &PublicSet<'_>, folder: &Path) -> PathBuf {
    match source(set) {
        Source::Cifar => folder.join(set.files[0].name),
        _ => folder.to_path_buf(),
    }
}

/// An experiment about nothing but a public set.
pub fn experiment(set: &PublicSet<'_>, folder: Option<&Path>, overrides: &[String]) -> anyhow::Result<Experiment> {
    let folder = folder.map_or_else(|| Path::new("data").join(set.name), Path::to_path_buf);
    let path = dataset_path(set, &folder);
    let path = path.to_str().with_context(|| format!("--to {}: must be Unicode", folder.display()))?;
    let source = serde_json::to_string(&source(set))?;
    let text = format!("[dataset]\nsource = {source}\npath = {}\n", serde_json::to_string(path)?);
    Ok(Experiment::parse(&text, set.name, overrides)?)
}

/// The set that a file or a name on the command line asks for, and the folder of its files.
///
/// # Errors
/// As [`meant`], and a public set's name with settings of another one.
pub fn asked(file: &Path, settings: &Dataset) -> anyhow::Result<(&'static PublicSet<'static>, PathBuf)> {
    let Some(set) = file.to_str().filter(|_| !file.is_file()).and_then(download::find) else { return meant(settings) };
    match &settings.path {
        Some(path) if settings.source == source(set) => match source(set) {
            Source::Cifar if path.file_name().is_none_or(|name| name != set.files[0].name) => {
                bail!("dataset.path: must end in {}, the archive of {}", set.files[0].name, set.title)
            }
            Source::Cifar => Ok((set, path.parent().unwrap_or(Path::new("")).to_path_buf())),
            _ => Ok((set, path.clone())),
        },
        _ => bail!("dataset.source: must be {} for {}", serde_json::to_string(&source(set))?, set.title),
    }
}

/// The set whose files belong at `dataset.path`, as the path's last name says, and the folder of the files.
///
/// # Errors
/// No public set goes there; the message says what would be right.
fn meant(settings: &Dataset) -> anyhow::Result<(&'static PublicSet<'static>, PathBuf)> {
    let Some(path) = settings.path.as_deref().filter(|_| settings.source != Source::Glyphs) else {
        bail!("dataset.source: glyphs are drawn by the program; there is nothing to download");
    };
    let last = path.file_name().unwrap_or_default().to_string_lossy();
    let mut fitting = download::all().iter().filter(|set| source(set) == settings.source);
    match settings.source {
        Source::Idx => match download::find(&last).filter(|set| source(set) == Source::Idx) {
            Some(set) => Ok((set, path.to_path_buf())),
            None => bail!(
                "dataset.path: {} does not say which data set belongs there; call the folder mnist or fashion-mnist, or \
                 fetch it by name: pipeline prepare mnist --download --to {}",
                path.display(),
                path.display()
            ),
        },
        Source::Cifar => match fitting.find(|set| set.files[0].name == last) {
            Some(set) => Ok((set, path.parent().unwrap_or(Path::new("")).to_path_buf())),
            None => bail!(
                "dataset.path: must name the archive that is to be downloaded, such as {}",
                path.with_file_name("cifar-10-binary.tar.gz").display()
            ),
        },
        Source::Glyphs | Source::Images | Source::Imagenet => {
            bail!("dataset.source: images have no public source that this program knows; it knows {}", names())
        }
    }
}

/// Fetches what is missing of a set in `folder`, with progress.
pub fn fetch(set: &PublicSet<'_>, folder: &Path, base_url: Option<&str>, global: &Global) -> anyhow::Result<()> {
    let say = |text: &str| {
        if !global.quiet {
            output::tell(text);
        }
    };
    let mut bar: Option<indicatif::ProgressBar> = None;
    let clear = |bar: &mut Option<indicatif::ProgressBar>| {
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
    };
    let options = Options { base_url, ..Options::default() };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let fetched = download::fetch(set, folder, &options, &mut |event| match event {
        Event::Waiting { folder } => {
            say(&format!("another process downloads into {}: waiting for it", folder.display()))
        }
        Event::Present { path } => say(&format!("{} is there already, and is {}'s", path.display(), set.title)),
        Event::Started { url, done, total } => {
            clear(&mut bar);
            let kept = if done > 0 { format!(", from byte {done} on") } else { String::new() };
            say(&format!("fetching {url} ({}{kept})", bytes(usize::try_from(total).unwrap_or(usize::MAX))));
            let new = progress::bar(global.quiet, total, set.title, true);
            new.set_position(done);
            // What came before says nothing about the rate.
            new.reset_eta();
            bar = Some(new);
        }
        Event::Progress { done, .. } => {
            if let Some(bar) = &bar {
                bar.set_position(done);
            }
        }
        Event::Retrying { url, reason, pause } => {
            clear(&mut bar);
            let again = match pause.as_secs() {
                0 => String::new(),
                seconds => format!("; trying again in {seconds} s"),
            };
            say(&format!("{url}: {reason}{again}"));
        }
        Event::Finished { .. } => clear(&mut bar),
        _ => {}
    });
    clear(&mut bar);
    match fetched {
        Ok(_) => Ok(()),
        Err(error) if error.blames_the_mirror() => bail!("{error}; --base-url URL names another mirror"),
        Err(error) => Err(error.into()),
    }
}
