//! Who may join a private topic: `projector.can_read_topic`, the function behind row-level security.
//!
//! It is asked as `PostgREST` and Supabase Realtime ask: in a transaction that has taken the token's
//! role, with its claims in `request.jwt.claims`. Where the server has none of Supabase's roles, a
//! plain Postgres, it is asked as the sidecar's own role, and the claims alone decide. Any other role
//! that is missing, or that the sidecar may not take, is a failure: nobody is let in.
//!
//! Nothing is remembered: every join and every new token asks, and sockets ask again from time to
//! time, so that whoever is no member any more is cut off.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join4;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::token::Token;
use crate::pg::{ConnectError, Settings, connect};

/// How many may ask at once.
const CONNECTIONS: usize = 4;

/// How long an answer may take, waiting for a connection included. Below the ten seconds after which
/// clients give a join up.
const LIMIT: Duration = Duration::from_secs(6);

/// The database asks no longer than this.
const SESSION: &str = "-c statement_timeout=4s -c default_transaction_read_only=on";

/// Roles that a plain Postgres lacks, for which the claims speak.
const SUPABASE: [&str; 3] = ["anon", USER, "service_role"];

/// The role in the tokens of users.
pub const USER: &str = "authenticated";

/// Takes the role if it is there, and says what `PostgREST` says. A role that is missing is only
/// passed over when the server has none of Supabase's.
const BECOME: &str = "
    select pg_catalog.set_config('request.jwt.claims', $1, true),
           pg_catalog.set_config('request.jwt.claim.sub', $2, true),
           pg_catalog.set_config('request.jwt.claim.role', $3, true),
           pg_catalog.set_config('realtime.topic', $4, true),
           case
             when $3 = any ($5) and not exists (
               select from pg_catalog.pg_roles where rolname = any ($5)) then null
             else pg_catalog.set_config('role', $3, true)
           end";

const ASK: &str = "select projector.can_read_topic($1)";

/// The connections over which the question is asked.
#[derive(Debug)]
pub(super) struct Gate {
    settings: Settings,
    places: Semaphore,
    idle: Mutex<Vec<Client>>,
    /// The failure that was logged last; the same one again says nothing new.
    told: Mutex<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The database cannot be reached.
    #[error("no connection")]
    Connect(#[from] ConnectError),
    /// It refuses the question: a role that is missing or not granted, a function that may not be called.
    #[error("the database cannot answer")]
    Query(#[from] tokio_postgres::Error),
    /// It takes too long.
    #[error("no answer within {} s", LIMIT.as_secs())]
    Slow,
}

impl GateError {
    /// The whole chain of causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

impl Gate {
    /// A gate that connects once somebody asks.
    pub(super) fn new(mut settings: Settings) -> Self {
        let given = settings.options.take().unwrap_or_default();
        settings.options = Some(format!("{given} {SESSION}").trim_start().to_owned());
        Self {
            settings,
            places: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Whether `token` may read the bare topic `topic`.
    ///
    /// # Errors
    /// When the database cannot be asked or does not answer in time.
    pub(super) async fn may_read(&self, token: &Token, topic: &str) -> Result<bool, GateError> {
        // No name has it, and Postgres' text cannot hold it.
        if topic.contains('\0') {
            return Ok(false);
        }
        let answer = timeout(LIMIT, self.ask(token, topic)).await.unwrap_or(Err(GateError::Slow));
        self.tell(answer.as_ref().err());
        answer
    }

    /// Asks on behalf of a user, about a project of nobody.
    pub(super) async fn probe(&self) -> Result<(), GateError> {
        let claims = format!(r#"{{"role":"{USER}"}}"#).into();
        let token = Token { role: USER.to_owned(), subject: None, expires: 0, claims };
        let topic = format!("project:{}", Uuid::nil());
        let answer = timeout(LIMIT, self.ask(&token, &topic)).await;
        answer.unwrap_or(Err(GateError::Slow)).map(drop)
    }

    fn tell(&self, error: Option<&GateError>) {
        let text = error.map(GateError::chain).unwrap_or_default();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !text.is_empty() && *told != text {
            tracing::warn!(error = %text, "nobody can join a private topic");
        }
        *told = text;
    }

    async fn ask(&self, token: &Token, topic: &str) -> Result<bool, GateError> {
        let _place = self.places.acquire().await.expect("it is never closed");
        let kept = self.kept().pop().filter(|it| !it.is_closed());
        let client = match kept {
            Some(client) => client,
            None => connect(&self.settings, "projector realtime").await?,
        };
        // Whoever stops waiting drops the client, and with it a transaction that is half done.
        let answer = question(&client, token, topic).await?;
        self.kept().push(client);
        Ok(answer)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One round trip: the four statements are sent together.
async fn question(
    client: &Client,
    token: &Token,
    topic: &str,
) -> Result<bool, tokio_postgres::Error> {
    let subject = token.subject.as_deref().unwrap_or_default();
    let known = SUPABASE.as_slice();
    let (_, _, answer, ()) = try_join4(
        client.batch_execute("begin"),
        client.query_typed(
            BECOME,
            &[
                (&&*token.claims, Type::TEXT),
                (&subject, Type::TEXT),
                (&token.role, Type::TEXT),
                (&topic, Type::TEXT),
                (&known, Type::TEXT_ARRAY),
            ],
        ),
        client.query_typed(ASK, &[(&topic, Type::TEXT)]),
        client.batch_execute("rollback"),
    )
    .await?;
    Ok(answer.first().and_then(|it| it.get(0)).unwrap_or(false))
}
