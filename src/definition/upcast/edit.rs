//! Members of JSON text put in and taken out. The rest stays as it is written: numbers of any size
//! included.

use crate::definition::json::{self, Walk};

/// The JSON text at a path.
pub(super) fn at<'a>(json: &'a str, path: &[String]) -> Option<&'a str> {
    path.iter().try_fold(json, |json, key| json::member(json, key))
}

/// The same without what stands at the path, if anything does.
pub(super) fn without(json: &str, path: &[String]) -> String {
    let Some((key, rest)) = path.split_first() else { return json.to_owned() };
    let inner = match (json::member(json, key), rest) {
        (None, _) => return json.to_owned(),
        (Some(_), []) => None,
        (Some(inner), rest) if Walk::object(inner).is_some() => Some(without(inner, rest)),
        // nothing stands below what is no object
        (Some(_), _) => return json.to_owned(),
    };
    replaced(json, key, inner.as_deref())
}

/// The same with a value at the path. What is no object on the way there gives way to one.
pub(super) fn with(json: &str, path: &[String], value: &str) -> String {
    let Some((key, rest)) = path.split_first() else { return value.to_owned() };
    let inner = json::member(json, key).unwrap_or("{}");
    replaced(json, key, Some(&with(inner, rest, value)))
}

/// An object with another value for a key, in its place, or at the end where there was none; with no
/// value, without the key.
fn replaced(json: &str, key: &str, value: Option<&str>) -> String {
    let mut text = String::with_capacity(json.len() + 32);
    let mut value = value;
    let mut push = |written: &str, value: &str| {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(written);
        text.push(':');
        text.push_str(value);
    };
    for member in Walk::object(json).into_iter().flatten() {
        let (Some(written), Some(old)) = (json.get(member.key.clone()), json.get(member.value))
        else {
            continue;
        };
        if !json::is_key(json, member.key, key) {
            push(written, old);
        } else if let Some(value) = value.take() {
            push(written, value);
        }
    }
    if let Some(value) = value {
        push(&serde_json::Value::from(key).to_string(), value);
    }
    if text.is_empty() {
        text.push('{');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn members_are_put_in_and_taken_out_and_the_rest_is_as_it_was() {
        let json =
            r#"{ "n": 123456789012345678901234567890.10, "a": {"b": 1, "c": [1, 2]}, "s": "x" }"#;

        let text = with(json, &path("a.d.e"), "true");
        let text = without(&text, &path("a.b"));
        let text = without(&text, &path("s.t"));
        let text = with(&text, &path("s.t"), "null");
        assert_eq!(
            text,
            r#"{"n":123456789012345678901234567890.10,"a":{"c":[1, 2],"d":{"e":true}},"s":{"t":null}}"#
        );
        assert_eq!(with("[1]", &path("a"), "1"), r#"{"a":1}"#);
        assert_eq!(without(r#"{"a":1}"#, &path("a")), "{}");
    }

    fn trees() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<i32>().prop_map(Into::into),
            "[a\"\\\\é]{0,3}".prop_map(Into::into)
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[ab\"\\\\]", inner, 0..3)
                .prop_map(|it| Value::Object(it.into_iter().collect()))
        })
    }

    fn put(tree: &mut Value, path: &[String], value: Value) {
        let Some((key, rest)) = path.split_first() else {
            *tree = value;
            return;
        };
        if !tree.is_object() {
            *tree = json!({});
        }
        put(&mut tree[key], rest, value);
    }

    proptest! {
        #[test]
        fn text_is_edited_as_a_tree_would_be(
            tree in trees(),
            path in prop::collection::vec("[ab\"\\\\]", 1..4),
            value in trees(),
        ) {
            let text = tree.to_string();

            let mut expected = tree.clone();
            put(&mut expected, &path, value.clone());
            let found: Value = serde_json::from_str(&with(&text, &path, &value.to_string())).unwrap();
            prop_assert_eq!(&found, &expected);

            let mut expected = tree;
            let (last, parents) = path.split_last().unwrap();
            let parent = parents.iter().try_fold(&mut expected, |at, key| at.get_mut(key));
            if let Some(Value::Object(parent)) = parent {
                parent.remove(last);
            }
            if expected.is_object() {
                let found: Value = serde_json::from_str(&without(&text, &path)).unwrap();
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
