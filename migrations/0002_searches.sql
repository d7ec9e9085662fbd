-- Sweeps that adapt: runs that are left before their last epoch, configurations that are decided while a sweep runs, and what is known
-- of failures.

-- COLUMN runs.status [name] queued: asked for again; running: a worker has it (dead if its lease is over); done; failed; interrupted: stopped, can go on; pruned: left before its last epoch by sweep.pruner, can go on
-- The table's check is changed in place, as SQLite's manual describes it ("ALTER TABLE", section 7), since to make the table anew would
-- take all that refers to it along.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, '''failed'', ''interrupted'')', '''failed'', ''interrupted'', ''pruned'')')
WHERE type = 'table' AND name = 'runs';
PRAGMA writable_schema = RESET;

-- Why runs were left before their last epoch: one row each time. A run that goes on after all, since others did worse later or
-- because it was asked for, keeps its rows.
CREATE TABLE prunings (
    run_id        INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, -- [id] the run
    claim         INTEGER NOT NULL, -- [count] the claim on it that was its last then
    experiment_id INTEGER REFERENCES experiments ON DELETE SET NULL, -- [id] experiment whose configurations it was compared with
    epoch         INTEGER NOT NULL, -- [epoch] after which epoch it was compared
    rule          TEXT NOT NULL, -- [name] sweep.pruner.kind
    objective     TEXT NOT NULL, -- [name] sweep.objective: what was compared
    value         REAL, -- [unit of objective] mean over seeds of what its configuration came to
    threshold     REAL, -- [unit of objective] what it would have had to come to; NULL: too few had come as far for any to go on
    competitors   INTEGER NOT NULL, -- [count] configurations that it was compared with, itself included
    pruned_ms     INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when the row was written
    PRIMARY KEY (run_id, claim)
) STRICT, WITHOUT ROWID;

-- Configurations that were decided while a sweep ran, in the order of the decisions. With the trials' results they make the search's
-- history, by which the next one is decided.
CREATE TABLE suggestions (
    experiment_id INTEGER NOT NULL REFERENCES experiments ON DELETE CASCADE, -- [id] the experiment
    search        TEXT NOT NULL, -- [hash] hash of what the search is: its space, sampler, objective, seeds, settings and data
    number        INTEGER NOT NULL CHECK (number >= 0), -- [index] which configuration of the search this is, those of the plan counted
    configuration TEXT NOT NULL, -- [hash] the configuration
    point         TEXT NOT NULL CHECK (json_valid(point)), -- [JSON] array of the values that were chosen, in the order of the space
    known         INTEGER NOT NULL, -- [count] configurations whose results were known
    pending       INTEGER NOT NULL, -- [count] configurations that were under way
    decided_ms    INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when it was decided
    PRIMARY KEY (experiment_id, search, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX suggestions_by_configuration ON suggestions (configuration);

-- What is known of failures: one row for each time that a claim on a run ended in one. A run that was taken up again keeps its rows.
CREATE TABLE failures (
    run_id           INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, -- [id] the run
    claim            INTEGER NOT NULL, -- [count] the claim that ended so
    kind             TEXT NOT NULL, -- [name] kind of failure, as in runs
    message          TEXT NOT NULL, -- [text] what went wrong
    epoch            INTEGER, -- [epoch] epoch in which it went wrong, from 1; NULL: not known
    step             INTEGER, -- [step] step of the epoch, from 1; NULL: not known
    learning_rate    REAL, -- [per step] learning rate of that step; NULL: not known
    loss             REAL, -- [nats per image] last mean training loss of the epoch that was finite; NULL: none was
    norms            TEXT CHECK (norms IS NULL OR json_valid(norms)), -- [JSON] object: for each parameter the L2 norms of its weights and of its last update's gradient or moment; null where not finite
    checkpoint       TEXT, -- [path] the last good state; NULL: the run had none
    checkpoint_epoch INTEGER, -- [epochs] epochs that were complete in it
    failed_ms        INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when the row was written
    PRIMARY KEY (run_id, claim)
) STRICT, WITHOUT ROWID;
