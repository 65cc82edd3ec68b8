//! The table `realtime.messages` of the same database, which a Supabase Realtime follows.
//!
//! What `realtime.send` does, without what makes it lose messages in silence: it turns every failure
//! into a warning, and takes the same moment for all rows of a transaction, in the session's time zone.
//! Here a failure is an error, rows have their own moments in UTC, and the messages commit together with
//! the checkpoint.

use postgres_types::Type;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error as PgError};

use crate::lsn::Lsn;
use crate::pg::{Class, Settings, class};
use crate::realtime::link::{Link, LinkError, within};
use crate::realtime::sink::Refusal;
use crate::realtime::{Message, checkpoint};

const INSERT: &str = "insert into realtime.messages
       (id, topic, event, private, payload, extension, inserted_at, updated_at)
     select m.id, m.topic, m.event, m.private, m.payload::jsonb, 'broadcast',
       clock_timestamp() at time zone 'utc', clock_timestamp() at time zone 'utc'
     from unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[], $5::text[])
       with ordinality as m (id, topic, event, private, payload, number)";

/// Whether a row could be written now; the row is taken back.
const PROBE: &str = "insert into realtime.messages
       (topic, event, private, payload, extension, inserted_at, updated_at)
     select 'projector:canary', 'canary', true, '{}'::jsonb, 'broadcast',
       clock_timestamp() at time zone 'utc', clock_timestamp() at time zone 'utc'";

/// Writes messages into `realtime.messages`.
#[derive(Debug)]
pub(super) struct SqlSink {
    link: Link,
}

impl SqlSink {
    /// One that is not connected yet.
    pub(super) fn new(settings: Settings) -> Self {
        Self { link: Link::new(settings) }
    }

    pub(super) async fn probe(&mut self) -> Result<(), Refusal> {
        let mut client = self.link.take().await.map_err(|error| explain(&error))?;
        let tried = async {
            let transaction = client.transaction().await?;
            transaction.execute(PROBE, &[]).await?;
            transaction.rollback().await
        };
        let tried = within(tried).await;
        self.settle(client, tried)
    }

    pub(super) async fn post(
        &mut self,
        messages: &[Message],
        checkpoint: Option<Lsn>,
    ) -> Result<(), Refusal> {
        let mut client = self.link.take().await.map_err(|error| explain(&error))?;
        let written = within(write(&mut client, messages, checkpoint)).await;
        self.settle(client, written)
    }

    fn settle(&mut self, client: Client, result: Result<(), LinkError>) -> Result<(), Refusal> {
        if !matches!(result, Err(LinkError::Silent)) {
            self.link.put(client);
        }
        result.map_err(|error| explain(&error))
    }
}

async fn write(
    client: &mut Client,
    messages: &[Message],
    checkpoint: Option<Lsn>,
) -> Result<(), PgError> {
    let ids: Vec<_> = messages.iter().map(|it| it.id).collect();
    let topics: Vec<_> = messages.iter().map(|it| it.topic.as_ref()).collect();
    let events: Vec<_> = messages.iter().map(|it| it.event.as_ref()).collect();
    let private: Vec<_> = messages.iter().map(|it| it.private).collect();
    let payloads: Vec<_> = messages.iter().map(|it| it.payload.as_ref()).collect();
    let transaction = client.transaction().await?;
    transaction
        .execute_typed(
            INSERT,
            &[
                (&ids, Type::UUID_ARRAY),
                (&topics, Type::TEXT_ARRAY),
                (&events, Type::TEXT_ARRAY),
                (&private, Type::BOOL_ARRAY),
                (&payloads, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    if let Some(lsn) = checkpoint {
        checkpoint::save(&transaction, lsn).await?;
    }
    transaction.commit().await
}

/// What the database's refusal means.
fn explain(error: &LinkError) -> Refusal {
    let LinkError::Query(error) = error else { return Refusal::later(error.to_string()) };
    let Some(db) = error.as_db_error() else { return Refusal::later(error.to_string()) };
    let says = db.message();
    let code = db.code();
    if [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::UNDEFINED_COLUMN]
        .contains(code)
    {
        return Refusal::operator(
            format!("there is no table realtime.messages as Supabase has it: {says}"),
            "`realtime.mode = \"sql\"` is for the database of a Supabase project, after its Realtime \
             has started once; elsewhere use http or embedded",
        );
    }
    if *code == SqlState::CHECK_VIOLATION && says.contains("partition") {
        return Refusal::operator(
            format!("realtime.messages has no partition for today: {says}"),
            "Realtime makes partitions when a client connects, or by its janitor (RUN_JANITOR=true)",
        );
    }
    if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        return Refusal::operator(
            format!("this role may not write to realtime.messages: {says}"),
            "grant usage on schema realtime and insert on realtime.messages to the role, and allow \
             it by a policy or BYPASSRLS",
        );
    }
    match class(error) {
        Class::Poison | Class::Bug => Refusal::Content(says.to_owned()),
        Class::Transient | Class::Lost | Class::Refused | Class::Config => Refusal::later(says),
    }
}
