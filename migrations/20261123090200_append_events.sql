-- Why: a worker appends a run's next events in one call, is told when another worker was first, and may
-- repeat a call whose answer it lost.
--
-- How two workers on one run are kept apart: the insert of the first event at the run's next version is
-- the claim. The primary key lets one of them through; the other waits for that transaction and then
-- reads again. No advisory lock and no subtransaction: one transaction may append to 10,000 runs.
--
-- Refused with 22023, naming the element and the field as in `events[2].type`: whatever is not of the
-- shape documented below. A NUL escape (\u0000) never arrives here: jsonb cannot hold it, and the cast
-- of the argument fails with 22P05.

-- What is wrong with `events`, or null. Set-based: one pass for the whole array.
create or replace function projector.problem_in_events(events jsonb) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  largest constant int := 1048576;
  roomy boolean;
  problem text;
  at int;
  given text;
begin
  if events is null or jsonb_typeof(problem_in_events.events) <> 'array' then
    return 'events must be a JSON array';
  end if;
  if 1000 < jsonb_array_length(problem_in_events.events) then
    return format('events must hold at most 1000 elements, not %s', jsonb_array_length(problem_in_events.events));
  end if;

  -- Where the whole array is small no element need be measured.
  roomy := octet_length(problem_in_events.events::text) <= largest;
  select format('events[%s]', checked.nr - 1) || checked.fault
  into problem
  from (
    select item.nr, case
        when jsonb_typeof(item.event) <> 'object' then ' must be an object'
        when not item.event ? 'type' then '.type is missing'
        when jsonb_typeof(item.event -> 'type') <> 'string' then '.type must be a string'
        when item.event ->> 'type' = '' then '.type must not be empty'
        when jsonb_typeof(item.event -> 'payload') <> 'object' then '.payload must be an object'
        when jsonb_typeof(item.event -> 'metadata') <> 'object' then '.metadata must be an object'
        when item.event ? 'event_id' and (
            jsonb_typeof(item.event -> 'event_id') <> 'string'
            or item.event ->> 'event_id' !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')
          then '.event_id must be a UUID'
        when item.event ? 'recorded_at' and (
            jsonb_typeof(item.event -> 'recorded_at') <> 'string'
            or item.event ->> 'recorded_at'
              !~* '^\d{4}-\d\d-\d\d[t ]\d\d:\d\d:\d\d(\.\d+)?(z|[+-]\d\d(:?\d\d)?)?$')
          then '.recorded_at must be a timestamp like 2026-11-23T09:00:00Z'
        when item.event - array['type', 'payload', 'metadata', 'event_id', 'recorded_at'] <> '{}'
          then (
            select '.' || key || ' is not a field of an event'
            from jsonb_object_keys(
              item.event - array['type', 'payload', 'metadata', 'event_id', 'recorded_at']) as key
            limit 1)
        when not roomy and largest < octet_length((item.event -> 'payload')::text)
          then '.payload must be at most 1 MiB'
        when not roomy and largest < octet_length((item.event -> 'metadata')::text)
          then '.metadata must be at most 1 MiB'
      end as fault
    from jsonb_array_elements(problem_in_events.events) with ordinality as item (event, nr)) as checked
  where checked.fault is not null
  order by checked.nr
  limit 1;
  if problem is not null then
    return problem;
  end if;

  select format('events[%s].event_id is the same as that of events[%s]', later.nr - 1, later.earlier - 1)
  into problem
  from (
    select item.nr, min(item.nr) over (partition by lower(item.event ->> 'event_id')) as earlier
    from jsonb_array_elements(problem_in_events.events) with ordinality as item (event, nr)
    where item.event ? 'event_id') as later
  where later.earlier < later.nr
  order by later.nr
  limit 1;
  if problem is not null then
    return problem;
  end if;

  -- Of the right form, but is it in the calendar? Only a cast can tell. The block is a subtransaction
  -- that writes nothing, and there is none where no time is given.
  if jsonb_path_exists(problem_in_events.events, '$[*].recorded_at') then
    begin
      for at, given in
        select item.nr - 1, item.event ->> 'recorded_at'
        from jsonb_array_elements(problem_in_events.events) with ordinality as item (event, nr)
        where item.event ? 'recorded_at'
        order by item.nr
      loop
        perform given::timestamptz;
      end loop;
    exception
      when data_exception then
        return format('events[%s].recorded_at is not a time: %s', at, given);
    end;
  end if;
  return null;
end
$$;

-- Appends `events` to the run and returns one row an event, in the order given.
--
-- expected_version: the run's last version, 0 for a new run, null for no check. Another one: 40001.
-- events: at most 1,000 objects {type, payload?, metadata?, event_id?, recorded_at?}; payload and
--   metadata are objects of at most 1 MiB each, recorded_at an ISO 8601 time (UTC where it names no
--   zone). An optional field is left out, not null. An empty array appends nothing.
-- With the event_ids of an earlier call the answer is that call's, whatever expected_version says.
create or replace function public.append_events(
  project_id uuid,
  run_id uuid,
  expected_version int,
  events jsonb
) returns table (version int, "position" bigint, event_id uuid)
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
  problem text := projector.problem_in_events(append_events.events);
  total int;
  ids uuid[];
  known int;
  base int;
  owner uuid;
  last int;
  inserted int;
begin
  problem := case
    when append_events.project_id is null then 'project_id must not be null'
    when append_events.run_id is null then 'run_id must not be null'
    when append_events.expected_version < 0 then 'expected_version must be 0, positive or null'
    else problem
  end;
  if problem is not null then
    raise exception using errcode = '22023', message = 'append_events: ' || problem;
  end if;
  total := jsonb_array_length(append_events.events);
  if total = 0 then
    return;
  end if;
  if jsonb_path_exists(append_events.events, '$[*].event_id') then
    select array_agg((item.event ->> 'event_id')::uuid order by item.nr)
    into ids
    from jsonb_array_elements(append_events.events) with ordinality as item (event, nr);
  end if;

  loop
    select e.version, e.project_id
    into last, owner
    from public.events as e
    where e.run_id = append_events.run_id
    order by e.version desc
    limit 1;
    if owner <> append_events.project_id then
      raise exception using
        errcode = '22023',
        message = format('append_events: project_id of run %s is %s, not %s',
          append_events.run_id, owner, append_events.project_id);
    end if;
    last := coalesce(last, 0);

    if ids is not null and 0 < last then
      select count(*), min(e.version - array_position(ids, e.event_id))
      into known, base
      from public.events as e
      where e.run_id = append_events.run_id
        and e.event_id = any (ids);
      if known = total then
        return query
          select e.version, e.position, e.event_id
          from public.events as e
          where e.run_id = append_events.run_id
            and e.event_id = any (ids)
          order by array_position(ids, e.event_id);
        return;
      elsif 0 < known then
        -- Some elements came without an id. The call wrote its events one after the other, so those
        -- with an id tell where the others are.
        if known = cardinality(array_remove(ids, null)) and base + total <= last and not exists (
          select from unnest(ids) with ordinality as given (id, nr)
          join public.events as e on e.run_id = append_events.run_id and e.event_id = given.id
          where e.version <> base + given.nr)
        then
          return query
            select e.version, e.position, e.event_id
            from public.events as e
            where e.run_id = append_events.run_id
              and e.version between base + 1 and base + total
            order by e.version;
          return;
        end if;
        raise exception using
          errcode = '22023',
          message = (
            select format('append_events: events[%s].event_id %s was appended before, as version %s, but not with all of these events',
              given.nr - 1, given.id, e.version)
            from unnest(ids) with ordinality as given (id, nr)
            join public.events as e on e.run_id = append_events.run_id and e.event_id = given.id
            order by given.nr
            limit 1),
          hint = 'repeat a call with exactly the events of the first one';
      end if;
    end if;

    if append_events.expected_version <> last then
      raise exception using
        errcode = '40001',
        message = format('append_events: run %s is at version %s, expected %s',
          append_events.run_id, last, append_events.expected_version),
        hint = 'read the run again, decide again, and append with its last version';
    end if;

    -- The claim of the run.
    return query
      insert into public.events as e (project_id, run_id, version, event_id, type, payload, metadata, recorded_at)
      select append_events.project_id, append_events.run_id, last + 1,
        coalesce((item.event ->> 'event_id')::uuid, gen_random_uuid()),
        item.event ->> 'type',
        coalesce(item.event -> 'payload', '{}'),
        coalesce(item.event -> 'metadata', '{}'),
        coalesce((item.event ->> 'recorded_at')::timestamptz, clock_timestamp())
      from (select append_events.events -> 0) as item (event)
      on conflict do nothing
      returning e.version, e.position, e.event_id;
    get diagnostics inserted = row_count;
    exit when inserted = 1;
    -- Another worker was first; its transaction has committed, so it can be read now.
  end loop;

  if 1 < total then
    return query
      insert into public.events as e (project_id, run_id, version, event_id, type, payload, metadata, recorded_at)
      select append_events.project_id, append_events.run_id, last + item.nr::int,
        coalesce((item.event ->> 'event_id')::uuid, gen_random_uuid()),
        item.event ->> 'type',
        coalesce(item.event -> 'payload', '{}'),
        coalesce(item.event -> 'metadata', '{}'),
        coalesce((item.event ->> 'recorded_at')::timestamptz, clock_timestamp())
      from jsonb_array_elements(append_events.events) with ordinality as item (event, nr)
      where 1 < item.nr
      order by item.nr
      on conflict do nothing
      returning e.version, e.position, e.event_id;
    get diagnostics inserted = row_count;
    -- Only a writer that does not use this function can stand in the way here.
    if inserted <> total - 1 then
      raise exception using
        errcode = '40001',
        message = format('append_events: another writer inserted into run %s after version %s',
          append_events.run_id, last),
        hint = 'read the run again, decide again, and append with its last version';
    end if;
  end if;
end
$$;
comment on function public.append_events(uuid, uuid, int, jsonb) is 'appends events to a run: expected_version is its last version (0 = new, null = no check); 40001 on conflict, 22023 on bad input; repeating a call with the same event_ids returns the first answer';

-- It runs as its caller. A worker that is not the owner of events (on Supabase: service_role, which is
-- seen to later) needs:
--
--   grant select, insert on public.events to worker;
--   grant execute on function public.append_events to worker;
--   create policy worker on public.events to worker using (true) with check (true);
do $$
declare
  grantee text;
begin
  revoke all on function public.append_events(uuid, uuid, int, jsonb) from public;
  for grantee in
    select quote_ident(rolname) from pg_catalog.pg_roles where rolname in ('anon', 'authenticated')
  loop
    execute format('revoke all on function public.append_events(uuid, uuid, int, jsonb) from %s', grantee);
  end loop;
end
$$;

insert into projector.schema_migrations (version, name)
values ('20261123090200', 'append_events')
on conflict do nothing;
