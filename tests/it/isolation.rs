//! What a user of one project can come by of another's, by SQL: everything that the catalogue has is
//! tried, so that what is new cannot be forgotten.

use tokio_postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

use crate::support::app::App;
use crate::support::cluster::Cluster;
use crate::support::supabase;

const OURS: Uuid = Uuid::from_u128(0xa1);
const THEIRS: Uuid = Uuid::from_u128(0xb2);
const OUR_RUN: &str = "0190a000-0000-7000-8000-0000000000a1";
const THEIR_RUN: &str = "0190a000-0000-7000-8000-0000000000b2";

/// Stands in every text of the other project's events.
const MARK: &str = "zebra";

/// The functions that a user may call, each called about the other project. What is not here and may
/// be called fails the test; so does what is here and tells something.
const FUNCTIONS: &[(&str, &str)] = &[
    ("projector.can_read(uuid)", "projector.can_read('{THEIRS}')"),
    ("projector.can_read_topic(text)", "projector.can_read_topic('run:{THEIR_RUN}')"),
    ("projector.checkpoint(text)", "projector.checkpoint('run_status')"),
    ("projector.has_reached(text,pg_lsn)", "projector.has_reached('run_status', '0/1')"),
    ("projector.problem_in_events(jsonb)", "projector.problem_in_events('[]')"),
    ("projector.realtime_bindings()", "projector.realtime_bindings()"),
    ("projector.wait_for(text,pg_lsn,interval)", "projector.wait_for('run_status', '0/1', '1 ms')"),
];

/// Two projects with the same kinds of events, in a database as Supabase has it, and their read models.
async fn two_projects() -> App {
    let cluster = Cluster::start().await;
    cluster.batch(supabase::ROLES).await;
    cluster.batch(supabase::REALTIME).await;
    let app = App::shipped_beside(cluster).await;
    let sidecar = app.run().await;
    let append = "select count(*) from append_events($1, $2::text::uuid, 0, $3::text::jsonb)";
    for (project, run, word) in [(OURS, OUR_RUN, "horse"), (THEIRS, THEIR_RUN, MARK)] {
        let events = format!(
            r#"[{{"type": "run_started", "payload": {{"workflow": "{word}", "trigger": "{word}"}}}},
                {{"type": "step_started", "payload": {{"step_id": "{word}", "attempt": 1, "name": "{word}"}}}},
                {{"type": "step_succeeded", "payload": {{"step_id": "{word}", "attempt": 1, "output": "{word}"}}}},
                {{"type": "log", "payload": {{"message": "{word}", "level": "{word}", "fields": {{"a": "{word}"}}}}}},
                {{"type": "{word}", "metadata": {{"a": "{word}"}}}},
                {{"type": "run_failed", "payload": {{"error": {{"message": "{word}"}}}}}}]"#
        );
        app.client().await.query(append, &[&project, &run, &events]).await.unwrap();
    }
    app.caught_up().await;
    sidecar.terminate().await;
    // what else stands in the control tables
    app.cluster
        .batch(
            "insert into projector.dead_letters
               (projection, row_key, lsn, position, run_id, version, type, error, payload)
             select 'run_log', jsonb_build_object('run_id', run_id), '0/1', position, run_id, version, type, 'zebra', payload
             from events where payload::text like '%zebra%';
             update projector.projections set last_error = 'zebra';
             insert into projector.audit_log (verb, subject) values ('rebuild', 'zebra');
             insert into realtime.messages (topic, extension, event, private, payload)
             select kind || id, 'broadcast', 'log', true, jsonb_build_object('a', word)
             from (values ('horse', 'run:0190a000-0000-7000-8000-0000000000a1', 'project:00000000-0000-0000-0000-0000000000a1'),
                          ('zebra', 'run:0190a000-0000-7000-8000-0000000000b2', 'project:00000000-0000-0000-0000-0000000000b2'))
               as it (word, run, project),
               lateral (values ('', run), ('', project)) as topic (kind, id)",
        )
        .await;
    app
}

/// Becomes a user of our project, or one without any.
async fn enter(client: &Client, role: &str, project: Option<Uuid>) {
    let claims = match project {
        Some(it) => format!(r#"{{"role": "{role}", "app_metadata": {{"projects": ["{it}"]}}}}"#),
        None => format!(r#"{{"role": "{role}"}}"#),
    };
    client
        .batch_execute(&format!("set role {role}; set request.jwt.claims = '{claims}'"))
        .await
        .unwrap();
}

/// What a statement gives, as text; nothing where it is refused.
async fn seen(client: &Client, sql: &str) -> Option<String> {
    match client.simple_query(sql).await {
        Ok(rows) => Some(
            rows.iter()
                .filter_map(|it| match it {
                    SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
                    _ => None,
                })
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        Err(error) => {
            let refusal = error.as_db_error().unwrap();
            assert!(!tells(&format!("{refusal:?}")), "{sql}: {refusal:?}");
            None
        }
    }
}

fn tells(text: &str) -> bool {
    text.contains(MARK) || text.contains(&THEIRS.to_string()) || text.contains(THEIR_RUN)
}

async fn names(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

const RELATIONS: &str = "select format('%I.%I', n.nspname, c.relname)
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('public', 'projector', 'realtime') and c.relkind in ('r', 'p', 'v', 'm', 'f')
     order by 1";

#[tokio::test]
async fn no_relation_tells_a_user_of_another_project() {
    let app = two_projects().await;
    let client = app.client().await;
    let relations = names(&client, RELATIONS).await;
    assert!(20 < relations.len(), "{relations:?}");

    let mut readable = Vec::new();
    for (role, project) in [("authenticated", Some(OURS)), ("authenticated", None), ("anon", None)]
    {
        enter(&client, role, project).await;
        for topic in [format!("run:{THEIR_RUN}"), format!("run:{OUR_RUN}"), String::new()] {
            client.batch_execute(&format!("set realtime.topic = '{topic}'")).await.unwrap();
            for relation in &relations {
                let Some(rows) =
                    seen(&client, &format!("select it::text from {relation} it")).await
                else {
                    continue;
                };
                assert!(!tells(&rows), "{role} {project:?} {relation}: {rows}");
                assert!(project.is_some() || rows.is_empty(), "{role} {relation}: {rows}");
                if !rows.is_empty() {
                    readable.push(relation.clone());
                }
                // what is refused or touches nothing changes nothing
                let stolen = format!(
                    "with gone as (delete from {relation} returning *) select it::text from gone it"
                );
                assert!(seen(&client, &stolen).await.unwrap_or_default().is_empty(), "{relation}");
            }
        }
    }
    readable.sort();
    readable.dedup();
    let ours =
        "projector.readable_runs public.dead_runs public.events public.run_log public.run_status
        public.step_status public.workflow_stats realtime.messages";
    assert_eq!(readable, ours.split_whitespace().collect::<Vec<_>>());

    // the other project's user sees what was looked for, and the service everything
    enter(&client, "authenticated", Some(THEIRS)).await;
    let rows = seen(&client, "select it::text from run_log it").await.unwrap();
    assert!(tells(&rows) && !rows.contains("horse"), "{rows}");
    enter(&client, "service_role", None).await;
    let rows = seen(&client, "select it::text from run_log it").await.unwrap();
    assert!(tells(&rows) && rows.contains("horse"), "{rows}");
    let letters = seen(&client, "select it::text from projector.dead_letters it").await;
    assert_eq!(letters, None);
}

#[tokio::test]
async fn no_function_tells_a_user_of_another_project() {
    let app = two_projects().await;
    let client = app.client().await;
    for (role, project) in [("authenticated", Some(OURS)), ("anon", None)] {
        let callable = format!(
            "select format('%s(%s)', format('%I.%I', n.nspname, p.proname),
               (select string_agg(format_type(t, null), ',' order by at)
                from unnest(p.proargtypes) with ordinality as args (t, at)))
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace
             where n.nspname in ('public', 'projector') and p.prokind = 'f'
               and p.prorettype <> 'trigger'::regtype
               and has_function_privilege('{role}', p.oid, 'execute')
             order by 1"
        );
        client.batch_execute("reset role").await.unwrap();
        let callable = names(&client, &callable).await;
        let known: Vec<_> = FUNCTIONS.iter().map(|it| it.0).collect();
        assert_eq!(callable, known, "{role}");
        enter(&client, role, project).await;
        for (_, call) in FUNCTIONS {
            let call =
                call.replace("{THEIRS}", &THEIRS.to_string()).replace("{THEIR_RUN}", THEIR_RUN);
            let value = seen(&client, &format!("select {call}::text")).await;
            let value = value.unwrap_or_else(|| panic!("{role} may not call {call}"));
            assert!(!tells(&value), "{role} {call}: {value}");
            if call.contains("can_read") {
                assert!(matches!(value.as_str(), "f" | "false"), "{role} {call}: {value}");
            }
        }
    }
}
