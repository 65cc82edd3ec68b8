-- Why: whoever may read a project, or a run's project, may also receive its broadcasts, and nobody but
-- projector may send them. Realtime topics are `run:` and `project:` with the id, in small letters.
--
-- On Supabase policies on realtime.messages decide who may join a private channel. That table may come
-- later than this file (Realtime makes it when it first runs) and may come anew, so what binds it is
-- kept by a function that `projector migrate` calls every time.

-- The runs that the caller may read, with their projects. A view, because its owner reads the events
-- while projector.can_read still asks who the caller is: whoever has no right to the events themselves
-- can be told his runs, and nobody the project of another's run.
create or replace view projector.readable_runs with (security_barrier) as
  select e.run_id, e.project_id
  from public.events as e
  where e.version = 1 and projector.can_read(e.project_id);
comment on view projector.readable_runs is 'run and project of every run that projector.can_read grants to the caller';

-- May the caller receive the broadcasts of this topic? Policies and the embedded Realtime ask it. False
-- for a run without events and for whatever is no topic; never an error.
--
-- It is made only where it is missing: replace it for topics of your own.
do $$
begin
  if to_regprocedure('projector.can_read_topic(text)') is not null then
    return;
  end if;
  create function projector.can_read_topic(topic text) returns boolean
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  as $f$
  declare
    id uuid := substring(topic from '^(?:run|project):([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$');
  begin
    if id is null then
      return false;
    end if;
    if starts_with(topic, 'project:') then
      return coalesce(projector.can_read(id), false);
    end if;
    return exists (select from projector.readable_runs as r where r.run_id = id);
  end
  $f$;
end
$$;

-- What realtime.messages needs, and whether it is there; nothing where there is no such table. The
-- catalogue is asked by name, because naming a schema takes a right to it.
--
-- Policies add up: one that somebody else made for all topics would open these too. Hence the
-- restrictive one, which holds whatever the others allow. The subqueries make Postgres ask once and not
-- for each row.
create or replace function projector.realtime_bindings() returns table (statement text, present boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  schema_oid oid := (select n.oid from pg_namespace as n where n.nspname = 'realtime');
  messages oid := (select c.oid from pg_class as c where c.relnamespace = schema_oid and c.relname = 'messages');
  policies name[] := array(select p.polname from pg_policy as p where p.polrelid = messages);
  readable text := 'topic = (select realtime.topic()) and (select projector.can_read_topic((select realtime.topic())))';
  other text := $q$topic !~ '^(run|project):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'$q$;
begin
  if messages is null then
    return;
  end if;
  statement := 'alter table realtime.messages enable row level security';
  present := (select c.relrowsecurity from pg_class as c where c.oid = messages);
  return next;
  statement := format('create policy projector_members_receive on realtime.messages for select '
    'using (extension = ''broadcast'' and %s)', readable);
  present := 'projector_members_receive' = any (policies);
  return next;
  statement := format('create policy projector_topics on realtime.messages as restrictive '
    'using (%s or (%s)) with check (%1$s or pg_has_role(to_regrole(''projector''), ''member''))', other, readable);
  present := 'projector_topics' = any (policies);
  return next;
  if to_regrole('projector') is null then
    return; -- ensure_access() has said so
  end if;
  statement := 'create policy projector_sends on realtime.messages for insert to projector '
    'with check (extension = ''broadcast'')';
  present := 'projector_sends' = any (policies);
  return next;
  statement := 'grant usage on schema realtime to projector';
  present := has_schema_privilege('projector', schema_oid, 'usage');
  return next;
  statement := 'grant insert on table realtime.messages to projector';
  present := has_table_privilege('projector', messages, 'insert');
  return next;
end
$$;

-- Does what is missing, and returns the statements that this role may not run and a superuser (on
-- Supabase: postgres, or who owns the table) must. Does nothing where there is no realtime.messages.
create or replace function projector.bind_realtime() returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  missing text;
begin
  for missing in select b.statement from projector.realtime_bindings() as b where not b.present loop
    begin
      execute missing;
    exception
      when insufficient_privilege or undefined_function or undefined_column then
        raise warning 'realtime.messages is not bound to projector: %', sqlerrm
          using hint = format('let a superuser run: %s', missing);
      when lock_not_available then
        raise warning 'realtime.messages is not bound for now: a long transaction locks it'
          using hint = format('the next call tries again: %s', missing);
    end;
  end loop;
  -- a grant that has no effect is a warning only
  return query select b.statement from projector.realtime_bindings() as b where not b.present;
end
$$;

grant select on projector.readable_runs to public;
grant execute on function projector.can_read_topic(text) to public;
grant execute on function projector.realtime_bindings() to public;
revoke all on function projector.bind_realtime() from public;

do $$
begin
  perform projector.bind_realtime();
end
$$;

insert into projector.schema_migrations (version, name)
values ('20261126090000', 'realtime')
on conflict do nothing;
