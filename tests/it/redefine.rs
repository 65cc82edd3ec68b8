//! A definition that changes takes its indexes and its guard along.

use rustix::process::Signal;

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

#[tokio::test]
async fn what_an_operator_has_made_of_a_read_model_stays_through_its_generations() {
    let app = App::bare(&[]).await;
    app.cluster.batch("create role authenticated").await;
    app.define("lately", BEFORE);
    let sidecar = app.run().await;
    workload::load(&app, 6, 2, 50).await;
    app.caught_up().await;
    sidecar.terminate().await;
    app.cluster
        .batch(
            "revoke select on lately from authenticated;
             drop policy projector_readers on lately;
             create policy projector_readers on lately for select using (last = 'never');
             create index by_project on lately (project_id, last desc) where last <> 'log';
             create unique index once on lately (run_id, last);
             alter table lately add constraint named check (last <> '');
             comment on column lately.last is 'the last';
             create view seen as select run_id, last from lately",
        )
        .await;
    let made = "select concat_ws(E'\\n', obj_description('lately'::regclass),
           col_description('lately'::regclass, 3), 'lately'::regclass::oid,
           (select relacl from pg_class where oid = 'lately'::regclass),
           (select string_agg(polname || pg_get_expr(polqual, polrelid), ' ') from pg_policy),
           (select string_agg(pg_get_indexdef(indexrelid), E'\\n' order by indexrelid)
            from pg_index where indrelid = 'lately'::regclass),
           (select string_agg(conname, ' ' order by conname) from pg_constraint
            where conrelid = 'lately'::regclass))";
    let before = app.value(made).await.unwrap();

    // the same columns, another rule
    app.define("lately", &BEFORE.replace(r#"last = "type" }"#, r#"last = "left(type, `40`)" }"#));
    let _sidecar = app.run().await;
    app.caught_up().await;

    assert_eq!(app.value(made).await.unwrap(), before);
    assert!(before.contains("never") && before.contains("by_project"), "{before}");
    let generation = "select max(generation)::text from projector.projections";
    assert_ne!(app.value(generation).await.unwrap(), "1");
}

#[tokio::test]
async fn a_key_may_change_but_for_its_first_column() {
    let app = App::bare(&[]).await;
    app.define("lately", BEFORE);
    let sidecar = app.run().await;
    workload::load(&app, 6, 2, 50).await;
    app.caught_up().await;
    app.cluster.batch("create view seen as select run_id, last from lately").await;
    let events = "select count(*) = (select count(*) from events) from lately";

    let wider = BEFORE
        .replace("{ run_id = \"run_id\" }", "{ run_id = \"run_id\", version = \"version\" }")
        .replace("[columns]", "[columns]\nversion = \"int\"");
    app.define("lately", &wider);
    sidecar.signal(Signal::HUP);
    app.becomes(events, "t").await;
    let key = "select pg_get_constraintdef(oid) from pg_constraint
         where conrelid = 'lately'::regclass and contype = 'p'";
    assert_eq!(app.value(key).await.unwrap(), "PRIMARY KEY (run_id, version)");

    let other = BEFORE.replace("{ run_id = \"run_id\" }", "{ last = \"type\" }").replace(
        "set   = { project_id = \"project_id\", last = \"type\" }",
        "max   = { seen = \"recorded_at\" }",
    );
    app.define("lately", &other.replace("[columns]", "[columns]\nseen = \"timestamptz\""));
    sidecar.signal(Signal::HUP);
    let error =
        "select error like '%must keep `run_id`%' from projector.rebuilds order by id desc limit 1";
    app.becomes(error, "t").await;
    workload::load(&app, 7, 2, 50).await;
    app.becomes(events, "t").await;
}

#[tokio::test]
async fn a_key_column_that_is_declared_anew_stays_in_the_primary_key() {
    let app = App::bare(&[]).await;
    let before = BEFORE
        .replace(r#"{ run_id = "run_id" }"#, r#"{ run_id = "run_id", kind = "type" }"#)
        .replace("[columns]", "[columns]\nkind = \"text\"");
    app.define("lately", &before);
    let sidecar = app.run().await;
    workload::load(&app, 7, 2, 50).await;
    app.caught_up().await;
    sidecar.terminate().await;

    app.define("lately", &before.replace(r#"kind = "text""#, r#"kind = "varchar(60)""#));
    let sidecar = app.run().await;
    app.caught_up().await;
    let key = "select string_agg(conrelid::regclass::text || ' ' || pg_get_constraintdef(oid), ', '
           order by conrelid) from pg_constraint where contype = 'p' and conparentid = 0
         and conrelid = 'lately'::regclass";
    assert_eq!(app.value(key).await.unwrap(), "lately PRIMARY KEY (run_id, kind)");
    sidecar.terminate().await;

    // and one that leaves the key
    app.define("lately", BEFORE);
    let _sidecar = app.run().await;
    app.caught_up().await;

    assert_eq!(app.value(key).await.unwrap(), "lately PRIMARY KEY (run_id)");
    let rows = "select count(*) - count(distinct run_id) from lately";
    assert_eq!(app.value(rows).await.unwrap(), "0");
}
