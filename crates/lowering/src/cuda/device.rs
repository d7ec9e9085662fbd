//! The GPU that is found, or why none is used.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    cache::Cache,
    error::{CudaError, Failure, LEAST_DRIVER},
    library::{Context, Driver, Module, Nvrtc},
};
use crate::Precision;

/// Where the libraries are looked for: names that the system's loader resolves, or paths, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libraries {
    /// The driver.
    pub driver: Vec<String>,
    /// NVRTC.
    pub nvrtc: Vec<String>,
}

impl Default for Libraries {
    /// What `PIPELINE_CUDA_DRIVER` and `PIPELINE_NVRTC` name; else CUDA 13 before CUDA 12, wherever the loader looks.
    fn default() -> Self {
        let named = |variable: &str, usual: &[&str]| match std::env::var(variable) {
            Ok(path) if !path.is_empty() => vec![path],
            _ => usual.iter().map(|&name| name.to_owned()).collect(),
        };
        let nvrtc = [
            "libnvrtc.so.13",
            "libnvrtc.so.12",
            "libnvrtc.so",
            "/usr/local/cuda/lib64/libnvrtc.so",
            "nvrtc64_130_0.dll",
            "nvrtc64_120_0.dll",
        ];
        let unix = |name: &&&str| cfg!(windows) == name.ends_with(".dll");
        let nvrtc: Vec<&str> = nvrtc.iter().filter(unix).copied().collect();
        let driver: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };
        Self { driver: named("PIPELINE_CUDA_DRIVER", driver), nvrtc: named("PIPELINE_NVRTC", &nvrtc) }
    }
}

/// A GPU, ready for programs: shared by all threads of the process.
pub struct Device {
    pub(crate) driver: Driver,
    nvrtc: Nvrtc,
    context: Context,
    /// What it is called.
    pub name: String,
    /// Its compute capability, as (major, minor).
    pub capability: (i32, i32),
    /// All its memory, in bytes.
    pub memory_bytes: usize,
    /// CUDA version that the driver serves, as (major, minor).
    pub driver_version: (i32, i32),
    /// What kernels are compiled for.
    architecture: String,
    /// What NVRTC made of each source.
    compiled: Mutex<HashMap<String, Image>>,
    /// Where that is kept for other processes.
    cache: OnceLock<Cache>,
    lost: AtomicBool,
}

/// What the driver loads.
#[derive(Clone)]
struct Image {
    bytes: Arc<Vec<u8>>,
    /// Whether another process may have made it.
    kept: bool,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.name)
    }
}

/// One thing that was looked for, for `pipeline device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What: `driver`, `NVRTC`, `GPU` …
    pub what: &'static str,
    /// What was found, or why it is refused.
    pub found: String,
    /// Whether it can be used.
    pub usable: bool,
}

/// Numbers of attributes in `cuda.h`.
const CAPABILITY_MAJOR: i32 = 75;
const CAPABILITY_MINOR: i32 = 76;

impl Device {
    /// The first GPU that the driver shows (`CUDA_VISIBLE_DEVICES` chooses).
    ///
    /// # Errors
    /// Says what is missing, and what would be right.
    pub fn open(libraries: &Libraries) -> Result<Arc<Self>, CudaError> {
        let driver = Driver::load(&libraries.driver)?;
        let driver_version = driver.version()?;
        if driver_version < LEAST_DRIVER {
            return Err(CudaError::OldDriver { found: driver_version });
        }
        if driver.device_count()? == 0 {
            return Err(CudaError::NoDevice);
        }
        let device = driver.device(0)?;
        let name = driver.device_name(device)?;
        let capability = capability(&driver, device)?;
        let nvrtc = Nvrtc::load(&libraries.nvrtc, driver_version.0, |nvrtc| unsupported(nvrtc, &name, capability))?;
        let architecture = architecture(&nvrtc.architectures, capability).expect("NVRTC knows the device");
        let context = driver.retain(device).map_err(|failure| match failure.status {
            IN_USE => CudaError::Busy { name: name.clone() },
            _ => failure.into(),
        })?;
        Ok(Arc::new(Self {
            memory_bytes: driver.device_memory_bytes(device)?,
            driver,
            nvrtc,
            context,
            name,
            capability,
            driver_version,
            architecture,
            compiled: Mutex::default(),
            cache: OnceLock::new(),
            lost: AtomicBool::new(false),
        }))
    }

    /// All that was looked for, step by step; the last one says why there is no GPU, if there is none.
    pub fn survey(libraries: &Libraries) -> Vec<Finding> {
        let fine = |what, found: String| Finding { what, found, usable: true };
        let refused = |what, error: CudaError| Finding { what, found: error.to_string(), usable: false };
        let mut findings = Vec::new();
        let driver = match Driver::load(&libraries.driver) {
            Ok(driver) => driver,
            Err(error) => return vec![refused("driver", error)],
        };
        let version = driver.version();
        match version.clone() {
            Ok(version) if version < LEAST_DRIVER => {
                findings.push(refused("driver", CudaError::OldDriver { found: version }));
            }
            Ok((major, minor)) => findings.push(fine("driver", format!("{}, CUDA {major}.{minor}", driver.library))),
            Err(failure) => findings.push(refused("driver", failure.into())),
        }
        let first = || {
            let device = driver.device(0).ok()?;
            Some((driver.device_name(device).ok()?, capability(&driver, device).ok()?))
        };
        let first = first();
        let refuse = |nvrtc: &Nvrtc| first.as_ref().and_then(|(name, own)| unsupported(nvrtc, name, *own));
        let works = |nvrtc: Nvrtc| {
            let own = first.as_ref().and_then(|(_, own)| architecture(&nvrtc.architectures, *own));
            if let Some(architecture) = own {
                nvrtc.compile("extern \"C\" __global__ void __launch_bounds__(32) nothing() {}", &architecture)?;
            }
            Ok(nvrtc)
        };
        match Nvrtc::load(&libraries.nvrtc, version.map_or(i32::MAX, |version| version.0), refuse).and_then(works) {
            Ok(nvrtc) => {
                let (major, minor) = nvrtc.version;
                findings.push(fine("NVRTC", format!("{}, {major}.{minor}", nvrtc.library)));
            }
            Err(error) => findings.push(refused("NVRTC", error)),
        }
        let gpus = driver.device_count().and_then(|count| {
            let gpu = |ordinal| {
                let device = driver.device(ordinal)?;
                let (major, minor) = capability(&driver, device)?;
                let gigabytes = driver.device_memory_bytes(device)? as f64 / 1e9;
                let name = driver.device_name(device)?;
                let served = Precision::ALL.into_iter().filter(|precision| precision.is_served((major, minor)));
                let precisions = served.map(|precision| precision.to_string()).collect::<Vec<_>>().join(", ");
                Ok(format!("{name}, {gigabytes:.1} GB, compute capability {major}.{minor}, precisions {precisions}"))
            };
            (0..count).map(gpu).collect::<Result<Vec<_>, Failure>>()
        });
        match gpus {
            Ok(gpus) if gpus.is_empty() => findings.push(refused("GPU", CudaError::NoDevice)),
            Ok(gpus) => findings.extend(gpus.into_iter().map(|gpu| fine("GPU", gpu))),
            Err(failure) => findings.push(refused("GPU", failure.into())),
        }
        findings
    }

    /// What provenance says of it: name, compute capability and versions.
    pub fn description(&self) -> String {
        let ((major, minor), driver, nvrtc) = (self.capability, self.driver_version, self.nvrtc.version);
        format!(
            "cuda: {} (compute capability {major}.{minor}, driver CUDA {}.{}, NVRTC {}.{})",
            self.name, driver.0, driver.1, nvrtc.0, nvrtc.1
        )
    }

    /// Whether it can do products in this precision.
    ///
    /// # Errors
    /// Says which compute capability is needed.
    pub fn serve(&self, precision: Precision) -> Result<(), CudaError> {
        if precision.is_served(self.capability) {
            return Ok(());
        }
        Err(CudaError::Precision { name: self.name.clone(), capability: self.capability, precision })
    }

    /// Whether a call has told that the device is gone for this process.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Notes a loss on the way.
    pub(crate) fn note<T, E: Into<CudaError>>(&self, result: Result<T, E>) -> Result<T, CudaError> {
        result.map_err(|error| {
            let error = error.into();
            if matches!(error, CudaError::Lost(_)) {
                self.lost.store(true, Ordering::SeqCst);
            }
            // Kernels, recordings and streams take memory too.
            match error {
                CudaError::Call(failure) if failure.is_out_of_memory() => self.out_of_memory(None),
                error => error,
            }
        })
    }

    /// Makes the device this thread's current one.
    pub(crate) fn bind(&self) -> Result<(), CudaError> {
        self.note(self.driver.bind(self.context))
    }

    /// Memory in bytes, zeroed or not; says how much is free where it is too much.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<super::library::Allocation, CudaError> {
        self.note(self.driver.allocate(bytes).map_err(|failure| {
            if failure.is_out_of_memory() { self.out_of_memory(Some(bytes)) } else { failure.into() }
        }))
    }

    fn out_of_memory(&self, wanted_bytes: Option<usize>) -> CudaError {
        let (free_bytes, total_bytes) = self.driver.memory_info().unwrap_or((0, self.memory_bytes));
        CudaError::OutOfMemory { wanted_bytes, free_bytes, total_bytes }
    }

    /// From now on keeps compiled kernels in this folder, and takes them from there. The first folder that is named stays.
    pub fn keep_kernels(&self, folder: &Path) {
        self.cache.get_or_init(|| Cache::new(folder));
    }

    /// The kernels of a source; the same source is compiled once in a process.
    pub(crate) fn load(&self, source: &str) -> Result<Module, CudaError> {
        self.bind()?;
        let known = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned();
        let image = match known {
            Some(image) => image,
            None => self.image(source, true)?,
        };
        match self.note(self.driver.load_module(&image.bytes)) {
            // It is whole, but not what this driver takes: a library with NVRTC's version that is not NVRTC.
            Err(CudaError::Call(_)) if image.kept => {
                self.note(self.driver.load_module(&self.image(source, false)?.bytes))
            }
            loaded => loaded,
        }
    }

    /// What the driver loads for a source: from the cache if it is there and `kept` may be taken, else compiled.
    fn image(&self, source: &str, kept: bool) -> Result<Image, CudaError> {
        let cache = self
            .cache
            .get()
            .map(|cache| (cache, Cache::key(source, &Nvrtc::options(&self.architecture), self.nvrtc.version)));
        let found = cache.as_ref().filter(|_| kept).and_then(|(cache, key)| cache.get(key));
        let image = match found {
            Some(bytes) => Image { bytes: Arc::new(bytes), kept: true },
            None => {
                let (bytes, _) = self.nvrtc.compile(source, &self.architecture)?;
                if let Some((cache, key)) = &cache {
                    cache.put(key, &bytes);
                }
                Image { bytes: Arc::new(bytes), kept: false }
            }
        };
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.insert(source.to_owned(), image.clone());
        Ok(image)
    }
}

/// Status of the driver for "invalid device", with which it refuses one that another process has for itself alone, and "unavailable".
const IN_USE: i32 = 46;

fn capability(driver: &Driver, device: i32) -> Result<(i32, i32), Failure> {
    let attribute = |number| driver.device_attribute(number, device);
    Ok((attribute(CAPABILITY_MAJOR)?, attribute(CAPABILITY_MINOR)?))
}

/// Why NVRTC is of no use for a device, if it is not.
fn unsupported(nvrtc: &Nvrtc, name: &str, capability: (i32, i32)) -> Option<CudaError> {
    let least = nvrtc.architectures.first().map_or_else(String::new, |a| format!("{}.{}", a / 10, a % 10));
    architecture(&nvrtc.architectures, capability).is_none().then(|| CudaError::Unsupported {
        name: name.to_owned(),
        capability,
        version: nvrtc.version,
        least,
    })
}

/// Systems on a chip, whose code other devices need not take, nor they that of others.
const TEGRA: [i32; 6] = [53, 62, 72, 87, 101, 110];

/// The best that NVRTC has for a device: code of the device's own generation, else PTX of an earlier one, which the driver compiles.
fn architecture(known: &[i32], capability: (i32, i32)) -> Option<String> {
    let own = capability.0 * 10 + capability.1;
    let fits = |&architecture: &i32| architecture == own || architecture < own && !TEGRA.contains(&architecture);
    let best = known.iter().copied().filter(fits).max()?;
    let same = best == own || best / 10 == capability.0 && !TEGRA.contains(&own);
    Some(format!("{}_{best}", if same { "sm" } else { "compute" }))
}

/// Architectures that the first NVRTC of these compiles for, such as 90, in order. No device is needed.
///
/// # Errors
/// Where there is no NVRTC.
pub fn architectures(libraries: &Libraries) -> Result<Vec<i32>, CudaError> {
    Ok(Nvrtc::load(&libraries.nvrtc, i32::MAX, |_| None)?.architectures)
}

/// Compiles a source for an architecture such as `sm_80` without any device; gives the log, which is empty if nothing was to be said.
///
/// # Errors
/// Where there is no NVRTC, or the source does not compile.
pub fn compile_only(libraries: &Libraries, sources: &[String], architecture: &str) -> Result<Vec<String>, CudaError> {
    let nvrtc = Nvrtc::load(&libraries.nvrtc, i32::MAX, |_| None)?;
    sources.iter().map(|source| Ok(nvrtc.compile(source, architecture)?.1)).collect()
}

#[cfg(test)]
mod tests {
    use super::architecture;

    #[test]
    fn code_is_for_the_device_or_for_the_driver_to_compile() {
        let known = [75, 80, 86, 90, 100, 120];
        let best = |major, minor| architecture(&known, (major, minor));
        assert_eq!(best(7, 5).as_deref(), Some("sm_75"));
        assert_eq!(best(8, 9).as_deref(), Some("sm_86"));
        assert_eq!(best(9, 0).as_deref(), Some("sm_90"));
        assert_eq!(best(11, 0).as_deref(), Some("compute_100"));
        assert_eq!(best(13, 0).as_deref(), Some("compute_120"));
        assert_eq!(best(7, 0), None);
        let known = [80, 87, 100, 101, 120];
        let best = |major, minor| architecture(&known, (major, minor));
        assert_eq!(best(8, 9).as_deref(), Some("sm_80"));
        assert_eq!(best(8, 7).as_deref(), Some("sm_87"));
        assert_eq!(best(10, 3).as_deref(), Some("sm_100"));
        assert_eq!(best(11, 0).as_deref(), Some("compute_100"));
    }
}
