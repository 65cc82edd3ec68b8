//! `/api/live` and the lists that the console keeps up to date with it.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

use crate::http::client;
use crate::support::app::{App, Sidecar};
use crate::support::eventually::limit;

const RUN: &str = "0198c2f4-7d3e-7a40-9c55-3f1d2b6a8e10";
const OTHER: &str = "0298c2f4-7d3e-7a40-9c55-3f1d2b6a8e10";
const PROJECTS: [&str; 2] =
    ["7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801", "c35a9e04-61d7-4f3b-8a52-90b7d4ce1702"];

struct Api {
    client: Client,
    url: String,
    _sidecar: Sidecar,
}

impl Api {
    async fn before(app: &App) -> Self {
        let sidecar = app.run().await;
        let started: Value = serde_json::from_str(&sidecar.says("\"listen\"").await).unwrap();
        let url = format!("http://{}/api", started["listen"].as_str().unwrap());
        Self { client: client(), url, _sidecar: sidecar }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.client.get(format!("{}/{path}", self.url)).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn listen(&self, topic: &str, last: Option<i32>) -> Events {
        let mut request = self.client.get(format!("{}/live?topic={topic}", self.url));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { response, text: String::new() }
    }
}

/// Events as they come.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    /// The next event of this name: its id and data.
    async fn next(&mut self, name: &str) -> (String, Value) {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|it| it.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                let (kind, id, data) = (field("event:"), field("id:"), field("data:"));
                self.text = rest.to_owned();
                if kind == name {
                    return (id, serde_json::from_str(&data).unwrap());
                }
            }
            let chunk = tokio::time::timeout(limit(), self.response.chunk()).await;
            let chunk = chunk.expect("an event").unwrap().expect("the stream goes on");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn ends(mut self) {
        let end = async { while self.response.chunk().await.is_ok_and(|it| it.is_some()) {} };
        tokio::time::timeout(limit(), end).await.expect("the end of the stream");
    }
}

async fn append(app: &App, project: &str, run: &str, events: Value) {
    let sql = "select append_events($1::text::uuid, $2::text::uuid, null, $3)";
    app.client().await.execute(sql, &[&project, &run, &events]).await.unwrap();
}

fn lines(from: i32, to: i32) -> Value {
    let line = |it| json!({ "type": "log", "payload": { "message": format!("line {it}") } });
    Value::Array((from..=to).map(line).collect())
}

#[tokio::test]
async fn a_runs_lines_are_streamed_without_holes_and_go_on_after_the_last_one_seen() {
    let app = App::shipped().await;
    let api = Api::before(&app).await;
    append(&app, PROJECTS[0], RUN, lines(1, 3)).await;
    app.caught_up().await;

    let mut events = api.listen(&format!("run:{RUN}"), None).await;
    let (id, beacon) = events.next("log").await;
    assert_eq!((id.as_str(), beacon), ("3", json!({ "prev": 3, "head": 3, "lines": [] })));

    append(&app, PROJECTS[0], RUN, lines(4, 5)).await;
    append(&app, PROJECTS[0], OTHER, lines(1, 1)).await;
    append(&app, PROJECTS[0], RUN, lines(6, 6)).await;
    let (mut last, mut seen) = (3, Vec::new());
    while last < 6 {
        let (id, message) = events.next("log").await;
        assert_eq!(message["prev"], last);
        last = message["head"].as_i64().unwrap();
        assert_eq!(id, last.to_string());
        seen.extend(message["lines"].as_array().unwrap().clone());
    }
    let seen: Vec<_> = seen.iter().map(|it| it["message"].as_str().unwrap()).collect();
    assert_eq!(seen, ["line 4", "line 5", "line 6"]);

    let mut again = api.listen(&format!("run:{RUN}"), Some(4)).await;
    let (_, message) = again.next("log").await;
    assert_eq!((&message["prev"], &message["head"]), (&json!(4), &json!(6)));
    assert_eq!(message["lines"][0]["version"], 5);
}

#[tokio::test]
async fn the_streams_tell_of_commits_and_of_the_status_and_end_with_the_process() {
    let app = App::shipped().await;
    let Api { client, url, _sidecar: sidecar } = Api::before(&app).await;
    let request = client.get(format!("{url}/live?topic=runs,status"));
    let mut events = Events { response: request.send().await.unwrap(), text: String::new() };

    let (_, status) = events.next("status").await;
    assert_eq!(status["source"]["slot"], "projector");
    append(&app, PROJECTS[0], RUN, lines(1, 1)).await;
    events.next("runs").await;

    let ended = sidecar.terminate();
    let (status, ()) = tokio::join!(ended, events.ends());
    assert!(status.success());
}

#[tokio::test]
async fn no_more_streams_are_open_than_the_process_can_bear() {
    let app = App::shipped().await;
    let api = Api::before(&app).await;
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(api.listen("status", None).await);
    }

    let (code, body) = api.get("live?topic=status").await;
    assert_eq!((code.as_u16(), &body["error"]["code"]), (503, &json!("too_many_streams")));
    for (topic, code) in
        [("", "bad_parameter"), ("run:7", "bad_parameter"), ("all", "bad_parameter")]
    {
        let (status, body) = api.get(&format!("live?topic={topic}")).await;
        assert_eq!((status.as_u16(), &body["error"]["code"]), (400, &json!(code)), "{topic}");
    }

    open.clear();
    crate::support::eventually::eventually("a place", async || {
        let request = api.client.get(format!("{}/live?topic=status", api.url));
        let response = request.timeout(Duration::from_secs(30)).send().await.unwrap();
        if response.status() == StatusCode::OK { Ok(()) } else { Err(response.status()) }
    })
    .await;
}

#[tokio::test]
async fn runs_of_all_projects_are_filtered_searched_counted_and_paged() {
    let app = App::shipped().await;
    let api = Api::before(&app).await;
    app.cluster
        .batch(
            "insert into events (project_id, run_id, version, type, payload)
             select ('00000000-0000-4000-8000-00000000000' || n % 3)::uuid,
                    ('0000000' || n % 10 || '-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, v,
                    case when v = 1 then 'run_started' when n % 4 = 0 then 'run_failed' else 'run_succeeded' end,
                    jsonb_build_object('workflow', 'w' || n % 2, 'error', jsonb_build_object('message', 'Reason ' || n))
             from generate_series(1, 60) n, generate_series(1, case when n % 5 = 0 then 1 else 2 end) v",
        )
        .await;
    app.caught_up().await;
    let all = async |query: &str| {
        let (mut found, mut next) = (Vec::new(), String::new());
        loop {
            let (code, page) = api.get(&format!("runs?limit=7&before={next}&{query}")).await;
            assert_eq!(code, StatusCode::OK, "{query}: {page}");
            let runs = page["runs"].as_array().unwrap();
            found.extend(runs.iter().map(|it| it["run_id"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next"].as_str() else { return found };
            cursor.clone_into(&mut next);
        }
    };
    let wanted = async |condition: &str| {
        let sql = format!(
            "select coalesce(string_agg(run_id::text, ' ' order by started_at desc, run_id desc), '')
             from run_status where {condition}"
        );
        let text = app.value(&sql).await.unwrap();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let project = "00000000-0000-4000-8000-000000000001";

    for (query, condition) in [
        ("status=failed", "status = 'failed'"),
        ("status=running&workflow=w1", "status = 'running' and workflow = 'w1'"),
        ("workflow=w0", "workflow = 'w0'"),
        (
            &format!("status=failed&project={project}"),
            &format!("status = 'failed' and project_id = '{project}'"),
        ),
        ("q=REASON%201", "error like 'Reason 1%'"),
        ("q=w1&status=succeeded", "workflow = 'w1' and status = 'succeeded'"),
        ("q=00000003-00", "run_id::text like '00000003-00%'"),
        ("q=0000000", "run_id::text like '0000000%'"),
        ("q=%25", "false"),
        ("status='%20or%20true", "false"),
    ] {
        let runs = wanted(condition).await;
        assert_eq!(all(query).await, runs, "{query}");
        assert!(condition == "false" || !runs.is_empty(), "{query} finds something");
    }

    let (_, counts) = api.get("runs/counts").await;
    let (_, of_project) = api.get(&format!("runs/counts?project={project}")).await;
    for status in ["running", "paused", "succeeded", "failed", "canceled"] {
        let runs = wanted(&format!("status = '{status}'")).await;
        assert_eq!(counts["counts"][status], runs.len(), "{status}");
        let runs = wanted(&format!("status = '{status}' and project_id = '{project}'")).await;
        assert_eq!(of_project["counts"][status], runs.len(), "{status}");
    }
    assert_eq!(counts["up_to"], 10_000);
}
