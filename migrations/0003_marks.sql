-- What people add to results: tags, notes, and what they have put away. Results themselves are never edited.

-- Tags of experiments.
CREATE TABLE experiment_tags (
    experiment_id INTEGER NOT NULL REFERENCES experiments ON DELETE CASCADE, -- [id] the experiment
    tag           TEXT NOT NULL CHECK (tag <> ''), -- [name] a word that it is found by
    tagged_ms     INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when it was tagged
    PRIMARY KEY (experiment_id, tag)
) STRICT, WITHOUT ROWID;

-- Notes on experiments.
CREATE TABLE experiment_notes (
    experiment_id INTEGER PRIMARY KEY REFERENCES experiments ON DELETE CASCADE, -- [id] the experiment
    note          TEXT NOT NULL CHECK (note <> ''), -- [text] what somebody wrote about it
    noted_ms      INTEGER NOT NULL -- [ms since 1970-01-01 UTC] when it was written
) STRICT;

-- Experiments that were put away: `pipeline list` leaves them out unless asked.
CREATE TABLE archived_experiments (
    experiment_id INTEGER PRIMARY KEY REFERENCES experiments ON DELETE CASCADE, -- [id] the experiment
    archived_ms   INTEGER NOT NULL -- [ms since 1970-01-01 UTC] when it was put away
) STRICT;

-- Tags of runs.
CREATE TABLE run_tags (
    run_id    INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, -- [id] the run
    tag       TEXT NOT NULL CHECK (tag <> ''), -- [name] a word that it is found by
    tagged_ms INTEGER NOT NULL, -- [ms since 1970-01-01 UTC] when it was tagged
    PRIMARY KEY (run_id, tag)
) STRICT, WITHOUT ROWID;

-- Notes on runs.
CREATE TABLE run_notes (
    run_id   INTEGER PRIMARY KEY REFERENCES runs ON DELETE CASCADE, -- [id] the run
    note     TEXT NOT NULL CHECK (note <> ''), -- [text] what somebody wrote about it
    noted_ms INTEGER NOT NULL -- [ms since 1970-01-01 UTC] when it was written
) STRICT;

-- Runs that were put away: `pipeline list` leaves them out unless asked. Reports count them as before.
CREATE TABLE archived_runs (
    run_id      INTEGER PRIMARY KEY REFERENCES runs ON DELETE CASCADE, -- [id] the run
    archived_ms INTEGER NOT NULL -- [ms since 1970-01-01 UTC] when it was put away
) STRICT;
