#!/bin/sh
# What people write instead: one refresh with curl and jq, locked by flock, made durable by sync.
# Usage: script.sh TOKEN_ENDPOINT DIRECTORY
set -eu
cd "$2"
exec 9<.
flock 9
refresh_token=$(jq -r .refresh_token state)
printf %s "$refresh_token" | curl -q -sS --fail --max-time 30 -d grant_type=refresh_token -d client_id=demo \
    --data-urlencode refresh_token@- -o reply.tmp "$1"
jq '{refresh_token, access_token, expires_in}' reply.tmp >state.tmp
sync state.tmp
mv state.tmp state
sync .
jq -rj .access_token reply.tmp >token.tmp
sync token.tmp
mv token.tmp token
sync .
rm reply.tmp
