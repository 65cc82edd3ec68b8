//! `projector prune`: tables and records of projections whose definition is gone.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error as PgError};

use crate::cli::context::statement_failed;
use crate::cli::control::is_followed;
use crate::cli::figure::bytes;
use crate::cli::out::{BAD, styled};
use crate::cli::sidecar::definitions;
use crate::cli::{Context, Exit, Failure, PruneArgs};
use crate::ident::{Ident, QualifiedName};

/// How long to wait for readers of a table. New readers queue behind us.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// A projection without a definition.
struct Left {
    name: String,
    table: QualifiedName,
    /// Whether that table is the one that was made for it: partitioned, with its generation.
    has_table: bool,
    /// What its rows take on the disk.
    bytes: u64,
}

pub(super) async fn run(args: &PruneArgs, context: &Context) -> anyhow::Result<Exit> {
    let Some(defined) = definitions(context)? else { return Ok(Exit::USAGE) };
    let defined: Vec<_> = defined.into_iter().map(|it| it.name).collect();
    let mut client = context.connect("prune").await?;
    // one that runs knows best which definitions are gone
    let is_followed = is_followed(&client, context.config().source.slot.as_str()).await?;
    let all = left(&client, &context.config().schema, &defined, is_followed).await?;
    let chosen = choose(all, &args.names, &defined)?;
    if args.yes {
        for it in &chosen {
            drop_one(&mut client, it).await?;
        }
    }
    tell(&chosen, args.yes, context)
}

/// Those of the database that have no definition here, and that no sidecar follows.
async fn left(
    client: &Client,
    schema: &Ident,
    defined: &[String],
    is_followed: bool,
) -> Result<Vec<Left>, Failure> {
    let explain = |error| statement_failed("cannot read the control tables", error);
    // a table of that name which is not partitioned into its generation is somebody else's
    let sql = "select p.name, p.table_name, i.inhrelid is not null,
               coalesce(pg_total_relation_size(i.inhrelid), 0)
         from projector.projections p
         left join pg_inherits i
           on i.inhparent = to_regclass(format('%I.%I', $1::text, p.table_name))
          and i.inhrelid = to_regclass(format('%I.%I', 'projector', p.table_name || '_' || p.generation))
         where p.name <> all ($2) and (p.state = 'detached' or not $3)
         order by p.name";
    let rows = client.query(sql, &[&schema.as_str(), &defined, &is_followed]).await;
    let left = |row: &tokio_postgres::Row| {
        let name = Ident::new(row.get::<_, String>(1));
        let name = name.map_err(|error| Failure::new("a table's name is none").caused_by(error))?;
        Ok(Left {
            name: row.get(0),
            table: QualifiedName { schema: schema.clone(), name },
            has_table: row.get(2),
            bytes: u64::try_from(row.get::<_, i64>(3)).unwrap_or(0),
        })
    };
    rows.map_err(explain)?.iter().map(left).collect()
}

impl Left {
    /// The table as people write it.
    fn shown(&self) -> String {
        format!("{}.{}", self.table.schema.as_str(), self.table.name.as_str())
    }
}

fn choose(all: Vec<Left>, names: &[String], defined: &[String]) -> Result<Vec<Left>, Failure> {
    for name in names {
        if defined.contains(name) {
            let message = format!("projection `{name}` has a definition: it would be built again");
            let hint = "take its file away, and let the sidecar read the folder again";
            return Err(Failure::new(message).hint(hint.to_owned()).exit(Exit::USAGE));
        }
        if !all.iter().any(|it| it.name == *name) {
            let known: Vec<_> = all.iter().map(|it| it.name.as_str()).collect();
            let hint = if known.is_empty() {
                "there is nothing to prune; the sidecar notices at its start or a reload that a definition is gone".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            let message = format!("there is no projection `{name}` without a definition");
            return Err(Failure::new(message).hint(hint).exit(Exit::USAGE));
        }
    }
    Ok(all.into_iter().filter(|it| names.is_empty() || names.contains(&it.name)).collect())
}

/// One transaction each: what one view holds back keeps the others not.
async fn drop_one(client: &mut Client, it: &Left) -> Result<(), Failure> {
    let transaction = client.transaction().await.map_err(|error| failed(it, error))?;
    if it.has_table {
        let (table, wait) = (&it.table, LOCK_WAIT.as_millis());
        let sql = format!(
            "set local lock_timeout = {wait};
             set local statement_timeout = 0;
             drop table {table}"
        );
        transaction.batch_execute(&sql).await.map_err(|error| failed(it, error))?;
    }
    for sql in [
        "delete from projector.projections where name = $1",
        "delete from projector.checkpoints where projection = $1",
        "delete from projector.dead_letters where projection = $1",
        "delete from projector.rebuilds where projection = $1",
        "insert into projector.audit_log (verb, subject) values ('prune', $1)",
    ] {
        transaction.execute(sql, &[&it.name]).await.map_err(|error| failed(it, error))?;
    }
    transaction.commit().await.map_err(|error| failed(it, error))
}

fn failed(it: &Left, error: PgError) -> Failure {
    let message = format!("cannot drop {}; nothing of `{}` was changed", it.shown(), it.name);
    let hint = match error.code() {
        Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => "drop what depends on it first",
        Some(&SqlState::LOCK_NOT_AVAILABLE) => "somebody reads it; try again when they are done",
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => "connect as the role that the sidecar uses",
        _ => return statement_failed(&message, error),
    };
    Failure::new(message).hint(hint.to_owned()).caused_by(error)
}

fn tell(chosen: &[Left], dropped: bool, context: &Context) -> anyhow::Result<Exit> {
    if context.out.is_json() {
        let one = |it: &Left| {
            let table = it.has_table.then(|| it.shown());
            json!({ "name": it.name, "table": table, "bytes": it.bytes })
        };
        let list: Vec<_> = chosen.iter().map(one).collect();
        context.out.json(&json!({ "projections": list, "dropped": dropped }))?;
        return Ok(Exit::DONE);
    }
    let word = if dropped { "dropped" } else { "would drop" };
    for it in chosen {
        let word = styled(BAD, word);
        if it.has_table {
            context.out.line(format_args!("{word} {}  {}", it.shown(), bytes(it.bytes)))?;
        } else {
            context.out.line(format_args!("{word} {}  no table", it.name))?;
        }
    }
    if chosen.is_empty() {
        context.out.line("every projection has its definition; nothing to prune")?;
    } else if !dropped {
        context.out.note("nothing was dropped; add --yes to do it");
    }
    Ok(Exit::DONE)
}
