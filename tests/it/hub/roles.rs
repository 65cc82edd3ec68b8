//! On a Supabase, with a role of its own, the sidecar asks in the user's role what the user may hear.

use std::process::Command;

use serde_json::json;
use uuid::Uuid;

use crate::support::app::App;
use crate::support::cluster::Cluster;
use crate::support::hub::{Live, SECRET, anon, member};
use crate::support::supabase;

async fn doctor(app: &App, url: &str) -> String {
    let mut command: Command = app.command("doctor");
    command.env("DATABASE_URL", url).env("PROJECTOR_REALTIME_MODE", "embedded");
    command.env("PROJECTOR_REALTIME_JWT_SECRET", SECRET);
    String::from_utf8(app.output(command).await.stdout).unwrap()
}

#[tokio::test]
async fn doctor_tells_that_no_user_could_join_and_how_that_is_mended() {
    let cluster = Cluster::start().await;
    cluster.batch(supabase::ROLES).await;
    let app = App::shipped_beside(cluster).await;
    app.cluster.batch("alter role projector login").await;
    let url = app.cluster.socket_url().replace("postgres://postgres", "postgres://projector");
    assert_ne!(url, app.cluster.socket_url());
    let project = Uuid::new_v4();
    let topic = format!("project:{project}");

    let said = doctor(&app, &url).await;
    assert!(said.contains("problem  viewers"), "{said}");
    assert!(said.contains("projector may not become authenticated"), "{said}");
    assert!(said.contains("permission denied to set role"), "{said}");
    let fix = said.lines().find_map(|it| it.trim().strip_prefix("fix: grant ")).unwrap();
    let statement = format!("grant {}", fix.split(';').next().unwrap());

    let live = Live::with(app, &[("DATABASE_URL", &url)]).await;
    let mut wire = live.connect(&anon(), "2.0.0").await;
    let token = member(&[project]);
    let refused = wire.join(&topic, true, Some(&token)).await;
    let reason = "UnableToConnectToProject: Realtime was unable to connect to the project database";
    assert_eq!(refused["response"]["reason"], reason);
    live.sidecar.says("nobody can join a private topic").await;

    live.app.cluster.batch(&statement).await;

    assert_eq!(wire.join(&topic, true, Some(&token)).await["status"], "ok");
    let other = wire.join(&topic, true, Some(&member(&[Uuid::new_v4()]))).await;
    let reason = other["response"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("Unauthorized: "), "{reason}");
    let said = doctor(&live.app, &url).await;
    assert!(said.contains("ok       viewers"), "{said}");
    live.publish(&topic, json!({})).await;

    live.app.cluster.batch("revoke execute on function projector.can_read_topic from public").await;
    let said = doctor(&live.app, &url).await;
    assert!(said.contains("problem  viewers"), "{said}");
    assert!(said.contains("`projector migrate` makes `projector.can_read_topic`"), "{said}");
}
