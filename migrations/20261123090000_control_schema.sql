-- Why: projector keeps what it knows about itself (which migrations ran, how far each read model is
-- complete, what failed) beside the data it speaks of, so that rows and checkpoint commit together.
--
-- Every file in this folder is plain SQL, runs as one script, may run inside one transaction and may
-- run again without harm. It names each object with its schema; where another schema than public is
-- configured, `projector migrate` replaces that name before a dot and after the word schema. At its end
-- each file enters itself in the ledger, so that `projector run` sees it whichever tool applied it;
-- `projector migrate` adds the checksum.
--
-- Every function pins search_path to pg_catalog and, last, pg_temp: left out, pg_temp would come first,
-- and whoever may create a temporary type could slip it under a function that runs as its owner.

create schema if not exists projector;
comment on schema projector is 'projector: control tables, functions, and the partitions behind events and the read models';

-- The ledger. No checksum: another tool applied the file.
create table if not exists projector.schema_migrations (
  version text primary key,
  name text not null,
  checksum text,
  applied_at timestamptz not null default now()
);

-- Updated by every batch: the room left in a page keeps those updates heap-only.
create table if not exists projector.checkpoints (
  projection text primary key,
  lsn pg_lsn not null,
  committed_at timestamptz,
  events bigint not null default 0,
  updated_at timestamptz not null default now()
) with (fillfactor = 50);
comment on column projector.checkpoints.lsn is 'commit-end LSN up to which the projection''s rows are complete';
comment on column projector.checkpoints.committed_at is 'when the source transaction at lsn committed';
comment on column projector.checkpoints.events is 'events applied so far';

create table if not exists projector.projections (
  name text primary key,
  table_name text not null,
  lane text not null default 'default',
  definition_hash text not null,
  columns jsonb not null default '{}',
  generation int not null default 0,
  state text not null check (state in ('live', 'catching_up', 'rebuilding', 'paused', 'failed', 'detached')),
  last_error text,
  error_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
comment on column projector.projections.definition_hash is 'hex sha256 of the definition that made the rows';
comment on column projector.projections.columns is 'declaration of each column of the serving generation';
comment on column projector.projections.generation is 'number of the partition that serves the read model';

-- Events that a rule could not apply, and every later one for the same row.
create table if not exists projector.dead_letters (
  id bigint generated always as identity primary key,
  projection text not null,
  row_key jsonb not null,
  lsn pg_lsn not null,
  position bigint not null,
  run_id uuid not null,
  version int not null,
  type text not null,
  rule text,
  error text not null,
  payload jsonb,
  attempts int not null default 0,
  created_at timestamptz not null default now()
);
create index if not exists dead_letters_row on projector.dead_letters (projection, row_key);

create table if not exists projector.rebuilds (
  id bigint generated always as identity primary key,
  projection text not null,
  generation int not null,
  phase text not null,
  events_done bigint not null default 0,
  events_total bigint,
  started_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  finished_at timestamptz,
  error text
);
create index if not exists rebuilds_projection on projector.rebuilds (projection, id);

create table if not exists projector.audit_log (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  who text not null default session_user,
  verb text not null,
  subject text,
  details jsonb not null default '{}'
);

-- Whose WAL the checkpoints speak of: after a restore or on another cluster an LSN means nothing.
create table if not exists projector.sources (
  slot text primary key,
  system_identifier text not null,
  timeline int not null,
  created_at timestamptz not null default now()
);

-- Moves the checkpoints of a lane from the LSNs it last saw to `next`, inside the transaction that
-- wrote the rows. Another writer having moved one of them means that the caller is a zombie: its
-- transaction must die (SQLSTATE PJ001).
create or replace function projector.advance(
  projections text[],
  expected pg_lsn[],
  next pg_lsn,
  committed_at timestamptz,
  events bigint
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  moved int;
begin
  update projector.checkpoints as c
  set lsn = advance.next,
      committed_at = coalesce(advance.committed_at, c.committed_at),
      events = c.events + advance.events,
      updated_at = clock_timestamp()
  from unnest(advance.projections, advance.expected) as seen (projection, lsn)
  where c.projection = seen.projection
    and c.lsn = seen.lsn;
  get diagnostics moved = row_count;

  if moved <> cardinality(advance.projections) or moved <> cardinality(advance.expected) then
    raise exception using
      errcode = 'PJ001',
      message = format('checkpoint moved by another writer: %s of %s are where this one left them',
        moved, cardinality(advance.projections)),
      detail = (
        select string_agg(format('%s: expected %s, found %s', seen.projection, seen.lsn, c.lsn), '; ')
        from unnest(advance.projections, advance.expected) as seen (projection, lsn)
        left join projector.checkpoints as c on c.projection = seen.projection),
      hint = 'another projector follows this database; this one must stand by';
  end if;
end
$$;

-- Nobody reaches the control tables unless a later file says so, whatever the default privileges are.
do $$
declare
  control text;
  grantee text;
begin
  foreach control in array array['schema_migrations', 'checkpoints', 'projections', 'dead_letters',
                                 'rebuilds', 'audit_log', 'sources'] loop
    execute format('alter table projector.%I enable row level security', control);
    for grantee in
      select 'public'
      union all
      select quote_ident(rolname) from pg_catalog.pg_roles
      where rolname in ('anon', 'authenticated', 'service_role')
    loop
      execute format('revoke all on table projector.%I from %s', control, grantee);
    end loop;
  end loop;
end
$$;
revoke all on function projector.advance(text[], pg_lsn[], pg_lsn, timestamptz, bigint) from public;

insert into projector.schema_migrations (version, name)
values ('20261123090000', 'control_schema')
on conflict do nothing;
