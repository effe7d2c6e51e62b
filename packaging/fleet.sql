-- zg-tokend: one row for each login that several machines share.
-- Run it once as the owner of the database, then give the roles passwords:
--   ALTER ROLE zg_refresh PASSWORD '...';
CREATE ROLE zg_refresh LOGIN;            -- machines that refresh
CREATE ROLE zg_read LOGIN;               -- machines with role = `read`: they cannot see the refresh token
CREATE SCHEMA zg_tokend;
CREATE TABLE zg_tokend.login (
  account     text PRIMARY KEY,          -- the name of the account in the config of every machine
  login       uuid NOT NULL,             -- one login by a person
  epoch       bigint NOT NULL,           -- +1 with each reply that is stored
  held        bytea NOT NULL,            -- SHA-256 of the refresh token in `secret`; empty after a logout
  secret      bytea NOT NULL,            -- the login, sealed with fleet.key
  token       bytea NOT NULL,            -- the access token and its life
  issued_at   timestamptz NOT NULL,      -- the clock of this database just before the request
  timeline    text NOT NULL,             -- of the database when this was stored
  attempt     uuid,                      -- the claim of a machine: it may be refreshing
  host        text,
  claimed_at  timestamptz,
  claim_until timestamptz,
  verdict     jsonb                      -- a refusal or a failure, for the other machines
);
GRANT USAGE ON SCHEMA zg_tokend TO zg_refresh, zg_read;
GRANT SELECT, INSERT, UPDATE ON zg_tokend.login TO zg_refresh;
GRANT SELECT (account, login, epoch, token, issued_at, timeline) ON zg_tokend.login TO zg_read;
