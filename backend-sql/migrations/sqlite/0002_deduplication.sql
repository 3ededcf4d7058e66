-- Pool: the deduplication ids that were posted, for as long as their windows are open.
CREATE TABLE deduplication (
    queue      INTEGER NOT NULL,
    id         TEXT    NOT NULL,
    sequence   INTEGER NOT NULL, -- of the message that was stored
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (queue, id)
) WITHOUT ROWID;
CREATE INDEX deduplication_expiry ON deduplication (queue, expires_at);
