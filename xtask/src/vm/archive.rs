//! Debian's archive: packages are fetched by apt and unpacked, never installed.
//!
//! apt works on lists, caches and sources of our own below `target/vm`, so that this machine's stay
//! as they are. Only the archive's address is this machine's: a mirror that apt uses is used here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::step;

/// Where Debian's own keys lie (package debian-archive-keyring).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The directory of everything that this task makes.
pub(super) fn directory() -> PathBuf {
    step::workspace().join("target/vm")
}

/// The addresses of Debian's archive.
pub(super) struct Archive {
    main: String,
    security: String,
}

impl Archive {
    /// Reads them off apt's configuration.
    pub(super) fn find() -> Result<Self> {
        let targets = output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
        ]))
        .context("virtual machines need Debian's apt")?;
        let address = |end: &str| {
            targets
                .lines()
                .map(|line| line.trim_end_matches('/'))
                .find(|line| line.ends_with(end))
                .map(str::to_owned)
                .with_context(|| format!("apt knows no archive that ends with {end}"))
        };
        Ok(Self { main: address("/debian")?, security: address("/debian-security")? })
    }

    /// The packages of one suite (`trixie`, `trixie-security`), by lists that are fetched now.
    pub(super) fn suites<'a>(&self, name: &'a str, suites: &[&str]) -> Result<Suites<'a>> {
        let directory = directory().join("apt").join(name);
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let source = |suite: &&str| {
            let address = if suite.ends_with("-security") { &self.security } else { &self.main };
            format!("deb [signed-by={KEYRING}] {address} {suite} main\n")
        };
        fs::write(directory.join("sources.list"), suites.iter().map(source).collect::<String>())?;
        fs::write(directory.join("apt.conf"), configuration(&directory))?;
        fs::write(directory.join("status"), "")?;
        let suites = Suites { name, directory };
        let what = format!("fetching Debian's list of packages: {}", suites.name);
        if let Err(error) = step::run(&what, suites.apt("apt-get").args(["-qq", "update"])) {
            // Without lists at all, what follows says so.
            step::say(&format!("{error:#}; going on with the lists that are here"));
        }
        // Of two versions of a package, only the one that would be downloaded now.
        output(suites.apt("apt-get").args(["-qq", "autoclean"]))?;
        Ok(suites)
    }
}

/// Packages of some suites.
pub(super) struct Suites<'a> {
    name: &'a str,
    directory: PathBuf,
}

impl Suites<'_> {
    /// Downloads and unpacks the newest version of these packages.
    pub(super) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let cache = self.directory.join("cache/archives");
        let mut download = self.apt("apt-get");
        download.args(["-qq", "download"]).args(packages).current_dir(&cache);
        step::run(&format!("downloading {}", packages.join(", ")), &mut download)?;
        for package in packages {
            unpack_all(&cache, &format!("{package}_"), into)?;
        }
        Ok(())
    }

    /// Downloads and unpacks a package with all that it needs beyond what this machine has.
    ///
    /// Packages of this machine whose name starts with `but` count as not installed: they may be of
    /// a version that the others do not go with.
    pub(super) fn unpack_with_dependencies(
        &self,
        package: &str,
        but: &str,
        into: &Path,
    ) -> Result<()> {
        let status = fs::read_to_string("/var/lib/dpkg/status").context("dpkg's status")?;
        let but = format!("Package: {but}");
        let kept: Vec<_> = status.split("\n\n").filter(|entry| !entry.starts_with(&but)).collect();
        fs::write(self.directory.join("status"), kept.join("\n\n"))?;
        let mut download = self.apt("apt-get");
        download.args(["-qq", "--yes", "--download-only", "--no-install-recommends"]);
        download.args(["--no-remove", "-o", "Debug::NoLocking=1", "install", package]);
        step::run(&format!("downloading {package} and what it needs"), &mut download)?;
        unpack_all(&self.directory.join("cache/archives"), "", into)
    }

    /// The packages that one depends on.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let mut ask = self.apt("apt-cache");
        let printed = output(ask.args(["depends", "--important", package]))?;
        let names = printed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.env("APT_CONFIG", self.directory.join("apt.conf"));
        apt
    }
}

/// apt's configuration, with everything that it keeps in one directory.
fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "Dir::Etc::SourceList \"{directory}/sources.list\";\n\
         Dir::Etc::SourceParts \"-\";\n\
         Dir::State::Lists \"{directory}/lists\";\n\
         Dir::State::Status \"{directory}/status\";\n\
         Dir::Cache \"{directory}/cache\";\n\
         Acquire::Languages \"none\";\n\
         APT::Sandbox::User \"root\";\n"
    )
}

/// Unpacks every package in the directory whose file's name starts so.
fn unpack_all(directory: &Path, start: &str, into: &Path) -> Result<()> {
    let mut found = false;
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".deb") && name.starts_with(start) {
            found = true;
            let status = Command::new("dpkg").arg("-x").arg(&file).arg(into).status()?;
            ensure!(status.success(), "dpkg does not unpack {}", file.display());
        }
    }
    ensure!(found, "no package {start}* was downloaded");
    Ok(())
}

/// What a program prints.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| step::shown(command))?;
    if !output.status.success() {
        bail!("{}: {}", step::shown(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
