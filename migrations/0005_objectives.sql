-- What a sweep aims at.

-- The objectives of an experiment, the last time it was planned.
CREATE TABLE objectives (
    experiment_id INTEGER NOT NULL REFERENCES experiments ON DELETE CASCADE, -- [id] the experiment
    place         INTEGER NOT NULL, -- [index] place in sweep.objective, from 0
    measure       TEXT NOT NULL, -- [name] validation_loss, validation_top1, train_seconds, macs_per_image or parameters; validation_top1 is to be high, the others low
    PRIMARY KEY (experiment_id, place)
) STRICT, WITHOUT ROWID;
