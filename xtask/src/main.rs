//! `cargo x`: everything a developer runs, in one place. Depends on no crate of the workspace, so it builds quickly.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for developers")]

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod book;
mod bounds;
mod generate;
mod release;
mod servers;
mod soak;

use std::process::{Command, ExitCode};

type Done = Result<(), String>;

const USAGE: &str = "usage: cargo x COMMAND

  ci                 run all checks: format, lints, documentation, generated files, dependencies, tests
  test [FILTER]      install and start the test servers, then run all tests
  servers [stop]     install and start the test servers and print their variables
  bench objects|redis  measure against other tools; writes docs/benchmarks.md
  soak NAME          run a long-running test; without a name, list them all
  deny [CHECK…]      check licences, sources and versions of dependencies; `deny advisories` needs the network
  shots              take pictures of all pages of the console into target/shots
  gen [bounds]       regenerate the generated files, or only the page of timings and bounds
  release [--binary PATH]  write packages, checksums and SBOM below dist/
  fmt | lint         format; lint";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let done = match args.first().map(String::as_str) {
        Some("ci") => ci(),
        Some("test") => test(&rest),
        Some("servers") if rest == ["stop"] => {
            servers::stop();
            Ok(())
        }
        Some("servers") => servers::start().map(|variables| {
            for (name, value) in variables {
                println!("export {name}={value}");
            }
        }),
        Some("bench") => bench(&rest),
        Some("soak") => soak::run(&rest),
        Some("deny") => deny(&rest),
        Some("shots") => shots(),
        Some("gen") if rest == ["bounds"] => generate::write_bounds(),
        Some("gen") => generate::write(),
        Some("release") => release::run(&rest),
        Some("fmt") => cargo(&["fmt", "--all"], &[]),
        Some("lint") => lint(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs cargo and fails with its command line.
fn cargo(args: &[&str], variables: &[(String, String)]) -> Done {
    eprintln!("cargo {}", args.join(" "));
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(args).envs(variables.iter().cloned());
    // What cargo told this program about itself must not reach the next cargo: build scripts watch it.
    for (name, _) in
        std::env::vars().filter(|(n, _)| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_"))
    {
        command.env_remove(name);
    }
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed: cargo {}", args.join(" "))) }
}

/// The version that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// Checks the dependencies. Advisories come from the network, so they are checked only when asked for.
fn deny(rest: &[&str]) -> Done {
    let root = format!(".servers/cargo-deny-{CARGO_DENY}");
    let program = format!("{root}/bin/cargo-deny");
    let version = format!("cargo-deny@{CARGO_DENY}");
    if !std::path::Path::new(&program).exists()
        && let Err(why) = cargo(&["install", &version, "--locked", "--root", &root], &[])
    {
        // The rest of the gate does not depend on a tool that some registry may not have.
        eprintln!("dependencies not checked: cannot install {version} ({why})");
        return Ok(());
    }
    let asked: &[&str] = if rest.is_empty() { &["licenses", "bans", "sources"] } else { rest };
    let status = Command::new(&program).args(["check", "--hide-inclusion-graph"]).args(asked).status();
    let status = status.map_err(|e| format!("{program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed: cargo deny check {}", asked.join(" "))) }
}

fn lint() -> Done {
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
}

fn ci() -> Done {
    cargo(&["fmt", "--all", "--check"], &[])?;
    lint()?;
    let strict = ("RUSTDOCFLAGS".to_owned(), "-D warnings".to_owned());
    cargo(&["doc", "--workspace", "--no-deps", "--quiet"], &[strict])?;
    generate::check()?;
    deny(&[])?;
    test(&[])
}

fn test(filter: &[&str]) -> Done {
    let variables = servers::start()?;
    // Built in the same profile as the tests, so that the binary under test is there.
    let mut args = vec!["test", "--workspace"];
    args.extend(filter);
    let done = cargo(&args, &variables).and_then(|()| match filter {
        [] => test_on_postgres(&variables),
        _ => Ok(()),
    });
    servers::stop();
    done
}

/// Pictures of the console in both themes, both languages and two widths; axe looks at each page.
fn shots() -> Done {
    let mut variables = servers::start()?;
    let into = std::env::current_dir().map_err(|e| e.to_string())?.join("target/shots");
    variables.push(("WHIMBREL_SHOTS".to_owned(), into.display().to_string()));
    let done = cargo(&["test", "-p", "whimbrel", "--test", "main", "console_browser::"], &variables);
    servers::stop();
    done
}

/// Tests of the service that run a second time, with the database in PostgreSQL.
const SERVICE_TESTS: [&str; 6] =
    ["service::", "security::", "two_projects::", "migrations::", "sdk::", "console::"];

fn test_on_postgres(variables: &[(String, String)]) -> Done {
    let mut variables = variables.to_vec();
    variables.push(("WHIMBREL_TEST_DATABASE".to_owned(), "postgres".to_owned()));
    let mut args = vec!["test", "--workspace", "--test", "main", "--"];
    args.extend(SERVICE_TESTS);
    cargo(&args, &variables)
}

fn bench(rest: &[&str]) -> Done {
    let mut variables = servers::tools();
    if rest.first() == Some(&"redis") {
        variables.extend(servers::redis()?);
    } else {
        servers::install("requirements-bench.txt")?;
    }
    cargo(&["build", "--release", "-p", "whimbrel", "-p", "bench"], &[])?;
    let mut args = vec!["run", "--release", "-q", "-p", "bench", "--"];
    args.extend(if rest.is_empty() { &["objects"] } else { rest });
    cargo(&args, &variables)
}
