use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Settings, SettingsError> {
    Settings::parse(text, |name| (name == "USER").then(|| "me".to_owned()))
}

fn tcp(host: &str) -> Address {
    Address::Tcp { host: host.to_owned(), ip: None }
}

#[test]
fn a_url_says_everything() {
    let settings = parse(
        "postgresql://ann:s%40crt@db.example:6000/shop?sslmode=verify-full&sslrootcert=/ca.pem\
         &channel_binding=require&connect_timeout=3&application_name=x&options=-c%20a%3Db",
    )
    .unwrap();

    assert_eq!(settings.hosts.len(), 1);
    assert_eq!(settings.hosts[0].address, tcp("db.example"));
    assert_eq!(settings.hosts[0].port, 6000);
    assert_eq!(settings.hosts[0].password.as_deref(), Some("s@crt"));
    assert_eq!((settings.user.as_str(), settings.database.as_str()), ("ann", "shop"));
    assert_eq!(settings.sslmode, SslMode::VerifyFull);
    assert_eq!(settings.root_certificates, Some(RootCertificates::File("/ca.pem".into())));
    assert_eq!(settings.channel_binding, ChannelBinding::Require);
    assert_eq!(settings.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(settings.application_name.as_deref(), Some("x"));
    assert_eq!(settings.options.as_deref(), Some("-c a=b"));
}

#[test]
fn pairs_say_the_same_as_a_url() {
    let pairs = parse(r"host = h port=1 user='a b' password='it\'s' dbname=d").unwrap();

    let url = parse("postgres://a%20b:it's@h:1/d").unwrap();

    assert_eq!(pairs, url);
}

#[test]
fn a_socket_directory_may_stand_in_three_places() {
    for text in
        ["postgres://%2Frun%2Fpg/d", "postgres:///d?host=/run/pg", "host=/run/pg dbname=d user=me"]
    {
        let settings = parse(text).unwrap();
        assert_eq!(settings.hosts[0].address, Address::Unix("/run/pg".into()), "{text}");
        assert_eq!(settings.database, "d");
    }
}

#[test]
fn several_hosts_are_kept_in_order() {
    let settings = parse("postgres://a,b:7,[::1]:8/d").unwrap();

    let hosts: Vec<_> = settings.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["a:5432", "b:7", "[::1]:8"]);
    assert!(parse("host=a,b,c port=1,2").is_err());
}

#[test]
fn the_environment_answers_for_what_the_text_leaves_open() {
    let environment = |name: &str| {
        let value = match name {
            "PGHOST" => "envhost",
            "PGPORT" => "7777",
            "PGUSER" => "envuser",
            "PGPASSWORD" => "envpw",
            "PGDATABASE" => "envdb",
            "PGSSLMODE" => "require",
            _ => return None,
        };
        Some(value.to_owned())
    };

    let all = Settings::parse("", environment).unwrap();
    let some = Settings::parse("postgres://ann@db/x", environment).unwrap();

    assert_eq!(all.to_string(), "postgres://envuser:***@envhost:7777/envdb?sslmode=require");
    assert_eq!(some.to_string(), "postgres://ann:***@db:7777/x?sslmode=require");
}

#[test]
fn the_password_file_is_asked_last() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("passwords-{}", std::process::id()));
    std::fs::write(&path, "db:5432:*:ann:filed\nlocalhost:*:*:*:local\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let environment = |name: &str| (name == "PGPASSFILE").then(|| path.display().to_string());

    let filed = Settings::parse("postgres://ann@db/x", environment).unwrap();
    let given = Settings::parse("postgres://ann:said@db/x", environment).unwrap();
    let socket = Settings::parse("host=/tmp user=u", environment).unwrap();
    std::fs::remove_file(&path).unwrap();

    assert_eq!(filed.hosts[0].password.as_deref(), Some("filed"));
    assert_eq!(given.hosts[0].password.as_deref(), Some("said"));
    assert_eq!(socket.hosts[0].password.as_deref(), Some("local"));
}

#[test]
fn no_form_shows_the_password() {
    let settings = parse("postgres://ann:hunter2@db/x").unwrap();

    for shown in [settings.to_string(), format!("{settings:?}"), settings.redacted()] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("ann:***@db:5432/x"), "{shown}");
    }
    assert!(!format!("{:?}", settings.hosts).contains("hunter2"));
}

#[test]
fn what_cannot_be_is_said() {
    for (text, message) in [
        ("postgres://h/d?sslmod=require", "unknown connection parameter `sslmod`"),
        ("postgres://h/d?sslcert=x", "`sslcert` is not supported"),
        ("postgres://h/d?sslmode=on", "`sslmode` cannot be `on`; expected: disable, allow"),
        ("postgres://h:x/d", "`port` cannot be `x`"),
        ("postgres://h:0/d", "`port` cannot be `0`"),
        ("mysql://h/d", "a URL begins with postgres://"),
        ("nonsense", "expected a URL"),
        ("user='x", "has no end"),
        ("connect_timeout=soon", "whole seconds"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
    assert_eq!(Settings::parse("host=h", |_| None), Err(SettingsError::NoUser));
}

#[test]
fn the_systems_authorities_ask_for_the_name_too() {
    let settings = parse("host=h sslrootcert=system").unwrap();

    assert_eq!(settings.sslmode, SslMode::VerifyFull);
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "(postgres://)?[a-z:@/?&=%'\\\\ ,\\[\\]0-9é]{0,40}") {
        let _settings = parse(&text);
    }

    #[test]
    fn a_quoted_value_comes_back_as_it_was(value in "[^\0]{1,30}") {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let settings = parse(&format!("host=h application_name='{quoted}'")).unwrap();
        prop_assert_eq!(settings.application_name, Some(value));
    }
}
