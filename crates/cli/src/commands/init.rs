//! `whimbrel init`: the first configuration.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use config::template::{GeneratedConfig, init};
use model::error::{Error, Kind, Result};

use crate::args::Init;
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) fn run(args: &Init, printer: &Printer) -> Result<Exit> {
    let made = write(&args.config, &args.data_dir, "127.0.0.1:8790", args.force)?;
    show(&args.config, &made, printer);
    printer.note("\nRun `whimbrel serve` next.");
    Ok(Exit::Done)
}

/// Writes a fresh configuration; never over an existing one without `force`.
pub(crate) fn write(path: &Path, data_dir: &Path, listen: &str, force: bool) -> Result<GeneratedConfig> {
    if path.exists() && !force {
        let m = format!("{} exists; add --force to overwrite it", path.display());
        return Err(Error::new(Kind::Invalid, "init", m));
    }
    let made = init(data_dir, listen)?;
    let failed = |e: std::io::Error| {
        Error::new(Kind::ReadOnly, "init", format!("{}: {e}", path.display())).caused_by(e)
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    file.write_all(made.text.as_bytes()).map_err(failed)?;
    Ok(made)
}

/// Shows keys and password: the only time.
pub(crate) fn show(path: &Path, made: &GeneratedConfig, printer: &Printer) {
    printer.note(&format!("Wrote {}. The following values are shown only once:", path.display()));
    printer.result(&format!("export WHIMBREL_PROJECT={}", made.project));
    printer.result(&format!("export WHIMBREL_AK={}", made.access_key));
    printer.result(&format!("export WHIMBREL_SK={}", made.secret_key));
    printer.result(&format!("# user `admin` (for IAM tokens), password: {}", made.password));
}
