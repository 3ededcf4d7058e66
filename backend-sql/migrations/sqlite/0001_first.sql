-- Catalog: queues and what their owners set for them.
CREATE TABLE queue (
    project     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    incarnation INTEGER NOT NULL UNIQUE,
    metadata    TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (project, name)
) WITHOUT ROWID;

-- Catalog: what other nodes have to forget, the latest changes only.
CREATE TABLE queue_change (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    project  TEXT NOT NULL,
    name     TEXT NOT NULL
);

-- Pool: the queues placed here, each with its counters. A dropped queue has its incarnation
-- negated, so that nobody finds it, and waits for the sweep.
CREATE TABLE pool_queue (
    id            INTEGER PRIMARY KEY,
    incarnation   INTEGER NOT NULL UNIQUE,
    project       TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    last_sequence INTEGER NOT NULL,
    ready         INTEGER NOT NULL,
    delayed       INTEGER NOT NULL,
    claimed       INTEGER NOT NULL,
    next_due      INTEGER NOT NULL -- no row of the queue is due earlier
);
CREATE INDEX pool_queue_due ON pool_queue (next_due);

-- Pool: bodies, written once and never moved.
CREATE TABLE body (
    id       INTEGER PRIMARY KEY,
    checksum TEXT,
    json     BLOB NOT NULL
);

-- Pool: messages that anyone may claim, and where they stand. Small rows, since steps move them.
CREATE TABLE ready (
    queue       INTEGER NOT NULL, -- pool_queue.id
    sequence    INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    visible_at  INTEGER NOT NULL,
    posted_at   INTEGER NOT NULL,
    ttl         INTEGER NOT NULL, -- seconds
    claim       BLOB,             -- the last one, if it lapsed
    claim_count INTEGER NOT NULL,
    client      TEXT    NOT NULL,
    body        INTEGER NOT NULL, -- body.id
    PRIMARY KEY (queue, sequence)
) WITHOUT ROWID;
CREATE INDEX ready_expiry ON ready (queue, expires_at);

-- Pool: messages that are held back, by a delay or by a claim.
CREATE TABLE held (
    queue       INTEGER NOT NULL,
    state       INTEGER NOT NULL, -- 1 delayed, 2 claimed
    sequence    INTEGER NOT NULL,
    due_at      INTEGER NOT NULL, -- when time alone frees or ends it
    expires_at  INTEGER NOT NULL,
    visible_at  INTEGER NOT NULL,
    posted_at   INTEGER NOT NULL,
    ttl         INTEGER NOT NULL,
    claim       BLOB,
    claim_count INTEGER NOT NULL,
    client      TEXT    NOT NULL,
    body        INTEGER NOT NULL,
    PRIMARY KEY (queue, state, sequence)
) WITHOUT ROWID;
CREATE INDEX held_due ON held (queue, due_at);
CREATE INDEX held_claim ON held (queue, claim, sequence) WHERE state = 2;

-- Pool: live claims.
CREATE TABLE claim (
    queue      INTEGER NOT NULL,
    id         BLOB    NOT NULL,
    renewed_at INTEGER NOT NULL,
    ttl        INTEGER NOT NULL, -- seconds
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (queue, id)
) WITHOUT ROWID;
CREATE INDEX claim_expiry ON claim (queue, expires_at);
