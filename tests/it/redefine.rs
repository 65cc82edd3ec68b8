//! A definition that changes takes its indexes and its guard along.

use crate::support::app::App;
use crate::support::workload;

const BEFORE: &str = r#"
table  = "lately"
key    = { run_id = "run_id" }
tenant = "project_id"

indexes = ["last"]

[columns]
run_id     = "uuid"
project_id = "uuid"
last       = "text"

[[on]]
event = "*"
set   = { project_id = "project_id", last = "type" }
"#;

#[tokio::test]
async fn a_changed_definition_may_index_a_new_column_and_declare_its_tenant_anew() {
    let app = App::bare(&[]).await;
    app.define("lately", BEFORE);
    let sidecar = app.run().await;
    workload::load(&app, 5, 2, 50).await;
    app.caught_up().await;
    sidecar.terminate().await;

    let after = BEFORE
        .replace(r#"["last"]"#, r#"["seen desc"]"#)
        .replace(r#"project_id = "uuid""#, "project_id = \"uuid not null\"\nseen = \"timestamptz\"")
        .replace(r#"last = "type" }"#, r#"last = "type", seen = "recorded_at" }"#);
    app.define("lately", &after);
    let _sidecar = app.run().await;
    app.caught_up().await;

    let unlike = "select count(*) from lately l full join
         (select run_id, max(version) as version from events group by 1) h using (run_id)
         left join events e using (run_id, version)
         where (l.last, l.seen) is distinct from (e.type, e.recorded_at)";
    assert_eq!(app.value(unlike).await.unwrap(), "0");
    let guarded = "select string_agg(pg_get_indexdef(indexrelid), ' ' order by indexrelid)
             like '%(run_id)%(seen DESC)' and count(*) = 2
             and exists (select from pg_policy where polrelid = 'lately'::regclass)
         from pg_index where indrelid = 'lately'::regclass";
    assert_eq!(app.value(guarded).await.unwrap(), "t");
}
