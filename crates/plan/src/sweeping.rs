//! `[sweep.sampler]`, and what it must find beside it.

use serde::de::DeserializeOwned;

use crate::document::{Entry, Node, Place, Table, quoted};
use crate::experiment::{Branch, FileReader};
use crate::space::{self, Sampler};
use crate::{PlanError, deserialize};

/// A key of the experiment's own `[sweep]`.
fn entry<'a>(root: &'a Table, key: &str) -> Option<&'a Entry> {
    root.get("sweep")?.as_table()?.entry(key)
}

/// Where a key of a table in `[sweep]` stands, or else the table.
fn place(table: &Entry, key: &str) -> Place {
    table.node.as_table().and_then(|table| table.get(key)).map_or(table.node.place, |node| node.place)
}

impl FileReader {
    /// Reads a value below `[sweep]`; a message for a table that is none says what it should hold.
    fn read_sweep<T: DeserializeOwned>(&self, node: &Node, key: &str, form: &str) -> Result<T, PlanError> {
        if !form.is_empty() && node.as_table().is_none() {
            return Err(self.fail(Some(node.place), format!("sweep.{key}"), format!("must be {form}, got {node}")));
        }
        deserialize::read(node).map_err(|error| {
            let below: String = error.path.iter().map(|key| format!(".{}", quoted(key))).collect();
            let message = error.message();
            self.fail(error.place.or(Some(node.place)), format!("sweep.{key}{below}"), message)
        })
    }

    pub(crate) fn sampler(&self, root: &Table) -> Result<Option<Sampler>, PlanError> {
        let Some(entry) = entry(root, "sampler") else { return Ok(None) };
        let form = "a table such as { kind = \"random\", configurations = 20 }";
        self.read_sweep(&entry.node, "sampler", form).map(Some)
    }

    /// A space needs a sampler and a sampler a space.
    pub(crate) fn check_spaces(
        &self,
        root: &Table,
        sampler: Option<&Sampler>,
        branches: &[Branch<'_>],
    ) -> Result<(), PlanError> {
        for branch in branches {
            let first = branch.sweep.space.first();
            match (sampler, first) {
                (None, None) => {}
                (None, Some(parameter)) => {
                    let message =
                        "needs a sampler: write [sweep.sampler] with kind (random or sobol) and configurations";
                    return Err(self.fail(Some(parameter.axis.place), "sweep.space", message));
                }
                (Some(_), None) => {
                    let of = branch.variant.map_or(String::new(), |variant| format!(" for variant {}", variant.key));
                    let message =
                        format!("has nothing to draw from{of}: write [sweep.space] with keys and their distributions");
                    return Err(self.fail(entry(root, "sampler").map(|entry| entry.place), "sweep.sampler", message));
                }
                (Some(sampler), Some(_)) => {
                    let fail = |key: &str, message: String| {
                        let place = entry(root, "sampler").map(|entry| place(entry, key));
                        self.fail(place, format!("sweep.sampler.{key}"), message)
                    };
                    space::check(sampler, &branch.sweep.space).map_err(|(key, message)| fail(key, message))?;
                }
            }
        }
        Ok(())
    }
}
