//! `projector append`: events as NDJSON on standard input into the events table.
//!
//! Every line has one of three ends, and each is told: appended (counted), refused (with its number
//! and the reason), or unknown, because the connection broke before the answer.

mod line;
mod group;
mod input;
mod calls;

use std::io::{self, IsTerminal};

use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc::error::TryRecvError;

use crate::cli::append::calls::{Answer, Calls, Outcome};
use crate::cli::append::group::Group;
use crate::cli::append::input::Text;
use crate::cli::append::line::{Defaults, Line};
use crate::cli::out::{BAD, Out, styled};
use crate::cli::{AppendArgs, Context, Exit, Failure};

/// How it ended.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Summary {
    /// Lines read.
    lines: u64,
    /// Events in the database.
    appended: u64,
    /// Events that are not, each with its reason on standard error.
    refused: u64,
    /// Events that may be.
    unknown: u64,
}

pub(super) async fn run(args: AppendArgs, context: &Context) -> anyhow::Result<Exit> {
    let client = context.connect("append").await?;
    let statement = calls::prepare(&client, context.config().events_schema()).await?;
    if io::stdin().is_terminal() {
        context.out.note("reading events from the terminal, one JSON object a line; Ctrl-D ends");
    }
    let mut lines = input::spawn(io::stdin());
    let mut work = Work {
        args: &args,
        out: &context.out,
        calls: Calls::new(&client, &statement),
        open: None,
        summary: Summary::default(),
        stop: None,
    };
    let bar = context.out.counter("events appended");
    while work.stop.is_none() {
        bar.set_position(work.summary.appended);
        let text = match lines.try_recv() {
            Ok(text) => text,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                // Whoever feeds us slowly wants the events in the table before the next one comes.
                work.flush().await;
                tokio::select! {
                    // Both may be cancelled: nothing is taken from a channel or a call in vain.
                    text = lines.recv() => match text {
                        Some(text) => text,
                        None => break,
                    },
                    Some(answers) = work.calls.next() => {
                        work.settle(answers);
                        continue;
                    }
                }
            }
        };
        work.take(text).await;
    }
    work.flush().await;
    while let Some(answers) = work.calls.next().await {
        work.settle(answers);
    }
    bar.finish_and_clear();
    finish(work.summary, work.stop, &context.out)
}

/// The verb at work.
struct Work<'a> {
    args: &'a AppendArgs,
    out: &'a Out,
    calls: Calls<'a>,
    /// The group that still grows.
    open: Option<Group>,
    summary: Summary,
    /// Why no more lines are read.
    stop: Option<Failure>,
}

impl Work<'_> {
    /// One more line.
    async fn take(&mut self, text: io::Result<Text>) {
        self.summary.lines += 1;
        let number = self.summary.lines;
        let defaults = Defaults { project_id: self.args.project, run_id: self.args.run };
        let parsed = match text {
            Ok(Text::Blank) => return,
            Ok(Text::TooLong) => Err("longer than any event can be".to_owned()),
            Ok(Text::Line(text)) => Line::parse(number, &text, defaults),
            Err(error) => {
                self.stop = Some(Failure::new("cannot read standard input").caused_by(error));
                return;
            }
        };
        let line = match parsed {
            Ok(line) => line,
            Err(why) => {
                if self.args.strict {
                    // What came before it is good and goes in.
                    self.flush().await;
                }
                self.refuse(&[number], &format!("line {number}"), &why);
                return;
            }
        };
        let line = match &mut self.open {
            None => Err(line),
            Some(group) => group.add(line, usize::from(self.args.batch)),
        };
        if let Err(line) = line {
            self.flush().await;
            self.open = Some(Group::new(line));
        }
    }

    /// Sends the open group, after waiting for room.
    async fn flush(&mut self) {
        let Some(group) = self.open.take() else { return };
        while !self.calls.has_room_for(&group) {
            let Some(answers) = self.calls.next().await else { break };
            self.settle(answers);
        }
        if self.stop.is_none() {
            self.calls.start(group);
        } else {
            self.refuse(&group.numbers(), &group.to_string(), "not tried after what came before");
        }
    }

    /// Counts what calls have brought.
    fn settle(&mut self, answers: Vec<Answer>) {
        for Answer { group, outcome } in answers {
            match outcome {
                Outcome::Appended => self.summary.appended += group.len(),
                Outcome::Refused(error) => {
                    self.refuse(&group.numbers(), &group.to_string(), &server_words(&error));
                }
                Outcome::Failed(error) => {
                    self.refuse(&group.numbers(), &group.to_string(), &server_words(&error));
                    self.stop = Some(Failure::new("the database takes no events").caused_by(error));
                }
                Outcome::Unknown(error) => {
                    self.summary.unknown += group.len();
                    let why = "the connection broke before the answer; may or may not be appended";
                    self.tell(&group.numbers(), &group.to_string(), why);
                    let failure = Failure::new("lost the connection").caused_by(error);
                    let hint = "with an event_id in each line the file can be appended again";
                    self.stop = Some(failure.hint(hint.to_owned()));
                }
            }
        }
    }

    fn refuse(&mut self, numbers: &[u64], name: &str, why: &str) {
        self.summary.refused += numbers.len() as u64;
        self.tell(numbers, name, why);
        if self.args.strict && self.stop.is_none() {
            self.stop = Some(Failure::new("stopped at the first bad line, as --strict asks"));
        }
    }

    fn tell(&self, numbers: &[u64], name: &str, why: &str) {
        if self.out.is_json() {
            self.out.complain(format_args!("{}\n", json!({ "lines": numbers, "error": why })));
        } else {
            self.out.complain(format_args!("{} {why}\n", styled(BAD, format!("{name}:"))));
        }
    }
}

fn server_words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |it| it.message().to_owned())
}

fn finish(summary: Summary, stop: Option<Failure>, out: &Out) -> anyhow::Result<Exit> {
    let Summary { lines, appended, refused, unknown } = summary;
    if out.is_json() {
        out.json(&summary)?;
    } else {
        let refused = if refused == 0 { String::new() } else { format!(", {refused} refused") };
        let unknown = if unknown == 0 { String::new() } else { format!(", {unknown} unknown") };
        out.line(format_args!("{appended} events appended{refused}{unknown}; {lines} lines read"))?;
    }
    match stop {
        Some(failure) => Err(failure.into()),
        None if refused == 0 => Ok(Exit::DONE),
        None => Ok(Exit::FAILED),
    }
}
