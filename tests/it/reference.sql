-- What the shipped read models must hold, written from the contract in plain SQL: the independent
-- check of the engine. One view a read model in schema `reference`, columns in the contract's order,
-- redacted columns (`output`, `fields`) left out. Slow on purpose: no view shares a thought with the
-- definitions in projections/.

create schema if not exists reference;

-- A run's `project_id` is that of its first event.
create or replace view reference.runs as
select distinct on (run_id) run_id, project_id
from public.events
order by run_id, version;

create or replace view reference.run_status as
with counted as (
  select
    e.run_id,
    count(*) filter (where e.type = 'step_started') as steps_started,
    count(*) filter (where e.type = 'step_succeeded') as steps_succeeded,
    count(*) filter (where e.type = 'step_failed') as steps_failed
  from public.events as e
  group by e.run_id
)
select
  r.run_id,
  r.project_id,
  first_start.workflow,
  first_start.workflow_version,
  first_start.trigger,
  coalesce(case turn.type
    when 'run_started' then 'running'
    when 'run_resumed' then 'running'
    when 'run_paused' then 'paused'
    when 'run_succeeded' then 'succeeded'
    when 'run_completed' then 'succeeded'
    when 'run_failed' then 'failed'
    when 'run_canceled' then 'canceled'
  end, 'running') as status,
  latest.version,
  counted.steps_started::int as steps_started,
  counted.steps_succeeded::int as steps_succeeded,
  counted.steps_failed::int as steps_failed,
  case when trouble.type in ('run_failed', 'step_failed') then trouble.error end as error,
  case when trouble.type in ('run_failed', 'step_failed') then trouble.step_id end as failed_step,
  first_start.recorded_at as started_at,
  case when finish.type <> 'run_resumed' then finish.recorded_at end as finished_at,
  latest.type as last_event,
  latest.recorded_at as last_event_at,
  case when finish.type <> 'run_resumed' then
    (extract(epoch from finish.recorded_at - first_start.recorded_at) * 1000)::bigint
  end as duration_ms
from reference.runs as r
join counted using (run_id)
cross join lateral (
  select e.version, e.type, e.recorded_at
  from public.events as e
  where e.run_id = r.run_id
  order by e.version desc
  limit 1) as latest
left join lateral (
  select
    e.recorded_at,
    e.payload ->> 'workflow' as workflow,
    e.payload ->> 'workflow_version' as workflow_version,
    e.payload ->> 'trigger' as trigger
  from public.events as e
  where e.run_id = r.run_id and e.type = 'run_started'
  order by e.version
  limit 1) as first_start on true
left join lateral (
  select e.type
  from public.events as e
  where e.run_id = r.run_id
    and e.type in ('run_started', 'run_resumed', 'run_paused', 'run_succeeded', 'run_completed', 'run_failed', 'run_canceled')
  order by e.version desc
  limit 1) as turn on true
left join lateral (
  select e.type, e.payload #>> '{error,message}' as error, e.payload ->> 'step_id' as step_id
  from public.events as e
  where e.run_id = r.run_id
    and e.type in ('run_failed', 'step_failed', 'run_resumed', 'run_succeeded', 'run_completed')
  order by e.version desc
  limit 1) as trouble on true
left join lateral (
  select e.type, e.recorded_at
  from public.events as e
  where e.run_id = r.run_id
    and e.type in ('run_succeeded', 'run_completed', 'run_failed', 'run_canceled', 'run_resumed')
  order by e.version desc
  limit 1) as finish on true;

-- The newest attempt wins, within it the later event. `error`, `retry_at`, `due_at`, `started_at` and
-- `finished_at` are the newest attempt's, null until one of its events says so; `name` and `kind` are
-- the step's last known ones. A step event that names no attempt belongs to the newest one before it,
-- or, where there is none, to the first one after it; a step that knows no attempts has null. `last_version` is the step's last event, whichever attempt it is of.
create or replace view reference.step_status as
with named as (
  select
    e.*,
    e.payload ->> 'step_id' as step_id,
    (e.payload ->> 'attempt')::int as own_attempt
  from public.events as e
  where e.type in ('step_scheduled', 'step_started', 'step_succeeded', 'step_failed', 'step_skipped')
    and e.payload ->> 'step_id' is not null
), numbered as (
  select
    n.*,
    coalesce(
      n.own_attempt,
      max(n.own_attempt) over (partition by n.run_id, n.step_id order by n.version),
      (array_agg(n.own_attempt) filter (where n.own_attempt is not null) over (
        partition by n.run_id, n.step_id order by n.version
        rows between current row and unbounded following))[1]) as attempt
  from named as n
), ranked as (
  select
    n.*,
    max(n.attempt) over (partition by n.run_id, n.step_id) as newest
  from numbered as n
), steps as (
  select
    n.run_id,
    n.step_id,
    max(n.newest) as attempt,
    max(n.version) as last_version,
    (array_agg(n.payload ->> 'name' order by n.version desc) filter (where n.payload ->> 'name' is not null))[1] as name,
    (array_agg(n.payload ->> 'kind' order by n.version desc) filter (where n.payload ->> 'kind' is not null))[1] as kind,
    -- of the newest attempt: its last event, its scheduling, its start
    (array_agg(n.version order by n.version desc) filter (where n.attempt is not distinct from n.newest))[1] as deciding,
    (array_agg((n.payload ->> 'due_at')::timestamptz order by n.version desc)
      filter (where n.attempt is not distinct from n.newest and n.type = 'step_scheduled'))[1] as due_at,
    (array_agg(n.recorded_at order by n.version desc)
      filter (where n.attempt is not distinct from n.newest and n.type = 'step_started'))[1] as started_at
  from ranked as n
  group by n.run_id, n.step_id
)
select
  s.run_id,
  s.step_id,
  r.project_id,
  s.name,
  s.kind,
  case latest.type
    when 'step_scheduled' then 'scheduled'
    when 'step_started' then 'running'
    when 'step_succeeded' then 'succeeded'
    when 'step_skipped' then 'skipped'
    when 'step_failed' then
      case when latest.payload ->> 'retry_at' is null then 'failed' else 'retrying' end
  end as status,
  s.attempt,
  s.due_at,
  s.started_at,
  case when latest.type in ('step_succeeded', 'step_failed', 'step_skipped') then latest.recorded_at end as finished_at,
  case when latest.type = 'step_failed' then latest.payload #>> '{error,message}' end as error,
  case when latest.type = 'step_failed' then (latest.payload ->> 'retry_at')::timestamptz end as retry_at,
  s.last_version
from steps as s
join reference.runs as r using (run_id)
join public.events as latest on latest.run_id = s.run_id and latest.version = s.deciding;

-- One line for every event. `message` is payload.message, else the error's message, else the reason.
create or replace view reference.run_log as
select
  e.run_id,
  e.version,
  e.project_id,
  e.recorded_at as at,
  e.type,
  coalesce(
    e.payload ->> 'level',
    case when e.type in ('run_failed', 'step_failed') then 'error' else 'info' end) as level,
  e.payload ->> 'step_id' as step_id,
  coalesce(e.payload ->> 'message', e.payload #>> '{error,message}', e.payload ->> 'reason') as message
from public.events as e;

-- Runs whose last word among failed, resumed and succeeded is failed. `failures` counts the failures
-- since the run last resumed or succeeded.
create or replace view reference.dead_runs as
select
  failed.run_id,
  r.project_id,
  (select e.payload ->> 'workflow' from public.events as e
    where e.run_id = failed.run_id and e.type = 'run_started'
    order by e.version limit 1) as workflow,
  failed.payload #>> '{error,message}' as reason,
  (select e.payload ->> 'step_id' from public.events as e
    where e.run_id = failed.run_id and e.version <= failed.version and e.payload ->> 'step_id' is not null
    order by e.version desc limit 1) as last_step,
  failed.recorded_at as failed_at,
  (select count(*)::int from public.events as e
    where e.run_id = failed.run_id and e.type = 'run_failed'
      and e.version > coalesce((
        select max(back.version) from public.events as back
        where back.run_id = failed.run_id and back.type in ('run_resumed', 'run_succeeded', 'run_completed')), 0)
  ) as failures
from public.events as failed
join reference.runs as r using (run_id)
where failed.type = 'run_failed'
  and not exists (
    select from public.events as later
    where later.run_id = failed.run_id
      and later.version > failed.version
      and later.type in ('run_failed', 'run_resumed', 'run_succeeded', 'run_completed'));

-- By the UTC hour of recorded_at; an hour without any of these events has no row.
create or replace view reference.workflow_stats as
select
  e.project_id,
  date_trunc('hour', e.recorded_at, 'UTC') as hour,
  (count(*) filter (where e.type = 'run_started'))::int as started,
  (count(*) filter (where e.type in ('run_succeeded', 'run_completed')))::int as succeeded,
  (count(*) filter (where e.type = 'run_failed'))::int as failed,
  (count(*) filter (where e.type = 'run_canceled'))::int as canceled,
  (count(*) filter (where e.type = 'step_failed'))::int as steps_failed
from public.events as e
where e.type in ('run_started', 'run_succeeded', 'run_completed', 'run_failed', 'run_canceled', 'step_failed')
group by e.project_id, date_trunc('hour', e.recorded_at, 'UTC');
