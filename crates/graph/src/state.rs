//! Buffers that outlive a step: parameters, momenta, running statistics, inputs, hyperparameters and results.

use std::{
    fmt,
    sync::{
        Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use luminal::prelude::Data;

use crate::Buffer;

struct Inner {
    id: u64,
    name: String,
    shape: Vec<usize>,
    values: OnceLock<RwLock<Buffer>>,
    version: AtomicU64,
}

/// A named buffer shared by all graphs that read or write it. Cloning clones the handle, not the values.
///
/// Memory is taken (and zeroed) at first use, so that graphs can be built for planning alone.
#[derive(Clone)]
pub struct State(Arc<Inner>);

impl State {
    /// A buffer of zeros.
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            shape: shape.to_vec(),
            values: OnceLock::new(),
            version: AtomicU64::new(0),
        }))
    }

    /// Unique within the process.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The name it was made with, such as `conv1.weight`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Extent of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Number of values.
    pub fn elements(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// How often the values were given out for writing: whoever keeps a copy elsewhere sees by it that the copy is old. Exact while they
    /// are lent out, to read or to write.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Relaxed)
    }

    fn lock(&self) -> &RwLock<Buffer> {
        self.0.values.get_or_init(|| RwLock::new(Buffer::new(self.elements())))
    }

    /// Values for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, Buffer> {
        self.lock().read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Values for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, Buffer> {
        let values = self.lock().write().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Counted once they are ours: whoever has read values before knows them by the number before.
        self.0.version.fetch_add(1, Ordering::Relaxed);
        values
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} {:?})", self.name(), self.shape())
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Data for State {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
