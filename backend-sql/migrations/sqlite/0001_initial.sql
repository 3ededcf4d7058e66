-- Times are milliseconds since the epoch. A column that ends in `_seconds` is a duration in seconds.

-- Catalog: queues and their metadata.
CREATE TABLE queue (
    project     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    incarnation INTEGER NOT NULL UNIQUE,
    metadata    TEXT    NOT NULL,
    version     INTEGER NOT NULL, -- raised by each update of the metadata
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (project, name)
) WITHOUT ROWID;

-- Catalog: the change feed, bounded to the latest changes. Nodes read it to invalidate their caches.
CREATE TABLE queue_change (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    project  TEXT NOT NULL,
    name     TEXT NOT NULL
);

-- Pool: a row for each queue, for each named group and for each retention log. It has the counters
-- and the state that every write reads, so that no statement has to count messages.
CREATE TABLE pool_queue (
    id            INTEGER PRIMARY KEY,
    incarnation   INTEGER NOT NULL UNIQUE,
    project       TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    source_queue  INTEGER,          -- of a group or a retention log: the incarnation of its queue
    retention_log INTEGER,          -- of a queue: the incarnation of its retention log, if it has one
    group_count   INTEGER NOT NULL DEFAULT 0, -- of a queue: number of its named groups

    last_sequence INTEGER NOT NULL, -- sequence of the last message
    next_due      INTEGER NOT NULL, -- no row of the queue has something due earlier

    -- Number of messages by state.
    ready         INTEGER NOT NULL DEFAULT 0, -- claimable, without an ordering key
    ready_keyed   INTEGER NOT NULL DEFAULT 0, -- with an ordering key, neither delayed nor claimed
    delayed       INTEGER NOT NULL DEFAULT 0,
    claimed       INTEGER NOT NULL DEFAULT 0,
    dead_letters  INTEGER NOT NULL DEFAULT 0, -- those of all states that are dead letters

    -- Round-robin over the ordering keys.
    keys             INTEGER NOT NULL DEFAULT 0, -- rows of ordering_key
    available_keys   INTEGER NOT NULL DEFAULT 0, -- those that can be claimed from
    last_rotation    INTEGER NOT NULL DEFAULT 0, -- the highest rotation that was assigned
    unkeyed_rotation INTEGER NOT NULL DEFAULT 0, -- rotation of the messages without a key

    -- What a new group still has to copy from its queue: the messages in (after, up_to] that were
    -- posted at `since` or later.
    backfill_after INTEGER,
    backfill_up_to INTEGER,
    backfill_since INTEGER,

    next_redrive_at INTEGER NOT NULL DEFAULT 0, -- first visibility time that no redrive has used

    -- Sliding count of the messages that consumers completed in the last minute.
    completed_minute   INTEGER NOT NULL DEFAULT 0, -- the current minute, counted from the epoch
    completed_count    INTEGER NOT NULL DEFAULT 0, -- in the current minute
    completed_previous INTEGER NOT NULL DEFAULT 0, -- in the minute before

    -- A dropped queue is invisible to every caller; the sweep deletes its rows. Its own row stays
    -- for some minutes after that as a tombstone, so that the incarnation cannot be opened again.
    dropped    INTEGER NOT NULL DEFAULT 0, -- 1: dropped
    retired_at INTEGER                     -- when its last other row was deleted
);
CREATE INDEX pool_queue_due ON pool_queue (next_due);

-- Pool: named groups. The delivery state of a group is in a row of pool_queue of its own: each
-- message that is posted to the queue is inserted for the group too, and shares the body.
CREATE TABLE pool_group (
    queue_incarnation INTEGER NOT NULL,
    name              TEXT    NOT NULL,
    incarnation       INTEGER NOT NULL, -- of the group's own row in pool_queue
    settings          TEXT    NOT NULL,
    created_at        INTEGER NOT NULL,
    PRIMARY KEY (queue_incarnation, name)
) WITHOUT ROWID;

-- Pool: bodies. A change of a message's state never rewrites its body.
CREATE TABLE body (
    id       INTEGER PRIMARY KEY,
    checksum TEXT,
    json     BLOB NOT NULL
);

-- Pool: reference counts of the bodies that more than one message has.
CREATE TABLE body_refs (
    body_id INTEGER PRIMARY KEY,
    refs    INTEGER NOT NULL
);

-- Pool: claimable messages without an ordering key, the common case. Rows are small, since each
-- claim moves one.
CREATE TABLE ready_message (
    queue_id    INTEGER NOT NULL, -- pool_queue.id
    sequence    INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    visible_at  INTEGER NOT NULL,
    posted_at   INTEGER NOT NULL,
    ttl_seconds INTEGER NOT NULL,
    claim_id    BLOB,             -- the last claim, if it expired
    claim_count INTEGER NOT NULL,
    client      TEXT    NOT NULL,
    body_id     INTEGER NOT NULL, -- body.id
    origin      TEXT,             -- of a dead letter: its source queue, group and ttl
    PRIMARY KEY (queue_id, sequence)
) WITHOUT ROWID;
CREATE INDEX ready_message_expiry ON ready_message (queue_id, expires_at);

-- Pool: all other messages.
CREATE TABLE message_by_state (
    queue_id     INTEGER NOT NULL,
    state        INTEGER NOT NULL, -- 1 delayed, 2 claimed, 3 ready with an ordering key, 4 retained
    sequence     INTEGER NOT NULL,
    due_at       INTEGER NOT NULL, -- when time alone changes its state or expires it
    expires_at   INTEGER NOT NULL,
    visible_at   INTEGER NOT NULL,
    posted_at    INTEGER NOT NULL,
    ttl_seconds  INTEGER NOT NULL,
    claim_id     BLOB,
    claim_count  INTEGER NOT NULL,
    client       TEXT    NOT NULL,
    body_id      INTEGER NOT NULL,
    ordering_key TEXT,
    origin       TEXT,
    PRIMARY KEY (queue_id, state, sequence)
) WITHOUT ROWID;
CREATE INDEX message_by_due ON message_by_state (queue_id, due_at);
CREATE INDEX message_by_claim ON message_by_state (queue_id, claim_id, sequence) WHERE state = 2;
CREATE INDEX message_by_key ON message_by_state (queue_id, ordering_key, sequence) WHERE state = 3;

-- Pool: the ordering keys that have a message which is ready or in flight.
CREATE TABLE ordering_key (
    queue_id     INTEGER NOT NULL,
    ordering_key TEXT    NOT NULL,
    ready        INTEGER NOT NULL, -- messages that are ready
    in_flight    INTEGER NOT NULL, -- messages that are claimed or wait for a retry
    rotation     INTEGER,          -- NULL if the key is blocked; the lowest one is served next
    PRIMARY KEY (queue_id, ordering_key)
) WITHOUT ROWID;
CREATE INDEX ordering_key_rotation ON ordering_key (queue_id, rotation) WHERE rotation IS NOT NULL;

-- Pool: claims. The row of an expired claim stays until what is due in its queue is applied.
CREATE TABLE claim (
    queue_id    INTEGER NOT NULL,
    id          BLOB    NOT NULL,
    renewed_at  INTEGER NOT NULL,
    ttl_seconds INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (queue_id, id)
) WITHOUT ROWID;
CREATE INDEX claim_expiry ON claim (queue_id, expires_at);

-- Pool: deduplication ids within their window. An expired row stays until what is due is applied.
CREATE TABLE deduplication (
    queue_id   INTEGER NOT NULL,
    id         TEXT    NOT NULL,
    sequence   INTEGER NOT NULL, -- of the message that was stored
    expires_at INTEGER NOT NULL, -- when the window ends
    PRIMARY KEY (queue_id, id)
) WITHOUT ROWID;
CREATE INDEX deduplication_expiry ON deduplication (queue_id, expires_at);

-- Pool: which messages of a queue are dead letters. A partial index on `origin` would do the same,
-- and cost a check for every message of every queue.
CREATE TABLE dead_letter (
    queue_id INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (queue_id, sequence)
) WITHOUT ROWID;
