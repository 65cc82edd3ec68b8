//! Where a Postgres may be on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::EmbeddedError;
use super::error::io;

/// The oldest major version projector works with.
pub const OLDEST: u32 = 15;

/// A folder with `initdb` and `postgres`, both of the same supported version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
    version: String,
    major: u32,
}

impl Binaries {
    /// Looks into `folder` and asks its `postgres` for the version.
    ///
    /// # Errors
    /// [`EmbeddedError::Unusable`] when a program is missing, does not run, or is older than
    /// [`OLDEST`].
    pub fn at(folder: impl Into<PathBuf>) -> Result<Self, EmbeddedError> {
        let folder = folder.into();
        // The server runs in another directory.
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let unusable = |why: String| EmbeddedError::Unusable { folder: folder.clone(), why };
        for program in ["initdb", "postgres"] {
            if !folder.join(program).is_file() {
                return Err(unusable(format!("`{program}` is missing")));
            }
        }
        let postgres = folder.join("postgres");
        let output =
            Command::new(&postgres).arg("--version").output().map_err(io("run", &postgres))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let (version, major) =
            version_in(&said).ok_or_else(|| unusable(format!("`postgres` says `{said}`")))?;
        if major < OLDEST {
            return Err(unusable(format!("version {version}, at least {OLDEST} is needed")));
        }
        Ok(Self { version, major, folder })
    }

    /// The folder of the programs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The whole version: `15.13`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version: 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// `15.13` and 15 out of `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`; a beta, `19beta1`,
/// counts as its major version.
fn version_in(said: &str) -> Option<(String, u32)> {
    let version = said.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version.to_owned(), digits.parse().ok()?))
}

/// Folders to look into.
#[derive(Clone, Debug)]
pub struct Places {
    /// What the user insists on.
    named: Option<PathBuf>,
    /// The most wanted first.
    folders: Vec<PathBuf>,
}

/// Where the package managers of Linux distributions and of macOS put servers: everything before
/// and after the version in a folder's path.
const USUAL: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),          // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                   // Red Hat, from postgresql.org
    ("/usr/libexec", "postgresql", ""),          // Alpine
    ("/opt/homebrew/opt", "postgresql@", "bin"), // Homebrew on Apple silicon
    ("/usr/local/opt", "postgresql@", "bin"),    // Homebrew on Intel
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

impl Places {
    /// `PG_BIN` alone where it is set; else, in this order, `PATH`, the usual places of package
    /// managers (newest version first), and what was fetched into `fetched` earlier (newest first).
    /// `env` reads the environment.
    pub fn new(fetched: &Path, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = env("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        for (parent, prefix, rest) in USUAL {
            folders.extend(by_version(Path::new(parent), prefix, rest));
        }
        folders.extend(by_version(fetched, "", "bin"));
        Self { named: env("PG_BIN").map(PathBuf::from), folders }
    }

    /// The first usable Postgres; of major version `major` where one is wanted (a data directory
    /// only opens with the version that made it), unless the user names another.
    ///
    /// # Errors
    /// When the folder the user names holds none.
    pub fn find(&self, major: Option<u32>) -> Result<Option<Binaries>, EmbeddedError> {
        if let Some(folder) = &self.named {
            return Binaries::at(folder).map(Some);
        }
        let mut usable = self.folders.iter().filter_map(|folder| Binaries::at(folder).ok());
        Ok(usable.find(|it| major.is_none_or(|wanted| wanted == it.major)))
    }
}

/// `parent/{prefix}{version}/rest` for every such folder, the newest version first.
fn by_version(parent: &Path, prefix: &str, rest: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?;
            let numbers = version.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
            Some((numbers, entry.path().join(rest)))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_postgres_says() {
        let debian = "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)";
        assert_eq!(version_in(debian), Some(("15.13".to_owned(), 15)));
        assert_eq!(version_in("postgres (PostgreSQL) 19beta1"), Some(("19beta1".to_owned(), 19)));
        assert_eq!(version_in("postgres: command not found"), None);
    }

    #[test]
    fn the_path_comes_first_and_what_was_fetched_last_newest_first() {
        let fetched = std::env::temp_dir().join(format!("projector-find-{}", std::process::id()));
        for version in ["9.6.0", "16.9.0", "18.4.0", "notes"] {
            std::fs::create_dir_all(fetched.join(version)).unwrap();
        }
        let env = |name: &str| (name == "PATH").then(|| "/a:/b".into());

        let folders = Places::new(&fetched, env).folders;

        assert_eq!(folders[..2], ["/a", "/b"].map(PathBuf::from));
        let last = ["18.4.0", "16.9.0", "9.6.0"].map(|it| fetched.join(it).join("bin"));
        assert_eq!(folders[folders.len() - 3..], last);
        std::fs::remove_dir_all(&fetched).unwrap();
    }

    #[test]
    fn a_folder_that_the_user_names_is_not_passed_over() {
        let env = |name: &str| (name == "PG_BIN").then(|| "/nonexistent".into());

        let error = Places::new(Path::new("/nonexistent"), env).find(None).unwrap_err();

        assert!(error.to_string().contains("`initdb` is missing"), "{error}");
    }
}
