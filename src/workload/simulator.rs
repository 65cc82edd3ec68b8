//! Many runs in flight, one append at a time.

use std::collections::VecDeque;

use fastrand::Rng;
use serde_json::{Value, json};
use uuid::{Builder, Uuid, uuid};

use super::catalog::WORKFLOWS;
use super::story::{Beat, tell};
use crate::event::Timestamp;

/// The tenants whose runs these are, the busiest first.
pub const PROJECTS: [Uuid; 3] = [
    uuid!("7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801"),
    uuid!("c35a9e04-61d7-4f3b-8a52-90b7d4ce1702"),
    uuid!("1be60f7d-a8c4-4d29-b7f1-63e2085dfa03"),
];

/// What kind of load to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// About how many runs are in flight at once; at least 1.
    pub runs: usize,
    /// The tenants; not empty. The first one gets most runs.
    pub projects: Vec<Uuid>,
}

impl Default for Options {
    fn default() -> Self {
        Self { runs: 40, projects: PROJECTS.to_vec() }
    }
}

/// The arguments of one call of `append_events`.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// The tenant.
    pub project_id: Uuid,
    /// The run, a version 7 UUID of the moment it started.
    pub run_id: Uuid,
    /// The run's last version before these events; 0 for a new run.
    pub expected_version: i32,
    /// Objects with `type`, `payload` and `event_id`, so that the call may be repeated.
    pub events: Vec<Value>,
}

/// Makes up runs. It takes for granted that what it hands out is appended.
#[derive(Debug)]
pub struct Simulator {
    rng: Rng,
    options: Options,
    active: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    project_id: Uuid,
    run_id: Uuid,
    version: i32,
    /// What is still to come, one entry an append; never empty.
    story: VecDeque<Vec<Beat>>,
}

impl Simulator {
    /// Starts without any run in flight.
    pub fn new(seed: u64, options: Options) -> Self {
        Self { rng: Rng::with_seed(seed), options, active: Vec::new() }
    }

    /// The next append: a new run's first events or more of a run in flight. `now` goes into the
    /// new run's id and into the times the payloads speak of.
    pub fn next_append(&mut self, now: Timestamp) -> Append {
        // A new run now and then rather than all at once, so that they are not in step.
        let wanted = self.active.len() < self.options.runs;
        if self.active.is_empty() || wanted && self.rng.u8(..4) == 0 {
            let run = self.start(now);
            self.active.push(run);
            return self.advance(self.active.len() - 1, now);
        }
        let index = self.rng.usize(..self.active.len());
        self.advance(index, now)
    }

    /// How many runs have begun and have more to come.
    pub fn active_runs(&self) -> usize {
        self.active.len()
    }

    fn start(&mut self, now: Timestamp) -> Run {
        let rng = &mut self.rng;
        // The smaller of two draws: the first tenant gets more than half of three tenants' runs.
        let tenants = self.options.projects.len().max(1);
        let tenant = rng.usize(..tenants).min(rng.usize(..tenants));
        let project_id = self.options.projects.get(tenant).copied().unwrap_or_default();
        let mut random = [0; 10];
        rng.fill(&mut random);
        let millis = u64::try_from(now.0 / 1000).unwrap_or_default();
        let run_id = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        let workflow = rng.choice(WORKFLOWS).expect("the catalog is not empty");
        Run { project_id, run_id, version: 0, story: tell(workflow, rng) }
    }

    fn advance(&mut self, index: usize, now: Timestamp) -> Append {
        let run = self.active.get_mut(index).expect("the index is of a run in flight");
        let beats = run.story.pop_front().expect("a run in flight has more to come");
        let events: Vec<_> = beats.into_iter().map(|it| render(it, now, &mut self.rng)).collect();
        let expected_version = run.version;
        run.version += i32::try_from(events.len()).expect("an append has a few events");
        let (project_id, run_id) = (run.project_id, run.run_id);
        if run.story.is_empty() {
            self.active.swap_remove(index);
        }
        Append { project_id, run_id, expected_version, events }
    }
}

fn render(beat: Beat, now: Timestamp, rng: &mut Rng) -> Value {
    let mut payload = beat.payload;
    if let Some((key, seconds)) = beat.later
        && let Ok(at) = jiff::Timestamp::from_microsecond(now.0 + seconds * 1_000_000)
        && let Some(payload) = payload.as_object_mut()
    {
        payload.insert(key.to_owned(), json!(at.to_string()));
    }
    let mut random = [0; 16];
    rng.fill(&mut random);
    let event_id = Builder::from_random_bytes(random).into_uuid();
    json!({ "type": beat.kind, "payload": payload, "event_id": event_id })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;

    /// 2026-01-01, and 10 ms more with each append.
    fn appends(seed: u64, count: i64) -> Vec<Append> {
        let mut simulator = Simulator::new(seed, Options::default());
        let moment = |it| Timestamp(1_767_225_600_000_000 + it * 10_000);
        (0..count).map(|it| simulator.next_append(moment(it))).collect()
    }

    fn types(appends: &[Append]) -> HashMap<Uuid, Vec<String>> {
        let mut runs: HashMap<Uuid, Vec<String>> = HashMap::new();
        for append in appends {
            let kinds = append.events.iter().map(|it| it["type"].as_str().unwrap().to_owned());
            runs.entry(append.run_id).or_default().extend(kinds);
        }
        runs
    }

    #[test]
    fn the_same_seed_tells_the_same_and_another_one_something_else() {
        assert_eq!(appends(7, 300), appends(7, 300));
        assert_ne!(appends(7, 300), appends(8, 300));
    }

    #[test]
    fn the_versions_of_a_run_have_no_gap_and_its_tenant_stays() {
        let mut runs: HashMap<Uuid, (i32, Uuid)> = HashMap::new();
        for append in appends(1, 5_000) {
            let (version, project) = runs.entry(append.run_id).or_insert((0, append.project_id));
            assert_eq!((append.expected_version, append.project_id), (*version, *project));
            assert!(!append.events.is_empty());
            *version += i32::try_from(append.events.len()).unwrap();
        }
        let tenants: BTreeSet<_> = runs.values().map(|(_, project)| *project).collect();
        assert_eq!(tenants, BTreeSet::from(PROJECTS));
    }

    #[test]
    fn runs_interleave_and_as_many_are_in_flight_as_asked_for() {
        let mut simulator = Simulator::new(3, Options { runs: 100, ..Options::default() });
        for _ in 0..5_000 {
            simulator.next_append(Timestamp(0));
        }

        let active = simulator.active_runs();

        assert!((50..=100).contains(&active), "{active} runs");
    }

    #[test]
    fn every_type_of_the_vocabulary_and_every_fate_occurs() {
        let appends = appends(11, 20_000);
        let runs = types(&appends);

        let seen: BTreeSet<&str> = runs.values().flatten().map(String::as_str).collect();
        let vocabulary = BTreeSet::from([
            "run_started",
            "run_succeeded",
            "run_failed",
            "run_paused",
            "run_resumed",
            "run_canceled",
            "step_scheduled",
            "step_started",
            "step_succeeded",
            "step_failed",
            "step_skipped",
            "log",
        ]);
        assert_eq!(seen, vocabulary);
        let has = |run: &[String], wanted: &str| run.iter().any(|it| it == wanted);
        let replayed = |run: &&Vec<String>| has(run, "run_failed") && has(run, "run_succeeded");
        assert!(runs.values().any(|run| replayed(&run)));
        let last = |wanted: &str| runs.values().filter(|it| it.last().unwrap() == wanted).count();
        assert!(last("run_failed") < last("run_succeeded") / 4, "most runs go well");
        assert!(0 < last("run_failed") && 0 < last("run_canceled"));
    }

    #[test]
    fn times_in_payloads_follow_the_clock_that_was_given() {
        let appends = appends(11, 2_000);
        let mut retries = appends
            .iter()
            .flat_map(|it| &it.events)
            .filter_map(|event| event["payload"]["retry_at"].as_str());

        assert!(retries.next().unwrap().starts_with("2026-01-01T00:"));
    }
}
