//! `projector verify`: whether read models say what history says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::figure::{duration, float, thousands};
use crate::cli::out::{BAD, GOOD, Out, cut, styled};
use crate::cli::sidecar::definitions;
use crate::cli::{Context, Exit, Failure, RebuildArgs, VerifyArgs, rebuild};
use crate::definition::Definition;
use crate::history::error::BuildError;
use crate::history::pace::Pace;
use crate::history::source::Source;
use crate::verify::check::{Report, Request, Stage, verify};
use crate::verify::compare::{Difference, Kind};
use crate::verify::error::VerifyError;

/// Between two lines where there are no bars.
const LINE_PERIOD: Duration = Duration::from_secs(5);
const BAR: &str = "verify  {bar:11}  {msg}";
/// How much of a value is shown.
const VALUE: usize = 60;

pub(super) async fn run(args: VerifyArgs, context: &Context) -> anyhow::Result<Exit> {
    let Some(definitions) = definitions(context)? else {
        return Ok(Exit::USAGE);
    };
    let request = request(chosen(definitions, &args)?, args.limit, context)?;
    if request.definitions.is_empty() {
        context.out.note("no definitions: nothing to compare");
        return Ok(Exit::DONE);
    }
    let began = Instant::now();
    let reports = {
        let cancel = CancellationToken::new();
        let mut shown = Shown::new(&context.out);
        let mut work = std::pin::pin!(verify(&request, |stage| shown.show(&stage), &cancel));
        let reports = tokio::select! {
            reports = &mut work => reports,
            end = tokio::signal::ctrl_c() => {
                end?;
                cancel.cancel();
                work.await
            }
        };
        reports.map_err(failed)?
    };
    tell(&reports, began.elapsed(), &context.out)?;
    let different: Vec<_> = reports.iter().filter(|it| 0 < it.differences.count).collect();
    if different.is_empty() {
        return Ok(Exit::DONE);
    }
    if args.repair {
        let names = different.iter().map(|it| it.projection.clone()).collect();
        let args = RebuildArgs { names, all: false, detach: false, cancel: false };
        let ended = Box::pin(rebuild::run(args, context)).await?;
        if ended != Exit::DONE {
            return Ok(ended);
        }
    }
    Ok(Exit::DIFFERENT)
}

/// Those that were asked for.
fn chosen(
    definitions: Vec<Definition>,
    args: &VerifyArgs,
) -> Result<Vec<Arc<Definition>>, Failure> {
    if args.all {
        return Ok(definitions.into_iter().map(Arc::new).collect());
    }
    let names: Vec<_> = definitions.iter().map(|it| it.name.clone()).collect();
    if let Some(unknown) = args.names.iter().find(|it| !names.contains(it)) {
        let hint = match names.is_empty() {
            true => "there are no definitions; give their folder with --projections".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        };
        let message = format!("there is no definition of a projection `{unknown}`");
        return Err(Failure::new(message).hint(hint).exit(Exit::USAGE));
    }
    let wanted = definitions.into_iter().filter(|it| args.names.contains(&it.name));
    Ok(wanted.map(Arc::new).collect())
}

fn request(
    definitions: Vec<Arc<Definition>>,
    limit: usize,
    context: &Context,
) -> anyhow::Result<Request> {
    let config = context.config();
    let source = Source {
        settings: context.settings()?,
        events: config.events_table(),
        columns: config.source.columns.clone(),
        publication: config.source.publication.clone(),
        schema: config.schema.clone(),
        redactor: Arc::new(context.redactor()?),
        memory: usize::try_from(config.limits.memory.bytes() / 4).unwrap_or(usize::MAX),
        // what the sidecar may set aside is its own setting, and what it has set aside is recorded
        parked_limit: usize::MAX,
        is_careful: false,
        pace: Pace::full(),
    };
    Ok(Request { source, slot: config.source.slot.clone(), definitions, limit })
}

fn failed(error: VerifyError) -> Failure {
    if matches!(error, VerifyError::Build(BuildError::Canceled)) {
        return Failure::new("interrupted; nothing is left behind");
    }
    let hint = error.hint();
    Failure::new("the read models cannot be compared with history").hint(hint).caused_by(error)
}

/// Shows what is being done: a bar on a terminal, a line every few seconds elsewhere.
struct Shown<'a> {
    out: &'a Out,
    bar: ProgressBar,
    began: Instant,
    folding_since: Option<Instant>,
    line_at: Instant,
}

impl<'a> Shown<'a> {
    fn new(out: &'a Out) -> Self {
        let (bar, now) = (out.bar(Some(100), BAR), Instant::now());
        Self { out, bar, began: now, folding_since: None, line_at: now }
    }

    fn show(&mut self, stage: &Stage) {
        let text = match stage {
            Stage::Anchor => "waits for open transactions to end".to_owned(),
            Stage::Fold(progress) => {
                let since = *self.folding_since.get_or_insert_with(Instant::now);
                let total = progress.total.max(progress.done).max(1);
                self.bar.set_position(progress.done * 100 / total);
                let seconds = since.elapsed().as_secs_f64();
                let (done, all) = (float(progress.done), float(total));
                let mut text = format!("{}/{} events", thousands(done), thousands(all));
                if 1.0 <= seconds && 0 < progress.done {
                    let rate = done / seconds;
                    let left = duration((all - done) / rate);
                    text += &format!("  {}/s  {left} left", thousands(rate));
                }
                text
            }
            Stage::Wait(lsn) => format!("waits for the rows to reach {lsn}"),
            Stage::Follow(lsn) => format!("follows the log to {lsn}"),
            Stage::Compare { projection, done } => {
                format!("compares {projection}: {} rows", thousands(float(*done)))
            }
        };
        self.bar.set_message(cut(&text, 58));
        if !self.out.draws() && !self.out.is_json() && LINE_PERIOD <= self.line_at.elapsed() {
            self.line_at = Instant::now();
            self.out.note(format_args!("verify  {text}"));
        }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        tracing::debug!(duration_ms = self.began.elapsed().as_millis(), "compared");
    }
}

fn tell(reports: &[Report], took: Duration, out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        let seconds = took.as_secs_f64();
        out.json(&json!({ "projections": reports, "seconds": seconds }))?;
        return Ok(());
    }
    for Report { projection, lsn, parked_keys, differences } in reports {
        let rows = thousands(float(differences.rows));
        let parked = match parked_keys {
            0 => String::new(),
            1 => "; 1 parked key left out".to_owned(),
            many => format!("; {many} parked keys left out"),
        };
        if differences.count == 0 {
            let word = styled(GOOD, "agrees");
            out.line(format_args!("{projection}  {word}  {rows} rows at {lsn}{parked}"))?;
            continue;
        }
        let word = styled(BAD, "differs");
        let (changed, missing, extra) =
            (differences.changed, differences.missing, differences.extra);
        out.line(format_args!(
            "{projection}  {word}  {changed} changed, {missing} missing, {extra} extra \
             of {rows} rows at {lsn}{parked}"
        ))?;
        for difference in &differences.first {
            out.write(difference_text(difference))?;
        }
        let kept = differences.first.len();
        let more = usize::try_from(differences.count).unwrap_or(usize::MAX) - kept;
        if 0 < more && 0 < kept {
            out.line(format_args!("  … and {more} more; --limit shows them"))?;
        }
    }
    Ok(())
}

/// The key on a line, and a line for each column that differs.
fn difference_text(it: &Difference) -> String {
    let value = |it: &Option<String>| it.as_ref().map_or("null".to_owned(), |it| cut(it, VALUE));
    let key: Vec<_> = it.key.iter().map(|(name, key)| format!("{name} {}", value(key))).collect();
    let kind = match it.kind {
        Kind::Changed => "changed",
        Kind::Missing => "missing",
        Kind::Extra => "extra",
    };
    let mut text = format!("  {kind}  {}\n", key.join(", "));
    for cell in &it.columns {
        let (stored, history) = (value(&cell.stored), value(&cell.history));
        text += &format!("    {}: stored {stored}, history says {history}\n", cell.column);
    }
    text
}
