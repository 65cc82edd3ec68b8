-- Why: whoever has only a database connection can steer projections (rebuild, pause, resume) and wait
-- until a read model includes what was just appended.
--
-- The admin verbs write down what is wanted; the running sidecar does it within a second or so and
-- reports in these tables. Each leaves an entry in the audit log. They run as their owner, so that
-- their callers need no right to the control tables.

alter table projector.projections
  add column if not exists definition_text text,
  add column if not exists paused_at timestamptz,
  add column if not exists paused_by text;
comment on column projector.projections.definition_text is 'the definition that made the rows, as it was written';
comment on column projector.projections.paused_at is 'since when it is to rest; null when it is to follow';

alter table projector.rebuilds
  alter column generation drop not null,
  add column if not exists reason text not null default 'request',
  add column if not exists requested_by text not null default session_user,
  add column if not exists requested_at timestamptz not null default clock_timestamp(),
  add column if not exists cancel_at timestamptz,
  add column if not exists lsn pg_lsn,
  add column if not exists waiting_for text;
comment on column projector.rebuilds.generation is 'the generation that is being built; null until it begins';
comment on column projector.rebuilds.phase is
  'requested, snapshot, fold, catch_up, swap; at the end done, failed or canceled';
comment on column projector.rebuilds.reason is 'why: request, definition, new, slot or resume';
comment on column projector.rebuilds.started_at is 'when work on it began; of a request, when it was made';
comment on column projector.rebuilds.cancel_at is 'when somebody asked to give it up';
comment on column projector.rebuilds.lsn is 'up to where the new generation is complete';
comment on column projector.rebuilds.waiting_for is 'what it waits for, such as a lock on the table';

-- One at a time. What versions before this one left unfinished is nobody's any more.
do $$
begin
  if to_regclass('projector.rebuilds_unfinished') is null then
    update projector.rebuilds
    set phase = 'failed', finished_at = clock_timestamp(), error = 'left unfinished'
    where finished_at is null;
    create unique index rebuilds_unfinished on projector.rebuilds (projection) where finished_at is null;
  end if;
end
$$;

-- The projection of this name; who asks for another is told which there are.
create or replace function projector.known(name text) returns projector.projections
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  found_projection projector.projections;
begin
  select * into found_projection from projector.projections as p where p.name = known.name;
  if not found then
    raise exception using
      errcode = '22023',
      message = case when known.name is null then 'the name of the projection is null'
        else format('there is no projection "%s"', known.name) end,
      hint = coalesce(
        (select 'there are: ' || string_agg(p.name, ', ' order by p.name) from projector.projections as p),
        'there is none yet: `projector run` makes them from their definitions');
  end if;
  return found_projection;
end
$$;

-- Who did what, and by which program. Of a caller that has taken a role (PostgREST) the role, too.
create or replace function projector.audit(verb text, subject text, details jsonb) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into projector.audit_log (who, verb, subject, details)
  values (session_user, audit.verb, audit.subject, audit.details || jsonb_strip_nulls(jsonb_build_object(
    'application', nullif(current_setting('application_name', true), ''),
    'role', nullif(current_setting('role', true), 'none'))));
$$;

-- Asks for an online rebuild and returns its number in projector.rebuilds, where its progress can be
-- read. A request that nobody has begun yet is returned again; a rebuild under way is an error (55006).
create or replace function projector.rebuild(name text) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target projector.projections := projector.known(rebuild.name);
  running projector.rebuilds;
  requested bigint;
begin
  if target.state = 'detached' then
    raise exception using
      errcode = '55000',
      message = format('projection "%s" has no definition any more', target.name),
      hint = 'put its definition back; or drop its rows with `projector prune`';
  end if;
  if target.paused_at is not null then
    raise exception using
      errcode = '55000',
      message = format('projection "%s" is paused since %s by %s', target.name, target.paused_at, target.paused_by),
      hint = format('select projector.resume(%L) first', target.name);
  end if;

  loop
    insert into projector.rebuilds (projection, phase, reason)
    values (target.name, 'requested', 'request')
    on conflict (projection) where finished_at is null do nothing
    returning id into requested;
    exit when requested is not null;
    select * into running from projector.rebuilds as r
    where r.projection = target.name and r.finished_at is null;
    continue when not found; -- it has ended in this moment
    if running.phase = 'requested' and running.cancel_at is null then
      requested := running.id;
      exit;
    end if;
    raise exception using
      errcode = '55006',
      message = format('a rebuild of projection "%s" is under way', target.name),
      detail = format('Rebuild %s, phase %s, %s of %s events%s.', running.id, running.phase, running.events_done,
        coalesce(running.events_total::text, '?'),
        case when running.cancel_at is null then '' else ', being canceled' end),
      hint = format('wait for its end, or give it up: select projector.cancel_rebuild(%L)', target.name);
  end loop;

  perform projector.audit('rebuild', target.name, jsonb_build_object('rebuild', requested));
  return requested;
end
$$;

-- Gives up the rebuild that was asked for or is under way; the rows that serve stay. Whether there was
-- one. One that is just being put in place may still succeed.
create or replace function projector.cancel_rebuild(name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target projector.projections := projector.known(cancel_rebuild.name);
  canceled bigint;
begin
  -- what nobody has begun ends here: nobody might come to end it
  update projector.rebuilds as r
  set cancel_at = coalesce(r.cancel_at, clock_timestamp()),
      phase = case r.phase when 'requested' then 'canceled' else r.phase end,
      finished_at = case r.phase when 'requested' then clock_timestamp() end,
      updated_at = clock_timestamp()
  where r.projection = target.name and r.finished_at is null
  returning id into canceled;
  if canceled is null then
    return false;
  end if;
  perform projector.audit('cancel_rebuild', target.name, jsonb_build_object('rebuild', canceled));
  return true;
end
$$;

-- The projection stops where it is, and its rows stay readable. Whether that is a change.
create or replace function projector.pause(name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target projector.projections := projector.known(pause.name);
begin
  if target.state = 'detached' then
    raise exception using
      errcode = '55000',
      message = format('projection "%s" has no definition any more: nothing moves it', target.name);
  end if;
  update projector.projections as p
  set paused_at = clock_timestamp(), paused_by = session_user, updated_at = clock_timestamp()
  where p.name = target.name and p.paused_at is null;
  if not found then
    return false;
  end if;
  perform projector.audit('pause', target.name, '{}');
  return true;
end
$$;

-- The projection goes on from where it was paused; where the server's log does not reach back so far
-- any more it is rebuilt. Whether that is a change.
create or replace function projector.resume(name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target projector.projections := projector.known(resume.name);
begin
  if target.paused_at is null and target.state = 'failed' then
    raise exception using
      errcode = '55000',
      message = format('projection "%s" is not paused, it failed', target.name),
      detail = coalesce(target.last_error, 'The cause was not recorded.'),
      hint = format('mend the cause, then: select projector.rebuild(%L)', target.name);
  end if;
  update projector.projections as p
  set paused_at = null, paused_by = null, updated_at = clock_timestamp()
  where p.name = target.name and p.paused_at is not null;
  if not found then
    return false;
  end if;
  perform projector.audit('resume', target.name, '{}');
  return true;
end
$$;

-- Up to where the rows of a projection are complete, as of the snapshot of the calling statement: in a
-- transaction that is repeatable read, rows and position are of one moment.
create or replace function projector.checkpoint(name text) returns pg_lsn
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select c.lsn from projector.checkpoints as c where c.projection = checkpoint.name;
$$;

-- Whether the rows of a projection include everything that was committed before `lsn`. An error where
-- that will not come by waiting. The cause of a failure may quote data: it is told to those who may
-- read the table it is in.
create or replace function projector.has_reached(name text, lsn pg_lsn) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target projector.projections;
  caller text;
begin
  perform from projector.checkpoints as c where c.projection = has_reached.name and has_reached.lsn <= c.lsn;
  if found then
    return true;
  end if;
  target := projector.known(has_reached.name);
  if has_reached.lsn is null then
    raise exception using
      errcode = '22004',
      message = 'the position to wait for is null',
      hint = 'after the commit: select pg_current_wal_insert_lsn()';
  end if;
  if target.paused_at is null and target.state not in ('paused', 'failed', 'detached') then
    return false;
  end if;
  caller := coalesce(nullif(current_setting('role', true), 'none'), session_user);
  raise exception using
    errcode = '55000',
    message = format('projection "%s" is %s and does not move', target.name,
      case when target.paused_at is null then target.state else 'paused' end),
    detail = concat_ws(' ',
      (select format('Its rows are complete up to %s.', c.lsn)
        from projector.checkpoints as c where c.projection = target.name),
      case when target.state = 'failed' and has_table_privilege(caller, 'projector.projections', 'select')
        then target.last_error end),
    hint = case when target.paused_at is not null or target.state = 'paused'
        then format('select projector.resume(%L)', target.name)
      when target.state = 'failed'
        then format('`projector status` says why; mend the cause, then: select projector.rebuild(%L)', target.name)
      else 'its definition is gone; its rows stay as they are' end;
end
$$;

-- Read your writes: returns true as soon as the rows of a projection include everything committed
-- before `lsn`, and false when they do not within `timeout` (at most a minute). To be called after the
-- commit, with `pg_current_wal_insert_lsn()` asked for after it:
--
--   select projector.wait_for('run_status', pg_current_wal_insert_lsn());
--
-- The end of the log is nearly always beyond the last event: somebody else has written, if only
-- projector itself. So the waiting leaves a message in the log, which projector answers by moving the
-- checkpoint up to it.
create or replace function projector.wait_for(name text, lsn pg_lsn, timeout interval default '10 seconds')
returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  until timestamptz := clock_timestamp() + least(coalesce(wait_for.timeout, '10 seconds'), '60 seconds');
  pause double precision := 0.001;
begin
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception using
      errcode = '25001',
      message = format('wait_for cannot see progress in a transaction that is %s',
        current_setting('transaction_isolation')),
      detail = 'Such a transaction reads the database as it was at its first statement, and waits in vain.',
      hint = 'call it before that transaction, or under read committed';
  end if;
  if pg_current_xact_id_if_assigned() is not null then
    raise exception using
      errcode = '25001',
      message = 'wait_for was called in a transaction that has written',
      detail = 'What is not committed is not in any read model, however long one waits.',
      hint = 'commit first, then ask for pg_current_wal_insert_lsn() and wait for that';
  end if;
  if projector.has_reached(wait_for.name, wait_for.lsn) then
    return true;
  end if;

  if not pg_is_in_recovery() then
    if pg_current_wal_insert_lsn() < wait_for.lsn then
      raise exception using
        errcode = '22023',
        message = format('position %s is beyond the end of the log, %s', wait_for.lsn, pg_current_wal_insert_lsn()),
        hint = 'a position means something only on the server that gave it';
    end if;
    -- the log must be flushed up to the message, or nobody sees it: before version 17 projector sees to that
    if current_setting('server_version_num')::int < 170000 then
      perform pg_logical_emit_message(false, 'projector', 'wait');
    else
      execute 'select pg_logical_emit_message(false, ''projector'', ''wait'', true)';
    end if;
  end if;

  while clock_timestamp() < until loop
    perform pg_sleep(pause);
    if projector.has_reached(wait_for.name, wait_for.lsn) then
      return true;
    end if;
    pause := least(pause * 1.5, 0.05);
  end loop;
  return false;
end
$$;

-- As before (20261123090300), and who may call the verbs.
create or replace function projector.ensure_access() returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  grantee text;
  control text;
  missing text;
begin
  if to_regrole('projector') is null then
    begin
      create role projector login replication;
    exception
      when insufficient_privilege then
        begin
          create role projector login;
        exception
          when insufficient_privilege then
            missing := 'create role projector login replication';
        end;
      when duplicate_object or unique_violation then
        null; -- made in this moment for another database of this cluster
    end;
  end if;
  if exists (select from pg_catalog.pg_roles where rolname = 'projector' and not rolreplication and not rolsuper) then
    begin
      alter role projector replication;
    exception
      when insufficient_privilege then
        missing := 'alter role projector replication';
    end;
  end if;
  if missing is not null then
    raise warning 'this role may not give the role projector what it needs'
      using hint = format('let a superuser run: %s', missing);
    return next missing;
  end if;

  -- Usage of the schema opens no table: it lets those who may append or ask call the functions.
  grant usage on schema projector to public;

  if to_regrole('projector') is not null then
    grant usage, create on schema public to projector;
    grant usage, create on schema projector to projector;
    grant select on public.events to projector;
    grant select on projector.schema_migrations to projector;
    grant execute on function projector.advance(text[], pg_lsn[], pg_lsn, timestamptz, bigint) to projector;
    grant execute on function projector.ensure_partitions(int) to projector;
    grant execute on function
      projector.rebuild(text), projector.cancel_rebuild(text), projector.pause(text), projector.resume(text)
      to projector;
    if not exists (
      select from pg_catalog.pg_policy where polrelid = 'public.events'::regclass and polname = 'events_projector')
    then
      create policy events_projector on public.events for select to projector using (true);
    end if;
    foreach control in array array['schema_migrations', 'checkpoints', 'projections', 'dead_letters',
                                   'rebuilds', 'audit_log', 'sources'] loop
      if control <> 'schema_migrations' then
        execute format('grant select, insert, update, delete on projector.%I to projector', control);
      end if;
      if not exists (
        select from pg_catalog.pg_policy
        where polrelid = ('projector.' || control)::regclass and polname = 'projector')
      then
        execute format('create policy projector on projector.%I to projector using (true) with check (true)', control);
      end if;
    end loop;
  end if;

  -- Supabase's default privileges give every new table and sequence in public to these roles.
  for grantee in
    select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated')
  loop
    execute format('revoke all on table public.events from %I', grantee);
    execute format('revoke all on sequence public.events_position_seq from %I', grantee);
    execute format('revoke all on function public.append_events(uuid, uuid, int, jsonb) from %I', grantee);
    execute format('grant select on table public.events to %I', grantee);
  end loop;
  -- It bypasses row level security on Supabase.
  if to_regrole('service_role') is not null then
    revoke all on table public.events from service_role;
    revoke all on sequence public.events_position_seq from service_role;
    grant select, insert on table public.events to service_role;
    grant execute on function public.append_events(uuid, uuid, int, jsonb) to service_role;
    grant execute on function
      projector.rebuild(text), projector.cancel_rebuild(text), projector.pause(text), projector.resume(text)
      to service_role;
  end if;
end
$$;

revoke all on function projector.ensure_access() from public;
revoke all on function projector.known(text) from public;
revoke all on function projector.audit(text, text, jsonb) from public;
revoke all on function projector.rebuild(text) from public;
revoke all on function projector.cancel_rebuild(text) from public;
revoke all on function projector.pause(text) from public;
revoke all on function projector.resume(text) from public;
grant execute on function projector.checkpoint(text) to public;
grant execute on function projector.has_reached(text, pg_lsn) to public;
grant execute on function projector.wait_for(text, pg_lsn, interval) to public;

do $$
begin
  perform projector.ensure_access();
end
$$;

insert into projector.schema_migrations (version, name)
values ('20261124090000', 'verbs')
on conflict do nothing;
