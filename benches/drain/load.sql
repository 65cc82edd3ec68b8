-- A backlog of workflow runs: 20 events a run, the runs of a window taking turns.
--
-- The same place of the backlog always holds the same event.
create schema bench;
create table bench.size (events int, runs_at_once int, began timestamptz);

-- Which run, and which of its 20 events, stands at place `at`. The last window may be narrower.
create function bench.place(at int, out run int, out version int) language sql stable as $$
  select first_run + rest % width, rest / width + 1
  from (
    select first_run, rest, least(runs_at_once, events / 20 - first_run) as width
    from (
      select at / (20 * runs_at_once) * runs_at_once as first_run,
        at % (20 * runs_at_once) as rest, events, runs_at_once
      from bench.size) as windowed) as placed
$$;

-- A version 7 UUID: the runs start one millisecond after the other.
create function bench.run_id(run int, began timestamptz) returns uuid language sql immutable as $$
  select (lpad(to_hex((extract(epoch from began) * 1000)::bigint + run), 12, '0')
    || '7' || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid
  from (select md5(run::text) as hash) as hashed
$$;

-- started, three steps of six events each, succeeded; every 20th run fails in its last step.
create function bench.type(run int, version int) returns text language sql immutable as $$
  select case
    when version = 1 then 'run_started'
    when version = 20 then case when run % 20 = 0 then 'run_failed' else 'run_succeeded' end
    when version = 19 and run % 20 = 0 then 'step_failed'
    else (array['step_scheduled', 'step_started', 'log', 'log', 'log', 'step_succeeded'])[(version - 2) % 6 + 1]
  end
$$;

create function bench.payload(type text, run int, version int) returns jsonb language sql immutable as $$
  select case type
    when 'run_started' then jsonb_build_object('workflow', 'order-fulfilment', 'workflow_version', 3,
      'trigger', 'webhook', 'input', jsonb_build_object('order', 'ord_' || run, 'total_cents', run % 90000))
    when 'run_succeeded' then jsonb_build_object('output', jsonb_build_object('steps', 3,
      'order', 'ord_' || run, 'receipt', md5(run::text), 'message_id', md5(version::text), 'invoiced', true))
    when 'run_failed' then jsonb_build_object('step_id', 'notify_customer',
      'error', jsonb_build_object('message', 'mailbox is full', 'code', 'smtp_452'))
    when 'log' then jsonb_build_object('level', 'info', 'message', 'POST /charges', 'step_id', step,
      'fields', jsonb_build_object('host', 'payments.example', 'request_id', md5(run::text), 'duration_ms', run % 2400))
    when 'step_failed' then jsonb_build_object('step_id', step, 'attempt', 1,
      'error', jsonb_build_object('message', 'mailbox is full', 'code', 'smtp_452', 'request_id', md5(run::text)))
    when 'step_succeeded' then jsonb_build_object('step_id', step, 'attempt', 1,
      'output', jsonb_build_object('charge', 'ch_' || run, 'receipt', md5(run::text), 'amount_cents', run % 90000, 'captured', true))
    else jsonb_build_object('step_id', step, 'kind', 'http', 'attempt', 1, 'name', 'Charge the card of the customer',
      'queue', 'default', 'worker', 'worker-' || run % 8, 'idempotency_key', md5(run::text))
  end
  from (
    select (array['reserve_stock', 'charge_card', 'notify_customer'])[(version - 2) / 6 + 1] as step) as named
$$;

-- Appends the whole backlog, a commit each `per_transaction` events.
create procedure bench.load(per_transaction int) language plpgsql as $$
declare
  chunk constant int := 10000; -- what the loop's cursor keeps across a commit
  total int := (select events from bench.size);
  made record;
begin
  set synchronous_commit = off;
  for start in 0 .. total - 1 by chunk loop
    for made in
      select at, bench.run_id(run, began) as run_id, version, type, bench.payload(type, run, version) as payload
      from bench.size, generate_series(start, least(start + chunk, total) - 1) as at,
        bench.place(at), bench.type(run, version) as type
      order by at
    loop
      insert into public.events (project_id, run_id, version, type, payload, metadata)
      values ('7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801', made.run_id, made.version, made.type, made.payload,
        '{"region": "eu-west-1"}');
      if (made.at + 1) % per_transaction = 0 then
        commit;
      end if;
    end loop;
  end loop;
end
$$;

-- The same, for those who read the table and not its log: a statement and a commit each `chunk` events.
create procedure bench.load_history(chunk int) language plpgsql as $$
declare
  total int := (select events from bench.size);
begin
  set synchronous_commit = off;
  for start in 0 .. total - 1 by chunk loop
    insert into public.events (project_id, run_id, version, type, payload, metadata)
    select '7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801', bench.run_id(run, began), version, type,
      bench.payload(type, run, version), '{"region": "eu-west-1"}'
    from bench.size, generate_series(start, least(start + chunk, total) - 1) as at,
      bench.place(at), bench.type(run, version) as type
    order by at;
    commit;
  end loop;
end
$$;
