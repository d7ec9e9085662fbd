-- What a sweep draws its values from.

-- The keys of [sweep.space] of an experiment, the last time it was planned.
CREATE TABLE spaces (
    experiment_id INTEGER NOT NULL REFERENCES experiments ON DELETE CASCADE, -- [id] the experiment
    key           TEXT NOT NULL, -- [key path] key of the experiment file, such as train.weight_decay
    kind          TEXT NOT NULL, -- [name] uniform, log_uniform, integer, log_integer or choice
    ends          TEXT NOT NULL CHECK (json_valid(ends)), -- [JSON] array, in the key's own unit: the lowest and the highest value, or all choices
    PRIMARY KEY (experiment_id, key)
) STRICT, WITHOUT ROWID;
