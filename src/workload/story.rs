//! What happens to one run, from its first event to its last.

use std::collections::VecDeque;

use fastrand::Rng;
use serde_json::{Value, json};

use super::catalog::{Kind, Step, Workflow};

/// An event of a run that has not happened yet.
#[derive(Debug)]
pub(super) struct Beat {
    /// The event's type.
    pub(super) kind: &'static str,
    /// An object.
    pub(super) payload: Value,
    /// A key of the payload for a time so many seconds after the event.
    pub(super) later: Option<(&'static str, i64)>,
}

/// Attempts of a step before its run fails.
const ATTEMPTS: i32 = 3;

// Out of 1000: often enough to see each within a minute of `dev`, and most runs go well.
const RUN_PAUSES: u16 = 40;
const RUN_IS_CANCELED: u16 = 10;
const STEP_IS_CHATTY: u16 = 350;
const ATTEMPT_FAILS: u16 = 90;
const STEP_IS_BROKEN: u16 = 15;
const DEAD_RUN_IS_REPLAYED: u16 = 500;

/// Makes up a run of `workflow`: its appends in order, none of them empty.
pub(super) fn tell(workflow: &Workflow, rng: &mut Rng) -> VecDeque<Vec<Beat>> {
    let mut story = Story { rng, appends: VecDeque::new(), next: Vec::new(), taken: false };
    story.run(workflow);
    story.appends
}

struct Story<'a> {
    rng: &'a mut Rng,
    appends: VecDeque<Vec<Beat>>,
    /// The append that is being put together.
    next: Vec<Beat>,
    /// Which way the last branch went.
    taken: bool,
}

/// How a step ended.
enum End {
    Good,
    /// No attempt is left, and nobody replays the run.
    Dead,
}

impl Story<'_> {
    fn run(&mut self, workflow: &Workflow) {
        let input = (workflow.input)(self.rng);
        self.say(
            "run_started",
            json!({
                "workflow": workflow.name, "workflow_version": workflow.version,
                "trigger": workflow.trigger, "input": input,
            }),
        );
        for step in workflow.steps {
            if step.optional && !self.taken {
                let reason = "condition is false";
                self.say("step_skipped", json!({ "step_id": step.id, "reason": reason }));
                continue;
            }
            if self.interrupted() {
                return;
            }
            self.schedule(step, 1);
            if let End::Dead = self.step(step) {
                return;
            }
        }
        self.say("run_succeeded", json!({ "output": { "steps": workflow.steps.len() } }));
        self.append();
    }

    /// A pause, or the end by somebody's hand (`true`), which come between two steps.
    fn interrupted(&mut self) -> bool {
        if self.happens(RUN_IS_CANCELED) {
            self.append();
            self.say("run_canceled", json!({ "reason": "canceled from the console" }));
            self.append();
            return true;
        }
        if self.happens(RUN_PAUSES) {
            self.say("run_paused", json!({ "reason": "waits for approval" }));
            self.append();
            self.say("run_resumed", json!({ "reason": "approved" }));
        }
        false
    }

    fn schedule(&mut self, step: &Step, attempt: i32) {
        let payload = json!({
            "step_id": step.id, "kind": step.kind.name(), "name": step.name, "attempt": attempt,
        });
        let later = (step.kind == Kind::Delay).then(|| ("due_at", self.rng.i64(5..300)));
        self.next.push(Beat { kind: "step_scheduled", payload, later });
        self.append();
    }

    /// Attempts until one succeeds or none is left.
    fn step(&mut self, step: &Step) -> End {
        let may_fail = step.error.is_some();
        let broken = may_fail && self.happens(STEP_IS_BROKEN);
        let mut attempt = 1;
        let mut last = ATTEMPTS;
        loop {
            self.begin(step, attempt);
            let replayed = ATTEMPTS < attempt;
            let fails = may_fail && !replayed && (broken || self.happens(ATTEMPT_FAILS));
            let Some((message, code)) = step.error.filter(|_| fails) else {
                self.succeed(step, attempt);
                return End::Good;
            };
            self.fail(step, attempt, message, code, attempt < last);
            if attempt == last {
                let error = json!({ "message": message, "code": code });
                self.say("run_failed", json!({ "error": error, "step_id": step.id }));
                self.append();
                if !self.happens(DEAD_RUN_IS_REPLAYED) {
                    return End::Dead;
                }
                self.say("run_resumed", json!({ "reason": "replayed from the dead runs" }));
                self.schedule(step, attempt + 1);
                last = i32::MAX;
            }
            attempt += 1;
        }
    }

    fn begin(&mut self, step: &Step, attempt: i32) {
        self.say(
            "step_started",
            json!({
                "step_id": step.id, "kind": step.kind.name(), "name": step.name, "attempt": attempt,
            }),
        );
        if let Some((message, fields)) = step.request {
            let fields = fields(self.rng);
            self.log("info", step, message, fields);
        }
        if step.request.is_some() && self.happens(STEP_IS_CHATTY) {
            self.append();
            let fields = json!({ "attempt": attempt, "waited_ms": self.rng.u32(20..1500) });
            self.log("debug", step, "still waiting", fields);
        }
        self.append();
    }

    fn succeed(&mut self, step: &Step, attempt: i32) {
        let output = (step.output)(self.rng);
        if step.kind == Kind::Branch {
            self.taken = output.get("taken") == Some(&Value::Bool(true));
        }
        let payload = json!({ "step_id": step.id, "attempt": attempt, "output": output });
        self.say("step_succeeded", payload);
    }

    fn fail(&mut self, step: &Step, attempt: i32, message: &str, code: &str, again: bool) {
        let error = json!({ "message": message, "code": code });
        let payload = json!({ "step_id": step.id, "attempt": attempt, "error": error });
        // Twice as long each time
        let later = again.then(|| ("retry_at", 5_i64 << attempt.clamp(0, 10)));
        self.next.push(Beat { kind: "step_failed", payload, later });
        let level = if again { "warn" } else { "error" };
        self.log(level, step, message, json!({ "attempt": attempt, "code": code }));
        if again {
            self.append();
        }
    }

    fn log(&mut self, level: &str, step: &Step, message: &str, fields: Value) {
        self.say(
            "log",
            json!({
                "level": level, "message": message, "step_id": step.id, "fields": fields,
            }),
        );
    }

    fn say(&mut self, kind: &'static str, payload: Value) {
        self.next.push(Beat { kind, payload, later: None });
    }

    /// What was said since the last time is one append.
    fn append(&mut self) {
        if !self.next.is_empty() {
            self.appends.push_back(std::mem::take(&mut self.next));
        }
    }

    fn happens(&mut self, per_mille: u16) -> bool {
        self.rng.u16(..1000) < per_mille
    }
}
