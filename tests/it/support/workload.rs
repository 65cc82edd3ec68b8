//! Events for a database: believable runs by concurrent writers, and many at once.

use projector::event::Timestamp;
use projector::workload::{Options, Simulator};
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::app::App;

/// 2026-11-01, and a second more with each append.
const BEGIN: i64 = 1_793_491_200_000_000;

/// One writer: its own runs, in transactions of 1 to `most` appends. Returns how many events it
/// appended.
pub(crate) async fn write(client: &Client, seed: u64, appends: usize, most: usize) -> usize {
    let mut simulator = Simulator::new(seed, Options { runs: 12, ..Options::default() });
    let mut rng = fastrand::Rng::with_seed(seed);
    let append = client.prepare("select append_events($1, $2, $3, $4)").await.unwrap();
    let (mut done, mut events, mut now) = (0, 0, BEGIN);
    while done < appends {
        let together = rng.usize(1..=most).min(appends - done);
        client.batch_execute("begin").await.unwrap();
        for _ in 0..together {
            now += 1_000_000;
            let it = simulator.next_append(Timestamp(now));
            events += it.events.len();
            let list = Value::Array(it.events);
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&it.project_id, &it.run_id, &it.expected_version, &list];
            client.query(&append, &values).await.unwrap();
        }
        client.batch_execute("commit").await.unwrap();
        done += together;
    }
    events
}

/// `writers` at once, each with `appends`. Returns how many events there are of them.
pub(crate) async fn load(app: &App, seed: u64, writers: u64, appends: usize) -> usize {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..writers {
        let client = app.client().await;
        tasks.spawn(async move { write(&client, seed * 100 + number, appends, 4).await });
    }
    tasks.join_all().await.into_iter().sum()
}

/// The statement that inserts `runs` whole runs of 20 events in one transaction.
pub(crate) fn bulk(runs: usize) -> String {
    format!(
        "insert into events (project_id, run_id, version, type, payload)
         select '7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801', r.id, v, k.type,
           case k.type
             when 'run_started' then jsonb_build_object('workflow', 'w' || r.n % 5)
             when 'run_failed' then jsonb_build_object('error', jsonb_build_object('message', 'no ' || r.n))
             when 'log' then jsonb_build_object('level', 'debug', 'message', 'line ' || v)
             when 'step_failed' then jsonb_build_object('step_id', 's' || v / 3, 'attempt', 1,
               'error', jsonb_build_object('message', 'step ' || v))
             else jsonb_build_object('step_id', 's' || (v + 1) / 3, 'attempt', 1, 'name', 'step', 'kind', 'http')
           end
         from (select gen_random_uuid() as id, n from generate_series(1, {runs}) n) r,
           generate_series(1, 20) v,
           lateral (select case
             when v = 1 then 'run_started'
             when v = 20 then case when r.n % 4 = 0 then 'run_failed' else 'run_succeeded' end
             when v % 3 = 2 then 'step_started'
             when v % 3 = 0 and (r.n + v) % 7 = 0 then 'step_failed'
             when v % 3 = 0 then 'step_succeeded'
             else 'log' end as type) k
         order by v, r.n"
    )
}
