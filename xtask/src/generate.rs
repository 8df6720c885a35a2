//! Generated files, and the check that they are up to date.

use std::path::Path;
use std::process::Command;

const CLI: &str = "docs/generated/cli.md";
const OPENAPI: &str = "docs/generated/openapi.json";
const CODES: &str = "docs/generated/error-codes.md";
const METRICS: &str = "docs/generated/metrics.md";
/// Timings and bounds, read from the sources.
pub(crate) const BOUNDS: &str = "docs/generated/bounds.md";
const COMMANDS: [&str; 15] = [
    "",
    "init",
    "serve",
    "copy",
    "verify",
    "assess",
    "task",
    "redis",
    "redis copy",
    "redis verify",
    "redis import",
    "redis task",
    "keys",
    "doctor",
    "completions",
];

fn cli() -> Result<String, String> {
    let mut text = String::from("# Command line\n\nWritten by `cargo x gen`; do not edit.\n");
    for command in COMMANDS {
        let mut run = Command::new("cargo");
        run.args(["run", "-q", "-p", "whimbrel", "--"]);
        if !command.is_empty() {
            run.args(command.split(' '));
        }
        let out = run.arg("--help").env_clear().envs(keep()).output().map_err(|e| e.to_string())?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        let help = String::from_utf8_lossy(&out.stdout);
        text.push_str(&format!("\n## `whimbrel {command}`\n\n```text\n{}\n```\n", help.trim_end()));
    }
    Ok(text.replace("## `whimbrel `", "## `whimbrel`"))
}

/// Variables that cargo needs; nothing else may change the help.
fn keep() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter(|(n, _)| {
        matches!(n.as_str(), "PATH" | "HOME" | "CARGO_HOME" | "RUSTUP_HOME" | "CARGO_TARGET_DIR")
    })
}

/// What the API says of itself.
fn api(what: &str) -> Result<String, String> {
    let mut run = Command::new("cargo");
    run.args(["run", "-q", "-p", "api", "--example", "describe", "--", what]);
    let out = run.env_clear().envs(keep()).output().map_err(|e| e.to_string())?;
    match out.status.success() {
        true => String::from_utf8(out.stdout).map_err(|e| e.to_string()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// Every generated file with what it must hold.
fn all() -> Result<[(&'static str, String); 5], String> {
    let bounds = crate::bounds::page(Path::new("."))?;
    Ok([
        (CLI, cli()?),
        (OPENAPI, api("openapi")?),
        (CODES, api("codes")?),
        (METRICS, api("metrics")?),
        (BOUNDS, bounds),
    ])
}

/// Writes the page of timings and bounds, which needs no build of the service.
pub(crate) fn write_bounds() -> super::Done {
    std::fs::write(BOUNDS, crate::bounds::page(Path::new("."))?).map_err(|e| format!("{BOUNDS}: {e}"))
}

/// Writes all generated files.
pub(crate) fn write() -> super::Done {
    std::fs::create_dir_all("docs/generated").map_err(|e| e.to_string())?;
    for (path, text) in all()? {
        std::fs::write(path, text).map_err(|e| format!("{path}: {e}"))?;
    }
    Ok(())
}

/// Fails when a generated file differs from what would be written.
pub(crate) fn check() -> super::Done {
    for (path, text) in all()? {
        if std::fs::read_to_string(Path::new(path)).unwrap_or_default() != text {
            return Err(format!("{path} is out of date; hint: run `cargo x gen`"));
        }
    }
    Ok(())
}
