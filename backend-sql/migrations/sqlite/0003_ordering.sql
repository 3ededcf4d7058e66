-- Pool: messages with an ordering key. They are always in `held`, where state 3 is "in line".
ALTER TABLE held ADD COLUMN ordering_key TEXT;
CREATE INDEX held_line ON held (queue, ordering_key, sequence) WHERE state = 3;

-- Pool: the lines, one for each ordering key that messages have which can be or are claimed.
CREATE TABLE line (
    queue        INTEGER NOT NULL,
    ordering_key TEXT    NOT NULL,
    waiting      INTEGER NOT NULL, -- messages in line
    busy         INTEGER NOT NULL, -- messages that are claimed or wait for a retry
    turn         INTEGER,          -- set while the line is open: something waits, nothing is busy
    PRIMARY KEY (queue, ordering_key)
) WITHOUT ROWID;
CREATE INDEX line_turn ON line (queue, turn) WHERE turn IS NOT NULL;

ALTER TABLE pool_queue ADD COLUMN in_line INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pool_queue ADD COLUMN lines INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pool_queue ADD COLUMN open_lines INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pool_queue ADD COLUMN turns INTEGER NOT NULL DEFAULT 0; -- the last one given
ALTER TABLE pool_queue ADD COLUMN plain_turn INTEGER NOT NULL DEFAULT 0; -- of the messages without a key
