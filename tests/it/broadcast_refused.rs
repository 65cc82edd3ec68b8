//! Broadcasts that are refused: which are given up, and which wait for the operator.

use serde_json::Value;

use crate::broadcast;
use crate::support::app::{App, Sidecar};
use crate::support::eventually::eventually;
use crate::support::realtime::{Next, Project, Realtime, lines_of};

/// A sidecar that broadcasts to the stub.
async fn telling(app: &App, realtime: &Realtime) -> Sidecar {
    let sidecar = Sidecar::spawn(broadcast::telling(app, realtime));
    sidecar.says("\"ready\"").await;
    sidecar
}

/// An event of each of these runs; of those that are too large for the stub, so much of it.
async fn append(app: &App, runs: std::ops::RangeInclusive<usize>, bytes: usize) {
    let sql = format!(
        "insert into events (project_id, run_id, version, type, payload)
         select gen_random_uuid(), ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 1,
           'log', jsonb_build_object('message', repeat('x', {bytes}))
         from generate_series({}, {}) n",
        runs.start(),
        runs.end()
    );
    app.cluster.batch(&sql).await;
}

/// The last digits of the runs of which lines were taken.
fn runs(realtime: &Realtime) -> Vec<usize> {
    let taken = realtime.taken();
    let lines = taken.iter().filter(|it| it["event"] == "log" && !lines_of(it).is_empty());
    let mut runs: Vec<_> = lines
        .map(|it| it["topic"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap())
        .collect();
    runs.sort_unstable();
    runs
}

async fn status(sidecar: &Sidecar) -> Value {
    let (_, body) = sidecar.get("/api/projections").await;
    serde_json::from_str::<Value>(&body).unwrap()["broadcasts"].clone()
}

async fn takes(realtime: &Realtime, wanted: std::ops::RangeInclusive<usize>) {
    let wanted: Vec<_> = wanted.collect();
    eventually("each line once", async || {
        let found = runs(realtime);
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_refuses_everything_is_an_operators_error_and_nothing_is_left_out() {
    // each waits half a minute for its operator
    let each = async |answer| {
        let app = App::shipped().await;
        let realtime = Realtime::start(Project::default()).await;
        let sidecar = telling(&app, &realtime).await;
        // the canary before the first message is taken, and then everything is refused
        realtime.always(Some(Next::Answer(answer, None, "computer says no")));

        append(&app, 1..=1, 10).await;
        let told = sidecar.says("broadcasts are not taken").await;
        append(&app, 2..=40, 10).await;

        assert!(
            told.contains("whatever it is sent") && told.contains("computer says no"),
            "{told}"
        );
        let waiting = eventually("a status that says so", async || {
            let status = status(&sidecar).await;
            let is_so = status["failing"] == true && status["backlog_lines"] == 40;
            if is_so { Ok(status) } else { Err(status) }
        })
        .await;
        assert_eq!((&waiting["refused_total"], &waiting["sent_total"]), (&0.into(), &0.into()));
        assert!(waiting["last_error"].as_str().unwrap().contains("nothing is left out"));
        let (_, metrics) = sidecar.get("/metrics").await;
        assert!(metrics.contains("projector_broadcasts_total{result=\"failed\",target=\"http\"}"));

        realtime.always(None);
        takes(&realtime, 1..=40).await;
        assert!(!sidecar.log().contains("refused and left out"));
        assert_eq!(sidecar.terminate().await.code(), Some(0));
    };
    tokio::join!(each(400), each(413), each(422));
}

#[tokio::test]
async fn one_topic_after_the_other_that_is_refused_is_an_operators_error() {
    let app = App::shipped().await;
    // it takes a canary, and has a limit that nobody has told projector of
    let realtime = Realtime::start(Project { payload: 2_000, ..Project::default() }).await;
    let sidecar = telling(&app, &realtime).await;

    append(&app, 1..=20, 3_000).await;
    let told = sidecar.says("broadcasts are not taken").await;

    assert!(told.contains("one topic after the other") && told.contains("message_bytes"), "{told}");
    assert!(!sidecar.log().contains("refused and left out"));
    // and when one is taken among them, the others are to blame after all
    append(&app, 21..=21, 10).await;
    takes(&realtime, 21..=21).await;
    eventually("a status that says so", async || {
        let status = status(&sidecar).await;
        let is_so = status["refused_total"] == 20 && status["failing"] == false;
        if is_so { Ok(()) } else { Err(status) }
    })
    .await;
    assert_eq!(sidecar.log().matches("refused and left out").count(), 20);
}

#[tokio::test]
async fn a_bad_message_alone_is_given_up_and_its_viewers_are_told_by_a_beacon() {
    let app = App::shipped().await;
    let realtime = Realtime::start(Project { payload: 2_000, ..Project::default() }).await;
    let sidecar = telling(&app, &realtime).await;

    append(&app, 7..=7, 3_000).await;
    let refused = sidecar.says("a broadcast is refused and left out").await;

    assert!(refused.contains("000000000007"), "{refused}");
    let beacon = eventually("a beacon", async || {
        let taken = realtime.taken();
        let of_run = |it: &&Value| it["topic"] == "run:00000000-0000-7000-8000-000000000007";
        taken.iter().find(of_run).cloned().ok_or(taken)
    })
    .await;
    let wanted = serde_json::json!({ "prev": 1, "head": 1, "lines": [] });
    assert_eq!((&beacon["payload"], &beacon["private"]), (&wanted, &true.into()));
}
