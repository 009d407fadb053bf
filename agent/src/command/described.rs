//! What the subcommands that send nothing ask: the cluster that a directory of manifests describes.

use std::{io::Write, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{manifests::ManifestDirectory, reach::cluster::Cluster};

/// The cluster of the manifests in a directory, when all of it is known. What is wrong with single
/// objects goes to `err` as a warning.
///
/// # Errors
///
/// The directory, or a file that may decide, could not be read.
pub(super) fn described(manifests: &Path, err: &mut impl Write) -> Result<Cluster> {
    let scan = ManifestDirectory::new(manifests).scan();
    for problem in &scan.problems {
        writeln!(err, "warning: {problem}").context("cannot write to standard error")?;
    }
    if !scan.available || !scan.complete {
        bail!(
            "not everything in {} could be read, and what is missing may decide; mend what the \
             warnings name",
            manifests.display()
        );
    }
    Ok(scan.changes.into_iter().collect())
}
