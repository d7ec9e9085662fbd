-- The results of experiments: what was planned, what was run, and what came out.
--
-- This file is also the description of the tables: `pipeline query --schema` prints the comment behind each column, which says
-- its [unit] first. Append-only: what is applied is never edited; a change is a new file beside this one.
-- A view's column without a comment means what the table's column of that name means.

PRAGMA application_id = 1885958252; -- "pipl", so that a database of something else is told apart

-- What was asked: one row per experiment file, by its name.
CREATE TABLE experiments (
    experiment_id INTEGER PRIMARY KEY, -- [id] number of the experiment in this file
    name          TEXT NOT NULL UNIQUE CHECK (name <> ''), -- [name] name of the experiment
    question      TEXT NOT NULL, -- [text] the question it is to answer; empty: none was given
    file          TEXT NOT NULL, -- [path] experiment file as it was named on the command line
    config_toml   TEXT NOT NULL, -- [TOML] text of the experiment file, the last time it was planned
    command       TEXT NOT NULL, -- [text] command line that planned it last
    created_ms    INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when it was planned first
    updated_ms    INTEGER NOT NULL -- [ms since 1970-01-01 UTC] when it was planned last
) STRICT;

-- What can be run: a complete specification of a network, its training and its data, with a seed. Experiments share trials.
CREATE TABLE trials (
    identity         TEXT PRIMARY KEY, -- [hash] hash of the canonical specification with its seed and the data set's fingerprint
    configuration    TEXT NOT NULL, -- [hash] the same hash without the seed: trials that differ in the seed only share it
    canonical        TEXT NOT NULL CHECK (json_valid(canonical)), -- [JSON] canonical specification: all settings and the seed
    seed             INTEGER NOT NULL, -- [integer] seed of weights, order, augmentation and dropout
    architecture     TEXT NOT NULL, -- [name] family of the network
    parameters       INTEGER NOT NULL, -- [count] trainable parameters
    macs_per_image   INTEGER NOT NULL, -- [count] multiply-accumulate operations of one forward pass of one image
    data_fingerprint TEXT NOT NULL, -- [hash] hash of the prepared data set
    created_ms       INTEGER NOT NULL -- [ms since 1970-01-01 UTC] when it was planned first
) STRICT, WITHOUT ROWID;

CREATE INDEX trials_by_configuration ON trials (configuration);

-- Which trials an experiment consists of.
CREATE TABLE experiment_trials (
    experiment_id INTEGER NOT NULL REFERENCES experiments ON DELETE CASCADE, -- [id] the experiment
    identity      TEXT NOT NULL REFERENCES trials, -- [hash] the trial
    position      INTEGER, -- [index] place in the plan, from 0; NULL: was planned under this name once and no longer is
    label         TEXT NOT NULL, -- [text] short name of the trial for people
    variant       TEXT, -- [name] named variant that it belongs to; NULL: the experiment has none
    PRIMARY KEY (experiment_id, identity)
) STRICT, WITHOUT ROWID;

CREATE INDEX experiment_trials_by_position ON experiment_trials (experiment_id, position);
CREATE INDEX experiment_trials_by_identity ON experiment_trials (identity);

-- The values of the keys that an experiment varies, for each of its trials.
CREATE TABLE assignments (
    experiment_id INTEGER NOT NULL, -- [id] the experiment
    identity      TEXT NOT NULL, -- [hash] the trial
    key           TEXT NOT NULL, -- [key path] key of the experiment file, such as train.weight_decay
    value         TEXT NOT NULL CHECK (json_valid(value)), -- [JSON] its value in this trial, in the key's own unit
    PRIMARY KEY (experiment_id, identity, key),
    FOREIGN KEY (experiment_id, identity) REFERENCES experiment_trials ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Attempts at trials. Results are never edited: running a trial again adds an attempt.
CREATE TABLE runs (
    run_id            INTEGER PRIMARY KEY AUTOINCREMENT, -- [id] number of the run in this file
    experiment_id     INTEGER REFERENCES experiments ON DELETE SET NULL, -- [id] experiment on whose behalf it was started
    identity          TEXT NOT NULL REFERENCES trials, -- [hash] the trial
    attempt           INTEGER NOT NULL CHECK (attempt >= 1), -- [count] which attempt at the trial this is, from 1
    status            TEXT NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'interrupted')), -- [name] queued: asked for again; running: a worker has it (dead if its lease is over); done; failed; interrupted: stopped, can go on
    worker            TEXT, -- [name] worker that has it, or had it last
    lease_until_ms    INTEGER, -- [ms since 1970-01-01 UTC] until when the worker may be thought alive without a sign of life; NULL: not running
    claims            INTEGER NOT NULL, -- [count] how often a worker took it up; more than 1: it was interrupted and continued
    queued_ms         INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when the run was made
    started_ms        INTEGER, -- [ms since 1970-01-01 UTC] when a worker took it up first
    finished_ms       INTEGER, -- [ms since 1970-01-01 UTC] when it was done, failed or interrupted
    checkpoint_epoch  INTEGER, -- [epochs] epochs that were complete when the newest checkpoint was written; NULL: none was
    checkpoint        TEXT, -- [path] the newest checkpoint while it runs, the weights of the tested epoch when it is done
    tested_epoch        INTEGER, -- [epoch] epoch whose weights were tested: the last; from 1
    train_seconds     REAL, -- [s] wall-clock time of training and validation, without preparation and test
    peak_memory_bytes INTEGER, -- [bytes] largest resident memory of the process
    failure_kind      TEXT, -- [name] what kind of failure it was: not-finite, panic, memory, time, io, ...
    failure_message   TEXT, -- [text] what went wrong
    UNIQUE (identity, attempt)
) STRICT;

-- Provenance: each time a worker took up a run, by what program, where and with what. One row for a run that was never interrupted.
CREATE TABLE claims (
    run_id           INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, -- [id] the run
    claim            INTEGER NOT NULL CHECK (claim >= 1), -- [count] which claim on the run this is, from 1
    claimed_ms       INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when the worker took it up
    worker           TEXT NOT NULL, -- [name] the worker
    from_epoch       INTEGER NOT NULL, -- [epochs] epochs that were complete in the checkpoint then; 0: from the start
    commit_hash      TEXT NOT NULL, -- [hash] Git commit that the program was built from
    version          TEXT NOT NULL, -- [version] version of the program
    device           TEXT NOT NULL, -- [name] device that the network ran on
    threads          INTEGER NOT NULL, -- [count] threads of the training step
    os               TEXT NOT NULL, -- [name] operating system
    cpu              TEXT NOT NULL, -- [name] processor
    command          TEXT NOT NULL, -- [text] command line that makes the run again
    config           TEXT NOT NULL, -- [text] experiment file and overrides as they were
    data_fingerprint TEXT NOT NULL, -- [hash] hash of the prepared data set that was read
    PRIMARY KEY (run_id, claim)
) STRICT, WITHOUT ROWID;

-- What each epoch of training came to. A measure that is not a number is NULL.
CREATE TABLE epochs (
    run_id            INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, -- [id] the run
    epoch             INTEGER NOT NULL CHECK (epoch >= 1), -- [epoch] the epoch, from 1
    learning_rate     REAL, -- [per step] learning rate of the last step of the epoch
    train_loss        REAL, -- [nats per image] mean cross-entropy over the training part, as trained: augmented, with dropout; without the L2 term
    train_penalty     REAL, -- [nats] L2 term λ/2·Σw² at the end of the epoch
    train_top1        REAL, -- [fraction] training images whose most probable class was right, as trained
    train_top5        REAL, -- [fraction] training images with the right class among the five most probable ones, as trained
    validation_loss   REAL, -- [nats per image] mean cross-entropy over the validation part; NULL: there is none
    validation_top1   REAL, -- [fraction] validation images whose most probable class was right
    validation_top5   REAL, -- [fraction] validation images with the right class among the five most probable ones
    images_per_second REAL, -- [1/s] training images per second
    epoch_seconds     REAL, -- [s] wall-clock time of the epoch, validation included
    steps             INTEGER NOT NULL, -- [count] updates of the weights in the epoch
    recorded_ms       INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when the row was written
    PRIMARY KEY (run_id, epoch)
) STRICT, WITHOUT ROWID;

-- What the trained network came to on a part of the data. The test part is read once, at the end.
CREATE TABLE evaluations (
    run_id      INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, -- [id] the run
    split       TEXT NOT NULL CHECK (split IN ('train', 'validation', 'test')), -- [name] the part: train, validation or test
    epoch       INTEGER NOT NULL, -- [epoch] epoch whose weights were evaluated, from 1
    loss        REAL, -- [nats per image] mean cross-entropy, without the L2 term
    top1        REAL, -- [fraction] images whose most probable class was right
    top5        REAL, -- [fraction] images with the right class among the five most probable ones
    images      INTEGER NOT NULL, -- [count] images evaluated
    seconds     REAL, -- [s] wall-clock time of the evaluation
    recorded_ms INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when the row was written
    PRIMARY KEY (run_id, split)
) STRICT, WITHOUT ROWID;

-- The most probable class of every image of a part, for paired tests and confusion matrices.
CREATE TABLE predictions (
    run_id  INTEGER NOT NULL, -- [id] the run
    split   TEXT NOT NULL, -- [name] the part: train, validation or test
    classes BLOB NOT NULL, -- [class index] one 16-bit unsigned little-endian integer per image, in the order of the part
    PRIMARY KEY (run_id, split),
    FOREIGN KEY (run_id, split) REFERENCES evaluations ON DELETE CASCADE
) STRICT;

-- Every planned trial of every experiment with the run that stands for it: the newest one that is done, else the newest one.
CREATE VIEW results (
    experiment_id,
    experiment, -- TEXT [name] name of the experiment
    identity,
    configuration,
    position,
    label,
    variant,
    architecture,
    network, -- TEXT [name] the variant, or the architecture where there are no variants
    seed,
    parameters,
    macs_per_image,
    settings, -- TEXT [JSON] object of the varied keys and their values
    run_id,
    attempt,
    attempts, -- INTEGER [count] attempts at the trial so far
    status,
    reused, -- INTEGER [0 or 1] 1: run on behalf of another experiment
    epochs, -- INTEGER [epochs] epochs recorded so far
    tested_epoch,
    train_loss,
    train_top1,
    validation_loss,
    validation_top1,
    validation_top5,
    test_loss, -- REAL [nats per image] mean cross-entropy over the test part, without the L2 term
    test_top1, -- REAL [fraction] test images whose most probable class was right
    test_top5, -- REAL [fraction] test images with the right class among the five most probable ones
    test_images, -- INTEGER [count] images of the test part
    train_seconds,
    test_seconds, -- REAL [s] wall-clock time of the test
    peak_memory_bytes,
    queued_ms,
    started_ms,
    finished_ms,
    worker,
    claims,
    checkpoint_epoch,
    checkpoint,
    failure_kind,
    failure_message
) AS
SELECT
    p.experiment_id,
    x.name,
    p.identity,
    t.configuration,
    p.position,
    p.label,
    p.variant,
    t.architecture,
    coalesce(p.variant, t.architecture),
    t.seed,
    t.parameters,
    t.macs_per_image,
    (SELECT json_group_object(a.key, json(a.value)) FROM assignments AS a
      WHERE a.experiment_id = p.experiment_id AND a.identity = p.identity),
    r.run_id,
    r.attempt,
    (SELECT count(*) FROM runs AS n WHERE n.identity = p.identity),
    r.status,
    r.experiment_id IS NOT NULL AND r.experiment_id <> p.experiment_id,
    (SELECT coalesce(max(n.epoch), 0) FROM epochs AS n WHERE n.run_id = r.run_id),
    r.tested_epoch,
    e.train_loss,
    e.train_top1,
    e.validation_loss,
    e.validation_top1,
    e.validation_top5,
    v.loss,
    v.top1,
    v.top5,
    v.images,
    r.train_seconds,
    v.seconds,
    r.peak_memory_bytes,
    r.queued_ms,
    r.started_ms,
    r.finished_ms,
    r.worker,
    r.claims,
    r.checkpoint_epoch,
    r.checkpoint,
    r.failure_kind,
    r.failure_message
FROM experiment_trials AS p
JOIN experiments AS x ON x.experiment_id = p.experiment_id
JOIN trials AS t ON t.identity = p.identity
LEFT JOIN runs AS r ON r.run_id =
    (SELECT s.run_id FROM runs AS s WHERE s.identity = p.identity ORDER BY s.status = 'done' DESC, s.attempt DESC LIMIT 1)
LEFT JOIN epochs AS e ON e.run_id = r.run_id AND e.epoch = r.tested_epoch
LEFT JOIN evaluations AS v ON v.run_id = r.run_id AND v.split = 'test'
WHERE p.position IS NOT NULL;

-- Learning curves: every epoch of every planned trial, of the run that stands for it.
CREATE VIEW curve (
    experiment,
    label,
    network,
    configuration,
    seed,
    run_id,
    epoch,
    learning_rate,
    train_loss,
    train_penalty,
    train_top1,
    train_top5,
    validation_loss,
    validation_top1,
    validation_top5,
    images_per_second,
    epoch_seconds,
    steps
) AS
SELECT
    x.name,
    p.label,
    coalesce(p.variant, t.architecture),
    t.configuration,
    t.seed,
    e.run_id,
    e.epoch,
    e.learning_rate,
    e.train_loss,
    e.train_penalty,
    e.train_top1,
    e.train_top5,
    e.validation_loss,
    e.validation_top1,
    e.validation_top5,
    e.images_per_second,
    e.epoch_seconds,
    e.steps
FROM experiment_trials AS p
JOIN experiments AS x ON x.experiment_id = p.experiment_id
JOIN trials AS t ON t.identity = p.identity
JOIN epochs AS e ON e.run_id =
    (SELECT s.run_id FROM runs AS s WHERE s.identity = p.identity ORDER BY s.status = 'done' DESC, s.attempt DESC LIMIT 1)
WHERE p.position IS NOT NULL;

-- Every configuration of every network, over its seeds: means and sample standard deviations of the runs that are done.
CREATE VIEW comparison (
    experiment,
    network,
    architecture,
    variant,
    configuration,
    settings,
    seeds, -- INTEGER [count] runs that the means are over, one per seed
    validation_rank, -- INTEGER [rank] place within the network by mean validation accuracy, then loss; 1 is best. The test part has no say
    parameters,
    macs_per_image,
    validation_top1_mean, -- REAL [fraction] mean of validation_top1
    validation_top1_sd, -- REAL [fraction] sample standard deviation of validation_top1; NULL: fewer than two seeds
    validation_loss_mean, -- REAL [nats per image] mean of validation_loss
    test_top1_mean, -- REAL [fraction] mean of test_top1
    test_top1_sd, -- REAL [fraction] sample standard deviation of test_top1; NULL: fewer than two seeds
    test_top5_mean, -- REAL [fraction] mean of test_top5
    test_loss_mean, -- REAL [nats per image] mean of test_loss
    test_loss_sd, -- REAL [nats per image] sample standard deviation of test_loss; NULL: fewer than two seeds
    generalization_gap, -- REAL [fraction] mean of train_top1 at the tested epoch, as trained, minus test_top1
    train_seconds_mean, -- REAL [s] mean of train_seconds
    train_seconds_sd, -- REAL [s] sample standard deviation of train_seconds; NULL: fewer than two seeds
    peak_memory_bytes -- largest of the seeds
) AS
WITH
-- Only the columns that are needed: the others would be computed too. Materialized, or they would be computed over and over.
done AS MATERIALIZED (
    SELECT
        experiment_id, experiment, network, architecture, variant, configuration, settings, parameters, macs_per_image,
        train_top1, validation_top1, validation_loss, test_top1, test_top5, test_loss, train_seconds, peak_memory_bytes,
        avg(validation_top1) OVER configured AS validation_top1_center,
        avg(test_top1) OVER configured AS test_top1_center,
        avg(test_loss) OVER configured AS test_loss_center,
        avg(train_seconds) OVER configured AS train_seconds_center
    FROM results
    WHERE status = 'done'
    WINDOW configured AS (PARTITION BY experiment_id, network, configuration)
),
-- Deviations are taken from the mean: the difference of two large sums would lose what is to be measured.
summary AS MATERIALIZED (
    SELECT
        experiment, network, architecture, variant, configuration, settings, parameters, macs_per_image,
        count(*) AS seeds,
        avg(validation_top1) AS validation_top1_mean,
        sum((validation_top1 - validation_top1_center) * (validation_top1 - validation_top1_center))
            / nullif(count(validation_top1) - 1, 0) AS validation_top1_variance,
        avg(validation_loss) AS validation_loss_mean,
        avg(test_top1) AS test_top1_mean,
        sum((test_top1 - test_top1_center) * (test_top1 - test_top1_center))
            / nullif(count(test_top1) - 1, 0) AS test_top1_variance,
        avg(test_top5) AS test_top5_mean,
        avg(test_loss) AS test_loss_mean,
        sum((test_loss - test_loss_center) * (test_loss - test_loss_center))
            / nullif(count(test_loss) - 1, 0) AS test_loss_variance,
        avg(train_top1 - test_top1) AS generalization_gap,
        avg(train_seconds) AS train_seconds_mean,
        sum((train_seconds - train_seconds_center) * (train_seconds - train_seconds_center))
            / nullif(count(train_seconds) - 1, 0) AS train_seconds_variance,
        max(peak_memory_bytes) AS peak_memory_bytes
    FROM done
    GROUP BY experiment_id, network, configuration
)
-- Many builds of SQLite have no sqrt(), so roots are taken by Newton's method, which ends when a step no longer gets lower.
SELECT
    experiment, network, architecture, variant, configuration, settings, seeds,
    row_number() OVER (
        PARTITION BY experiment, network
        ORDER BY validation_top1_mean DESC NULLS LAST, validation_loss_mean ASC NULLS LAST, configuration
    ),
    parameters, macs_per_image,
    validation_top1_mean,
    CASE WHEN validation_top1_variance > 0 THEN (
        WITH RECURSIVE newton (x, y) AS (
            SELECT max(1.0, validation_top1_variance), 0.5 * (max(1.0, validation_top1_variance) + min(1.0, validation_top1_variance))
            UNION ALL SELECT y, 0.5 * (y + validation_top1_variance / y) FROM newton WHERE y < x
        ) SELECT min(x) FROM newton) ELSE validation_top1_variance END,
    validation_loss_mean,
    test_top1_mean,
    CASE WHEN test_top1_variance > 0 THEN (
        WITH RECURSIVE newton (x, y) AS (
            SELECT max(1.0, test_top1_variance), 0.5 * (max(1.0, test_top1_variance) + min(1.0, test_top1_variance))
            UNION ALL SELECT y, 0.5 * (y + test_top1_variance / y) FROM newton WHERE y < x
        ) SELECT min(x) FROM newton) ELSE test_top1_variance END,
    test_top5_mean,
    test_loss_mean,
    CASE WHEN test_loss_variance > 0 THEN (
        WITH RECURSIVE newton (x, y) AS (
            SELECT max(1.0, test_loss_variance), 0.5 * (max(1.0, test_loss_variance) + min(1.0, test_loss_variance))
            UNION ALL SELECT y, 0.5 * (y + test_loss_variance / y) FROM newton WHERE y < x
        ) SELECT min(x) FROM newton) ELSE test_loss_variance END,
    generalization_gap,
    train_seconds_mean,
    CASE WHEN train_seconds_variance > 0 THEN (
        WITH RECURSIVE newton (x, y) AS (
            SELECT max(1.0, train_seconds_variance), 0.5 * (max(1.0, train_seconds_variance) + min(1.0, train_seconds_variance))
            UNION ALL SELECT y, 0.5 * (y + train_seconds_variance / y) FROM newton WHERE y < x
        ) SELECT min(x) FROM newton) ELSE train_seconds_variance END,
    peak_memory_bytes
FROM summary;

-- The best configuration of every network: chosen on the validation part, with what the test part says of it.
CREATE VIEW best (
    experiment,
    network,
    configuration,
    settings,
    seeds,
    validation_top1_mean,
    validation_top1_sd,
    test_top1_mean,
    test_top1_sd,
    test_top5_mean,
    test_loss_mean,
    generalization_gap,
    train_seconds_mean,
    parameters,
    macs_per_image
) AS
SELECT
    experiment,
    network,
    configuration,
    settings,
    seeds,
    validation_top1_mean,
    validation_top1_sd,
    test_top1_mean,
    test_top1_sd,
    test_top5_mean,
    test_loss_mean,
    generalization_gap,
    train_seconds_mean,
    parameters,
    macs_per_image
FROM comparison
WHERE validation_rank = 1;
