//! Questions that are asked every day, with a name: `pipeline query best`.

use crate::{Store, StoreError, Table, Value};

/// A question with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedQuery {
    /// Its name.
    pub name: &'static str,
    /// What it answers, in one line.
    pub summary: &'static str,
    /// Its parameters, in order: `?1` first.
    pub parameters: &'static [Parameter],
    /// Its SQL.
    pub sql: &'static str,
}

/// A parameter of a [`NamedQuery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it stands for.
    pub description: &'static str,
    /// It must be given.
    pub required: bool,
}

const EXPERIMENT: Parameter =
    Parameter { name: "EXPERIMENT", description: "name of an experiment; all of them if left out", required: false };

const QUERIES: &[NamedQuery] = &[
    NamedQuery {
        name: "best",
        summary: "the best configuration of each network: chosen on the validation part, with its test results over the seeds",
        parameters: &[EXPERIMENT],
        sql: "\
SELECT experiment, network, settings, seeds, validation_top1_mean, test_top1_mean, test_top1_sd, test_loss_mean,
       train_seconds_mean, parameters
FROM best
WHERE ?1 IS NULL OR experiment = ?1
ORDER BY experiment, validation_top1_mean DESC NULLS LAST, network",
    },
    NamedQuery {
        name: "curve",
        summary: "the learning curve of a run, epoch by epoch",
        parameters: &[Parameter {
            name: "RUN",
            description: "number of a run, as `trials` lists them",
            required: true,
        }],
        sql: "\
SELECT epoch, learning_rate, train_loss, train_penalty, train_top1, validation_loss, validation_top1, validation_top5,
       images_per_second, epoch_seconds
FROM epochs
WHERE run_id = CAST(?1 AS INTEGER)
ORDER BY epoch",
    },
    NamedQuery {
        name: "compare",
        summary: "two networks, each in its best configuration (chosen on the validation part), side by side, and B minus A",
        parameters: &[
            Parameter {
                name: "A",
                description: "name of a variant or an architecture",
                required: true,
            },
            Parameter {
                name: "B",
                description: "name of another one",
                required: true,
            },
            EXPERIMENT,
        ],
        sql: "\
WITH a AS (SELECT * FROM comparison
           WHERE validation_rank = 1 AND (network = ?1 OR architecture = ?1) AND (?3 IS NULL OR experiment = ?3)),
     b AS (SELECT * FROM comparison
           WHERE validation_rank = 1 AND (network = ?2 OR architecture = ?2) AND (?3 IS NULL OR experiment = ?3)),
     pairs AS (SELECT a.experiment AS experiment, a.network AS network_a, b.network AS network_b, measure.*
               FROM a JOIN b ON b.experiment = a.experiment,
               json_each(json_array(
                   json_array('seeds', a.seeds, b.seeds),
                   json_array('validation_top1_mean', a.validation_top1_mean, b.validation_top1_mean),
                   json_array('test_top1_mean', a.test_top1_mean, b.test_top1_mean),
                   json_array('test_top1_sd', a.test_top1_sd, b.test_top1_sd),
                   json_array('test_top5_mean', a.test_top5_mean, b.test_top5_mean),
                   json_array('test_loss_mean', a.test_loss_mean, b.test_loss_mean),
                   json_array('generalization_gap', a.generalization_gap, b.generalization_gap),
                   json_array('train_seconds_mean', a.train_seconds_mean, b.train_seconds_mean),
                   json_array('parameters', a.parameters, b.parameters),
                   json_array('macs_per_image', a.macs_per_image, b.macs_per_image))) AS measure)
SELECT experiment, network_a, network_b, value ->> 0 AS measure, value ->> 1 AS a, value ->> 2 AS b,
       (value ->> 2) - (value ->> 1) AS difference
FROM pairs
ORDER BY experiment, network_a, network_b, key",
    },
    NamedQuery {
        name: "front",
        summary: "the configurations that no other of the experiment is better than in all objectives: those of sweep.objective, or validation accuracy and training time",
        parameters: &[EXPERIMENT],
        sql: "\
WITH several AS (SELECT experiment_id FROM objectives GROUP BY experiment_id HAVING count(*) > 1),
     aim AS MATERIALIZED (
         SELECT x.name AS experiment, o.measure FROM several JOIN objectives AS o USING (experiment_id) JOIN experiments AS x USING (experiment_id)
         UNION ALL
         SELECT x.name, m.value FROM experiments AS x, json_each('[\"validation_top1\", \"train_seconds\"]') AS m
         WHERE x.experiment_id NOT IN several),
     measured AS MATERIALIZED (SELECT * FROM comparison WHERE ?1 IS NULL OR experiment = ?1),
     place AS MATERIALIZED (
         SELECT c.experiment, c.network, c.configuration, a.measure,
                CASE a.measure
                    WHEN 'validation_top1' THEN 1 - c.validation_top1_mean
                    WHEN 'validation_loss' THEN c.validation_loss_mean
                    WHEN 'train_seconds' THEN c.train_seconds_mean
                    WHEN 'macs_per_image' THEN c.macs_per_image
                    ELSE c.parameters END AS low
         FROM measured AS c JOIN aim AS a ON a.experiment = c.experiment)
SELECT c.experiment, c.network, c.settings, c.seeds, c.validation_top1_mean, c.validation_loss_mean, c.train_seconds_mean,
       c.macs_per_image, c.parameters
FROM measured AS c
WHERE NOT EXISTS (
    SELECT 1 FROM place AS own JOIN place AS other ON other.experiment = own.experiment AND other.measure = own.measure
    WHERE own.experiment = c.experiment AND own.network = c.network AND own.configuration = c.configuration
    GROUP BY other.network, other.configuration
    HAVING min(coalesce(other.low, 9e999) <= coalesce(own.low, 9e999)) AND max(coalesce(other.low, 9e999) < coalesce(own.low, 9e999)))
ORDER BY c.experiment, c.validation_top1_mean DESC NULLS LAST, c.network",
    },
    NamedQuery {
        name: "trials",
        summary: "every trial in the order of the plan, with where it stands and what came of it",
        parameters: &[EXPERIMENT],
        sql: "\
SELECT experiment, label, run_id AS run, coalesce(status, 'queued') AS status, reused, epochs, tested_epoch, validation_top1,
       test_top1, test_loss, train_seconds
FROM results
WHERE ?1 IS NULL OR experiment = ?1
ORDER BY experiment, position",
    },
    NamedQuery {
        name: "failed",
        summary: "the trials that failed, and why",
        parameters: &[EXPERIMENT],
        sql: "\
SELECT experiment, label, run_id AS run, attempt, epochs,
       strftime('%Y-%m-%d %H:%M:%S', finished_ms / 1000, 'unixepoch') AS finished_utc, failure_kind, failure_message
FROM results
WHERE status = 'failed' AND (?1 IS NULL OR experiment = ?1)
ORDER BY experiment, position",
    },
];

/// All named queries.
pub fn all() -> &'static [NamedQuery] {
    QUERIES
}

/// The query of this name.
pub fn find(name: &str) -> Option<&'static NamedQuery> {
    QUERIES.iter().find(|query| query.name == name)
}

impl NamedQuery {
    /// Asks it. Arguments left out at the end are `Null`, where they may be.
    ///
    /// # Errors
    /// [`StoreError::Query`] where there are too few or too many arguments, which names the parameters.
    pub fn run(&self, store: &Store, arguments: &[&str]) -> Result<Table, StoreError> {
        let required = self.parameters.iter().filter(|parameter| parameter.required).count();
        if arguments.len() < required || arguments.len() > self.parameters.len() {
            return Err(StoreError::Query(format!("usage: {}", self.usage())));
        }
        let values: Vec<Value> = (0..self.parameters.len())
            .map(|index| arguments.get(index).map_or(Value::Null, |text| Value::from(*text)))
            .collect();
        store.query(self.sql, &values)
    }

    /// Its name and parameters, those that may be left out in brackets: `compare A B [EXPERIMENT]`.
    pub fn usage(&self) -> String {
        let mut usage = self.name.to_owned();
        for parameter in self.parameters {
            if parameter.required {
                usage.push_str(&format!(" {}", parameter.name));
            } else {
                usage.push_str(&format!(" [{}]", parameter.name));
            }
        }
        usage
    }
}
