//! A read model whose rules are Rust: how long customers think between adding and ordering.
//!
//! ```sh
//! cargo run --example handler -- postgres://localhost/app
//! ```
//!
//! Runs beside the database as `projector run` does, until Ctrl-C. The database must have been
//! migrated (`projector migrate`).

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use projector::config::{self, Environment};
use projector::definition::{self, Handler, HandlerError, Rows};
use projector::engine::Engine;
use projector::event::Event;
use projector::pg::Settings;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The table is TOML as ever; `[handler]` stands in the place of `[[on]]` and declares which operations
/// the code uses.
const BASKETS: &str = r#"
table = "baskets"
key   = { run_id = "run_id" }

[columns]
run_id     = "uuid"
items      = "int not null default 0"
cents      = "bigint not null default 0"
last_item  = "text"
ordered_at = "timestamptz"

[handler]
name   = "baskets 1"
events = ["item_added", "item_removed", "order_placed"]
set    = ["last_item", "ordered_at"]
add    = ["items", "cents"]
"#;

#[derive(Debug)]
struct Baskets;

impl Handler for Baskets {
    fn event<'a>(&self, event: &Event<'a>, rows: &mut Rows<'a>) -> Result<(), HandlerError> {
        let payload: Value =
            serde_json::from_str(event.payload).map_err(|it| HandlerError::new(it.to_string()))?;
        let sign = match event.kind {
            "item_added" => 1,
            "item_removed" => -1,
            _ => {
                rows.row().set("ordered_at", event.recorded_at);
                return Ok(());
            }
        };
        // an error sets the event aside: its row is parked, all others go on
        let price = payload.get("price").and_then(Value::as_f64);
        let price = price.ok_or_else(|| HandlerError::new("no price"))?;
        let cents = (price * 100.0).round();
        rows.row()
            .add("items", sign)
            .add("cents", f64::from(sign) * cents)
            .set("last_item", payload.get("sku").cloned());
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_default();
    let settings = Settings::parse(&url, |name| std::env::var(name).ok())?;
    let definition = definition::parse(Path::new("baskets.toml"), BASKETS)
        .map_err(|problems| problems.iter().map(definition::Problem::render).collect::<String>())?
        .with_handler(Arc::new(Baskets));
    let config = config::load(None, &Environment::of_this_process(), &[])?.config;

    let shutdown = CancellationToken::new();
    let ctrl_c = shutdown.clone();
    tokio::spawn(async move {
        // without a handler for it the process just ends, which loses nothing
        if tokio::signal::ctrl_c().await.is_ok() {
            ctrl_c.cancel();
        }
    });
    Engine::new(settings, config, vec![definition])?.run(shutdown).await?;
    Ok(())
}
