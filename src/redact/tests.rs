use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

static REDACTOR: LazyLock<Redactor> = LazyLock::new(Redactor::default);

fn redacted(json: &str) -> String {
    REDACTOR.apply(json).into_owned()
}

fn with_paths(paths: &[&str]) -> Redactor {
    let paths = paths.iter().map(|it| (*it).to_owned()).collect();
    Redactor::new(RedactRules { paths, ..RedactRules::default() }).unwrap()
}

#[test]
fn a_text_without_secrets_is_handed_back_as_it_is() {
    for json in [
        "{}",
        "null",
        r#"{"a": 1.50e+400, "tokens_used": 3, "at": "2026-11-23T20:29:00Z", "id": "0190a000-0000-7000-8000-000000000001"}"#,
        r#"{"message": "basic plan, bearer of news, Asia, 1732393740123"}"#,
    ] {
        assert!(
            matches!(Redactor::default().apply(json), Cow::Borrowed(it) if it == json),
            "{json}"
        );
    }
}

#[test]
fn a_value_under_a_secret_key_is_masked_whatever_its_kind() {
    let json = r#"{"password": "x", "Api-Key" : 12, "apiKey":true, "SECRET": {"a": [1, "}"]}, "cookie": ["x"], "token": null, "b": "password"}"#;

    assert_eq!(
        redacted(json),
        r#"{"password": "***", "Api-Key" : "***", "apiKey":"***", "SECRET": "***", "cookie": "***", "token": null, "b": "password"}"#
    );
}

#[test]
fn a_key_or_value_in_escapes_is_found() {
    assert_eq!(redacted(r#"{"\u0070assword": 1}"#), r#"{"\u0070assword": "***"}"#);
    assert_eq!(redacted(r#"["\u0067hp_0123456789abcdef0123"]"#), r#"["***"]"#);
}

#[test]
fn secrets_are_masked_within_strings_and_the_rest_of_the_string_stays() {
    for (secret, text) in [
        ("abc123def456", "Authorization: Bearer abc123def456, sent"),
        ("dXNlcjpwYXNz", "curl -H 'Authorization: basic dXNlcjpwYXNz' /"),
        (
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
            "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln!",
        ),
        ("sk_live_0123456789", "key=sk_live_0123456789"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("4111 1111 1111 1111", "card 4111 1111 1111 1111 12/30"),
        ("4111-1111-1111-1111", "\n4111-1111-1111-1111\t"),
        ("378282246310005", "\"378282246310005\""),
        ("MIIE", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- tail"),
    ] {
        let json = json!({"message": text}).to_string();

        let out = redacted(&json);

        assert!(!out.contains(secret), "{out}");
        assert!(out.contains("***"), "{out}");
        assert!(serde_json::from_str::<Value>(&out).is_ok(), "{out}");
    }
    assert_eq!(
        redacted(r#"{"m": "say \"hi\" to ghp_0123456789abcdef0123 now"}"#),
        r#"{"m": "say \"hi\" to *** now"}"#
    );
}

/// Nothing in these is a secret.
const INNOCENT: &[&str] = &[
    "basic plan, bearer of news, Asia",
    "Bearer authentication failed: token expired",
    "password: required",
    "Password must have at least 8 characters",
    "password reset e-mail sent to user 12",
    "the secret: patience",
    "secret santa starts at 5pm",
    "cookie: chocolate chip",
    "Cookie banner accepted",
    "authorization: denied by policy",
    "Authorization required for POST /v1/orders",
    "token=null, session=undefined",
    "tokens=1532 (prompt 1200, completion 332)",
    "max_tokens: 4096, next_page: 3",
    "tokenizer=cl100k; tokenized 12 files",
    "https://example.com:8443/path?page=2&sort=name",
    "postgres://localhost:5432/app",
    "mailto:support@example.com",
    "git@github.com:owner/repo.git",
    "order 4111-2222 shipped; tracking 1Z999AA10123456784",
    "2026-11-23T20:29:00Z took 1732393740123 ns",
    "call +49 30 1234 5678 90",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "0190a000-0000-7000-8000-000000000001",
    "a == b, c => d, session restored",
    "if token == expected then retry",
    "sk_ is a prefix, eyJ another; AKIA too",
    "Größe: 12 µm, 費用: 300円 🙂",
];

#[test]
fn ordinary_texts_stay_as_they_are() {
    let redactor = Redactor::default();
    for text in INNOCENT {
        assert_eq!(redactor.text(text), *text);
        let json =
            json!({"message": text, "list": [text], "nested": {"a": {"b": text}}}).to_string();
        assert_eq!(redacted(&json), json);
        let within = json!({ "body": json }).to_string();
        assert_eq!(redacted(&within), within);
    }
    let counted = r#"{"usage": {"tokens": 1532, "max_tokens": 4096, "total_tokens": 12}}"#;
    assert_eq!(redacted(counted), counted);
}

/// Texts with a secret beside its name, or in an address, and the same texts masked.
const NAMED: &[(&str, &str)] = &[
    (r#"body {"password": "hunter2", "a": 1}"#, r#"body {"password": "***", "a": 1}"#),
    (r#"body {"api-key":12,"a":1}"#, r#"body {"api-key":***,"a":1}"#),
    (r#"{"authorization": {"x": ["}", 1]}, "a": 1}"#, r#"{"authorization": ***, "a": 1}"#),
    (
        r#"{"a": "{\"token\": \"hunter2\", \"b\": 1}"}"#,
        r#"{"a": "{\"token\": \"***\", \"b\": 1}"}"#,
    ),
    (r#"cut off: {"password": "hunt"#, r#"cut off: {"password": "***"#),
    (r#"{"password": "a\"b", "c": 1}"#, r#"{"password": "***", "c": 1}"#),
    ("{'secret': 'hunter2', 'a': 1}", "{'secret': '***', 'a': 1}"),
    (r#"{:password=>"hunter2", :a=>1}"#, r#"{:password=>"***", :a=>1}"#),
    ("POST /login?user=me&password=hunter2&next=/", "POST /login?user=me&password=***&next=/"),
    ("run --api-key=hunter2 --verbose", "run --api-key=*** --verbose"),
    ("PASSWORD='hunter 2' psql", "PASSWORD='***' psql"),
    ("smtp_password = hunter2", "smtp_password = ***"),
    ("password: hunter2", "password: ***"),
    ("Cookie: sid=abc; theme=dark\nHost: a", "Cookie: ***\nHost: a"),
    ("curl -H 'Set-Cookie: sid=abc; Path=/' b", "curl -H 'Set-Cookie: ***' b"),
    ("Authorization: hunter2hunter2", "Authorization: ***"),
    ("Authorization: Digest username=\"u\", response=1", "Authorization: Digest ***"),
    ("X-Api-Key: hunters", "X-Api-Key: ***"),
    (r#"{"a": "b\nCookie: c=d\", e"}"#, r#"{"a": "b\nCookie: ***", e"}"#),
    ("postgres://app:hunter2@db:5432/app", "postgres://app:***@db:5432/app"),
    ("redis://:hunter2@cache", "redis://:***@cache"),
    ("amqp://u:p@ss@mq/", "amqp://u:***@mq/"),
];

#[test]
fn secrets_beside_their_names_and_in_addresses_are_masked() {
    let redactor = Redactor::default();
    for (text, masked) in NAMED {
        assert_eq!(redactor.text(text), *masked);
        assert_eq!(redactor.text(masked), *masked);
        assert_eq!(redacted(&json!([text]).to_string()), json!([masked]).to_string());
    }
}

#[test]
fn keys_that_end_like_a_secret_are_known_and_names_can_be_excepted() {
    assert_eq!(
        redacted(
            r#"{"smtp_password": 1, "stripeSecretKey": 2, "GITHUB-ACCESS-TOKEN": 3, "next_token": 4}"#
        ),
        r#"{"smtp_password": "***", "stripeSecretKey": "***", "GITHUB-ACCESS-TOKEN": "***", "next_token": 4}"#
    );
    let except = vec!["session".to_owned(), "smtp-password".to_owned()];
    let redactor = Redactor::new(RedactRules { except, ..RedactRules::default() }).unwrap();
    let json = r#"{"session": 1, "smtpPassword": 2, "m": "session=abc", "password": 3}"#;
    assert_eq!(redactor.apply(json), json.replace('3', "\"***\""));
}

#[test]
fn addresses_are_masked_on_request() {
    let rules = RedactRules { email: true, ..RedactRules::default() };
    let redactor = Redactor::new(rules).unwrap();
    let json = r#"{"m": "to Jürgen.o'x+a@mail.example.co.uk, root@localhost, @here, a@b.c"}"#;
    assert_eq!(redactor.apply(json), r#"{"m": "to Jürgen.o'***, root@localhost, @here, a@b.c"}"#);
    assert_eq!(redacted(json), json);
}

fn hashing(key: &str) -> Redactor {
    let hash_key = HashKey::new(key);
    Redactor::new(RedactRules { hash_key, ..RedactRules::default() }).unwrap()
}

#[test]
fn equal_secrets_have_equal_tags_under_one_key() {
    let redactor = hashing("a key of sixteen");
    let json = r#"{"token": "ghp_0123456789abcdef0123", "m": "with ghp_0123456789abcdef0123, ghp_0123456789abcdef0124", "password": 7}"#;

    let out: Value = serde_json::from_str(&redactor.apply(json)).unwrap();

    let tag = out["token"].as_str().unwrap();
    assert!(tag.starts_with("***:") && tag.len() == 16, "{tag}");
    let message = out["m"].as_str().unwrap();
    assert!(message.starts_with(&format!("with {tag}, ***:")), "{out}");
    assert!(!message.ends_with(tag), "{out}");
    assert_ne!(redactor.text("4111 1111 1111 1111"), "***");
    assert_eq!(redactor.text("4111 1111 1111 1111"), redactor.text("4111-1111-1111-1111"));
    assert_ne!(hashing("another key of 16").text("password=x"), redactor.text("password=x"));
    assert_eq!(HashKey::new("too short"), None);
}

#[test]
fn rules_are_told_apart_by_their_fingerprints_without_a_key_in_them() {
    let of = |rules| Redactor::new(rules).unwrap().fingerprint().map(str::to_owned);
    let keys = |keys: &[&str]| RedactRules {
        keys: keys.iter().map(|it| (*it).to_owned()).collect(),
        ..RedactRules::default()
    };
    let key = |key| RedactRules { hash_key: HashKey::new(key), ..RedactRules::default() };
    assert_eq!(of(RedactRules::default()), None);
    assert_eq!(of(keys(&["a", "b"])), of(keys(&["b", "a"])));
    let all = [
        of(keys(&["a"])),
        of(keys(&["a", "b"])),
        of(RedactRules { email: true, ..RedactRules::default() }),
        of(key("a key of sixteen")),
        of(key("another key of 16")),
    ];
    assert!(all.iter().enumerate().all(|(at, it)| it.is_some() && !all[..at].contains(it)));
    assert!(!format!("{:?}", key("a key of sixteen")).contains("sixteen"));
}

#[test]
fn a_path_is_hidden_for_a_name_on_it_or_as_configured() {
    let redactor = Redactor::default();
    assert!(redactor.hides(["payload", "token"]));
    assert!(redactor.hides(["payload", "secret", "name"]));
    assert!(!redactor.hides(["payload", "error", "message"]));
    let redactor = with_paths(&["payload.customer.ssn"]);
    assert!(redactor.hides(["payload", "customer", "ssn"]));
    assert!(!redactor.hides(["payload", "ssn"]));
    assert!(!redactor.hides(["payload", "customer"]));
}

#[test]
fn a_public_key_and_a_number_that_is_no_card_stay() {
    for text in [
        "-----BEGIN PUBLIC KEY-----",
        "4111 1111 1111 1112",
        "a4111111111111111",
        "0.4111111111111111",
    ] {
        let json = json!([text]).to_string();
        assert_eq!(redacted(&json), json);
    }
}

#[test]
fn a_path_is_found_from_its_end() {
    let redactor = with_paths(&["payload.customer.ssn", "cards.*.holder"]);

    let whole = redactor.apply(r#"{"customer": {"ssn": 1, "name": "x"}, "vendor": {"ssn": 2}}"#);
    let part = redactor.apply(r#"{"ssn": 1, "name": "x"}"#);
    let elements = redactor.apply(
        r#"{"cards": [{"holder": "x"}, {"holder": {"y": 1}}], "x": {"deck": {"holder": 1}}}"#,
    );

    assert_eq!(whole, r#"{"customer": {"ssn": "***", "name": "x"}, "vendor": {"ssn": 2}}"#);
    assert_eq!(part, r#"{"ssn": "***", "name": "x"}"#);
    assert_eq!(
        elements,
        r#"{"cards": [{"holder": "***"}, {"holder": "***"}], "x": {"deck": {"holder": 1}}}"#
    );
}

#[test]
fn own_keys_are_found_in_every_spelling_and_defaults_can_be_left_out() {
    let rules = RedactRules {
        defaults: false,
        keys: vec!["Date-of-birth".into(), "a/b".into(), "größe".into()],
        ..RedactRules::default()
    };
    let redactor = Redactor::new(rules).unwrap();

    let json = r#"{"dateOfBirth": 1, "date_of_birth": 2, "DATE-OF_BIRTH": 3, "a\/b": 4, "gr\u00f6ße": 5, "password": 6}"#;

    assert_eq!(
        redactor.apply(json),
        r#"{"dateOfBirth": "***", "date_of_birth": "***", "DATE-OF_BIRTH": "***", "a\/b": "***", "gr\u00f6ße": "***", "password": 6}"#
    );
}

#[test]
fn rules_that_say_nothing_are_refused() {
    let key = |key: &str| RedactRules { keys: vec![key.to_owned()], ..RedactRules::default() };
    let path = |path: &str| RedactRules { paths: vec![path.to_owned()], ..RedactRules::default() };
    assert!(matches!(Redactor::new(key("-")), Err(RedactError::Key(_))));
    for wrong in ["", "a..b", "a.", "a.*"] {
        assert!(matches!(Redactor::new(path(wrong)), Err(RedactError::Path(_))), "{wrong}");
    }
}

#[test]
fn without_any_rule_nothing_is_masked() {
    let rules = RedactRules { defaults: false, ..RedactRules::default() };
    let json = r#"{"\u0070assword": "4111111111111111"}"#;
    assert_eq!(Redactor::new(rules).unwrap().apply(json), json);
}

#[test]
fn a_document_of_any_depth_and_number_passes() {
    let deep = format!(
        "{}{{\"password\": 1e999999, \"n\": 1e999999}}{}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );

    let out = redacted(&deep);

    assert_eq!(out, deep.replace("\"password\": 1e999999", "\"password\": \"***\""));
}

#[test]
fn suspicious_text_that_is_not_json_is_masked_altogether() {
    for text in [
        r#"{"password": "#,
        r#"{"password" 1}"#,
        r#"{"password": "x"#,
        r#"]"token""#,
        r#"{"token": }"#,
    ] {
        assert_eq!(redacted(text), r#""***""#, "{text}");
    }
}

/// JSON documents of moderate depth.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[0-9 -]{0,30}".prop_map(Value::from),
    ];
    let key =
        prop_oneof!["[a-z]{1,6}", Just("Pass\u{77}ord".to_owned()), Just("x-api_key".to_owned())];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}

/// Something that must not get out, and a text that gives it away.
fn secret() -> impl Strategy<Value = String> {
    prop_oneof![
        "ghp_[A-Za-z0-9]{36}",
        "sk_live_[A-Za-z0-9]{24}",
        "xoxb-[0-9]{11}-[A-Za-z0-9]{24}",
        "AKIA[A-Z0-9]{16}",
        "eyJ[A-Za-z0-9_-]{20}\\.eyJ[A-Za-z0-9_-]{20}\\.[A-Za-z0-9_-]{20}",
        "(pass[Ww]ord|client-secret|API_KEY)=[a-z0-9]{9}",
        Just("4242 4242 4242 4242".to_owned()),
        Just("5555-5555-5555-4444".to_owned()),
        Just("4000056655665556".to_owned()),
    ]
}

/// The same document but for what is masked.
fn has_shape_of(masked: &Value, original: &Value) -> bool {
    match (masked, original) {
        (Value::String(text), _) if text == MASK => true,
        (Value::String(text), Value::String(_)) if text.contains(MASK) => true,
        (Value::Array(masked), Value::Array(original)) => {
            masked.len() == original.len()
                && masked.iter().zip(original).all(|(a, b)| has_shape_of(a, b))
        }
        (Value::Object(masked), Value::Object(original)) => {
            masked.len() == original.len()
                && masked.iter().zip(original).all(|((k, a), (l, b))| k == l && has_shape_of(a, b))
        }
        (masked, original) => masked == original,
    }
}

/// Every character as an escape.
fn escaped(json: &str) -> String {
    let mut units = [0; 2];
    let unit = |it: &u16| format!("\\u{it:04x}");
    json.chars()
        .map(|it| {
            if it.is_alphanumeric() {
                it.encode_utf16(&mut units).iter().map(unit).collect()
            } else {
                it.to_string()
            }
        })
        .collect()
}

proptest! {
    #[test]
    fn redacting_keeps_the_shape_and_a_second_time_changes_nothing(document in document()) {
        let json = document.to_string();

        let once = redacted(&json);

        let masked: Value = serde_json::from_str(&once).unwrap();
        prop_assert!(has_shape_of(&masked, &document), "{}", once);
        prop_assert_eq!(&redacted(&once), &once);
    }

    #[test]
    fn a_planted_secret_never_gets_out(
        document in document(), secret in secret(), before in "(.{0,8}[ :\n\"\\\\])?", after in "([ ,\n\"\\\\].{0,8})?", escapes: bool,
    ) {
        let text = Value::from(format!("{before}{secret}{after}")).to_string();
        let inner = text.trim_matches('"');
        let text = if escapes && !inner.contains('\\') { format!("\"{}\"", escaped(inner)) } else { text };
        let json = format!(r#"{{"rest": {document}, "list": [{text}], {text}: 1}}"#);

        let out = redacted(&json);

        let decoded: Value = serde_json::from_str(&out).unwrap();
        prop_assert!(!decoded["list"].to_string().contains(&secret), "{}", out);
        prop_assert!(!out.contains(&secret), "{}", out);
        prop_assert_eq!(&redacted(&out), &out);
    }

    #[test]
    fn a_value_under_a_secret_key_never_gets_out(value in document(), key in "(pass[Ww]ord|[Aa]ccess[-_]?[Tt]oken|AUTHORIZATION)", escapes: bool) {
        prop_assume!(!value.is_null());
        let key = if escapes { escaped(&key) } else { key };
        let json = format!(r#"[{{"a": "b" , "{key}" : {value} }}]"#);

        prop_assert_eq!(redacted(&json), format!(r#"[{{"a": "b" , "{key}" : "***" }}]"#));
    }

    #[test]
    fn what_is_not_suspicious_would_not_be_changed(
        document in document(),
        key in "[Cc]lient[-_]?[Ss]ecret|a[-_]?b[-_]?c[-_]?d[-_]?e|[a-z]{3}|x_password",
        text in "([Pp]assword|cookie|authorization|a-b-c-d-e|x|\\\\|\"|'|=|:|://|@| |\n|\t|\\{|a1b2c3){0,12}",
    ) {
        static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| {
            let keys = vec!["a_b-c_d_e".to_owned()];
            Redactor::new(RedactRules { keys, ..RedactRules::default() }).unwrap()
        });
        let redactor = &*REDACTOR;
        let json = format!(r#"{{"{key}": {document}, "text": {}}}"#, Value::from(text.as_str()));
        prop_assert_eq!(
            redactor.text(&text),
            detect::mask(&text, &redactor.rules).unwrap_or_else(|| text.clone())
        );

        let rewritten = rewrite::rewrite(&json, &redactor.rules).unwrap();

        prop_assert_eq!(redactor.apply(&json), rewritten);
    }

    #[test]
    fn a_card_is_suspected_wherever_it_stands(before in "[a-z0-9 -]{0,30}[a-z,]", after in "[a-z,][a-z0-9 -]{0,30}") {
        let text = format!("{before} 4242 4242 4242 4242 {after}");

        prop_assert!(!REDACTOR.text(&text).contains("4242 4242 4242 4242"), "{}", text);
    }

    #[test]
    fn any_text_is_redacted_without_a_panic(text: String, json in r#"["\\{}\[\]:, a-z]{0,40}"#) {
        for text in [text, format!("{json}\"password\"{json}")] {
            let once = redacted(&text);
            prop_assert_eq!(&redacted(&once), &once);
        }
    }

    #[test]
    fn what_was_redacted_stays_as_it_is(
        parts in prop::collection::vec(prop_oneof![
            secret(),
            "[ =:\"'@/{}\\[\\],;\\\\\n]{0,3}",
            "(password|Cookie|Authorization: |token|https://u:|X-Api-Key: |bearer |Basic )",
            "[a-z0-9.]{0,8}",
        ], 0..8),
        is_hashed: bool,
    ) {
        static REDACTORS: LazyLock<[Redactor; 2]> =
            LazyLock::new(|| [Redactor::default(), hashing("a key of sixteen")]);
        let redactor = &REDACTORS[usize::from(is_hashed)];
        let text = parts.concat();
        let once = redactor.text(&text);
        prop_assert_eq!(redactor.text(&once), once.clone());
        let json = Value::from(text).to_string();
        let once = redactor.apply(&json);
        prop_assert_eq!(redactor.apply(&once), once.clone());
    }
}
