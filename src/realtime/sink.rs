//! Sending: the same for every target, whatever it says to a message.
//!
//! Of messages that are refused the bad ones are found, by halving, and given up; `doubt` says when they
//! are not to blame.

use std::time::Duration;

use crate::lsn::Lsn;
use crate::pg::Settings;
use crate::realtime::Message;
use crate::realtime::doubt::Doubt;
use crate::realtime::http::HttpSink;
use crate::realtime::hub::Hub;
use crate::realtime::sql::SqlSink;
use crate::realtime::target::Target;

/// Why messages were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Because of one of them, or because they are too many: fewer may be taken.
    Content(String),
    /// Not now.
    Later {
        /// What was said, or not said.
        reason: String,
        /// How long to wait, where the target tells.
        after: Option<Duration>,
    },
    /// Not before somebody does something.
    Operator {
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: String,
    },
}

impl Refusal {
    pub(super) fn later(reason: impl Into<String>) -> Self {
        Self::Later { reason: reason.into(), after: None }
    }

    pub(super) fn operator(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Operator { reason: reason.into(), hint: hint.into() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Content(reason) | Self::Later { reason, .. } => f.write_str(reason),
            Self::Operator { reason, hint } => write!(f, "{reason}; {hint}"),
        }
    }
}

/// A target that is sent to.
#[derive(Debug)]
pub struct Sink {
    way: Way,
    doubt: Doubt,
}

#[derive(Debug)]
enum Way {
    /// A Supabase Realtime.
    Http(HttpSink),
    /// The table that one follows.
    Sql(SqlSink),
    /// The clients of this process.
    Embedded(Hub),
}

/// What became of messages.
#[derive(Debug, Default)]
pub struct Delivery {
    /// So many, from the first, were taken or are refused for good.
    pub done: usize,
    /// Which of those are refused for good, and why.
    pub refused: Vec<(usize, String)>,
    /// Why the rest was not taken.
    pub failure: Option<Refusal>,
    /// Whether the target has kept the checkpoint with the messages.
    pub is_kept: bool,
}

impl Sink {
    /// One that has not been sent to yet. `settings` are those of the database.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(target: &Target, settings: &Settings) -> Result<Self, reqwest::Error> {
        let way = match target {
            Target::Http(gateway) => Way::Http(HttpSink::new(gateway.clone())?),
            Target::Sql => Way::Sql(SqlSink::new(settings.clone())),
            Target::Embedded(hub) => Way::Embedded(hub.clone()),
        };
        Ok(Self { way, doubt: Doubt::default() })
    }

    /// Whether what is sent would arrive; `is_private` says whether private messages are sent.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&mut self, is_private: bool) -> Result<(), Refusal> {
        match &mut self.way {
            Way::Http(it) => it.probe(is_private).await,
            Way::Sql(it) => it.probe().await,
            Way::Embedded(_) => Ok(()),
        }
    }

    /// Whether it takes no more than so many messages a second.
    pub fn is_paced(&self) -> bool {
        !matches!(self.way, Way::Embedded(_))
    }

    /// Events a second that the server has said it allows.
    pub fn allowed(&self) -> Option<f64> {
        match &self.way {
            Way::Http(it) => it.allowed(),
            Way::Sql(_) | Way::Embedded(_) => None,
        }
    }

    /// Sends messages in order, one request after the other. `checkpoint` counts once all are taken.
    ///
    /// Those that are refused for what they are are found by halving. They are given up as soon as
    /// another one is taken after them, or at the end; unless a canary is refused as well, or the doubt
    /// is general: then they stay, and it is the operator's turn.
    pub async fn deliver(&mut self, messages: &[Message], checkpoint: Lsn) -> Delivery {
        let mut delivery = Delivery::default();
        // refused alone, and not given up yet
        let mut held: Vec<(usize, String)> = Vec::new();
        let mut is_canary_taken = false;
        let (mut next, mut most) = (0, messages.len());
        while next < messages.len() {
            let end = messages.len().min(next + most.max(1));
            let part = messages.get(next..end).unwrap_or_default();
            let is_last = end == messages.len();
            match (self.post(part, is_last.then_some(checkpoint)).await, part) {
                (Ok(()), _) => {
                    self.doubt.taken();
                    delivery.refused.append(&mut held);
                    delivery.done = end;
                    delivery.is_kept = is_last && matches!(self.way, Way::Sql(_));
                    next = end;
                    most = most.saturating_mul(2);
                }
                (Err(Refusal::Content(reason)), [message]) => {
                    if !is_canary_taken && let Err(failure) = self.control(message, &reason).await {
                        delivery.failure = Some(failure);
                        return delivery;
                    }
                    is_canary_taken = true;
                    self.doubt.refused(&message.topic);
                    held.push((next, reason));
                    next = end;
                }
                (Err(Refusal::Content(_)), _) => most = part.len() / 2,
                (Err(failure), _) => {
                    delivery.failure = Some(failure);
                    return delivery;
                }
            }
        }
        match held.first() {
            Some((_, reason)) if self.doubt.is_general() => {
                let reason = format!("{reason}, to one topic after the other");
                delivery.failure = Some(Refusal::operator(reason, self.hint()));
            }
            _ => {
                delivery.refused.append(&mut held);
                delivery.done = messages.len();
            }
        }
        delivery
    }

    /// Whether the target takes a message that is surely in order, where it refused this one.
    async fn control(&mut self, message: &Message, reason: &str) -> Result<(), Refusal> {
        let tried = match &mut self.way {
            Way::Http(it) => it.post(&[Message::canary(message.private)]).await,
            Way::Sql(it) => it.probe().await,
            Way::Embedded(_) => Ok(()),
        };
        tried.map_err(|failure| match failure {
            Refusal::Content(_) => {
                let reason = format!("{reason}, whatever it is sent");
                Refusal::operator(reason, self.hint())
            }
            other => other,
        })
    }

    /// What to do where everything is refused.
    fn hint(&self) -> &'static str {
        match &self.way {
            Way::Sql(_) => {
                "see the triggers and constraints of realtime.messages; nothing is left out \
                 meanwhile"
            }
            Way::Http(_) | Way::Embedded(_) => {
                "see what is between projector and Realtime, and the limits of both \
                 (`realtime.message_bytes`); nothing is left out meanwhile"
            }
        }
    }

    async fn post(&mut self, messages: &[Message], checkpoint: Option<Lsn>) -> Result<(), Refusal> {
        match &mut self.way {
            Way::Http(it) => it.post(messages).await,
            Way::Sql(it) => it.post(messages, checkpoint).await,
            Way::Embedded(hub) => {
                hub.publish(messages);
                Ok(())
            }
        }
    }
}
