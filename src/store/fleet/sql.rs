//! The statements. Times go to and from the database as milliseconds since 1970, UUIDs as text.

/// The channel that tells of a changed row: its account and epoch.
pub const CHANNEL: &str = "zg_tokend";

/// An error on a standby: that is no place to decide anything.
pub const READ: &str = "SELECT r.login::text, r.epoch, r.held, r.secret, r.token, \
    (extract(epoch FROM r.issued_at) * 1000)::bigint AS issued_at, r.timeline, r.attempt::text AS attempt, r.host, \
    (extract(epoch FROM r.claimed_at) * 1000)::bigint AS claimed_at, \
    (extract(epoch FROM r.claim_until) * 1000)::bigint AS claim_until, r.verdict::text AS verdict, \
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS server_time, \
    substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline_now \
    FROM (SELECT 1) AS one LEFT JOIN zg_tokend.login AS r ON r.account = $1";

/// The columns that a reader may see. A standby will do.
pub const READ_TOKEN: &str = "SELECT r.login::text, r.epoch, r.token, \
    (extract(epoch FROM r.issued_at) * 1000)::bigint AS issued_at, r.timeline, \
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS server_time, NULL::text AS timeline_now \
    FROM (SELECT 1) AS one LEFT JOIN zg_tokend.login AS r ON r.account = $1";

/// The role of this connection, and how durable a commit is.
pub const ABOUT: &str = "SELECT current_user::text AS name, \
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser, \
    has_column_privilege('zg_tokend.login', 'secret', 'SELECT') AS reads_secret, \
    has_table_privilege('zg_tokend.login', 'INSERT') AND has_table_privilege('zg_tokend.login', 'UPDATE') AS writes, \
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes, \
    current_setting('synchronous_commit') AS synchronous_commit, \
    current_setting('synchronous_standby_names') AS synchronous_standby_names";

/// $1 is what the names of applications begin with.
pub const HOSTS: &str = "SELECT DISTINCT substr(application_name, length($1) + 1) FROM pg_stat_activity \
    WHERE usename = current_user AND starts_with(application_name, $1) ORDER BY 1";

/// Before each write. The wait for a standby holds the lock of the row even after its client is gone, and
/// statement_timeout does not reach it.
pub const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '5s'; SET LOCAL synchronous_commit = on; \
    SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// $1 account, $2 login, $3 epoch, $4 held, $5 the claim that was seen, $6 nonce, $7 host, $8 seconds.
pub const CLAIM: &str = "UPDATE zg_tokend.login SET attempt = $6::uuid, host = $7, claimed_at = clock_timestamp(), \
    claim_until = clock_timestamp() + $8 * interval '1 second' \
    WHERE account = $1 AND login = $2::uuid AND epoch = $3 AND held = $4 AND attempt IS NOT DISTINCT FROM $5::uuid \
    RETURNING (extract(epoch FROM claimed_at) * 1000)::bigint AS at";

/// $1 account, $2 login, $3 epoch, $4 held, $5 the claim, $6 result. Without a claim ($5 is NULL) nobody is notified: whoever
/// wants to refresh reads the row first.
pub const CONCLUDE: &str = "WITH s AS (UPDATE zg_tokend.login SET attempt = NULL, host = NULL, claimed_at = NULL, \
    claim_until = NULL, verdict = $6::jsonb \
    WHERE account = $1 AND login = $2::uuid AND epoch = $3 AND held = $4 AND attempt IS NOT DISTINCT FROM $5::uuid \
    RETURNING account, epoch) \
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS at, \
    CASE WHEN $5::uuid IS NOT NULL THEN pg_notify('zg_tokend', account || ' ' || epoch)::text END FROM s";

macro_rules! put {
    ($write:literal) => {
        concat!(
            "WITH s AS (",
            $write,
            " RETURNING account, epoch) SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS at, \
             pg_notify('zg_tokend', account || ' ' || epoch)::text FROM s"
        )
    };
}

// In all three: $1 account, $2 login, $3 epoch, $4 held, $5 secret, $6 token, $7 issued_at; the row must have
// $8 login, $9 epoch, $10 held.

/// A reply, over the token that earned it.
pub const STORE: &str = put!(
    "UPDATE zg_tokend.login SET login = $2::uuid, epoch = $3, held = $4, secret = $5, token = $6, \
     issued_at = to_timestamp($7::bigint / 1000.0), timeline = substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), \
     attempt = NULL, host = NULL, claimed_at = NULL, claim_until = NULL, verdict = NULL \
     WHERE account = $1 AND login = $8::uuid AND epoch = $9 AND held = $10"
);

/// A copy that is newer than the row: a failover has lost what came after it. The row keeps its timeline, so that
/// the others still wait for whoever has a newer copy. $10 is not used.
pub const REPAIR: &str = put!(
    "UPDATE zg_tokend.login SET epoch = $3, held = $4, secret = $5, token = $6, \
     issued_at = to_timestamp($7::bigint / 1000.0), attempt = NULL, host = NULL, claimed_at = NULL, claim_until = NULL, verdict = NULL \
     WHERE account = $1 AND login = $2::uuid AND login = $8::uuid AND epoch < $9 AND $10::bytea IS NOT NULL"
);

/// A login, over the row that was seen ($8 and $9 are NULL if there was none). $10 is empty for a new one; a copy gets
/// no timeline, for the reason above.
pub const FOUND: &str = put!(
    "INSERT INTO zg_tokend.login AS l (account, login, epoch, held, secret, token, issued_at, timeline) \
     SELECT $1, $2::uuid, $3, $4, $5, $6, to_timestamp($7::bigint / 1000.0), \
     CASE WHEN $10::bytea = '' THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) ELSE '00000000' END \
     ON CONFLICT (account) DO UPDATE SET login = EXCLUDED.login, epoch = EXCLUDED.epoch, held = EXCLUDED.held, \
     secret = EXCLUDED.secret, token = EXCLUDED.token, issued_at = EXCLUDED.issued_at, \
     timeline = EXCLUDED.timeline, attempt = NULL, host = NULL, claimed_at = NULL, claim_until = NULL, verdict = NULL \
     WHERE l.login = $8::uuid AND l.epoch = $9"
);
