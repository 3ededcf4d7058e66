-- Pool: consumer groups. A group reads from a row of `pool_queue` of its own, which mirrors that of
-- its queue: what is posted to the queue is put into both, and shares one body.
CREATE TABLE pool_group (
    queue      INTEGER NOT NULL, -- the incarnation of the queue
    name       TEXT    NOT NULL,
    reading    INTEGER NOT NULL, -- the incarnation of the row that it reads from
    settings   TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (queue, name)
) WITHOUT ROWID;

ALTER TABLE pool_queue ADD COLUMN groups INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pool_queue ADD COLUMN mirrors INTEGER; -- the incarnation of the queue that is read
ALTER TABLE pool_queue ADD COLUMN fill_after INTEGER; -- what lies behind is still to be copied …
ALTER TABLE pool_queue ADD COLUMN fill_up_to INTEGER; -- … up to here,
ALTER TABLE pool_queue ADD COLUMN fill_since INTEGER; -- if it was posted at this time or later

-- Pool: how many messages have a body, if it is more than one.
CREATE TABLE body_share (
    body     INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL
);
