-- Times are Unix seconds of the database's clock; JSON is text. lease_until, progress and revision are in no index:
-- they change several times a second, and PostgreSQL then updates rows in place.
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    pool TEXT NOT NULL,
    model TEXT NOT NULL,
    priority INTEGER NOT NULL,
    vtime DOUBLE PRECISION NOT NULL,
    cost DOUBLE PRECISION NOT NULL,
    state TEXT NOT NULL,
    request TEXT NOT NULL,
    metadata TEXT NOT NULL,
    idempotency_key TEXT,
    request_hash TEXT NOT NULL,
    webhook TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    worker TEXT,
    lease_until DOUBLE PRECISION,
    cancel_requested INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    progress TEXT,
    result TEXT,
    error TEXT,
    created DOUBLE PRECISION NOT NULL,
    run_after DOUBLE PRECISION NOT NULL,
    started DOUBLE PRECISION,
    finished DOUBLE PRECISION,
    expires DOUBLE PRECISION,
    queue_until DOUBLE PRECISION,
    ttl DOUBLE PRECISION NOT NULL
);
CREATE UNIQUE INDEX jobs_idempotency ON jobs (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_queue ON jobs (pool, priority, vtime, id) WHERE state = 'queued';
CREATE INDEX jobs_queued_by_tenant ON jobs (tenant) WHERE state = 'queued';
CREATE INDEX jobs_running ON jobs (worker) WHERE state = 'running';
CREATE INDEX jobs_by_tenant ON jobs (tenant, created, id);
CREATE INDEX jobs_seconds ON jobs (model, finished) WHERE state = 'succeeded';
CREATE INDEX jobs_expiry ON jobs (expires) WHERE expires IS NOT NULL;

-- How far each tenant's share of a queue has been handed out (start-time fair queueing).
CREATE TABLE tenants (
    tenant TEXT NOT NULL,
    pool TEXT NOT NULL,
    priority INTEGER NOT NULL,
    finish DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (tenant, pool, priority)
);

CREATE TABLE pools (
    name TEXT PRIMARY KEY,
    paused INTEGER NOT NULL
);

-- host and process tell another process of the same machine whether this one is still there.
CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    pool TEXT NOT NULL,
    slots INTEGER NOT NULL,
    host TEXT NOT NULL,
    process TEXT NOT NULL,
    models TEXT NOT NULL,
    seen DOUBLE PRECISION NOT NULL
);

-- One row per job that ended well, written in the transaction that ends it.
CREATE TABLE usage (
    job TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount DOUBLE PRECISION NOT NULL,
    at DOUBLE PRECISION NOT NULL
);
CREATE INDEX usage_by_tenant ON usage (tenant, at);

CREATE TABLE webhook_endpoints (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    url TEXT NOT NULL,
    event_types TEXT NOT NULL,
    secret TEXT NOT NULL,
    previous_secret TEXT,
    previous_until DOUBLE PRECISION,
    created DOUBLE PRECISION NOT NULL
);
CREATE INDEX webhook_endpoints_by_tenant ON webhook_endpoints (tenant, created);

-- The outbox: written in the transaction that ends a job, delivered by whichever API process comes first.
CREATE TABLE hooks (
    id TEXT PRIMARY KEY,
    event TEXT NOT NULL,
    tenant TEXT NOT NULL,
    job TEXT NOT NULL,
    endpoint TEXT,
    url TEXT NOT NULL,
    type TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL,
    next_at DOUBLE PRECISION NOT NULL,
    status INTEGER,
    error TEXT,
    created DOUBLE PRECISION NOT NULL,
    finished DOUBLE PRECISION
);
CREATE INDEX hooks_due ON hooks (next_at) WHERE state = 'pending';
CREATE INDEX hooks_by_tenant ON hooks (tenant, created);
CREATE INDEX hooks_by_job ON hooks (job);

CREATE TABLE files (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    purpose TEXT NOT NULL,
    filename TEXT NOT NULL,
    content_type TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    checksum TEXT NOT NULL,
    blob TEXT NOT NULL,
    state TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION
);
CREATE INDEX files_by_tenant ON files (tenant, created, id);
CREATE INDEX files_expiry ON files (expires) WHERE expires IS NOT NULL;

-- Keys that the server makes for itself, shared by all its processes.
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
