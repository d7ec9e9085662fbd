//! Golden vectors from PyTorch: `tests/golden/*.safetensors`.

use std::{collections::HashMap, path::PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

pub struct Golden {
    tensors: HashMap<String, Tensor>,
    pub cases: Vec<Value>,
}

impl Golden {
    pub fn open(file: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(file);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let cases = &metadata.metadata().as_ref().expect("metadata")["cases"];
        let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let tensors = tensors.tensors().into_iter().map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            (name, Tensor { shape: view.shape().to_vec(), values })
        });
        Self { tensors: tensors.collect(), cases: serde_json::from_str(cases).expect("cases are JSON") }
    }

    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub fn tensor(&self, name: &str) -> &Tensor {
        self.find(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    /// What comes after `prefix` in the names of the tensors that start with it, sorted.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<_> = self.tensors.keys().filter_map(|k| k.strip_prefix(prefix)).map(str::to_owned).collect();
        names.sort();
        names
    }
}

pub fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("{key} of {case} is a string"))
}

pub fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("{key} of {case} is a number"))
}

/// Largest |got − expected| as a share of what is allowed: `relative` × largest |expected| + `absolute`. NaN counts as infinite.
pub fn share(got: &[f64], expected: &[f64], relative: f64, absolute: f64) -> f64 {
    assert_eq!(got.len(), expected.len(), "number of values");
    let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let allowed = relative * largest + absolute;
    let worst = got.iter().zip(expected).map(|(g, e)| (g - e).abs());
    worst.map(|d| if d.is_nan() { f64::INFINITY } else { d / allowed }).fold(0.0, f64::max)
}

/// Compares a tensor as a whole; returns the share of the tolerance that it took.
pub fn assert_close(what: &str, got: &[f64], expected: &[f64], relative: f64, absolute: f64) -> f64 {
    let share = share(got, expected, relative, absolute);
    if share > 1.0 {
        let worst = (0..got.len()).max_by(|&a, &b| {
            let error = |i: usize| (got[i] - expected[i]).abs();
            error(a).total_cmp(&error(b))
        });
        let i = worst.expect("there is a value");
        panic!("{what}: {share:.3} times the tolerance; worst at {i}: got {}, expected {}", got[i], expected[i]);
    }
    share
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}
