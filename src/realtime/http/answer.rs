//! What Realtime's answers mean.

use std::time::Duration;

use crate::realtime::sink::Refusal;

/// Longer waits than this are not believed.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// More of an answer than this is not repeated.
const SHOWN: usize = 200;

/// An answer, as far as it is looked at.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) location: Option<String>,
    pub(super) retry_after: Option<String>,
    /// Events a second that the tenant is allowed.
    pub(super) rate_limit: Option<f64>,
    /// Requests a second, lately.
    pub(super) rolling: Option<String>,
}

/// Of the endpoint for batches.
pub(super) fn batch(answer: &Answer, messages: usize) -> Result<(), Refusal> {
    match answer.status {
        200..300 => Ok(()),
        400 | 413 | 422 => Err(Refusal::Content(answer.says())),
        429 if 1 < messages && answer.body.contains("reduce the batch size") => {
            Err(Refusal::Content(answer.says()))
        }
        _ => Err(common(answer)),
    }
}

/// Of the endpoint for single messages, to a private message that nobody waits for.
pub(super) fn canary(answer: &Answer) -> Result<(), Refusal> {
    match answer.status {
        200..300 => Ok(()),
        403 if !answer.body.contains("suspended") => Err(Refusal::operator(
            format!("Realtime would drop private broadcasts without a word: {}", answer.says()),
            "use a secret key (sb_secret_…) or the service_role JWT, whose role bypasses row-level \
             security; or allow the key's role to insert into realtime.messages",
        )),
        404 => {
            tracing::warn!(
                "this Realtime (older than 2.97, or another path) cannot tell whether private \
                 broadcasts arrive; they are sent all the same"
            );
            Ok(())
        }
        422 if answer.body.contains("partition") => Err(Refusal::operator(
            format!("Realtime has nowhere to check private broadcasts: {}", answer.says()),
            "it makes the partitions of realtime.messages when a client connects, or by its janitor \
             (RUN_JANITOR=true)",
        )),
        // its database is on its way
        422 => Err(Refusal::later(answer.says())),
        _ => Err(common(answer)),
    }
}

fn common(answer: &Answer) -> Refusal {
    let says = answer.says();
    match answer.status {
        300..=399 => Refusal::operator(
            format!("{says}, to {}", answer.location.as_deref().unwrap_or("nowhere")),
            "set `realtime.url` to the address that answers by itself",
        ),
        401 if answer.body.contains("Tenant") => Refusal::operator(
            says,
            "the first label of the Host header names the tenant: set `realtime.host`, such as \
             realtime-dev.localhost",
        ),
        401 => Refusal::operator(
            says,
            "check `realtime.key`: a secret key (sb_secret_…) through a gateway, or a JWT of this \
             project that has not expired",
        ),
        403 => Refusal::operator(says, "see the project's state and limits at Supabase"),
        404 => Refusal::operator(
            says,
            "check `realtime.url`; without a gateway, `realtime.host` is needed too",
        ),
        408 | 425 | 500.. => Refusal::Later { reason: says, after: answer.wait() },
        429 => {
            let limit = answer.rate_limit.map(|it| format!(", at most {it} events a second"));
            let rolling = answer.rolling.as_deref().map(|it| format!(", {it} lately"));
            let (limit, rolling) = (limit.unwrap_or_default(), rolling.unwrap_or_default());
            Refusal::Later { reason: format!("{says}{limit}{rolling}"), after: answer.wait() }
        }
        _ => Refusal::operator(says, "is there a Realtime at `realtime.url`?"),
    }
}

impl Answer {
    /// `Realtime answers 401: Unauthorized`
    fn says(&self) -> String {
        let json = serde_json::from_str::<serde_json::Value>(&self.body).ok();
        let message = json.as_ref().and_then(|it| it.get("message").or(it.get("error"))?.as_str());
        let text = message.unwrap_or(self.body.trim());
        let mut shown: String = text.chars().filter(|it| !it.is_control()).take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        let colon = if shown.is_empty() { "" } else { ": " };
        format!("Realtime answers {}{colon}{shown}", self.status)
    }

    fn wait(&self) -> Option<Duration> {
        let seconds = self.retry_after.as_deref()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.to_owned(), ..Answer::default() }
    }

    /// `content`, `later` or `operator`, or nothing for what was taken.
    fn kind(result: Result<(), Refusal>) -> &'static str {
        match result {
            Ok(()) => "",
            Err(Refusal::Content(_)) => "content",
            Err(Refusal::Later { .. }) => "later",
            Err(Refusal::Operator { hint, .. }) => {
                assert!(!hint.is_empty());
                "operator"
            }
        }
    }

    #[test]
    fn each_answer_to_a_batch_has_its_meaning() {
        let limit = r#"{"message":"Too many requests"}"#;
        let large = r#"{"message":"Too many messages to broadcast, please reduce the batch size"}"#;
        let wrong = r#"{"errors":{"messages":[{"payload":["can't be blank"]},{}]}}"#;
        for (status, body, messages, wanted) in [
            (202, "", 3, ""),
            (400, "", 3, "content"),
            (401, r#"{"message":"Unauthorized"}"#, 3, "operator"),
            (401, r#"{"message":"Tenant not found in database"}"#, 3, "operator"),
            (403, r#"{"message":"Tenant is suspended"}"#, 3, "operator"),
            (404, "", 3, "operator"),
            (413, "", 3, "content"),
            (422, wrong, 3, "content"),
            (429, limit, 3, "later"),
            (429, large, 3, "content"),
            (429, large, 1, "later"),
            (500, "", 3, "later"),
            (502, "<html>", 3, "later"),
            (301, "", 3, "operator"),
            (418, "", 3, "operator"),
        ] {
            assert_eq!(kind(batch(&answer(status, body), messages)), wanted, "{status} {body}");
        }
    }

    #[test]
    fn each_answer_to_a_canary_has_its_meaning() {
        for (status, body, wanted) in [
            (202, "", ""),
            (404, "", ""),
            (403, r#"{"message":"Unauthorized"}"#, "operator"),
            (403, r#"{"message":"Tenant is suspended"}"#, "operator"),
            (401, r#"{"message":"Unauthorized"}"#, "operator"),
            (422, r#"{"message":"Missing messages partition"}"#, "operator"),
            (422, r#"{"message":"Tenant database unavailable"}"#, "later"),
            (429, r#"{"message":"Connection pool exhausted"}"#, "later"),
            (500, r#"{"message":"RPC error"}"#, "later"),
        ] {
            assert_eq!(kind(canary(&answer(status, body))), wanted, "{status} {body}");
        }
    }

    #[test]
    fn a_wait_that_is_asked_for_is_believed_within_reason() {
        let asked = |text: &str| Answer {
            status: 429,
            retry_after: Some(text.to_owned()),
            ..Answer::default()
        };

        assert_eq!(asked("3").wait(), Some(Duration::from_secs(3)));
        assert_eq!(asked("86400").wait(), Some(LONGEST_WAIT));
        assert_eq!(asked("Wed, 21 Oct 2026 07:28:00 GMT").wait(), None);
    }

    #[test]
    fn what_is_repeated_of_an_answer_is_short_and_one_line() {
        let said = answer(500, &format!("<html>\n{}", "x".repeat(5_000))).says();

        assert!(said.starts_with("Realtime answers 500: <html>xxx") && said.ends_with('…'));
        assert!(said.len() < 300 && !said.contains('\n'));
    }
}
