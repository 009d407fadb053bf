//! The file system that a machine boots into: a cpio archive.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{archive, kernel::Files, programs, programs::Programs};

/// The first program of the machine.
const INIT: &str = include_str!("init.sh");

/// Builds the archive for a kernel.
pub(super) fn build(name: &str, kernel: &Files, programs: &Programs) -> Result<PathBuf> {
    let directory = archive::directory().join(name);
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for part in ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp", "usr/bin"] {
        fs::create_dir_all(root.join(part))?;
    }
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    copy(&programs.busybox, &root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh"))?;
    for (name, file) in &programs.inside {
        copy(file, &root.join("usr/bin").join(name))?;
        for library in programs::libraries(file)? {
            let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
            if !inside.exists() {
                fs::create_dir_all(inside.parent().context("a library in no directory")?)?;
                copy(&library, &inside)?;
            }
        }
    }
    for (number, module) in kernel.modules.iter().enumerate() {
        let name = module.file_name().context("a module without a name")?.to_string_lossy();
        copy(module, &root.join(format!("modules/{number}-{name}")))?;
    }
    pack(&programs.busybox, &root, &directory.join("initramfs"))
}

/// Follows symbolic links.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn pack(busybox: &Path, root: &Path, image: &Path) -> Result<PathBuf> {
    let status = Command::new("sh")
        .args(["-c", r#"find . | "$0" cpio -o -H newc"#])
        .arg(busybox)
        .current_dir(root)
        .stdout(File::create(image)?)
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "busybox does not pack {}", root.display());
    Ok(image.to_owned())
}
