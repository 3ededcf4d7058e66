-- Pool: messages that are retained for groups that start later, or move back. They lie in `held`,
-- where state 4 is "retained", under a row of `pool_queue` of their own, which mirrors that of the
-- queue and which nobody claims from.
ALTER TABLE pool_queue ADD COLUMN log INTEGER; -- the incarnation of that row

-- Pool: where dead letters come from, and which messages of a queue are some. A partial index would
-- say the same, and cost every message of every queue.
ALTER TABLE ready ADD COLUMN origin TEXT;
ALTER TABLE held ADD COLUMN origin TEXT;
CREATE TABLE dead_letter (
    queue    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (queue, sequence)
) WITHOUT ROWID;
ALTER TABLE pool_queue ADD COLUMN dead_letters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pool_queue ADD COLUMN next_redrive INTEGER NOT NULL DEFAULT 0; -- its pace goes on then

-- Pool: how many messages were handled of late.
ALTER TABLE pool_queue ADD COLUMN minute INTEGER NOT NULL DEFAULT 0; -- of the clock
ALTER TABLE pool_queue ADD COLUMN handled INTEGER NOT NULL DEFAULT 0; -- in it
ALTER TABLE pool_queue ADD COLUMN handled_before INTEGER NOT NULL DEFAULT 0; -- in the one before
