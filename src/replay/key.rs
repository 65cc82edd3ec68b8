//! A row's key as people write it: `run_id=…,step_id=charge`, a JSON object, or the value alone where
//! the key has one column.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use crate::definition::{Column, ColumnType, Datum, Definition, Value};

/// The text is no key of the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct KeyError {
    message: String,
    /// How a key of the table is written.
    pub hint: String,
}

/// Reads a key, in the order of the key's columns.
///
/// # Errors
/// When it names other columns than the key's, or a value does not fit its column.
pub fn parse(definition: &Definition, text: &str) -> Result<Vec<Value<'static>>, KeyError> {
    let columns: Vec<_> =
        definition.key_columns().filter_map(|it| definition.columns.get(it)).collect();
    let wrong = |message: String| KeyError { message, hint: hint(definition, &columns) };
    let given = pairs(text, &columns).map_err(wrong)?;
    let is_known = |name: &str| columns.iter().any(|it| it.name.as_str() == name);
    if let Some(other) = given.keys().find(|it| !is_known(it)) {
        return Err(wrong(format!("`{other}` is no column of the key of `{}`", definition.name)));
    }
    let mut key = Vec::with_capacity(columns.len());
    for column in &columns {
        let name = column.name.as_str();
        let Some(json) = given.get(name) else {
            return Err(wrong(format!("the key lacks `{name}`")));
        };
        let value = fit(&column.ty, json).map_err(|why| wrong(format!("`{name}`: {why}")))?;
        key.push(value);
    }
    Ok(key)
}

/// The columns that a text names.
fn pairs(text: &str, columns: &[&Column]) -> Result<Map<String, Json>, String> {
    let text = text.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("the key is not JSON: {error}"));
    }
    let names = |part: &str| {
        let name = part.split_once('=').map(|it| it.0.trim());
        name.is_some_and(|name| columns.iter().any(|it| it.name.as_str() == name))
    };
    if let [only] = columns
        && !names(text)
    {
        return Ok([(only.name.as_str().to_owned(), Json::from(text))].into_iter().collect());
    }
    let mut given = Map::new();
    for part in text.split(',') {
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!("`{part}` is not column=value"));
        };
        given.insert(name.trim().to_owned(), Json::from(value.trim()));
    }
    Ok(given)
}

fn fit(ty: &ColumnType, json: &Json) -> Result<Value<'static>, String> {
    let datum = match json {
        Json::String(text) if ty.is_numeric() => Datum::Number(Cow::Borrowed(text)),
        Json::String(text) if *ty == ColumnType::Bool => match text.as_str() {
            "true" | "t" => Datum::Bool(true),
            "false" | "f" => Datum::Bool(false),
            _ => Datum::Text(Cow::Borrowed(text)),
        },
        Json::String(text) => Datum::Text(Cow::Borrowed(text)),
        Json::Null => return Err("a key is never null".to_owned()),
        Json::Bool(it) => Datum::Bool(*it),
        Json::Number(it) => Datum::Number(Cow::Owned(it.to_string())),
        other => Datum::Json(Cow::Owned(other.to_string())),
    };
    match ty.fit(datum).map_err(|misfit| misfit.to_string())? {
        Value::Null => Err("a key is never null".to_owned()),
        Value::Bool(it) => Ok(Value::Bool(it)),
        Value::Int(it) => Ok(Value::Int(it)),
        Value::Float(it) => Ok(Value::Float(it)),
        Value::Text(it) => Ok(Value::Text(Cow::Owned(it.into_owned()))),
        Value::Uuid(it) => Ok(Value::Uuid(it)),
        Value::Time(it) => Ok(Value::Time(it)),
    }
}

fn hint(definition: &Definition, columns: &[&Column]) -> String {
    let parts: Vec<_> =
        columns.iter().map(|it| format!("{}=<{}>", it.name.as_str(), it.ty)).collect();
    format!("a key of `{}` is {}, or the same as a JSON object", definition.name, parts.join(","))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::definition;

    fn table(key: &str, columns: &str) -> Definition {
        let text = format!(
            "table = \"t\"\nkey = {{ {key} }}\n[columns]\n{columns}\nlast = \"text\"\n\
             [[on]]\nevent = \"*\"\nset = {{ last = \"type\" }}\n"
        );
        definition::parse(Path::new("t.toml"), &text).unwrap()
    }

    #[test]
    fn a_key_is_a_value_or_pairs_or_json() {
        let one = table("id = \"run_id\"", "id = \"uuid\"");
        let two = table(
            "id = \"run_id\", n = \"payload.n\", step = \"payload.step\"",
            "id = \"uuid\"\nn = \"int\"\nstep = \"text\"",
        );
        let id = "0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10";

        let uuid = || Value::Uuid(id.parse().unwrap());
        assert_eq!(parse(&one, id).unwrap(), [uuid()]);
        assert_eq!(parse(&one, &format!("id={id}")).unwrap(), [uuid()]);
        let key = [uuid(), Value::Int(7), Value::Text("a=b".into())];
        assert_eq!(parse(&two, &format!("step=a=b, n=7,id={id}")).unwrap(), key);
        let json = format!(r#"{{"id": "{id}", "n": 7, "step": "a=b"}}"#);
        assert_eq!(parse(&two, &json).unwrap(), key);
    }

    #[test]
    fn what_is_no_key_is_told_with_what_one_looks_like() {
        let two = table("id = \"run_id\", n = \"payload.n\"", "id = \"uuid\"\nn = \"int\"");

        let told = |text: &str| parse(&two, text).unwrap_err();
        assert_eq!(told("7").to_string(), "`7` is not column=value");
        assert_eq!(told("id=7").to_string(), "`id`: expected uuid, found the text '7'");
        assert!(told("id=x,n=1").to_string().starts_with("`id`: expected"));
        assert_eq!(told("m=1").to_string(), "`m` is no column of the key of `t`");
        assert_eq!(
            told("").hint,
            "a key of `t` is id=<uuid>,n=<integer>, or the same as a JSON object"
        );
    }
}
