//! Building the emulated driver.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use lowering::cuda::Libraries;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/emulator").canonicalize().expect("the emulator's sources")
}

/// Where the emulated driver and the kernels that it compiles are kept: kernels stay for the next run.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    std::fs::create_dir_all(&folder).expect("a folder for the emulator");
    folder
}

fn compiler() -> String {
    std::env::var("CXX").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "c++".to_owned())
}

/// Compiles a C++ source into a shared library; none where there is no C++ compiler.
pub fn shared_library(source: &Path, library: &Path, options: &[String]) -> Option<()> {
    let own = library.with_extension(format!("{}.so", std::process::id()));
    let mut command = Command::new(compiler());
    command.args(["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-o"]);
    let output = command.arg(&own).arg(source).args(options).arg("-ldl").output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(own, library).expect("a library in its place");
    Some(())
}

/// The emulated driver, built once.
fn built() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            // It switches threads of a block as glibc does.
            if !cfg!(all(target_os = "linux", target_env = "gnu")) {
                return None;
            }
            let library = folder().join("libemulated.so");
            let header = format!("-DKERNEL_H=\"{}\"", sources().join("kernel.h").display());
            shared_library(&sources().join("driver.cpp"), &library, &[header]).map(|()| library)
        })
        .as_deref()
}

fn only(library: &Path) -> Libraries {
    let name = vec![library.display().to_string()];
    Libraries { driver: name.clone(), nvrtc: name }
}

/// The emulated driver and NVRTC; none, said aloud, where there is no C++ compiler.
pub fn libraries(what: &str) -> Option<Libraries> {
    let library = built();
    if library.is_none() {
        println!(
            "SKIPPED: {what}: there is no C++ compiler ({}) to compile kernels for the host, or no glibc",
            compiler()
        );
    }
    library.map(only)
}

/// A copy of it with faults of its own, as `tests/emulator/driver.cpp` lists them.
pub fn with_faults(what: &str, faults: &str) -> Option<Libraries> {
    libraries(what)?;
    let library = folder().join(format!("lib{}.so", what.replace(' ', "_")));
    // Never over a library that another process has mapped.
    let own = library.with_extension(format!("{}.so", std::process::id()));
    std::fs::copy(built()?, &own).expect("a copy of the emulator");
    std::fs::rename(&own, &library).expect("a copy in its place");
    std::fs::write(format!("{}.faults", library.display()), faults).expect("its faults");
    Some(only(&library))
}

/// A library that is no driver.
pub fn empty_library() -> Option<PathBuf> {
    let (source, library) = (folder().join("empty.cpp"), folder().join("libempty.so"));
    std::fs::write(&source, "extern \"C\" int nothing() { return 0; }\n").expect("a source");
    shared_library(&source, &library, &[]).map(|()| library)
}
