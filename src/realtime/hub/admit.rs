//! Whether somebody may hear a topic: the token, and for a private topic the database.

use std::sync::Arc;

use super::server::Hub;
use super::token::{self, Token, TokenError};

/// By what somebody wants to be let in.
#[derive(Clone, Debug)]
pub(super) enum Claim {
    /// A token that nobody has checked.
    Text(String),
    /// One whose signature was checked before.
    Checked(Arc<Token>),
}

/// Why somebody may not hear a topic.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The token does not count.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The database says no.
    #[error("You do not have permissions to read from this Channel topic: {0}")]
    Forbidden(Arc<str>),
    /// The database says nothing.
    #[error("Realtime was unable to connect to the project database")]
    Database,
}

impl Refusal {
    /// As the answer to a join has it: with a word before the text.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Token(error) => error.reason(),
            Self::Forbidden(_) => format!("Unauthorized: {self}"),
            Self::Database => format!("UnableToConnectToProject: {self}"),
        }
    }

    /// A word for the metric.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Forbidden(_) => "forbidden",
            Self::Database => "database",
        }
    }
}

/// Lets somebody hear the bare topic `topic`, or its private side, or says why not.
pub(super) async fn admit(
    hub: &Hub,
    claim: Claim,
    topic: &Arc<str>,
    private: bool,
) -> Result<Arc<Token>, Refusal> {
    let token = match claim {
        Claim::Text(text) => Arc::new(hub.keys().check(&text, token::now()).await?),
        Claim::Checked(token) => {
            token.check(token::now())?;
            token
        }
    };
    if private {
        match hub.gate().may_read(&token, topic).await {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::Forbidden(Arc::clone(topic))),
            // The gate has told whoever runs this.
            Err(_) => return Err(Refusal::Database),
        }
    }
    Ok(token)
}
