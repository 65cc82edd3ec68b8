-- What one statement a table needs to compute the rows of each shipped read model from the whole of
-- history, without keys and indexes: the yardstick of a rebuild. On the backlog of load.sql, whose steps
-- have one attempt each.

-- run_status
create table bench.run_status as
select run_id,
  (array_agg(project_id order by version))[1] as project_id,
  (array_agg(payload ->> 'workflow' order by version) filter (where type = 'run_started'))[1] as workflow,
  (array_agg(payload ->> 'workflow_version' order by version) filter (where type = 'run_started'))[1] as workflow_version,
  (array_agg(payload ->> 'trigger' order by version) filter (where type = 'run_started'))[1] as trigger,
  coalesce((array_agg(case type when 'run_started' then 'running' when 'run_resumed' then 'running' when 'run_paused' then 'paused' when 'run_succeeded' then 'succeeded' when 'run_completed' then 'succeeded' when 'run_failed' then 'failed' when 'run_canceled' then 'canceled' end order by version desc) filter (where type in ('run_started','run_resumed','run_paused','run_succeeded','run_completed','run_failed','run_canceled')))[1], 'running') as status,
  max(version) as version,
  count(*) filter (where type = 'step_started')::int as steps_started,
  count(*) filter (where type = 'step_succeeded')::int as steps_succeeded,
  count(*) filter (where type = 'step_failed')::int as steps_failed,
  (array_agg(payload #>> '{error,message}' order by version desc) filter (where type in ('run_failed','step_failed','run_resumed','run_succeeded','run_completed')))[1] as error,
  (array_agg(case when type in ('run_failed','step_failed') then payload ->> 'step_id' end order by version desc) filter (where type in ('run_failed','step_failed','run_resumed','run_succeeded','run_completed')))[1] as failed_step,
  (array_agg(recorded_at order by version) filter (where type = 'run_started'))[1] as started_at,
  (array_agg(case when type <> 'run_resumed' then recorded_at end order by version desc) filter (where type in ('run_succeeded','run_completed','run_failed','run_canceled','run_resumed')))[1] as finished_at,
  (array_agg(type order by version desc))[1] as last_event,
  (array_agg(recorded_at order by version desc))[1] as last_event_at
from events group by run_id;

-- run_log
create table bench.run_log as select run_id, version, project_id, recorded_at as at, type,
  coalesce(payload ->> 'level', case when type in ('run_failed','step_failed') then 'error' else 'info' end) as level,
  payload ->> 'step_id' as step_id, coalesce(payload ->> 'message', payload #>> '{error,message}', payload ->> 'reason') as message,
  payload -> 'fields' as fields from events order by run_id, version;

-- step_status
create table bench.step_status as select run_id, payload ->> 'step_id' as step_id, (array_agg(project_id))[1] as project_id,
  (array_agg(payload ->> 'name' order by version desc) filter (where payload ->> 'name' is not null))[1] as name,
  (array_agg(payload ->> 'kind' order by version desc) filter (where payload ->> 'kind' is not null))[1] as kind,
  (array_agg(case type when 'step_scheduled' then 'scheduled' when 'step_started' then 'running' when 'step_succeeded' then 'succeeded' when 'step_skipped' then 'skipped' else case when payload ->> 'retry_at' is null then 'failed' else 'retrying' end end order by version desc))[1] as status,
  max((payload ->> 'attempt')::int) as attempt,
  (array_agg((payload ->> 'due_at')::timestamptz order by version desc) filter (where type = 'step_scheduled'))[1] as due_at,
  (array_agg(recorded_at order by version desc) filter (where type = 'step_started'))[1] as started_at,
  (array_agg(recorded_at order by version desc) filter (where type in ('step_succeeded','step_failed','step_skipped')))[1] as finished_at,
  (array_agg(payload #>> '{error,message}' order by version desc) filter (where type = 'step_failed'))[1] as error,
  (array_agg((payload ->> 'retry_at')::timestamptz order by version desc) filter (where type = 'step_failed'))[1] as retry_at,
  (array_agg(payload -> 'output' order by version desc) filter (where type = 'step_succeeded'))[1] as output,
  max(version) as last_version
from events where type like 'step\_%' and payload ->> 'step_id' is not null group by run_id, payload ->> 'step_id';

-- dead_runs
create table bench.dead_runs as select run_id, (array_agg(project_id))[1] as project_id,
  (array_agg(payload ->> 'workflow' order by version) filter (where type = 'run_started'))[1] as workflow,
  (array_agg(payload #>> '{error,message}' order by version desc) filter (where type = 'run_failed'))[1] as reason,
  (array_agg(payload ->> 'step_id' order by version desc) filter (where payload ->> 'step_id' is not null))[1] as last_step,
  max(recorded_at) filter (where type = 'run_failed') as failed_at, count(*) filter (where type = 'run_failed') as failures
from events group by run_id having max(version) filter (where type = 'run_failed') > coalesce(max(version) filter (where type in ('run_resumed','run_succeeded','run_completed')), 0);

-- workflow_stats
create table bench.workflow_stats as select project_id, date_trunc('hour', recorded_at, 'UTC') as hour, count(*) filter (where type = 'run_started') as started,
 count(*) filter (where type in ('run_succeeded','run_completed')) as succeeded, count(*) filter (where type = 'run_failed') as failed, count(*) filter (where type = 'run_canceled') as canceled, count(*) filter (where type = 'step_failed') as steps_failed
from events group by 1, 2;
