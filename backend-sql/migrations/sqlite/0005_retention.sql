-- Pool: messages that are retained for groups that start later, or move back. They lie in `held`,
-- where state 4 is "retained", under a row of `pool_queue` of their own, which mirrors that of the
-- queue and which nobody claims from.
ALTER TABLE pool_queue ADD COLUMN log INTEGER; -- the incarnation of that row

-- Pool: where dead letters come from.
ALTER TABLE ready ADD COLUMN origin TEXT;
ALTER TABLE held ADD COLUMN origin TEXT;
CREATE INDEX ready_origin ON ready (queue, sequence) WHERE origin IS NOT NULL;
CREATE INDEX held_origin ON held (queue, sequence) WHERE state = 3 AND origin IS NOT NULL;
ALTER TABLE pool_queue ADD COLUMN next_redrive INTEGER NOT NULL DEFAULT 0; -- its pace goes on then

-- Pool: how many messages were handled of late.
ALTER TABLE pool_queue ADD COLUMN minute INTEGER NOT NULL DEFAULT 0; -- of the clock
ALTER TABLE pool_queue ADD COLUMN handled INTEGER NOT NULL DEFAULT 0; -- in it
ALTER TABLE pool_queue ADD COLUMN handled_before INTEGER NOT NULL DEFAULT 0; -- in the one before
