//! The password file of libpq: lines of `host:port:database:user:password`, where `*` stands for
//! anything and a backslash takes the next character as it is. The first line that fits counts.
//!
//! See "The Password File" in the libpq documentation.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Reads the password file, or nothing when there is none. A file that others may read is left alone
/// with a warning, as libpq does.
pub fn read(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() {
        tracing::warn!(file = %path.display(), "password file ignored: not a plain file");
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "password file ignored: others may read it; chmod 600 it");
        return None;
    }
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) => Some(text),
        Err(error) => {
            tracing::warn!(file = %path.display(), error = %error, "password file ignored");
            None
        }
    }
}

/// The password of the first line of `text` that fits. `host` is `localhost` for a Unix socket in a
/// default directory.
pub fn find(text: &str, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
    let port = port.to_string();
    let wanted = [host, port.as_str(), database, user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = split(line);
        let (password, names) = fields.split_last()?;
        let fits = names.len() == wanted.len()
            && names.iter().zip(wanted).all(|(field, wanted)| field.fits(wanted));
        (fits && !password.text.is_empty()).then(|| password.text.clone())
    })
}

#[derive(Default)]
struct Field {
    text: String,
    escaped: bool,
}

impl Field {
    fn fits(&self, wanted: &str) -> bool {
        (self.text == "*" && !self.escaped) || self.text == wanted
    }
}

/// At most five fields: what follows the fourth colon is the password, colons and all.
fn split(line: &str) -> Vec<Field> {
    let mut fields = vec![Field::default()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let last_field = fields.len() == 5;
        let Some(field) = fields.last_mut() else { break };
        match character {
            ':' if !last_field => fields.push(Field::default()),
            '\\' => {
                field.escaped = true;
                field.text.extend(characters.next());
            }
            _ => field.text.push(character),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        let text = "# comment\nother:*:*:*:no\ndb:5432:*:ann:yes\n*:*:*:*:late\n";

        assert_eq!(find(text, "db", 5432, "app", "ann").as_deref(), Some("yes"));
        assert_eq!(find(text, "db", 5433, "app", "ann").as_deref(), Some("late"));
    }

    #[test]
    fn a_backslash_takes_the_next_character_as_it_is() {
        let text = r"h:1:d:a\:b:p\\w\:x";

        assert_eq!(find(text, "h", 1, "d", "a:b").as_deref(), Some(r"p\w:x"));
        assert_eq!(find(r"\*:1:d:u:p", "h", 1, "d", "u"), None);
    }

    #[test]
    fn a_password_may_hold_colons() {
        assert_eq!(find("h:1:d:u:a:b", "h", 1, "d", "u").as_deref(), Some("a:b"));
        assert_eq!(find("h:1:d", "h", 1, "d", "u"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        let path = std::env::temp_dir().join(format!("pgpass-{}", std::process::id()));
        std::fs::write(&path, "*:*:*:*:pw").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let open = read(&path);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let closed = read(&path);
        std::fs::remove_file(&path).unwrap();

        assert_eq!(open, None);
        assert_eq!(closed.as_deref(), Some("*:*:*:*:pw"));
    }
}
