-- Why: an event that a rule cannot apply is set aside with the row that it was meant for, and somebody
-- must be able to try it again or to give it up.

-- A letter without a key: no rule could tell which row the event means.
alter table projector.dead_letters
  alter column row_key drop not null,
  add column if not exists request text check (request in ('retry', 'discard')),
  add column if not exists requested_at timestamptz,
  add column if not exists requested_by text;
comment on table projector.dead_letters is
  'events that a rule could not apply, and every later one for the same row';
comment on column projector.dead_letters.row_key is 'the row they are for; null where no rule could tell';
comment on column projector.dead_letters.lsn is 'where the event''s transaction ends; of history, how far it was read';
comment on column projector.dead_letters.rule is 'file:line; null for an event that was not tried';
comment on column projector.dead_letters.attempts is 'how often it was tried; 0 for one that waits for an earlier one';
comment on column projector.dead_letters.request is 'what somebody wants done about it, and projector has not done yet';

-- Looked for every second, and empty but for moments.
create index if not exists dead_letters_request on projector.dead_letters (projection) where request is not null;
create index if not exists dead_letters_run on projector.dead_letters (projection, run_id);

-- Asks for dead letters to be tried again or given up, of one row or of all. Returns how many rows
-- (and events without a row) that are; the running sidecar does it within a second or so.
create or replace function projector.request_dead_letters(name text, row_key jsonb, request text)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target projector.projections := projector.known(request_dead_letters.name);
  rows bigint;
begin
  with asked as (
    update projector.dead_letters as d
    set request = request_dead_letters.request, requested_at = clock_timestamp(), requested_by = session_user
    where d.projection = target.name
      and (request_dead_letters.row_key is null or d.row_key = request_dead_letters.row_key)
      -- what has no row cannot come to one by being tried again
      and (d.row_key is not null or request_dead_letters.request = 'discard')
    returning d.id, d.row_key
  )
  select count(distinct asked.row_key) + count(*) filter (where asked.row_key is null) into rows from asked;
  if rows = 0 then
    raise exception using
      errcode = '22023',
      message = case when request_dead_letters.row_key is null
        then format('projection "%s" has no dead letters to %s', target.name, request_dead_letters.request)
        else format('projection "%s" has no dead letters for row %s', target.name, request_dead_letters.row_key) end,
      hint = format('`projector dead-letters list %s` tells which there are', target.name);
  end if;
  perform projector.audit(request_dead_letters.request || '_dead_letters', target.name,
    jsonb_build_object('row_key', request_dead_letters.row_key, 'rows', rows));
  return rows;
end
$$;
revoke all on function projector.request_dead_letters(text, jsonb, text) from public;

-- Folds rows again from history and frees them, once what was wrong is mended: one row, or all.
create or replace function projector.retry_dead_letters(name text, row_key jsonb default null) returns bigint
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  select projector.request_dead_letters(retry_dead_letters.name, retry_dead_letters.row_key, 'retry');
$$;
revoke all on function projector.retry_dead_letters(text, jsonb) from public;

-- Gives events up: the row stays as it is, and takes the events that come from now on.
create or replace function projector.discard_dead_letters(name text, row_key jsonb default null) returns bigint
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  select projector.request_dead_letters(discard_dead_letters.name, discard_dead_letters.row_key, 'discard');
$$;
revoke all on function projector.discard_dead_letters(text, jsonb) from public;

do $$
declare
  grantee text;
begin
  for grantee in
    select rolname from pg_catalog.pg_roles where rolname in ('projector', 'service_role')
  loop
    execute format('grant execute on function projector.retry_dead_letters(text, jsonb), projector.discard_dead_letters(text, jsonb) to %I', grantee);
  end loop;
end
$$;

insert into projector.schema_migrations (version, name)
values ('20261124090100', 'dead_letters')
on conflict do nothing;
