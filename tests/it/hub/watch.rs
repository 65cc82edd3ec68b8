//! Listening to a hub within its process.

use projector::realtime::hub::{Patience, Watched};
use serde_json::json;

use super::patience::hub;
use crate::support::hub::message;

#[tokio::test]
async fn who_watches_a_topic_hears_its_side_of_it_in_order_from_then_on() {
    let hub = hub(Patience::default(), 1 << 20);
    let of = |n: u32| message("run:1", true, json!({ "n": n }));
    hub.publish(&[of(0)]);
    let mut watch = hub.watch("run:1", true);
    let mut another = hub.watch("run:1", true);
    let mut public = hub.watch("run:1", false);

    let elsewhere = message("run:2", true, json!({}));
    let open = message("run:1", false, json!({ "open": true }));
    hub.publish(&[of(1), elsewhere, open.clone(), of(2)]);
    hub.publish(&[of(3)]);

    for n in 1..=3 {
        assert_eq!(watch.next().await, Watched::Message(of(n)));
        assert_eq!(another.next().await, Watched::Message(of(n)));
    }
    assert_eq!(public.next().await, Watched::Message(open));
}

#[tokio::test]
async fn who_does_not_look_in_time_is_told_that_he_missed_something_and_goes_on() {
    let hub = hub(Patience::default(), 1_000);
    let mut watch = hub.watch("run:1", true);
    let text = "x".repeat(400);
    let of = |n: u32| message("run:1", true, json!({ "n": n, "text": text }));

    hub.publish(&[of(1), of(2), of(3), of(4)]);
    assert_eq!(watch.next().await, Watched::Missed);

    hub.publish(&[of(5)]);
    assert_eq!(watch.next().await, Watched::Message(of(5)));
}

#[tokio::test]
async fn who_watches_while_clients_are_sent_away_hears_all_the_same() {
    let hub = hub(Patience::default(), 1 << 20);
    let mut watch = hub.watch("run:1", true);

    hub.stand_by();
    hub.publish(&[message("run:1", true, json!({ "n": 1 }))]);
    hub.lead();
    hub.publish(&[message("run:1", true, json!({ "n": 2 }))]);

    for n in 1..=2 {
        let heard = Watched::Message(message("run:1", true, json!({ "n": n })));
        assert_eq!(watch.next().await, heard);
    }
}
