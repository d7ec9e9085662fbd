-- What each step of training came to, so that a run that is trained again can be compared step by step.

-- The losses of an epoch's steps.
CREATE TABLE steps (
    run_id INTEGER NOT NULL, -- [id] the run
    epoch  INTEGER NOT NULL, -- [epoch] the epoch, from 1
    losses BLOB NOT NULL, -- [nats per image] mean cross-entropy of each step's batch, before its update: one 32-bit little-endian float per step
    PRIMARY KEY (run_id, epoch),
    FOREIGN KEY (run_id, epoch) REFERENCES epochs ON DELETE CASCADE
) STRICT;
