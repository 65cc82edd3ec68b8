#!/bin/sh
# Captures frames of a real server into NN/*.hex beside this script: one message a line, in hex.
# Usage, as root: capture.sh [BIN], BIN being the folder of a PostgreSQL's executables.
set -eu

bin=${1:-/usr/lib/postgresql/15/bin}
here=$(cd "$(dirname "$0")" && pwd)
version=$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
place=$(mktemp -d /tmp/capture.XXXXXX)
out=$here/$version
chown postgres "$place"
cd "$place"

as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
sql() { as_postgres psql -X -q -At -v ON_ERROR_STOP=1 -h "$place" -U postgres "$@"; }
finish() {
    as_postgres "$bin/pg_ctl" -D "$place/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$place"
}
trap finish EXIT
trap 'exit 1' INT TERM

as_postgres "$bin/initdb" -D "$place/data" -U postgres --no-sync -E UTF8 --locale=C >/dev/null
as_postgres "$bin/pg_ctl" -w -D "$place/data" -l "$place/log" -o "-c listen_addresses='' \
    -k $place -c wal_level=logical -c fsync=off -c timezone=UTC -c logical_decoding_work_mem=64kB \
    -c max_prepared_transactions=4 -c autovacuum=off" start >/dev/null
mkdir -p "$out"

# capture NAME VERSION [OPTION…]: everything the slot has, and moves on
capture() {
    name=$1 proto=$2
    shift 2
    options=
    for option in "$@"; do options="$options, '${option%%=*}', '${option#*=}'"; done
    {
        echo "# proto_version $proto $*"
        sql -c "select encode(data, 'hex') from pg_logical_slot_get_binary_changes('$name', null, null,
            'proto_version', '$proto', 'publication_names', 'projector', 'messages', 'true' $options)"
    } >"$out/$name.hex"
}

sql >/dev/null <<'SQL'
create type mood as enum ('calm', 'busy');
create table events (
    position bigint generated always as identity,
    project_id uuid not null,
    run_id uuid not null,
    version int not null,
    event_id uuid not null default gen_random_uuid(),
    type text not null,
    payload jsonb not null default '{}',
    metadata jsonb not null default '{}',
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (run_id, version)
) partition by range (run_id);
create table events_early partition of events
    for values from (minvalue) to ('80000000-0000-0000-0000-000000000000');
create table events_late partition of events default;
create table other (id int primary key, mood mood, body text);
alter table other alter body set storage external;
create publication projector for table events, other with (publish_via_partition_root = true);
create function add_event(run text, version int, kind text, payload jsonb default '{}') returns void
language sql as $$
    insert into events (project_id, run_id, version, event_id, type, payload, recorded_at)
    values ('0190a000-0000-7000-8000-000000000001', rpad(run, 32, '0')::uuid, version,
        lpad(version::text, 32, '0')::uuid, kind, payload, '2026-11-23 20:29:00.123456+00');
$$;
select pg_replication_origin_create('elsewhere');
select pg_create_logical_replication_slot(it, 'pgoutput')
from unnest(array['plain', 'binary', 'streamed', 'parallel']) it
where it <> 'parallel' or 160000 <= current_setting('server_version_num')::int;
select pg_create_logical_replication_slot('two_phase', 'pgoutput', false, true);
SQL

sql >/dev/null <<'SQL'
-- both partitions, and a value of every awkward kind
begin;
select add_event('1', 1, 'run_started', '{"workflow": "hello", "emoji": "🦀 שלום"}');
select add_event('f', 1, 'run_started');
commit;
-- the table changes its shape: more, fewer, and other places
alter table events add column note text;
select add_event('1', 2, 'log', '{"message": "one column more"}');
alter table events drop column note;
select add_event('1', 3, 'log', '{"message": "and gone again"}');
begin;
select add_event('1', 4, 'log', '{"message": "in the midst"}');
alter table events rename metadata to old_metadata;
alter table events add column metadata jsonb not null default '{"moved": true}';
alter table events drop column old_metadata;
select add_event('1', 5, 'log', '{"message": "of a transaction"}');
commit;
-- tables and types that are none of our business, unchanged TOAST, old keys and old rows
insert into other values (1, 'calm', repeat('x', 2500)), (2, null, null);
update other set mood = 'busy' where id = 1;
update other set id = 3 where id = 2;
alter table other replica identity full;
update other set mood = null where id = 3;
delete from other where id = 3;
truncate other restart identity cascade;
-- what the guard of the shipped table refuses
update events set type = 'tampered' where version = 5;
delete from events where version = 4;
-- messages, in a transaction and at once
select pg_logical_emit_message(true, 'projector', 'hello');
select pg_logical_emit_message(false, 'projector', 'now');
select pg_logical_emit_message(true, 'somebody', 'else');
-- a transaction that came from another server
select pg_replication_origin_session_setup('elsewhere');
begin;
select pg_replication_origin_xact_setup('0/ABC', '2026-01-01 00:00:00+00');
select add_event('1', 6, 'run_succeeded');
commit;
select pg_replication_origin_session_reset();
-- large enough to be streamed: whole, with a part rolled back, and rolled back altogether
begin;
select add_event('2', it, 'log') from generate_series(1, 20) it;
insert into other select generate_series(2000, 2600);
savepoint part;
select add_event('3', it, 'log') from generate_series(1, 20) it;
insert into other select generate_series(3000, 3600);
rollback to part;
select add_event('2', it, 'log') from generate_series(21, 23) it;
commit;
begin;
select add_event('4', 1, 'log');
insert into other select generate_series(100, 700);
rollback;
-- two-phase commit
begin;
select add_event('5', 1, 'run_started');
prepare transaction 'kept';
commit prepared 'kept';
begin;
select add_event('6', 1, 'run_started');
prepare transaction 'void';
rollback prepared 'void';
begin;
select add_event('8', 1, 'log');
insert into other select generate_series(1000, 1600);
prepare transaction 'large';
commit prepared 'large';
truncate events;
-- the same table anew, its columns the other way round, under another object id
drop table events;
create table events (
    recorded_at timestamptz not null,
    metadata jsonb not null default '{}',
    payload jsonb not null,
    extra int,
    type text not null,
    event_id uuid not null,
    version int not null,
    run_id uuid not null,
    project_id uuid not null,
    position bigint generated always as identity
);
alter publication projector add table events;
select add_event('7', 1, 'run_started');
SQL

capture plain 1
capture binary 1 binary=true
capture streamed 2 streaming=on
capture two_phase 3 streaming=on two_phase=on
if [ "$version" -ge 16 ]; then capture parallel 4 streaming=parallel; fi
wc -l "$out"/*.hex
