//! What a client asks for when it joins.
//!
//! Read leniently, as the original does: what is not understood counts as not said, and `"true"` is
//! true.

use serde_json::{Value, json};

/// What a client wants of a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wishes {
    /// Whether the private side of the topic is meant.
    pub(super) private: bool,
    /// Whether broadcasts of the client are to be acknowledged.
    pub(super) ack: bool,
    /// Whether the client wants to hear its own broadcasts.
    pub(super) own: bool,
    /// Whether the client wants to know who is present.
    pub(super) presence: bool,
    /// Changes of tables it wants to hear of, as it must see them again in the answer: a JSON array, kept
    /// as text, which takes no more than what the client has sent. Empty where it wants none.
    pub(super) changes: Box<str>,
    /// Its token, where it is not the one it connected with.
    pub(super) token: Option<String>,
}

impl Wishes {
    /// Reads the payload of a join.
    pub(super) fn read(payload: &str) -> Self {
        let payload: Value = serde_json::from_str(payload).unwrap_or_default();
        let config = |path: &str| payload.pointer(&format!("/config/{path}"));
        Self {
            private: config("private").is_some_and(is_true),
            ack: config("broadcast/ack").is_some_and(is_true),
            own: config("broadcast/self").is_some_and(is_true),
            presence: config("presence/enabled").is_some_and(is_true),
            changes: config("postgres_changes")
                .and_then(Value::as_array)
                .map_or_else(Box::default, |it| numbered(it)),
            token: token(&payload),
        }
    }

    /// What the answer to the join holds.
    pub(super) fn response(&self) -> Value {
        let changes: Value = serde_json::from_str(&self.changes).unwrap_or_else(|_| json!([]));
        json!({ "postgres_changes": changes })
    }
}

fn numbered(wishes: &[Value]) -> Box<str> {
    if wishes.is_empty() {
        return "".into();
    }
    let numbered = wishes.iter().enumerate().map(|(number, wish)| {
        let mut wish = wish.clone();
        if let Some(wish) = wish.as_object_mut() {
            wish.insert("id".to_owned(), json!(number));
        }
        wish
    });
    Value::from_iter(numbered).to_string().into()
}

/// The token in a payload, unless it is none: the new opaque keys are no JWTs, and stand for the one
/// that the client connected with.
pub(super) fn token(payload: &Value) -> Option<String> {
    let given = payload.get("access_token").or_else(|| payload.get("user_token"));
    given.and_then(Value::as_str).filter(|it| !it.starts_with("sb_")).map(str::to_owned)
}

fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true) || value.as_str() == Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_supabase_js_sends_is_understood() {
        let wishes = Wishes::read(
            r#"{"config":{"broadcast":{"ack":true,"self":"true"},"presence":{"key":"","enabled":true},
                "postgres_changes":[{"event":"*","schema":"public"}],"private":true},
                "access_token":"e.y.j","version":"realtime-js/2.119.1"}"#,
        );

        let Wishes { private, ack, own, presence, ref token, .. } = wishes;
        assert!(private && ack && own && presence);
        assert_eq!(token.as_deref(), Some("e.y.j"));
        let changes = json!([{ "event": "*", "schema": "public", "id": 0 }]);
        assert_eq!(wishes.response(), json!({ "postgres_changes": changes }));
    }

    #[test]
    fn what_is_not_understood_was_not_said() {
        for odd in ["", "null", "[]", r#"{"config":7}"#, r#"{"config":{"private":1}}"#] {
            assert_eq!(Wishes::read(odd), Wishes::default(), "{odd}");
        }
        assert_eq!(Wishes::read(r#"{"access_token":"sb_publishable_x"}"#).token, None);
    }
}
