-- Why: the one table that is the truth. Workers append to it, nobody changes it, and every read model
-- can be made again from it.
--
-- Partitions: range over run_id. A UUIDv7 begins with its time in milliseconds, so a month of run
-- starts is a range of ids; a run never leaves its partition, both unique keys hold within it, and
-- retention drops whole partitions. All other ids (random ones too) live in the DEFAULT partition.
-- Partitions stand in schema projector, which no API exposes: row level security of the parent does
-- not guard a partition that is read directly.

create schema if not exists public;

create table if not exists public.events (
  position bigint generated always as identity,
  project_id uuid not null,
  run_id uuid not null,
  version int not null check (version > 0),
  event_id uuid not null default gen_random_uuid(),
  type text not null,
  payload jsonb not null default '{}',
  metadata jsonb not null default '{}',
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (run_id, version),
  unique (run_id, event_id)
) partition by range (run_id);
comment on table public.events is 'append-only: UPDATE, DELETE and TRUNCATE are refused; projector.drop_events_before(month) is the one way out';

create index if not exists events_position on public.events (position);

-- Closed until the policies are there (20261123090300_access.sql).
alter table public.events enable row level security;

-- The append-only guard. SQLSTATE 0A000 (feature not supported): no retry will help.
create or replace function projector.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = '0A000',
    message = format('%s on %I.%I is refused: events are append-only', tg_op, tg_table_schema, tg_table_name),
    hint = 'append an event that corrects the earlier one; to remove whole months: select projector.drop_events_before(month)';
end
$$;

-- Statement triggers refuse even what touches no row, but belong to one table: each partition gets its
-- own (see guard_partition). The row trigger is cloned to every partition, so that one made by hand is
-- guarded as well.
create or replace trigger events_append_only
  before update or delete or truncate on public.events
  for each statement execute function projector.refuse_change();
create or replace trigger events_append_only_row
  before update or delete on public.events
  for each row execute function projector.refuse_change();

-- What every partition needs beside what it takes from its parent.
create or replace function projector.guard_partition(partition regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  grantee text;
begin
  execute format(
    'create or replace trigger events_append_only before update or delete or truncate on %s '
    'for each statement execute function projector.refuse_change()', partition);
  execute format('alter table %s enable row level security', partition);
  for grantee in
    select 'public'
    union all
    select quote_ident(rolname) from pg_catalog.pg_roles
    where rolname in ('anon', 'authenticated', 'service_role')
  loop
    execute format('revoke all on table %s from %s', partition, grantee);
  end loop;
end
$$;

create table if not exists projector.events_default partition of public.events default;
do $$ begin perform projector.guard_partition('projector.events_default'); end $$;

-- The lowest UUID whose leading 48 bits say `at` (in milliseconds), as in UUIDv7.
create or replace function projector.first_uuid_at(at timestamptz) returns uuid
language sql immutable strict
set search_path = pg_catalog, pg_temp
as $$
  select (lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partitions of this month and of the next `months_ahead`, and returns how many are new.
-- `projector migrate` calls it, and the running sidecar: hence SECURITY DEFINER.
--
-- A month is left out, with a warning, when
-- * its rows are in the DEFAULT partition already. They are found there as well as anywhere, and moving
--   them would publish them a second time.
-- * the DEFAULT partition stays locked by a long transaction: appends queue behind the wait for the
--   lock, so the wait is short. The next call tries again.
-- Attaching reads the DEFAULT partition through once, and appends to that partition wait meanwhile; a
-- month ahead costs that once.
create or replace function projector.ensure_partitions(months_ahead int default 3) returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
declare
  this_month timestamp := date_trunc('month', clock_timestamp() at time zone 'UTC');
  month timestamp;
  partition text;
  created int := 0;
begin
  if months_ahead is null or months_ahead not between 0 and 120 then
    raise exception using
      errcode = '22023',
      message = format('months_ahead must be between 0 and 120, not %s', coalesce(months_ahead::text, 'null'));
  end if;
  if not pg_try_advisory_xact_lock(hashtextextended('projector.ensure_partitions', 0)) then
    return 0; -- another session is making the same ones
  end if;

  for ahead in 0 .. months_ahead loop
    month := this_month + make_interval(months => ahead);
    partition := to_char(month, '"events_"YYYY_MM');
    continue when to_regclass('projector.' || partition) is not null;
    begin
      -- Made aside and attached: unlike CREATE TABLE … PARTITION OF, that does not lock the parent
      -- against readers and writers.
      execute format(
        'create table projector.%I (like public.events including defaults including constraints including storage)',
        partition);
      execute format(
        'alter table public.events attach partition projector.%I for values from (%L) to (%L)',
        partition,
        projector.first_uuid_at(month at time zone 'UTC'),
        projector.first_uuid_at((month + interval '1 month') at time zone 'UTC'));
      perform projector.guard_partition(format('projector.%I', partition)::regclass);
      created := created + 1;
    exception
      when check_violation then
        raise warning 'projector.% is left out: the DEFAULT partition holds runs of that month already', partition
          using hint = 'nothing is lost and nothing needs doing; retention will not reach those runs';
      when invalid_object_definition then
        raise warning 'projector.% is left out: another partition covers a part of that month', partition;
      when lock_not_available then
        raise warning 'projector.% is left out for now: a long transaction locks events', partition
          using hint = 'the next call tries again';
    end;
  end loop;
  return created;
end
$$;

-- Retention: drops the partitions of whole months before the month of `month` (UTC) and returns their
-- names. Read models keep what they have; a rebuild afterwards no longer sees the dropped runs.
create or replace function projector.drop_events_before(month timestamptz) returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  kept_from timestamp := date_trunc('month', month at time zone 'UTC');
  partition name;
begin
  if month is null then
    raise exception using errcode = '22023', message = 'month must not be null';
  end if;
  for partition in
    select child.relname
    from pg_catalog.pg_inherits as link
    join pg_catalog.pg_class as child on child.oid = link.inhrelid
    where link.inhparent = 'public.events'::regclass
      and child.relnamespace = 'projector'::regnamespace
      and child.relname ~ '^events_[0-9]{4}_[0-9]{2}$'
      and to_date(substr(child.relname, 8), 'YYYY_MM') < kept_from
    order by child.relname
  loop
    execute format('drop table projector.%I', partition);
    return next partition;
  end loop;
end
$$;

revoke all on function projector.refuse_change() from public;
revoke all on function projector.guard_partition(regclass) from public;
revoke all on function projector.first_uuid_at(timestamptz) from public;
revoke all on function projector.ensure_partitions(int) from public;
revoke all on function projector.drop_events_before(timestamptz) from public;

do $$ begin perform projector.ensure_partitions(); end $$;

insert into projector.schema_migrations (version, name)
values ('20261123090100', 'events')
on conflict do nothing;
