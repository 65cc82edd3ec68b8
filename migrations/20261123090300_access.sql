-- Why: who may do what. Workers append, the sidecar reads and keeps its own tables, a user of the API
-- sees the projects that `projector.can_read` grants, and nobody changes an event.
--
-- Roles and the publication live outside the schema and get lost in other ways than tables do (a
-- restore on another cluster, a role made later), so they are kept by functions which `projector
-- migrate` calls every time.

-- May the caller read this project? The one question behind events, the read models, the HTTP API and
-- the Realtime topics. REPLACE IT to bind it to your own membership table:
--
--   create or replace function projector.can_read(project_id uuid) returns boolean
--   language sql stable security definer set search_path = pg_catalog, pg_temp as $f$
--     select exists (select from public.members as m
--       where m.project_id = can_read.project_id and m.user_id = (select auth.uid()))
--   $f$;
--
-- It is made only where it is missing, so your own stays.
--
-- This one reads the JWT's claims as PostgREST and Supabase hand them over (the same setting that
-- auth.uid() and auth.jwt() read): role service_role sees all, others the projects that the claims
-- name in project_id or project_ids, at the top or in app_metadata (there also as `projects`).
-- user_metadata does not count: users write it themselves. Claims count only when they come through
-- Supabase's roles or from a member of role projector, who may ask on behalf of another: anybody with
-- an SQL prompt can set them. Without claims only members of role projector (and superusers) pass; the
-- owner of a table is not asked at all.
--
-- Cost: Postgres inlines it into the policy, and it runs once for each row that other conditions leave:
-- about four microseconds, mostly to parse the claims. Ask for a run or a project, not for everything.
do $$
begin
  if to_regprocedure('projector.can_read(uuid)') is not null then
    return;
  end if;
  create function projector.can_read(project_id uuid) returns boolean
  language sql stable
  return case
    when nullif(current_setting('request.jwt.claims', true), '') is null
      then coalesce(pg_has_role(to_regrole('projector'), 'member'), false)
    when current_user in ('anon', 'authenticated', 'service_role')
        or pg_has_role(to_regrole('projector'), 'member')
      then coalesce(
        jsonb_path_exists(
          current_setting('request.jwt.claims', true)::jsonb,
          '$ ? (@.role == "service_role"
            || @.project_id == $project
            || @.project_ids[*] == $project
            || @.app_metadata.project_id == $project
            || @.app_metadata.project_ids[*] == $project
            || @.app_metadata.projects[*] == $project)',
          jsonb_build_object('project', project_id),
          true),
        false)
    else false
  end;
end
$$;
grant execute on function projector.can_read(uuid) to public;

-- Inserts only, and by the name of the root: the reader need not know partitions.
create or replace function projector.ensure_publication() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  found_publication pg_catalog.pg_publication;
begin
  select * into found_publication from pg_catalog.pg_publication where pubname = 'projector';
  if found_publication.oid is null then
    create publication projector for table public.events
      with (publish = 'insert', publish_via_partition_root = true);
    return;
  end if;
  if not (found_publication.pubinsert and found_publication.pubviaroot)
    or found_publication.pubupdate or found_publication.pubdelete or found_publication.pubtruncate
  then
    alter publication projector set (publish = 'insert', publish_via_partition_root = true);
  end if;
  if not found_publication.puballtables and not exists (
    select from pg_catalog.pg_publication_rel
    where prpubid = found_publication.oid and prrelid = 'public.events'::regclass)
  then
    alter publication projector add table public.events;
  end if;
end
$$;

-- Makes the role `projector` if need be, gives it and Supabase's roles what they need, and returns the
-- statements that only a superuser may run and that are still missing (also raised as warnings). After
-- running them: `projector migrate`, or call this function, again.
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
  end if;
end
$$;

revoke all on function projector.ensure_publication() from public;
revoke all on function projector.ensure_access() from public;

do $$
begin
  if not exists (
    select from pg_catalog.pg_policy where polrelid = 'public.events'::regclass and polname = 'events_can_read')
  then
    create policy events_can_read on public.events for select using (projector.can_read(project_id));
  end if;
  perform projector.ensure_access();
  perform projector.ensure_publication();
end
$$;

insert into projector.schema_migrations (version, name)
values ('20261123090300', 'access')
on conflict do nothing;
