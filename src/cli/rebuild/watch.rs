//! Shows rebuilds until they end: bars on a terminal, a line every few seconds elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::cli::context::statement_failed;
use crate::cli::control::{call, is_followed};
use crate::cli::figure::{duration, float, thousands};
use crate::cli::out::{BAD, GOOD, WARN, cut, styled};
use crate::cli::progress::Progress;
use crate::cli::sidecar::explain;
use crate::cli::{Context, Exit, Failure};
use crate::engine::{Engine, EngineError};

const PERIOD: Duration = Duration::from_millis(200);
/// Between two lines where there are no bars.
const LINE_PERIOD: Duration = Duration::from_secs(5);
/// How long a request may lie before we ask whether anybody will take it.
const PATIENCE: Duration = Duration::from_secs(5);
const BAR: &str = "rebuild {prefix:14}  {bar:11}  {msg}";

pub(super) async fn run(
    client: &Client,
    requested: &[i64],
    slot: &str,
    context: &Context,
) -> anyhow::Result<Exit> {
    tokio::select! {
        ended = finished(client, requested, slot, context) => tell(&ended?, context),
        end = tokio::signal::ctrl_c() => {
            end?;
            context.out.note("the rebuild goes on; `projector status` shows it, `projector rebuild NAME --cancel` ends it");
            Ok(Exit::FAILED)
        }
    }
}

/// Does the work that was asked for, and shows it. Ctrl-C gives up what has not ended.
pub(super) async fn carry_out(
    engine: &Engine,
    client: &Client,
    (names, requested): (&[String], &[i64]),
    slot: &str,
    context: &Context,
) -> anyhow::Result<Exit> {
    let cancel = CancellationToken::new();
    let mut work = std::pin::pin!(engine.rebuild_alone(names, &cancel));
    let mut shown = std::pin::pin!(finished(client, requested, slot, context));
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut is_interrupted = false;
    let worked = loop {
        tokio::select! {
            worked = &mut work => break worked,
            // looking may fail for reasons of its own; the work then goes on unseen
            ended = &mut shown => {
                ended?;
                break work.await;
            }
            end = &mut interrupt, if !is_interrupted => {
                end?;
                is_interrupted = true;
                context.out.note("giving up; the rows before go on to serve");
                cancel.cancel();
            }
        }
    };
    match worked {
        Ok(()) => {}
        // a sidecar was started in this moment: the requests are its own now
        Err(EngineError::Standby(_)) => {}
        Err(error) => {
            give_up(client, names).await;
            return Err(explain("cannot rebuild", error).into());
        }
    }
    let list = finished(client, requested, slot, context).await?;
    tell(&list, context)
}

/// What is not begun must not lie in wait for the next sidecar after we said that it failed.
async fn give_up(client: &Client, names: &[String]) {
    for name in names {
        if let Err(error) = call(client, "cancel_rebuild", name).await {
            tracing::debug!(error = format!("{error:#}"), "a request was not taken back");
        }
    }
}

/// Waits for the end of all of them.
async fn finished(
    client: &Client,
    requested: &[i64],
    slot: &str,
    context: &Context,
) -> Result<Vec<Progress>, Failure> {
    let mut shown = Shown { bars: BTreeMap::new(), line_at: Instant::now(), context };
    let began = Instant::now();
    let mut has_warned = false;
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let list = Progress::read(client, requested).await;
        let list = list.map_err(|error| statement_failed("cannot see how far it is", error))?;
        if list.iter().all(|it| it.is_finished) {
            shown.clear();
            return Ok(list);
        }
        shown.show(&list);
        let lies = list.iter().any(|it| it.phase == "requested" && !it.is_finished);
        if lies && !has_warned && PATIENCE <= began.elapsed() && !is_followed(client, slot).await? {
            has_warned = true;
            context.out.note("no sidecar runs here now; the next one carries it out");
        }
    }
}

struct Shown<'a> {
    bars: BTreeMap<i64, ProgressBar>,
    line_at: Instant,
    context: &'a Context,
}

impl Shown<'_> {
    fn show(&mut self, list: &[Progress]) {
        let out = &self.context.out;
        if out.is_json() {
            return;
        }
        if out.draws() {
            for it in list {
                let bar = self.bars.entry(it.rebuild).or_insert_with(|| {
                    out.bar(Some(100), BAR).with_prefix(cut(&it.projection, 14))
                });
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "from 0 to 100"
                )]
                bar.set_position((it.ratio() * 100.0) as u64);
                bar.set_message(cut(&it.text(), 43));
            }
            return;
        }
        if LINE_PERIOD <= self.line_at.elapsed() {
            self.line_at = Instant::now();
            for it in list.iter().filter(|it| !it.is_finished) {
                out.note(format_args!("rebuild {}  {}", it.projection, it.text()));
            }
        }
    }

    fn clear(&self) {
        for bar in self.bars.values() {
            bar.finish_and_clear();
        }
    }
}

/// What became of each; success when all are done.
fn tell(list: &[Progress], context: &Context) -> anyhow::Result<Exit> {
    let exit = if list.iter().all(|it| it.phase == "done") { Exit::DONE } else { Exit::FAILED };
    if context.out.is_json() {
        context.out.json(&json!({ "rebuilds": list }))?;
        return Ok(exit);
    }
    for it in list {
        let name = &it.projection;
        match it.phase.as_str() {
            "done" => {
                let (events, took) = (thousands(float(it.events_done)), duration(it.seconds));
                let word = styled(GOOD, "rebuilt");
                context.out.line(format_args!("{word} {name}  {events} events in {took}"))?;
            }
            "canceled" => {
                let word = styled(WARN, "canceled");
                context.out.line(format_args!("{word} {name}  the rows before go on to serve"))?;
            }
            _ => {
                let error = it.error.as_deref().unwrap_or("the log of the sidecar says why");
                let word = styled(BAD, "failed");
                context.out.line(format_args!("{word} {name}  the rows before go on to serve"))?;
                context.out.complain(format_args!("error: {name}: {error}\n"));
            }
        }
    }
    Ok(exit)
}
