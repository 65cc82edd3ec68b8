//! Viewers that do the least: a socket each in this process, and the frame is looked into.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::{Heard, now};

/// What a viewer has heard so far.
pub(crate) struct Viewer(Arc<Mutex<Heard>>);

/// A viewer that has joined.
pub(crate) async fn start(url: String, topic: String) -> anyhow::Result<Viewer> {
    let (mut socket, _) = connect_async(url).await?;
    let topic = format!("realtime:{topic}");
    let join = json!(["1", "1", topic, "phx_join", { "config": { "private": true } }]);
    socket.send(Message::text(join.to_string())).await?;
    let answer = socket.next().await.context("closed")??.into_text()?;
    ensure!(answer.contains(r#""status":"ok""#), "{answer}");
    let heard = Arc::new(Mutex::new(Heard::new()));
    let mine = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Some(Ok(message)) = socket.next().await {
            let at = now();
            let Ok(frame) = serde_json::from_slice::<Value>(&message.into_data()) else { break };
            let Some(lines) = frame[4]["payload"]["lines"].as_array() else { continue };
            let versions = lines.iter().filter_map(|it| it["version"].as_i64());
            let versions = versions.filter_map(|it| i32::try_from(it).ok());
            mine.lock().expect("nobody panics").extend(versions.map(|it| (it, at)));
        }
    });
    Ok(Viewer(heard))
}

impl Viewer {
    /// Waits until it has heard the last version.
    pub(crate) async fn report(self, last: i32) -> Heard {
        loop {
            {
                let mut heard = self.0.lock().expect("nobody panics");
                if heard.last().is_some_and(|it| it.0 == last) {
                    return std::mem::take(&mut *heard);
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
