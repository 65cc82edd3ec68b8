//! What a member of a project reads over HTTP: his own runs, and nothing of another's.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::App;
use crate::support::hub::{Live, anon, in_seconds, member, token};

const ADMIN: &str = "the.admin.token";

/// Two projects with a run each, whose workflow is a word that stands nowhere else.
struct Two {
    live: Live,
    projects: [Uuid; 2],
    runs: [Uuid; 2],
}

async fn two() -> Two {
    let live = Live::with(App::shipped().await, &[("PROJECTOR_HTTP_ADMIN_TOKEN", ADMIN)]).await;
    let (projects, runs) = ([Uuid::new_v4(), Uuid::new_v4()], [Uuid::new_v4(), Uuid::new_v4()]);
    for (at, word) in ["apricot", "blueberry"].into_iter().enumerate() {
        let events = json!([
            { "type": "run_started", "payload": { "workflow": word } },
            { "type": "log", "payload": { "level": "info", "message": word } },
        ]);
        live.append(projects[at], runs[at], &events).await;
    }
    live.app.caught_up().await;
    Two { live, projects, runs }
}

impl Two {
    async fn get(&self, path: &str, token: &str) -> (u16, String) {
        let answer = self.live.request("GET", path).bearer_auth(token).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// All that there is of one of the two.
    fn paths(&self, at: usize) -> [String; 5] {
        let (project, run) = (self.projects[at], self.runs[at]);
        [
            format!("/api/runs?project={project}"),
            format!("/api/runs/{run}"),
            format!("/api/runs/{run}/log"),
            format!("/api/runs/{run}/state"),
            format!("/api/runs/{run}/state?version=1&diff=1"),
        ]
    }
}

fn code(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_member_reads_the_runs_of_his_project_and_no_byte_of_anothers() {
    let two = two().await;
    let first = member(&[two.projects[0]]);

    for path in two.paths(0) {
        let (status, body) = two.get(&path, &first).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.contains("apricot") && !body.contains("blueberry"), "{path}: {body}");
    }
    let (status, body) =
        two.get(&format!("/api/runs/counts?project={}", two.projects[0]), &first).await;
    assert_eq!(status, 200, "{body}");

    for path in two.paths(1) {
        let (status, body) = two.get(&path, &first).await;
        assert!([403, 404].contains(&status) && !body.contains("blueberry"), "{path}: {body}");
    }
    // a run that may not be read is as one that is not there
    let (_, hidden) = two.get(&format!("/api/runs/{}", two.runs[1]), &first).await;
    let none = Uuid::new_v4();
    let (_, missing) = two.get(&format!("/api/runs/{none}"), &first).await;
    assert_eq!(
        hidden.replace(&two.runs[1].to_string(), ""),
        missing.replace(&none.to_string(), "")
    );
}

#[tokio::test]
async fn a_user_gets_past_no_rule_by_how_he_asks() {
    let two = two().await;
    let first = member(&[two.projects[0]]);
    let [own, other] = two.projects;

    for (path, wanted) in [
        ("/api/runs".to_owned(), "no_project"),
        ("/api/runs/counts".to_owned(), "no_project"),
        (format!("/api/runs?project={other}"), "not_a_member"),
        (format!("/api/runs?project={own}&project={other}"), "bad_query"),
        (format!("/api/runs?project={other}&project={own}"), "bad_query"),
        (format!("/api/runs?project={own}%00"), "bad_parameter"),
        ("/api/projections".to_owned(), "unauthorized"),
        ("/api/live?topic=runs".to_owned(), "unauthorized"),
        (format!("/api/tables/run_status/explain?key={}", two.runs[0]), "unauthorized"),
    ] {
        let (status, body) = two.get(&path, &first).await;
        assert!((400..500).contains(&status) && !body.contains("blueberry"), "{path}: {body}");
        let found = code(&body);
        // of two projects the rule sees one and the query refuses both: either is right
        assert!(found == wanted || found == "not_a_member", "{path}: {found}");
    }
}

#[tokio::test]
async fn a_token_counts_only_as_long_as_it_is_good() {
    let two = two().await;
    let own = &two.paths(0)[1];
    let projects = json!({ "projects": [two.projects[0]] });
    let stale = token(json!({
        "role": "authenticated", "app_metadata": projects, "exp": in_seconds(-10),
    }));
    let forged = format!("{}x", member(&[two.projects[0]]));

    for (bad, status, wanted) in [
        (stale.as_str(), 401, "bad_token"),
        (forged.as_str(), 401, "bad_token"),
        ("a.b.c", 401, "bad_token"),
        (anon().as_str(), 404, "unknown_run"),
        ("nothing", 401, "unauthorized"),
    ] {
        let (found, body) = two.get(own, bad).await;
        assert_eq!((found, code(&body).as_str()), (status, wanted), "{bad}");
    }

    let (status, body) = two.get("/api/runs", ADMIN).await;
    assert_eq!(status, 200);
    assert!(body.contains("apricot") && body.contains("blueberry"));
}
