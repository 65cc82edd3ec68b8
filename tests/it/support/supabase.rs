//! What a Supabase project has beside its tables: roles, default privileges, and the schema in which
//! Realtime keeps what it is to broadcast.

/// Roles, default privileges and functions.
pub(crate) const ROLES: &str = "
    create role anon nologin noinherit;
    create role authenticated nologin noinherit;
    create role service_role nologin noinherit bypassrls;
    grant usage on schema public to anon, authenticated, service_role;
    alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
    alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
    alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
    create schema auth;
    grant usage on schema auth to anon, authenticated, service_role;
    create function auth.jwt() returns jsonb language sql stable as
      $$ select coalesce(nullif(current_setting('request.jwt.claims', true), '')::jsonb, '{}') $$;
    create function auth.uid() returns uuid language sql stable as $$ select (auth.jwt() ->> 'sub')::uuid $$;";

/// The schema `realtime`, owned by a role of its own, with a partition for each of these days.
pub(crate) const REALTIME: &str = "
    create role supabase_realtime_admin nologin noinherit createrole noreplication;
    create schema realtime authorization supabase_realtime_admin;
    grant usage on schema realtime to anon, authenticated, service_role;
    set role supabase_realtime_admin;
    create function realtime.topic() returns text language sql stable as
      $$ select nullif(current_setting('realtime.topic', true), '') $$;
    create table realtime.messages (
      topic text not null,
      extension text not null,
      payload jsonb,
      event text,
      private boolean default false,
      updated_at timestamp not null default now(),
      inserted_at timestamp not null default now(),
      id uuid not null default gen_random_uuid(),
      binary_payload bytea,
      primary key (id, inserted_at),
      constraint messages_payload_exclusive check (payload is null or binary_payload is null) not valid
    ) partition by range (inserted_at);
    alter table realtime.messages enable row level security;
    grant select, insert, update on realtime.messages to anon, authenticated, service_role;
    create index messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
      where extension = 'broadcast' and private is true;
    do $$
    begin
      for day in -1 .. 3 loop
        execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
          to_char(current_date + day, '\"messages_\"YYYY_MM_DD'), current_date + day, current_date + day + 1);
      end loop;
    end $$;
    reset role;";
