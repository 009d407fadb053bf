//! The kernels, and where Debian has them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::archive::{self, Archive, Suites};

/// A kernel of Debian's.
pub(super) struct Kernel {
    /// As it is asked for.
    pub(super) name: &'static str,
    /// The suite that keeps it up to date.
    suite: &'static str,
}

/// From the oldest that Bulkhead is for.
pub(super) const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye-security" },
    Kernel { name: "6.1", suite: "bookworm-security" },
    Kernel { name: "6.12", suite: "trixie-security" },
    Kernel { name: "newest", suite: "trixie-backports" },
];

/// Depends on the newest kernel of its suite. This flavour lacks drivers of hardware, and nothing
/// else that matters here.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Packages that a kernel comes in. Since 6.19 there are two.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// In the order in which they are loaded.
const MODULES: [&str; 6] = ["llc", "stp", "bridge", "veth", "sch_ingress", "cls_bpf"];

/// What a machine boots.
pub(super) struct Files {
    pub(super) image: PathBuf,
    /// In the order in which they are loaded.
    pub(super) modules: Vec<PathBuf>,
}

impl Kernel {
    /// Downloads and unpacks it.
    pub(super) fn fetch(&self, archive: &Archive) -> Result<Files> {
        let suites = archive.suites(self.name, &[self.suite])?;
        let mut packages = Vec::new();
        collect(&suites, META_PACKAGE, &mut packages)?;
        let root = archive::directory().join(self.name).join("packages");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        suites.unpack(&packages, &root)?;
        let files = list(&root)?;
        let image = files.iter().find(|file| name_of(file).starts_with("vmlinuz"));
        let image = image.context("a kernel's packages without a kernel")?.clone();
        // What is not there as a module is in the kernel, or missed when it is used.
        let modules = MODULES.iter().filter_map(|module| {
            let start = format!("{module}.ko");
            files.iter().find(|file| name_of(file).starts_with(&start)).cloned()
        });
        Ok(Files { image, modules: modules.collect() })
    }
}

/// The packages with a kernel's files that one depends on.
fn collect(suites: &Suites<'_>, package: &str, packages: &mut Vec<String>) -> Result<()> {
    for part in suites.depends(package)? {
        // Of a version; a meta package has none.
        if part.contains('.') && PARTS.iter().any(|start| part.starts_with(start)) {
            collect(suites, &part, packages)?;
            packages.push(part);
        }
    }
    packages.sort();
    packages.dedup();
    Ok(())
}

fn name_of(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(list(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}
